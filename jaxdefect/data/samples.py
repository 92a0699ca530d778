"""The few labelled images of a data set, with what belongs together.

Shape legend: N images of a source, n labelled ones.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdefect.data import duplicates
from jaxdefect.data.source import Source

_SHOWN = 5


class Samples(NamedTuple):
  """The labelled images that are to be divided; folds count in them.

  Attributes:
    names: [n] a unique name of each.
    labels: [n] int, counting in ``classes``.
    classes: names of the classes.
    groups: [n] int, alike for images that stay together.
  """

  names: tuple[str, ...]
  labels: np.ndarray
  classes: tuple[str, ...]
  groups: np.ndarray


def take(
  source: Source,
  indices: Sequence[int] | np.ndarray,
  *,
  groups: Sequence[int] | np.ndarray | None = None,
) -> Samples:
  """The labelled images at some places of a data set.

  Args:
    source: the data set.
    indices: [n] places in it.
    groups: [N] group of each image of the source, as ``duplicates.find`` or ``lots`` returns; None
      calls ``duplicates.find``, which also keeps the source's own groups together.

  Returns:
    The samples, in the order of ``indices``.

  Raises:
    ValueError: a class of the source has no image among them.
  """
  groups = duplicates.find(source) if groups is None else np.asarray(groups)
  places = np.asarray(indices, int)
  for name, count in zip(source.classes, source.counts(places)):
    if not count:
      raise ValueError(
        f'None of the {len(places)} labelled images of {source.name} is of class {name!r}; every '
        'class needs some.'
      )
  return Samples(
    names=tuple(source.names[i] for i in places),
    labels=source.labels[places],
    classes=source.classes,
    groups=groups[places],
  )


def lots(source: Source, *, copies: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
  """Groups by the lot or session of each image, which has to be known of all of them.

  An image without a lot may be of the same lot as any other, so that no fold would be safe.

  Args:
    source: the data set; its ``groups`` are the lots.
    copies: [N] from ``duplicates.find``, which is joined to the lots; None joins nothing.

  Returns:
    [N] int32, the smallest place of an image in the group.

  Raises:
    ValueError: some or all images have no lot.
  """
  own = source.groups or ('',) * len(source)
  missing = sorted(name for name, lot in zip(source.names, own) if not lot)
  if missing:
    more = f' and {len(missing) - _SHOWN} more' if len(missing) > _SHOWN else ''
    raise ValueError(
      f'{len(missing)} of {len(source)} images of {source.name} have no lot: '
      f'{", ".join(missing[:_SHOWN])}{more}; give each one, or validate without lots.'
    )
  first: dict[str, int] = {}
  pairs = [(first.setdefault(lot, i), i) for i, lot in enumerate(own)]
  if copies is not None:
    pairs += [(int(group), i) for i, group in enumerate(copies)]
  return duplicates.merge(len(source), pairs)


def draw(given: Samples, room: Sequence[int] | np.ndarray, *, seed: int) -> np.ndarray:
  """Whole groups in the seed's order, each where it fits into what is left of the room.

  A group's place is the ``sha256(seed, first name)``: were it that of its foremost image, large
  groups would come early, and what is drawn would differ from what is left over.

  Args:
    given: the samples.
    room: [K] how many images of each class at most.
    seed: of the order.

  Returns:
    Places in the samples, rising.
  """
  members: dict[int, list[int]] = {}
  for i, group in enumerate(given.groups.tolist()):
    members.setdefault(group, []).append(i)

  def place(group: int) -> bytes:
    name = min(given.names[i] for i in members[group])
    return hashlib.sha256(f'{seed}\n{name}'.encode()).digest()

  left, drawn = np.array(room), []
  for group in sorted(members, key=place):
    needed = np.bincount(given.labels[members[group]], minlength=len(given.classes))
    if (needed <= left).all():
      left -= needed
      drawn += members[group]
  return np.asarray(sorted(drawn), int)


def is_positive(given: Samples, positive: str) -> np.ndarray:
  """Which samples are of the class ``positive``: [n] bool; a plain sentence where there is none."""
  if positive not in given.classes:
    raise ValueError(f'There is no class {positive!r}; the classes are {", ".join(given.classes)}.')
  return given.labels == given.classes.index(positive)


def require(given: Samples, number: int, purpose: str) -> None:
  """Refuses samples in which a class has fewer than ``number`` different images.

  Args:
    given: the samples.
    number: groups of each class that are needed.
    purpose: what for, for the message.
  """
  for label, name in enumerate(given.classes):
    images = int((given.labels == label).sum())
    different = len(np.unique(given.groups[given.labels == label]))
    if different < number:
      copies = f' ({different} different)' if different != images else ''
      raise ValueError(
        f'Class {name!r} has {images} images{copies}, but {purpose} needs {number} different '
        'images of every class.'
      )
