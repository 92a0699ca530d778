"""The seeded order of the images of a data set, and what every split takes from its front."""

import collections
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxdefect.data import duplicates
from jaxdefect.data.source import Source
from jaxdefect.data.split_record import Split


class Drawing:
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
        f'but {number} are needed: {purpose}{also} and at least 1 more to test with; ask for fewer '
        'or add images.'
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
      'images': len(names),
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


def limit(source: Source, images: Sequence[int], number: int | None) -> list[int]:
  """The first ``number`` images with every class in proportion, one of each class first."""
  if number is None:
    return list(images)
  require_positive('max_test', number)
  sizes = source.counts(images)
  met: collections.Counter[int] = collections.Counter()
  quantiles = []
  for i in images:
    label = int(source.labels[i])
    quantiles.append((met[label] / sizes[label], label, i))
    met[label] += 1
  return [i for _, _, i in sorted(quantiles)[:number]]


def rounded(numbers: np.ndarray) -> np.ndarray:
  """To the nearest whole number, halves up; 0.7 * 45 is a half, whatever its last bits say."""
  return np.floor(numbers + 0.5 + 1e-9).astype(int)


def require_positive(argument: str, value: int) -> None:
  """Refuses a number below one."""
  if value < 1:
    raise ValueError(f'{argument} must be at least 1, got {value}.')
