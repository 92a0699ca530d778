"""Rolled metal with six defects and none, made on the spot: the data set that needs no files."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from jaxdefect.data.source import Source
from jaxdefect.data.synthetic import CLASSES, Sample, generate

# Pictures up to this side are kept when they have been made: 16 KB each, 64 MB of them.
KEPT_SIDE = 128


def make(*, num_per_class: int = 200, size: int = 64, seed: int = 0, first: int = 0) -> Source:
  """Opens the procedural data set; a picture is made when it is read.

  Picture ``i`` shows class ``i % 7`` and depends on ``(seed, size, first + i // 7)`` alone, so a
  larger set begins with the smaller one, and another ``first`` gives fresh pictures for testing.

  Args:
    num_per_class: pictures of each of the seven classes.
    size: side of the square picture, pixels.
    seed: another seed, another data set.
    first: number of the first picture of each class.

  Returns:
    Gray pictures [size, size, 1] named like ``'synthetic/scratches/000012'`` (with another seed
    ``'synthetic-3/...'``), with the annotations ``boxes`` ([n, 4] float32, xyxy, far edge
    excluded), ``box_labels`` ([n] int32) and ``mask`` ([size, size] bool); empty on good parts.

  Raises:
    ValueError: a number is too small.

  >>> source = make(num_per_class=2)
  >>> len(source), source.names[0], source.read(0).shape
  (14, 'synthetic/good/000000', (64, 64, 1))
  """
  for name, value, least in (
    ('num_per_class', num_per_class, 1),
    ('size', size, 32),
    ('seed', seed, 0),
    ('first', first, 0),
  ):
    if value < least:
      raise ValueError(f'synthetic: {name} must be at least {least}, came as {value}.')
  pictures = _Pictures(num_per_class * len(CLASSES), size, seed, first)
  prefix = f'synthetic-{seed}' if seed else 'synthetic'
  places = [divmod(i, len(CLASSES)) for i in range(len(pictures))]
  return Source(
    name='synthetic',
    classes=CLASSES,
    names=tuple(f'{prefix}/{CLASSES[label]}/{first + k:06d}' for k, label in places),
    labels=np.array([label for _, label in places], np.int32),
    read=pictures.image,
    annotations={name: _Column(pictures, name) for name in ('boxes', 'box_labels', 'mask')},
  )


@dataclasses.dataclass(frozen=True)
class _Pictures:
  """Makes what is asked for; holds numbers only, so that worker processes can receive it."""

  count: int
  size: int
  seed: int
  first: int

  def __len__(self) -> int:
    return self.count

  def sample(self, i: int) -> Sample:
    i = range(self.count)[i]
    number, label = divmod(i, len(CLASSES))
    return _sample(self.first + number, label, self.size, self.seed)

  def image(self, i: int) -> np.ndarray:
    if self.size > KEPT_SIDE:
      return self.sample(i).image.copy()
    number, label = divmod(range(self.count)[i], len(CLASSES))
    return _image(self.first + number, label, self.size, self.seed).copy()

  def boxes(self, i: int) -> np.ndarray:
    return self.sample(i).boxes.copy()

  def box_labels(self, i: int) -> np.ndarray:
    sample = self.sample(i)
    return np.full(len(sample.boxes), sample.label, np.int32)

  def mask(self, i: int) -> np.ndarray:
    return self.sample(i).mask


@dataclasses.dataclass(frozen=True, eq=False)
class _Column(Sequence):
  """One annotation of all pictures."""

  pictures: _Pictures
  name: str

  def __len__(self) -> int:
    return len(self.pictures)

  def __getitem__(self, i):
    if isinstance(i, slice):
      return [self[k] for k in range(*i.indices(len(self)))]
    return getattr(self.pictures, self.name)(i)


@functools.lru_cache(maxsize=4096)
def _image(number: int, label: int, size: int, seed: int) -> np.ndarray:
  """The picture alone, which a run reads several times: for copies, for training, for its test."""
  return generate(number, label, size=size, seed=seed).image


@functools.lru_cache(maxsize=64)
def _sample(number: int, label: int, size: int, seed: int) -> Sample:
  """The picture, its boxes and its mask are mostly asked for together."""
  return generate(number, label, size=size, seed=seed)
