"""The boxes of a split as arrays of one shape, and a count of those that found no place.

Shape legend: n images of a split, K classes of a source, M boxes per image (padded), k boxes of
one image.

A box is left out of a batch for two reasons, and both are counted: its class is none of those
that the batch counts in, or its image has more than M boxes and it is among the smallest.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from jaxdefect.data.source import Source


class BoxCounts(NamedTuple):
  """How many boxes of some images come into batches, and how many do not.

  Attributes:
    kept: boxes in the batches.
    other_classes: boxes of classes that were not asked for.
    over_cap: boxes beyond the cap, the smallest of their image.
    crowded_images: images with more boxes than the cap.
  """

  kept: int
  other_classes: int
  over_cap: int
  crowded_images: int


def count_boxes(
  source: Source, indices: Sequence[int], *, max_boxes: int, classes: Sequence[str] | None = None
) -> BoxCounts:
  """Counts what batches with these settings hold and leave out.

  Args:
    source: the data set.
    indices: [n] images, places in ``source``.
    max_boxes: M.
    classes: the classes that the batches count in; None means ``source.classes``.

  Returns:
    The counts over all the images.

  Raises:
    ValueError: as ``box_columns``.
  """
  totals = np.zeros(4, int)
  for _, labels, kept in _choices(source, indices, max_boxes, classes):
    known = np.count_nonzero(labels >= 0)
    over = known - len(kept)
    totals += (len(kept), len(labels) - known, over, over > 0)
  return BoxCounts(*totals.tolist())


def box_columns(
  source: Source, indices: Sequence[int], *, max_boxes: int, classes: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
  """The boxes of each image in native pixels, padded to one number.

  Boxes keep their order. Of an image with more than M the largest stay (of equal areas the
  first); a line of the log says how many went.

  Args:
    source: the data set; without the annotation ``boxes`` every image has none.
    indices: [n] images, places in ``source``.
    max_boxes: M.
    classes: the classes that ``box_label`` counts in, and whose boxes alone are kept; None means
      ``source.classes``.

  Returns:
    ``boxes`` [n, M, 4] float32, ``box_label`` [n, M] int32, ``box_valid`` [n, M] bool; zero and
    False where there is no box.

  Raises:
    ValueError: ``max_boxes`` is less than 1, a class is unknown to the source, or an image has
      another number of boxes than of labels.
  """
  choices = list(_choices(source, indices, max_boxes, classes))
  columns = {
    'boxes': np.zeros((len(choices), max_boxes, 4), np.float32),
    'box_label': np.zeros((len(choices), max_boxes), np.int32),
    'box_valid': np.zeros((len(choices), max_boxes), bool),
  }
  over = [np.count_nonzero(labels >= 0) - len(kept) for _, labels, kept in choices]
  for row, (boxes, labels, kept) in enumerate(choices):
    columns['boxes'][row, : len(kept)] = boxes[kept]
    columns['box_label'][row, : len(kept)] = labels[kept]
    columns['box_valid'][row, : len(kept)] = True
  if any(over):
    _say_once(
      f'{source.name}: {sum(over)} boxes in {np.count_nonzero(over)} of {len(over)} images are '
      f'beyond max_boxes={max_boxes} and left out, the smallest of each image.'
    )
  return columns


def class_places(source: Source, classes: Sequence[str] | None) -> np.ndarray:
  """Where each class of a source stands among ``classes``.

  Args:
    source: the data set.
    classes: names; None means ``source.classes``.

  Returns:
    [K] int32, -1 for a class that is not among them.

  Raises:
    ValueError: the source has no class of such a name.
  """
  if classes is None:
    return np.arange(len(source.classes), dtype=np.int32)
  place = np.full(len(source.classes), -1, np.int32)
  for new, name in enumerate(classes):
    place[source.class_number(name)] = new
  return place


def _choices(
  source: Source, indices: Sequence[int], max_boxes: int, classes: Sequence[str] | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Of each image: boxes [k, 4], their labels among ``classes`` [k], and which of them are kept."""
  if max_boxes < 1:
    raise ValueError(f'max_boxes must be at least 1, got {max_boxes}.')
  place = class_places(source, classes)
  none = np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
  for i in np.asarray(indices, int):
    boxes, labels = none
    if 'boxes' in source.annotations:
      boxes = np.asarray(source.annotations['boxes'][i], np.float32).reshape(-1, 4)
      labels = np.asarray(source.annotations['box_labels'][i], np.int32)
    if len(boxes) != len(labels):
      raise ValueError(
        f'The image {source.names[i]} of {source.name} has {len(boxes)} boxes and '
        f'{len(labels)} box_labels.'
      )
    labels = place[labels]
    kept = np.flatnonzero(labels >= 0)
    if len(kept) > max_boxes:
      areas = (boxes[kept, 2:] - boxes[kept, :2]).prod(axis=1)
      kept = np.sort(kept[np.argsort(-areas, kind='stable')[:max_boxes]])
    yield boxes, labels, kept


@functools.cache
def _say_once(sentence: str) -> None:
  logging.warning('%s', sentence)
