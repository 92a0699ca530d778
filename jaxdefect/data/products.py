"""Pictures of one product, good or defective, as a ``Source``: what a task is made of.

Shape legend: N images, H x W native pixels.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdefect.data import annotations, decode
from jaxdefect.data.source import LazyColumn, Note, Source

# The classes of every task: label 0 is a good part, 1 a defective one.
CLASSES = ('good', 'defect')

# A pixel of a mask file is defective from this gray level on.
MASK_LEVEL = 128


class Picture(NamedTuple):
  """One picture of a product and what its place on disk says about it.

  Attributes:
    path: its file.
    kind: name of the defect; ``''`` for a good part.
    mask: file of the defect's mask; None for a good part and where there are no masks.
    group: lot, shot or known copy; ``''`` for a picture on its own.
  """

  path: pathlib.Path
  kind: str = ''
  mask: pathlib.Path | None = None
  group: str = ''


def to_source(
  name: str,
  root: pathlib.Path,
  pictures: Sequence[Picture],
  *,
  masks: bool = False,
  needs_defects: bool = True,
  columns: Mapping[str, Sequence[Any]] | None = None,
  notes: Sequence[Note] = (),
  sixteen_bit_range: tuple[int, int] = decode.FULL_RANGE,
) -> Source:
  """Builds the task of one product; nothing is decoded before it is read.

  Args:
    name: of the task.
    root: the folder that names are relative to.
    pictures: [N] in the order of the ``Source``.
    masks: whether there are masks: every defective picture has one then.
    needs_defects: whether good pictures alone are an error; an anomaly method needs no others.
    columns: further annotations.
    notes: what was found when the data set was opened.
    sixteen_bit_range: as in ``decode.read_image``.

  Returns:
    The images with the classes ``'good'`` and ``'defect'`` and the annotations ``kind`` (name of
    the defect, ``''`` for a good part) and, with ``masks``, ``mask`` (uint8 [H, W], 1 where the
    part is defective; read when it is asked for, zero for a good part).

  Raises:
    ValueError: there is no good or no defective picture, or a defective one has no mask.
  """
  labels = [int(bool(one.kind)) for one in pictures]
  for label, kind in enumerate(CLASSES if needs_defects else CLASSES[:1]):
    if label not in labels:
      needed = 'both kinds' if needs_defects else 'some'
      raise ValueError(f'{name} in {root} has no {kind} images; a task needs {needed}.')
  found: dict[str, Sequence[Any]] = {'kind': tuple(one.kind for one in pictures)}
  if masks:
    for one in pictures:
      if one.kind and (one.mask is None or not one.mask.is_file()):
        raise FileNotFoundError(f'The defective image {one.path} has no mask {one.mask}.')
    found['mask'] = LazyColumn(len(pictures), lambda i: _mask(pictures[i]))
  groups = tuple(one.group for one in pictures)
  return Source(
    name=name,
    classes=CLASSES,
    names=tuple(one.path.relative_to(root).as_posix() for one in pictures),
    labels=np.asarray(labels, np.int32),
    read=lambda i: decode.read_image(pictures[i].path, sixteen_bit_range=sixteen_bit_range),
    groups=groups if any(groups) else None,
    annotations={**found, **(columns or {})},
    notes=tuple(notes),
  )


def _mask(picture: Picture) -> np.ndarray:
  """uint8 [H, W], 1 where the part is defective."""
  try:
    size = annotations.image_size(picture.path)
  except ValueError as error:
    raise ValueError(f'The image {picture.path} cannot be read: {error}.') from error
  if picture.mask is None:
    return np.zeros(size, np.uint8)
  # A mask in colours, or with transparency, would be read as something else than it is.
  levels = decode.read_image(picture.mask).max(axis=2)  # [H, W]
  if levels.shape != size:
    raise ValueError(
      f'The mask {picture.mask} is {levels.shape[1]} x {levels.shape[0]} pixels, but its image '
      f'is {size[1]} x {size[0]}.'
    )
  return (levels >= MASK_LEVEL).astype(np.uint8)
