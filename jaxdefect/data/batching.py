"""Batches of images at the network's size: endless for training, padded for evaluation.

Shape legend: n images of a split, B examples per batch, h x w the network's size.
"""

import os
from collections.abc import Iterable, Iterator, Sequence

import grain
import numpy as np

from jaxdefect.contracts import Batch
from jaxdefect.data import decode
from jaxdefect.data.in_threads import each
from jaxdefect.data.source import Source

PADDING_INDEX = -1
GIBIBYTE = 2**30


class _Images:
  """The images of a split at one size, decoded once where they fit ``cache_bytes``."""

  def __init__(
    self,
    source: Source,
    indices: Sequence[int],
    image_size: tuple[int, int],
    *,
    interpolation: str,
    classes: Sequence[str] | None,
    cache_bytes: int,
  ):
    height, width = image_size
    if height < 1 or width < 1:
      raise ValueError(f'image_size must be (height, width) of at least 1, got {image_size}.')
    self.shape = (height, width, 3)
    self.indices = np.asarray(indices, np.int32)  # [n]
    if self.indices.size and not 0 <= self.indices.min() <= self.indices.max() < len(source):
      raise ValueError(
        f'indices must lie in 0..{len(source) - 1}, the images of {source.name}, '
        f'got {self.indices.min()}..{self.indices.max()}.'
      )
    self.labels = _labels(source, self.indices, classes)  # [n]
    self.cached = self.indices.size * height * width * 3 <= cache_bytes
    self._source = source
    self._interpolation = interpolation
    self._pixels: np.ndarray | None = None

  def load(self) -> None:
    """Decodes the images once and keeps them, where they fit."""
    if not self.cached or self._pixels is not None:
      return
    pixels = np.empty((self.indices.size, *self.shape), np.uint8)

    def one(place: int) -> None:
      pixels[place] = self._decode(place)

    each(one, range(self.indices.size))
    self._pixels = pixels

  def example(self, place: int) -> Batch:
    return {
      'image': self._decode(place) if self._pixels is None else self._pixels[place],
      'label': self.labels[place],
      'valid': np.True_,
      'index': self.indices[place],
    }

  def _decode(self, place: int) -> np.ndarray:
    image = self._source.read(int(self.indices[place]))
    return decode.resize(image, self.shape[:2], interpolation=self._interpolation)


