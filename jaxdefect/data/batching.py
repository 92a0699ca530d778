"""Batches of images at the network's size: endless for training, padded for evaluation.

Shape legend: n images of a split, B examples per batch, h x w the network's size, M boxes per
image (padded).

Images are stretched to the network's size, or, with ``max_boxes``, letterboxed, and the batch
gains the keys of detection (``contracts.batch``). There a label or a box of a class that is not
among ``classes`` is no error: the box is left out, so that what a detector never learned counts
neither for nor against it, and the image's ``label`` is 0, as for an image without boxes. Training
images should hold no such box: it would be taught as background.

With ``reference=True`` each image comes with its own picture of the same part without a defect, as
``'reference'`` [B, 1, h, w, 3] uint8: the source's annotation of that name, brought to the
network's size as the image is.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from jaxdefect.contracts import Batch
from jaxdefect.data import decode
from jaxdefect.data.box_columns import box_columns, class_places
from jaxdefect.data.in_threads import each
from jaxdefect.data.letterbox import letterbox
from jaxdefect.data.source import Note, Source

if TYPE_CHECKING:
  import grain

PADDING_INDEX = -1
GIBIBYTE = 2**30

# The keys that come from decoding; the others are known before.
_PICTURE = ('image', 'reference', 'size', 'scale')


def batch_spec(
  batch_size: int,
  image_size: tuple[int, int],
  *,
  max_boxes: int | None = None,
  reference: bool = False,
) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes and types of one batch, as ``DataSpec.batch`` wants them.

  Args:
    batch_size: B, examples per (device's) batch.
    image_size: (h, w).
    max_boxes: M for detection; None for a batch without boxes.
    reference: whether each image comes with one of its own.

  Returns:
    One ``jax.ShapeDtypeStruct`` per key of the batch.

  >>> sorted(batch_spec(8, (320, 320), max_boxes=20))[:4]
  ['box_label', 'box_valid', 'boxes', 'image']
  """
  shapes = {
    'image': ((*image_size, 3), np.uint8),
    'label': ((), np.int32),
    'valid': ((), np.bool_),
    'index': ((), np.int32),
  }
  if reference:
    shapes['reference'] = ((1, *image_size, 3), np.uint8)
  if max_boxes is not None:
    shapes |= {
      'boxes': ((max_boxes, 4), np.float32),
      'box_label': ((max_boxes,), np.int32),
      'box_valid': ((max_boxes,), np.bool_),
      'size': ((2,), np.float32),
      'scale': ((), np.float32),
    }
  return {
    key: jax.ShapeDtypeStruct((batch_size, *shape), dtype) for key, (shape, dtype) in shapes.items()
  }


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
    max_boxes: int | None,
    reference: bool,
    cache_bytes: int,
  ):
    height, width = image_size
    if height < 1 or width < 1:
      raise ValueError(f'image_size must be (height, width) of at least 1, got {image_size}.')
    self.image_size = height, width
    self.max_boxes = max_boxes
    if reference and 'reference' not in source.annotations:
      raise ValueError(
        f'reference=True, but the images of {source.name} have no reference of their own.'
      )
    self.reference = reference
    self.indices = np.asarray(indices, np.int32)  # [n]
    if self.indices.size and not 0 <= self.indices.min() <= self.indices.max() < len(source):
      raise ValueError(
        f'indices must lie in 0..{len(source) - 1}, the images of {source.name}, '
        f'got {self.indices.min()}..{self.indices.max()}.'
      )
    if max_boxes is None:
      self.labels = _labels(source, self.indices, classes)  # [n]
      self._boxes = {}
    else:
      self.labels = np.maximum(class_places(source, classes)[source.labels[self.indices]], 0)
      self._boxes = box_columns(source, self.indices.tolist(), max_boxes=max_boxes, classes=classes)
    pixels = self.indices.size * height * width * (2 if reference else 1)
    self.cached = pixels * 3 <= cache_bytes
    self._source = source
    self._interpolation = interpolation
    self._pictures: Batch | None = None

  def load(self) -> None:
    """Decodes the images once and keeps them, where they fit."""
    if not self.cached or self._pictures is not None:
      return
    pictures = {
      key: value for key, value in self.empty(self.indices.size).items() if key in _PICTURE
    }

    def one(place: int) -> None:
      for key, value in self._decode(place).items():
        pictures[key][place] = value

    each(one, range(self.indices.size))
    self._pictures = pictures

  def empty(self, rows: int) -> Batch:
    """A batch of padding."""
    spec = batch_spec(rows, self.image_size, max_boxes=self.max_boxes, reference=self.reference)
    batch = {key: np.zeros(one.shape, one.dtype) for key, one in spec.items()}
    batch['index'][:] = PADDING_INDEX
    if 'scale' in batch:
      batch['scale'][:] = 1
    return batch

  def example(self, place: int) -> Batch:
    if self._pictures is None:
      picture = self._decode(place)
    else:
      picture = {key: value[place] for key, value in self._pictures.items()}
    example = {
      **picture,
      'label': self.labels[place],
      'valid': np.True_,
      'index': self.indices[place],
      **{key: value[place] for key, value in self._boxes.items()},
    }
    if 'boxes' in example:
      example['boxes'] = example['boxes'] * example['scale']
    return example

  def _decode(self, place: int) -> Batch:
    i = int(self.indices[place])
    picture = self._fit(self._source.read(i))
    if self.reference:
      reference = self._fit(self._source.annotations['reference'][i])
      picture['reference'] = reference['image'][None]
    return picture

  def _fit(self, image: np.ndarray) -> Batch:
    """At the network's size."""
    if self.max_boxes is None:
      return {'image': decode.resize(image, self.image_size, interpolation=self._interpolation)}
    return letterbox(image, self.image_size, interpolation=self._interpolation)._asdict()


