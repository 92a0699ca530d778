"""Good and defective crops of pictures with boxes: a task where there are no good pictures.

Shape legend: N crops, s pixels of a crop's side, H x W native pixels, n boxes of one picture.

A defective crop holds a box, a good one touches none. Both come from the same pictures, and as many
of one kind as of the other from each, so that neither light nor texture tells them apart. Where in
its crop a defect lies is drawn at random: were it always in the middle, that would be learned.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdefect.data.in_threads import each
from jaxdefect.data.products import CLASSES
from jaxdefect.data.source import LazyColumn, Note, Source

# Pictures that are kept decoded, because crops of one follow each other.
_KEPT = 16


class Window(NamedTuple):
  """Where a crop lies.

  Attributes:
    picture: place of the whole picture in its source.
    x: column of the crop's upper left pixel.
    y: its row.
    kind: class of the box it was drawn around; ``''`` for a good crop.
  """

  picture: int
  x: int
  y: int
  kind: str = ''


def crop_source(
  source: Source,
  *,
  name: str,
  crop: int,
  per_image: int,
  classes: Sequence[str] | None = None,
  min_contrast: float = 1.0,
) -> Source:
  """Cuts the task out of a source with boxes.

  Around a box that fits, a crop lies anywhere that holds it whole; of a larger one it shows a part.
  Good crops of a picture lie at least s/2 apart along one axis. Every place is drawn by a hash of
  the picture's name: the same everywhere, and no other when pictures are added.

  Args:
    source: has the annotations ``boxes`` and ``box_labels``.
    name: of the task.
    crop: s, pixels.
    per_image: at most so many defective, and as many good, crops of each picture.
    classes: only boxes of these classes make defective crops; good crops touch no box of any class.
      None means all.
    min_contrast: standard deviation of the gray levels that a good crop has at least. Blank ones
      are good without a look at the part, and all the same picture.

  Returns:
    The crops, named ``<picture>@<x>,<y>``, each picture a group, with the annotations ``kind``
    (class of the box, ``''`` for a good crop), ``mask`` (uint8 [s, s], 1 inside any box) and, where
    the source has it, ``reference`` (the same crop of the picture's reference). Pictures without
    room for a good crop are left out and noted.

  Raises:
    ValueError: the source has no boxes, an argument is not allowed, or there are no crops.
  """
  if 'boxes' not in source.annotations:
    raise ValueError(f'{source.name} has no boxes to cut crops around.')
  for argument, value in (('crop', crop), ('per_image', per_image)):
    if value < 1:
      raise ValueError(f'{argument} must be at least 1, got {value}.')
  wanted = range(len(source.classes)) if classes is None else map(source.class_number, classes)
  wanted = frozenset(wanted)
  boxes, labels = source.annotations['boxes'], source.annotations['box_labels']
  holding = [i for i in range(len(source)) if wanted & {int(kind) for kind in labels[i]}]

  def cut(i: int) -> list[Window] | None:
    picture, edges = source.read(i), np.asarray(boxes[i], np.float64).reshape(-1, 4)
    if min(picture.shape[:2]) < crop:
      return None
    places = [k for k, kind in enumerate(labels[i]) if int(kind) in wanted]
    defective = _around(edges, places, picture.shape[:2], crop, source.names[i])
    number = min(per_image, len(defective))
    good = _beside(edges, picture, crop, source.names[i], number, min_contrast)
    return [
      *(Window(i, x, y) for x, y in good),
      *(
        Window(i, x, y, source.classes[int(labels[i][k])])
        for (x, y), k in list(defective.items())[: len(good)]
      ),
    ]

  found = each(cut, holding)
  windows = [window for one in found for window in one or ()]
  small = [source.names[i] for i, one in zip(holding, found) if one is None]
  crowded = [source.names[i] for i, one in zip(holding, found) if one == []]
  if not windows:
    raise ValueError(
      f'{source.name} gives no crops of {crop} pixels: no image has room for a box and for a crop '
      'that touches none.'
    )
  return _source(source, name, crop, windows, crowded, small)


def _source(
  source: Source,
  name: str,
  crop: int,
  windows: Sequence[Window],
  crowded: Sequence[str],
  small: Sequence[str],
) -> Source:
  """The crops at ``windows``; a picture is decoded once for crops that are read in their order."""
  pictures = functools.lru_cache(_KEPT)(source.read)

  def mask(i: int) -> np.ndarray:
    _, x, y, _ = windows[i]
    inside = np.zeros((crop, crop), np.uint8)
    for x0, y0, x1, y1 in np.asarray(source.annotations['boxes'][windows[i].picture], np.float64):
      columns = slice(max(int(np.floor(x0)) - x, 0), max(int(np.ceil(x1)) - x, 0))
      inside[max(int(np.floor(y0)) - y, 0) : max(int(np.ceil(y1)) - y, 0), columns] = 1
    return inside

  found = {
    'kind': tuple(one.kind for one in windows),
    'mask': LazyColumn(len(windows), mask),
  }
  if 'reference' in source.annotations:
    references = functools.lru_cache(_KEPT)(source.annotations['reference'].__getitem__)
    found['reference'] = LazyColumn(
      len(windows), lambda i: _cut(references(windows[i].picture), windows[i], crop)
    )
  notes = [
    Note(f'images without room for a good crop of {crop} pixels, left out', tuple(crowded)),
    Note(f'images of less than {crop} pixels, left out', tuple(small)),
  ]
  return Source(
    name=name,
    classes=CLASSES,
    names=tuple(f'{source.names[one.picture]}@{one.x},{one.y}' for one in windows),
    labels=np.asarray([bool(one.kind) for one in windows], np.int32),
    read=lambda i: _cut(pictures(windows[i].picture), windows[i], crop),
    groups=tuple(source.names[one.picture] for one in windows),
    annotations=found,
    notes=(*source.notes, *(note for note in notes if note.where)),
  )


def _cut(picture: np.ndarray, window: Window, crop: int) -> np.ndarray:
  return picture[window.y : window.y + crop, window.x : window.x + crop].copy()


def _around(
  boxes: np.ndarray, places: Sequence[int], size: tuple[int, int], crop: int, name: str
) -> dict[tuple[int, int], int]:
  """One (x, y) for each of the boxes at ``places``, to the box; boxes in an order of their own."""
  order = sorted(places, key=lambda k: _draw(2**62, name, 'order', k))
  found: dict[tuple[int, int], int] = {}
  for k in order:
    corner = []
    for axis, side in ((0, size[1]), (1, size[0])):
      first, last = int(np.floor(boxes[k, axis])), int(np.ceil(boxes[k, axis + 2]))
      # Of a box that fits, the crops that hold it; of a larger one, the crops inside it.
      low, high = (min(max(one, 0), side - crop) for one in sorted((last - crop, first)))
      corner.append(low + _draw(high - low + 1, name, 'box', k, axis))
    found.setdefault((corner[0], corner[1]), k)
  return found


def _beside(
  boxes: np.ndarray,
  picture: np.ndarray,
  crop: int,
  name: str,
  number: int,
  min_contrast: float,
) -> list[tuple[int, int]]:
  """At most ``number`` corners (x, y) of crops that touch no box and are not blank."""
  height, width = picture.shape[:2]
  free = np.ones((height - crop + 1, width - crop + 1), bool)  # by row and column of the corner
  for x0, y0, x1, y1 in boxes:
    left, top = max(int(np.floor(x0)) - crop + 1, 0), max(int(np.floor(y0)) - crop + 1, 0)
    free[top : max(int(np.ceil(y1)), 0), left : max(int(np.ceil(x1)), 0)] = False
  found: list[tuple[int, int]] = []
  half, tries = -(-crop // 2), 0
  while len(found) < number and free.any():
    rows, columns = np.nonzero(free)
    at = _draw(len(rows), name, 'good', tries)
    y, x = int(rows[at]), int(columns[at])
    seen = picture[y : y + crop, x : x + crop].std() >= min_contrast
    if seen:
      found.append((x, y))
    # Next to a blank place it is mostly blank too, but not as far as half a crop away.
    away = half if seen else -(-crop // 8)
    free[max(y - away + 1, 0) : y + away, max(x - away + 1, 0) : x + away] = False
    tries += 1
  return found


def _draw(number: int, *key: object) -> int:
  """A number from 0 to ``number`` - 1 that depends on the key alone."""
  digest = hashlib.sha256('\n'.join(map(str, key)).encode()).digest()
  return int.from_bytes(digest[:8], 'big') % number