def train_batches(
  source: Source,
  indices: Sequence[int],
  *,
  batch_size: int,
  image_size: tuple[int, int],
  seed: int,
  classes: Sequence[str] | None = None,
  interpolation: str = 'bilinear',
  straddle_epochs: bool = True,
  shard: tuple[int, int] = (0, 1),
  cache_bytes: int = GIBIBYTE,
  num_threads: int | None = None,
) -> grain.DatasetIterator:
  """Endless batches of one shape, reshuffled every epoch, that resume exactly.

  Every image is decoded once before the first batch, so that a damaged one stops a run at its
  start; they stay in memory where all of them at ``image_size`` fit ``cache_bytes``.

  Epochs follow each other without a gap, so a batch over a border, and any batch larger than the
  split, can hold an image twice. Losses that take every other example for a stranger (NT-Xent)
  do better with ``straddle_epochs=False``: then each epoch leaves out its last ``n % B`` images
  (other ones each time) and a batch holds every image at most once, provided n >= B.

  Args:
    source: the data set.
    indices: [n] the images to train on, places in ``source``.
    batch_size: B, examples per batch over all processes.
    image_size: (h, w).
    seed: of the order; the same seed gives the same batches.
    classes: the names that ``label`` counts in; None means ``source.classes``.
    interpolation: ``'bilinear'`` (antialiased) or ``'nearest'`` (for maps of levels).
    straddle_epochs: whether a batch may reach over the end of an epoch.
    shard: (rank, count) of this process. Each gets B / count rows, and together they hold the
      examples that one process would get.
    cache_bytes: how much memory decoded images may take.
    num_threads: threads that make batches ahead; None chooses.

  Returns:
    A grain iterator over host batches, ``valid`` all True and ``index`` the place in ``source``;
    ``get_state()`` and ``set_state()`` continue it at the very next batch.

  Raises:
    ValueError: an image cannot be read, an image is of no class in ``classes``, or there are no
      images.
  """
  rank, count = shard
  if not 0 <= rank < count:
    raise ValueError(f'shard must be (rank, count) with 0 <= rank < count, got {shard}.')
  if batch_size < 1 or batch_size % count:
    raise ValueError(f'batch_size must be a positive multiple of {count}, got {batch_size}.')
  images = _Images(
    source,
    indices,
    image_size,
    interpolation=interpolation,
    classes=classes,
    cache_bytes=cache_bytes,
  )
  if not images.indices.size:
    raise ValueError(f'There are no images of {source.name} to train on.')
  if images.cached:
    images.load()
  else:
    verify(source, images.indices.tolist())
  size = images.indices.size
  order = grain.MapDataset.source(range(size)).seed(seed).shuffle()
  if not straddle_epochs and size > batch_size:
    order = order[: size // batch_size * batch_size]
  # Endless, every epoch in another order; then this process's share of each batch.
  order = order.repeat()[rank::count]
  batches = order.map(images.example).batch(batch_size // count, drop_remainder=True)
  if num_threads is None:
    num_threads = 2 if images.cached else min(8, 2 * (os.cpu_count() or 1))
  options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
  return iter(batches.to_iter_dataset(options))


class EvalBatches:
  """Padded batches of one shape, in the order of ``indices``; can be iterated again and again."""

  def __init__(self, images: _Images, batch_size: int):
    self._images = images
    self._batch_size = batch_size

  def __len__(self) -> int:
    return -(-self._images.indices.size // self._batch_size)

  def __iter__(self) -> Iterator[Batch]:
    self._images.load()
    size, rows = self._images.indices.size, self._batch_size
    for start in range(0, size, rows):
      places = range(start, min(start + rows, size))
      batch = {
        'image': np.zeros((rows, *self._images.shape), np.uint8),
        'label': np.zeros(rows, np.int32),
        'valid': np.arange(rows) < len(places),
        'index': np.full(rows, PADDING_INDEX, np.int32),
      }
      examples = each(self._images.example, places)
      for row, example in enumerate(examples):
        for key, value in example.items():
          batch[key][row] = value
      yield batch


def eval_batches(
  source: Source,
  indices: Sequence[int],
  *,
  batch_size: int,
  image_size: tuple[int, int],
  classes: Sequence[str] | None = None,
  interpolation: str = 'bilinear',
  cache_bytes: int = GIBIBYTE,
) -> EvalBatches:
  """The images of a split once each, in order, as batches of one shape.

  The last batch is filled up with rows whose ``valid`` is False, ``image`` and ``label`` 0 and
  ``index`` -1. Decoded images stay in memory between passes where they fit ``cache_bytes``.

  Args:
    source: the data set.
    indices: [n] the images, places in ``source``; may be empty, which gives no batch.
    batch_size: B.
    image_size: (h, w).
    classes: the names that ``label`` counts in; None means ``source.classes``.
    interpolation: ``'bilinear'`` (antialiased) or ``'nearest'`` (for maps of levels).
    cache_bytes: how much memory decoded images may take.

  Returns:
    ceil(n / B) batches, decoded at the first pass.

  Raises:
    ValueError: an image cannot be read (at the first pass), or is of no class in ``classes``.
  """
  if batch_size < 1:
    raise ValueError(f'batch_size must be at least 1, got {batch_size}.')
  images = _Images(
    source,
    indices,
    image_size,
    interpolation=interpolation,
    classes=classes,
    cache_bytes=cache_bytes,
  )
  return EvalBatches(images, batch_size)


def verify(source: Source, indices: Iterable[int]) -> None:
  """Decodes every image once, so that a damaged one is met before a long run.

  Args:
    source: the data set.
    indices: the images to try, places in ``source``.

  Raises:
    ValueError: the first image that cannot be read, by name.
  """
  each(lambda i: source.read(int(i)).shape, indices)


def _labels(source: Source, indices: np.ndarray, classes: Sequence[str] | None) -> np.ndarray:
  labels = source.labels[indices]
  if classes is None:
    return labels
  place = np.full(len(source.classes), -1, np.int32)
  for new, name in enumerate(classes):
    place[source.class_number(name)] = new
  if labels.size and place[labels].min() < 0:
    stranger = int(np.argmin(place[labels]))
    raise ValueError(
      f'The image {source.names[indices[stranger]]} of {source.name} is of class '
      f'{source.classes[labels[stranger]]!r}, which is not among {", ".join(classes)}.'
    )
  return place[labels]
