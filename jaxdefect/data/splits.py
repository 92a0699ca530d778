"""Which images train, which choose, which test: repeatable, stratified, no copy on two sides.

Every split orders the images by ``sha256(seed, name)`` and takes from the front, class by class.
The order therefore depends on neither the file system nor a library's random numbers, and with
one seed the 10 images of a class are among its 20. Images of one group (near-copies, one lot)
never lie on two sides; what a group leaves over is in no part and is reported.
"""

import collections
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxdefect.data import duplicates
from jaxdefect.data.source import Source
from jaxdefect.data.split_record import Split, read, write

__all__ = ['Split', 'few_shot', 'fraction', 'read', 'unseen_classes', 'write']


def few_shot(
  source: Source,
  *,
  per_class: int,
  seed: int,
  groups: Sequence[int] | np.ndarray | None = None,
  validation_per_class: int = 0,
  max_test: int | None = None,
) -> Split:
  """Trains on ``per_class`` images of every class and tests on the rest.

  At most one image of a group trains; the others of that group go nowhere.

  Args:
    source: the data set.
    per_class: k, training images per class.
    seed: which ones.
    groups: [N] group number of each image, as ``duplicates.find`` returns; None calls it (one
      pass over the images; hand the result over when you make several splits).
    validation_per_class: further images per class for validation, one per group too.
    max_test: at most so many test images, classes in proportion; None keeps all.

  Returns:
    The split.

  Raises:
    ValueError: a class has too few different images, at least one being needed for the test.
  """
  _positive('per_class', per_class)
  drawing = _Drawing(source, seed, groups)
  needed = per_class + validation_per_class + 1
  for name in source.classes:
    drawing.require(name, needed, f'{per_class} for training', validation_per_class)
  train = [i for name in source.classes for i in drawing.take(name, per_class)]
  validation = [i for name in source.classes for i in drawing.take(name, validation_per_class)]
  test = _limit(source, drawing.rest(source.classes), max_test)
  settings = {'per_class': per_class, 'validation_per_class': validation_per_class}
  return drawing.split('few_shot', settings | {'max_test': max_test}, train, validation, test)


def fraction(
  source: Source,
  *,
  train: float,
  seed: int,
  groups: Sequence[int] | np.ndarray | None = None,
  validation: float = 0.0,
  max_test: int | None = None,
) -> Split:
  """Trains on a share of every class and tests on the rest; groups stay whole.

  Class c of n_c images gets ``floor(train * n_c + 1/2)`` training images; where groups do not fit
  into that number, as many as fit.

  Args:
    source: the data set.
    train: share for training, in (0, 1]; 1 leaves the test empty.
    seed: which images.
    groups: as in ``few_shot``.
    validation: share for validation.
    max_test: as in ``few_shot``.

  Returns:
    The split.

  Raises:
    ValueError: the shares make no sense, or a class would be missing from a part.
  """
  if not (0 < train <= 1 and 0 <= validation < 1 and train + validation <= 1 + 1e-9):
    raise ValueError(
      f'train must lie in (0, 1] and validation in [0, 1 - train], got {train} and {validation}.'
    )
  drawing = _Drawing(source, seed, groups)
  sizes = np.asarray(source.counts())
  room = {
    'train': _rounded(train * sizes),
    'validation': _rounded(validation * sizes),
  }
  parts: dict[str, list[int]] = {'train': [], 'validation': [], 'test': []}
  for members in drawing.whole_groups():
    needed = np.bincount(source.labels[members], minlength=len(sizes))
    fits = [part for part in room if (needed <= room[part]).all()]
    if fits:
      room[fits[0]] -= needed
    parts[fits[0] if fits else 'test'] += members
  wanted = {'train': True, 'validation': validation > 0, 'test': train + validation < 1 - 1e-9}
  for part, needed in wanted.items():
    for name, number in zip(source.classes, source.counts(parts[part])):
      if needed and not number:
        different = drawing.different(name)
        raise ValueError(
          f'Class {name!r} of {source.name} has {source.counts(classes=[name])[0]} images '
          f'({different} different), which leaves none for {part} at train={train:g}.'
        )
  test = _limit(source, parts['test'], max_test)
  settings = {'train': train, 'validation': validation, 'max_test': max_test}
  return drawing.split('fraction', settings, parts['train'], parts['validation'], test)


def unseen_classes(
  source: Source,
  *,
  train_classes: Sequence[str],
  shots: int,
  seed: int,
  groups: Sequence[int] | np.ndarray | None = None,
  validation_per_class: int = 0,
  max_test: int | None = None,
) -> Split:
  """Trains on all images of some classes; the other classes give references and test images.

  Args:
    source: the data set.
    train_classes: names of the classes to train on.
    shots: reference images per other class; for one seed those of 1 are among those of 3.
    seed: which ones.
    groups: as in ``few_shot``.
    validation_per_class: images per training class that validate instead of training.
    max_test: as in ``few_shot``.

  Returns:
    The split, with ``references``; ``validation`` is of the training classes, ``references`` and
    ``test`` are of the others.

  Raises:
    ValueError: a class is unknown, all classes train, or a class has too few images.
  """
  _positive('shots', shots)
  known = [source.classes[source.class_number(name)] for name in train_classes]
  others = [name for name in source.classes if name not in known]
  if not known or not others:
    raise ValueError(
      f'train_classes must name some but not all of {", ".join(source.classes)}, '
      f'got {", ".join(train_classes) or "none"}.'
    )
  drawing = _Drawing(source, seed, groups)
  for name in known:
    drawing.require(name, validation_per_class + 1, '1 for training', validation_per_class)
  validation = [i for name in known for i in drawing.take(name, validation_per_class)]
  train = drawing.rest(known)
  drawing.used.update(drawing.groups[i] for i in train)
  for name in others:
    drawing.require(name, shots + 1, f'{shots} as references', 0)
  references = [i for name in others for i in drawing.take(name, shots)]
  test = _limit(source, drawing.rest(others), max_test)
  settings = {
    'train_classes': list(known),
    'shots': shots,
    'validation_per_class': validation_per_class,
    'max_test': max_test,
  }
  return drawing.split('unseen_classes', settings, train, validation, test, references)


