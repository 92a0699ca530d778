"""Folds of a few labelled images, so that each is scored by models that never saw it or its like.

Shape legend: n images, of G groups.

Images of one group (near-copies, crops of one board, parts of one lot) are never on both sides of a
fold. What is drawn at random is drawn by ``sha256(seed, name)``, as in ``drawing``: folds depend on
neither the file system nor a library's random numbers.
"""

import hashlib
import itertools
from typing import NamedTuple

import numpy as np

from jaxdefect.data.samples import Samples, is_positive, require


class Fold(NamedTuple):
  """One model: what it is trained on, and what it scores.

  Attributes:
    train: places in the samples, rising.
    test: places in the samples, rising; none of a group that trains.
  """

  train: np.ndarray
  test: np.ndarray


def k_fold(given: Samples, *, k: int, seed: int, repeats: int = 1) -> list[list[Fold]]:
  """Divides the samples into k folds, classes as even as whole groups allow, and again.

  Larger groups are placed first, then class by class in the seed's order, each where it evens the
  classes out best: single images give folds that differ by at most one image of each class, and
  by at most one in all.

  Args:
    given: the samples.
    k: folds; each tests once.
    seed: of the order in which images are placed.
    repeats: how many times, each in another order.

  Returns:
    ``repeats`` lists of k folds.

  Raises:
    ValueError: a class has too few different images for k folds, or groups that are too large.
  """
  if k < 2 or repeats < 1:
    raise ValueError(f'k must be at least 2 and repeats at least 1, got {k} and {repeats}.')
  require(given, k, f'{k} folds')
  return [_divided(given, k, f'{seed}\n{repeat}') for repeat in range(repeats)]


def leave_one_out(given: Samples) -> list[Fold]:
  """Leaves out one image at a time, or one whole group where it has several.

  Args:
    given: the samples.

  Returns:
    G folds, in the order of the first image of each group.

  Raises:
    ValueError: a class has fewer than two different images, so that a model would never see it.
  """
  require(given, 2, 'leave-one-out')
  return [_without(given, members) for members in _members(given)]


def leave_two_out(given: Samples) -> list[Fold]:
  """Leaves out every two images, or every two whole groups.

  Args:
    given: the samples.

  Returns:
    G (G - 1) / 2 folds, each with two groups in its test part.

  Raises:
    ValueError: a class has fewer than three different images, so that a model would never see it.
  """
  require(given, 3, 'leave-two-out')
  return _leave_two(given, list(itertools.combinations(_members(given), 2)))


def leave_pair_out(
  given: Samples, *, positive: str, limit: int | None = None, seed: int = 0
) -> list[Fold]:
  """Leaves out a positive and a negative image at a time, with their whole groups.

  Args:
    given: the samples.
    positive: name of the positive class; all other images are negatives.
    limit: at most so many folds, drawn at random; None takes all pairs of groups that hold a
      positive on one side and a negative on the other: as many as positives times negatives where
      every image is on its own.
    seed: of the draw.

  Returns:
    The folds, each with two groups in its test part.

  Raises:
    ValueError: there is no such class, or one of the two kinds has fewer than two different images.
  """
  marks = is_positive(given, positive)
  binary = given._replace(labels=marks.astype(np.int32), classes=(f'not {positive}', positive))
  require(binary, 2, 'leave-pair-out')
  members = _members(given)
  pairs = [two for two in itertools.combinations(members, 2) if _crosses(*(marks[g] for g in two))]
  if limit is not None and limit < len(pairs):
    if limit < 1:
      raise ValueError(f'limit must be at least 1, got {limit}.')

    def place(number: int) -> bytes:
      names = (given.names[i] for i in np.concatenate(pairs[number]))
      return _place(str(seed), '\n'.join(sorted(names)))

    drawn = sorted(range(len(pairs)), key=place)[:limit]
    pairs = [pairs[number] for number in sorted(drawn)]
  return _leave_two(binary, pairs)


def crosses(fold: Fold, marks: np.ndarray, groups: np.ndarray) -> bool:
  """Whether the test part, of two groups, has a positive of one and a negative of the other."""
  first = groups[fold.test] == groups[fold.test[0]]
  return _crosses(marks[fold.test[first]], marks[fold.test[~first]])


def _divided(given: Samples, k: int, seed: str) -> list[Fold]:
  """One division into k folds."""
  classes = len(given.classes)
  groups = []
  for members in _members(given):
    needed = np.bincount(given.labels[members], minlength=classes)
    place = min(_place(seed, given.names[i]) for i in members)
    groups.append((-len(members), int(needed.argmax()), place, members, needed))
  groups.sort(key=lambda group: group[:3])
  filled, total = np.zeros((k, classes), int), np.bincount(given.labels, minlength=classes)
  parts: list[list[int]] = [[] for _ in range(k)]
  for *_, members, needed in groups:
    # What it adds to the squares of the shares of each class; then the emptier fold.
    unevenness = (filled * needed / np.maximum(total, 1) ** 2).sum(axis=1)
    fold = min(range(k), key=lambda f: (unevenness[f], filled[f].sum(), f))
    filled[fold] += needed
    parts[fold] += members.tolist()
  for label, name in enumerate(given.classes):
    if not filled[:, label].all():
      raise ValueError(
        f'The groups of class {name!r} are so large or so mixed that one of {k} folds is left '
        'without it; choose fewer folds, or leave-one-out.'
      )
  return [_without(given, np.asarray(part)) for part in parts]


def _crosses(one: np.ndarray, other: np.ndarray) -> bool:
  return bool((one.any() and not other.all()) or (other.any() and not one.all()))


def _leave_two(given: Samples, pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[Fold]:
  folds = [_without(given, np.concatenate(two)) for two in pairs]
  for fold in folds:
    left = np.bincount(given.labels[fold.train], minlength=len(given.classes))
    if not left.all():
      raise ValueError(
        f'Without the groups of {given.names[fold.test[0]]} and {given.names[fold.test[-1]]} no '
        f'image of class {given.classes[int(left.argmin())]!r} is left to train on.'
      )
  return folds


def _members(given: Samples) -> list[np.ndarray]:
  """The places of each group, in the order of its first image."""
  found: dict[int, list[int]] = {}
  for i, group in enumerate(given.groups.tolist()):
    found.setdefault(group, []).append(i)
  return [np.asarray(one) for one in found.values()]


def _without(given: Samples, test: np.ndarray) -> Fold:
  left = np.zeros(len(given.names), bool)
  left[test] = True
  return Fold(np.flatnonzero(~left), np.flatnonzero(left))


def _place(seed: str, name: str) -> bytes:
  return hashlib.sha256(f'{seed}\n{name}'.encode()).digest()
