"""From pictures with boxes, as a format's reader gives them, to a ``Source``.

Shape legend: N images, n boxes of one of them, K classes.
"""

import collections
import functools
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from jaxdefect.data import decode
from jaxdefect.data.annotations.findings import Findings
from jaxdefect.data.annotations.fit_boxes import fit_boxes
from jaxdefect.data.source import Source

_ORIENTATION = 0x0112
_TURNED_BY_90 = (5, 6, 7, 8)


@dataclass(frozen=True)
class Annotated:
  """One picture and the boxes that a file gives it, neither held against the other yet.

  Attributes:
    name: what the picture is called in the ``Source``.
    path: its file.
    size: (height, width) as the annotation has it, or None where it has none.
    boxes: [n, 4] float64 edges as written.
    labels: [n] the class of each box.
    places: [n] where each box is written, by file and number.
  """

  name: str
  path: pathlib.Path
  size: tuple[int, int] | None
  boxes: np.ndarray
  labels: Sequence[int] | np.ndarray
  places: Sequence[str]


def to_source(
  name: str,
  classes: Sequence[str],
  annotated: Sequence[Annotated],
  findings: Findings,
  *,
  bad_boxes: str = 'error',
  labels: Sequence[int] | None = None,
  columns: Mapping[str, Sequence[Any]] | None = None,
  sixteen_bit_range: tuple[int, int] = decode.FULL_RANGE,
) -> Source:
  """Checks sizes and boxes against the pictures' headers and builds the ``Source``.

  A picture of another size than its annotation has is an error. The very same box twice in one
  picture is noted and kept; a picture without a box is noted and is a valid negative.

  Args:
    name: of the data set.
    classes: [K] names.
    annotated: [N] the pictures, in the order of the ``Source``.
    findings: takes what is found, and is asked to ``refuse`` before anything is built.
    bad_boxes: ``'error'`` or ``'repair'``; see ``fit_boxes``.
    labels: [N] class of each image; None means the class of most of its boxes (ties: the lowest
      number), and 0 without a box.
    columns: further annotations.
    sixteen_bit_range: as in ``decode.read_image``.

  Returns:
    The source, with the annotations ``boxes`` and ``box_labels`` and all notes.

  Raises:
    ValueError: one sentence with the first offender of a kind and how many there are.
  """
  boxes, box_labels = [], []
  for one in annotated:
    size = _checked_size(one, findings)
    if size is None:
      continue  # An error, raised below with all the others of its kind.
    fitted, kept = fit_boxes(one.boxes, size, one.places, findings, bad_boxes=bad_boxes)
    boxes.append(fitted)
    box_labels.append(np.asarray(one.labels, np.int32).reshape(-1)[kept])
    same = collections.Counter((int(c), *box) for c, box in zip(box_labels[-1], fitted.tolist()))
    for (_, *box), times in same.items():
      if times > 1:
        edges = ', '.join(f'{edge:g}' for edge in box)
        findings.note('boxes that are written several times, kept', f'({edges}) of {one.name}')
    if not len(fitted):
      findings.note('images without any box, kept as negatives', one.name)
  findings.refuse()
  paths = [one.path for one in annotated]
  decoder = functools.partial(decode.read_image, sixteen_bit_range=sixteen_bit_range)
  return Source(
    name=name,
    classes=tuple(classes),
    names=tuple(one.name for one in annotated),
    labels=np.asarray([_majority(kinds) for kinds in box_labels] if labels is None else labels),
    read=lambda i: decoder(paths[i]),
    annotations={'boxes': boxes, 'box_labels': box_labels, **(columns or {})},
    notes=findings.notes(),
  )


def image_size(path: pathlib.Path) -> tuple[int, int]:
  """The size at which ``decode.read_image`` gives a picture, from the file's header alone.

  Args:
    path: the file.

  Returns:
    (height, width), after the EXIF orientation.

  Raises:
    ValueError: the reason in a few words.
  """
  try:
    with Image.open(path) as image:
      # Asked for its EXIF, a PNG that has none in front is decoded whole.
      look = image.format != 'PNG' or 'exif' in image.info
      turned = look and image.getexif().get(_ORIENTATION) in _TURNED_BY_90
      width, height = image.size
  except UnidentifiedImageError:
    raise ValueError('it is no picture, or is damaged from the start') from None
  except Exception as error:  # Pillow raises nearly anything on a damaged header.
    raise ValueError(' '.join(str(error).split()).rstrip('.') or type(error).__name__) from error
  return (width, height) if turned else (height, width)


def _checked_size(one: Annotated, findings: Findings) -> tuple[int, int] | None:
  try:
    size = image_size(one.path)
  except ValueError as error:
    findings.error('images that cannot be read', f'{one.path} ({error})')
    return None
  if one.size is None and len(one.boxes):
    findings.note('images whose annotation has no size, taken from the image', one.name)
  elif one.size is not None and one.size != size:
    (height, width), (real_height, real_width) = one.size, size
    findings.error(
      'images of another size than their annotation has',
      f'{one.path}, {real_width} x {real_height}, annotated as {width} x {height}',
      hint='sizes and boxes must be those of the image with its EXIF orientation applied',
    )
    return None
  return size


def _majority(labels: np.ndarray) -> int:
  return int(np.bincount(labels).argmax()) if len(labels) else 0
