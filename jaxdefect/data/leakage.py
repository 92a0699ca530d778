"""What a naive random split would have leaked: test images that training has a copy of.

Our own splits keep copies on one side (``splits``). Published figures mostly come from splits that
do not; this is the naive split, so that its score can be measured, and the count of what it leaks.

Shape legend: N images.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdefect.data import duplicates
from jaxdefect.data.source import Source
from jaxdefect.data.split_record import Split, pixel_sums


class Leak(NamedTuple):
  """What a split leaks.

  Attributes:
    leaked: names of the test images that training, or validation, has a copy of.
    test: number of test images.
  """

  leaked: tuple[str, ...]
  test: int

  @property
  def share(self) -> float:
    """Of the test images; 0 where there are none."""
    return len(self.leaked) / max(self.test, 1)


def exact_copies(source: Source) -> np.ndarray:
  """Groups images of the very same pixels; one pass over the images.

  Args:
    source: the data set; its own ``groups`` are merged in.

  Returns:
    int32 [N], the smallest place of an image in the group, as ``duplicates.find``, which also
    groups near copies.
  """
  first: dict[str, int] = {}
  marks = [*enumerate(pixel_sums(source, range(len(source))))]
  marks += [(i, f'group {group}') for i, group in enumerate(source.groups or ()) if group]
  return duplicates.merge(len(source), [(first.setdefault(mark, i), i) for i, mark in marks])


def naive_split(source: Source, *, seed: int, train: float = 0.7, validation: float = 0.0) -> Split:
  """Divides the images at random, with no heed of copies: **for comparison alone**.

  Args:
    source: the data set; its ``groups`` are ignored.
    seed: which images.
    train: share for training.
    validation: share for validation; the rest tests.

  Returns:
    The split; images in the order of ``sha256(seed, name)``, numbers rounded down. Its report says
    so in ``kind``.

  Raises:
    ValueError: the shares make no sense.
  """
  if not (0 < train < 1 and 0 <= validation < 1 and train + validation < 1):
    raise ValueError(
      f'train must lie in (0, 1) and validation in [0, 1 - train), got {train} and {validation}.'
    )

  def place(i: int) -> bytes:
    return hashlib.sha256(f'{seed}\n{source.names[i]}'.encode()).digest()

  order = sorted(range(len(source)), key=place)
  first = int(train * len(order) + 1e-9)
  second = first + int(validation * len(order) + 1e-9)
  parts = {'train': order[:first], 'validation': order[first:second], 'test': order[second:]}
  report = {
    'kind': 'naive',
    'seed': seed,
    'train': train,
    'validation': validation,
    'counts': {
      part: dict(zip(source.classes, source.counts(of_part)))
      for part, of_part in parts.items()
      if of_part
    },
  }
  return Split(
    train=tuple(sorted(parts['train'])),
    validation=tuple(sorted(parts['validation'])),
    test=tuple(sorted(parts['test'])),
    report=report,
  )


def leak(source: Source, split: Split, *, groups: Sequence[int] | np.ndarray | None = None) -> Leak:
  """Counts the test images of a split that were learned from in a copy.

  Args:
    source: the data set.
    split: any split of it.
    groups: [N] group number of each image, as ``exact_copies`` or ``duplicates.find`` return them;
      None calls ``exact_copies``.

  Returns:
    The test images whose group has a member in the training or the validation part.

  Raises:
    ValueError: there is not one group for each image.
  """
  groups = exact_copies(source) if groups is None else groups
  if len(groups) != len(source):
    raise ValueError(
      f'groups has {len(groups)} entries for the {len(source)} images of {source.name}.'
    )
  learned = {int(groups[i]) for i in (*split.train, *split.validation)}
  leaked = sorted(source.names[i] for i in split.test if int(groups[i]) in learned)
  return Leak(tuple(leaked), len(split.test))


def naive_leak(
  source: Source,
  *,
  seed: int,
  train: float = 0.7,
  groups: Sequence[int] | np.ndarray | None = None,
) -> Leak:
  """What ``naive_split`` leaks; with P pairs of copies, 2 P t (1 - t) test images on average.

  Args:
    source: the data set.
    seed: of the naive split.
    train: t, the share for training.
    groups: as in ``leak``.

  Returns:
    The test images with a copy in training.
  """
  return leak(source, naive_split(source, seed=seed, train=train), groups=groups)