class _Drawing:
  """Takes images from the front of the seed's order, never two of one group."""

  def __init__(self, source: Source, seed: int, groups: Sequence[int] | np.ndarray | None):
    if groups is None:
      groups = duplicates.find(source)
    if len(groups) != len(source):
      raise ValueError(
        f'groups has {len(groups)} entries for the {len(source)} images of {source.name}.'
      )
    self.source = source
    self.seed = seed
    self.groups = [int(group) for group in groups]
    self.order = sorted(range(len(source)), key=self._place)
    self.used: set[int] = set()

  def _place(self, i: int) -> bytes:
    return hashlib.sha256(f'{self.seed}\n{self.source.names[i]}'.encode()).digest()

  def of_class(self, name: str) -> list[int]:
    """The free images of a class, in the seed's order."""
    label = self.source.class_number(name)
    return [
      i for i in self.order if self.source.labels[i] == label and self.groups[i] not in self.used
    ]

  def different(self, name: str) -> int:
    return len({self.groups[i] for i in self.of_class(name)})

  def require(self, name: str, number: int, purpose: str, validation: int) -> None:
    different = self.different(name)
    if different < number:
      total = self.source.counts(classes=[name])[0]
      copies = f' ({different} different)' if different != total else ''
      also = f', {validation} for validation' if validation else ''
      raise ValueError(
        f'Class {name!r} of {self.source.name} has {total} images{copies}, '
        f'but {number} are needed: {purpose}{also} and at least 1 more.'
      )

  def take(self, name: str, number: int) -> list[int]:
    """The next ``number`` images of a class; their groups are used up."""
    taken = []
    for i in self.of_class(name) if number else ():
      if self.groups[i] not in self.used:
        self.used.add(self.groups[i])
        taken.append(i)
        if len(taken) == number:
          return taken
    if len(taken) < number:
      raise ValueError(
        f'Class {name!r} of {self.source.name} shares so many near-copies with other classes '
        f'that only {len(taken)} of {number} images are left.'
      )
    return taken

  def rest(self, classes: Sequence[str]) -> list[int]:
    """All images of ``classes`` whose groups are free, in the seed's order."""
    labels = {self.source.class_number(name) for name in classes}
    return [
      i for i in self.order if self.source.labels[i] in labels and self.groups[i] not in self.used
    ]

  def whole_groups(self) -> Iterable[list[int]]:
    members: dict[int, list[int]] = {}
    for i in self.order:
      members.setdefault(self.groups[i], []).append(i)
    return members.values()

  def split(
    self,
    kind: str,
    settings: dict[str, Any],
    train: Sequence[int],
    validation: Sequence[int],
    test: Sequence[int],
    references: Sequence[int] = (),
  ) -> Split:
    names = self.source.names
    parts = {'train': train, 'validation': validation, 'test': test, 'references': references}
    # By name, so that the order of the images in the source changes nothing.
    places = {
      part: tuple(sorted((int(i) for i in images), key=names.__getitem__))
      for part, images in parts.items()
    }
    inside = set().union(*places.values())
    away = {self.groups[i] for part, images in places.items() if part != 'test' for i in images}
    outside = [i for i in range(len(names)) if i not in inside]
    report = {
      'kind': kind,
      'seed': self.seed,
      **settings,
      'counts': {
        part: dict(zip(self.source.classes, self.source.counts(images)))
        for part, images in places.items()
        if images
      },
      'near_duplicates': duplicates.by_name(self.source, self.groups),
      'left_out': sorted(names[i] for i in outside if self.groups[i] in away),
      'untested': sum(self.groups[i] not in away for i in outside),
    }
    return Split(**places, report=report)


def _limit(source: Source, images: Sequence[int], number: int | None) -> list[int]:
  """The first ``number`` images with every class in proportion, one of each class first."""
  if number is None:
    return list(images)
  _positive('max_test', number)
  sizes = source.counts(images)
  met: collections.Counter[int] = collections.Counter()
  quantiles = []
  for i in images:
    label = int(source.labels[i])
    quantiles.append((met[label] / sizes[label], label, i))
    met[label] += 1
  return [i for _, _, i in sorted(quantiles)[:number]]


def _rounded(numbers: np.ndarray) -> np.ndarray:
  """To the nearest whole number, halves up; 0.7 * 45 is a half, whatever its last bits say."""
  return np.floor(numbers + 0.5 + 1e-9).astype(int)


def _positive(argument: str, value: int) -> None:
  if value < 1:
    raise ValueError(f'{argument} must be at least 1, got {value}.')
