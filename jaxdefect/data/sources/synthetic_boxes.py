"""Rolled metal with up to a few defects in a picture, made on the spot: detection without files."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from jaxdefect.data.source import Source
from jaxdefect.data.synthetic_boxes import CLASSES, Scene, generate, plan


def make(
  *, num_images: int = 400, size: int = 128, seed: int = 0, first: int = 0, max_defects: int = 4
) -> Source:
  """Opens the procedural data set; a picture is made when it is read.

  Picture ``i`` depends on ``(seed, size, max_defects, first + i)`` alone, so a larger set begins
  with the smaller one, and another ``first`` gives fresh pictures for testing. It shows 0 to
  ``max_defects`` defects, each number and each of the six classes equally likely.

  Args:
    num_images: number of pictures.
    size: side of the square picture, pixels; defects are small below 128.
    seed: another seed, another data set.
    first: number of the first picture.
    max_defects: most defects of a picture, at most 16.

  Returns:
    Gray pictures [size, size, 1] named like ``'synthetic_boxes/000012'`` (with another seed
    ``'synthetic_boxes-3/...'``), with the annotations ``boxes`` ([n, 4] float32, edges xyxy,
    exactly around the pixels of ``mask``), ``box_labels`` ([n] int32) and ``mask`` ([size, size]
    uint8, k + 1 where the defect of box k is to be seen, 0 elsewhere). A picture's label is the
    class of most of its boxes, of equally many the lowest, and 0 without any.

  Raises:
    ValueError: a number is too small, or ``max_defects`` too large.

  >>> source = make(num_images=5)
  >>> len(source), source.names[0], source.read(0).shape
  (5, 'synthetic_boxes/000000', (128, 128, 1))
  """
  for name, value, least in (
    ('num_images', num_images, 1),
    ('size', size, 64),
    ('seed', seed, 0),
    ('first', first, 0),
    ('max_defects', max_defects, 1),
  ):
    if value < least:
      raise ValueError(f'synthetic_boxes: {name} must be at least {least}, came as {value}.')
  pictures = _Pictures(num_images, size, seed, first, max_defects)
  prefix = f'synthetic_boxes-{seed}' if seed else 'synthetic_boxes'
  columns = ('boxes', 'box_labels', 'mask')
  return Source(
    name='synthetic_boxes',
    classes=CLASSES,
    names=tuple(f'{prefix}/{first + i:06d}' for i in range(num_images)),
    labels=np.array([_majority(pictures.box_labels(i)) for i in range(num_images)], np.int32),
    read=pictures.image,
    annotations={name: _Column(num_images, getattr(pictures, name)) for name in columns},
  )


@dataclasses.dataclass(frozen=True)
class _Pictures:
  """Makes what is asked for; holds numbers only, so that worker processes can receive it."""

  count: int
  size: int
  seed: int
  first: int
  max_defects: int

  def number(self, i: int) -> int:
    return self.first + range(self.count)[i]

  def scene(self, i: int) -> Scene:
    return _scene(self.number(i), self.size, self.seed, self.max_defects)

  def image(self, i: int) -> np.ndarray:
    return self.scene(i).image.copy()

  def boxes(self, i: int) -> np.ndarray:
    return self.scene(i).boxes.copy()

  def box_labels(self, i: int) -> np.ndarray:
    return plan(self.number(i), seed=self.seed, max_defects=self.max_defects)

  def mask(self, i: int) -> np.ndarray:
    return self.scene(i).mask.copy()


class _Column(Sequence):
  """One annotation of all pictures."""

  def __init__(self, count: int, one):
    self._count, self._one = count, one

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, i):
    if isinstance(i, slice):
      return [self._one(k) for k in range(*i.indices(self._count))]
    return self._one(i)


def _majority(labels: np.ndarray) -> int:
  return int(np.bincount(labels, minlength=1).argmax())


@functools.lru_cache(maxsize=64)
def _scene(number: int, size: int, seed: int, max_defects: int) -> Scene:
  """The picture, its boxes and its mask are mostly asked for together."""
  return generate(number, size=size, seed=seed, max_defects=max_defects)