def train_batches(
  source: Source,
  indices: Sequence[int],
  *,
  batch_size: int,
  image_size: tuple[int, int],
  seed: int,
  classes: Sequence[str] | None = None,
  max_boxes: int | None = None,
  reference: bool = False,
  interpolation: str = 'bilinear',
  straddle_epochs: bool = True,
  shard: tuple[int, int] = (0, 1),
  cache_bytes: int = GIBIBYTE,
  num_threads: int | None = None,
) -> 'grain.DatasetIterator':
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
    classes: the names that ``label`` and ``box_label`` count in; None means ``source.classes``.
    max_boxes: M for batches with boxes, see ``box_columns``; None for batches without.
    reference: whether each image comes with one of its own; the source must have them.
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
    ValueError: an image cannot be read, an image is of no class in ``classes`` (without
      ``max_boxes``), or there are no images, or no boxes or references where they are asked for.
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
    max_boxes=max_boxes,
    reference=reference,
    cache_bytes=cache_bytes,
  )
  if not images.indices.size:
    raise ValueError(f'There are no images of {source.name} to train on.')
  if max_boxes is not None and 'boxes' not in source.annotations:
    raise ValueError(f'The images of {source.name} have no boxes to train on.')
  if images.cached:
    images.load()
  else:
    verify(source, images.indices.tolist(), reference=reference)
  import grain  # only here: methods can be used where it is not installed

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
      batch = self._images.empty(rows)
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
  max_boxes: int | None = None,
  reference: bool = False,
  interpolation: str = 'bilinear',
  cache_bytes: int = GIBIBYTE,
) -> EvalBatches:
  """The images of a split once each, in order, as batches of one shape.

  The last batch is filled up with rows of zeros and False, but ``index`` -1 and ``scale`` 1.
  Decoded images stay in memory between passes where they fit ``cache_bytes``.

  Args:
    source: the data set.
    indices: [n] the images, places in ``source``; may be empty, which gives no batch.
    batch_size: B.
    image_size: (h, w).
    classes: the names that ``label`` and ``box_label`` count in; None means ``source.classes``.
    max_boxes: M for batches with boxes, see ``box_columns``; None for batches without.
    reference: whether each image comes with one of its own; the source must have them.
    interpolation: ``'bilinear'`` (antialiased) or ``'nearest'`` (for maps of levels).
    cache_bytes: how much memory decoded images may take.

  Returns:
    ceil(n / B) batches, decoded at the first pass.

  Raises:
    ValueError: an image cannot be read (at the first pass), is of no class in ``classes`` (without
      ``max_boxes``), or there are no references where they are asked for.
  """
  if batch_size < 1:
    raise ValueError(f'batch_size must be at least 1, got {batch_size}.')
  images = _Images(
    source,
    indices,
    image_size,
    interpolation=interpolation,
    classes=classes,
    max_boxes=max_boxes,
    reference=reference,
    cache_bytes=cache_bytes,
  )
  return EvalBatches(images, batch_size)


def verify(source: Source, indices: Iterable[int], *, reference: bool = False) -> None:
  """Decodes every image once, so that damaged ones are met before a long run.

  Args:
    source: the data set.
    indices: the images to try, places in ``source``.
    reference: whether to try the images' references too.

  Raises:
    ValueError: what is wrong with the first image that cannot be read, and the names of the others.
  """
  damaged = unreadable(source, indices, reference=reference)
  if damaged:
    first, *rest = damaged
    others = Note('more images that cannot be read', tuple(source.names[i] for i in rest))
    raise ValueError(damaged[first] + (f' {others}.' if rest else ''))


def unreadable(
  source: Source, indices: Iterable[int], *, reference: bool = False
) -> dict[int, str]:
  """Decodes every image once, and tells which cannot be read.

  Args:
    source: the data set.
    indices: the images to try, places in ``source``.
    reference: whether to try the images' references too.

  Returns:
    Place in ``source`` -> sentence that names the file and says why, in the order of ``indices``.
  """

  def complaint(i: int) -> str:
    try:
      source.read(i)
      if reference:
        source.annotations['reference'][i]
    except (ValueError, OSError) as error:
      return str(error)
    return ''

  places = [int(i) for i in indices]
  return {i: said for i, said in zip(places, each(complaint, places)) if said}


def _labels(source: Source, indices: np.ndarray, classes: Sequence[str] | None) -> np.ndarray:
  labels = source.labels[indices]
  if classes is None:
    return labels
  places = class_places(source, classes)[labels]
  if places.size and places.min() < 0:
    stranger = int(np.argmin(places))
    raise ValueError(
      f'The image {source.names[indices[stranger]]} of {source.name} is of class '
      f'{source.classes[labels[stranger]]!r}, which is not among {", ".join(classes)}.'
    )
  return places
