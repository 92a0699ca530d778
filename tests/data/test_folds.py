"""Folds keep groups whole and classes even, and depend on names and the seed alone."""

import numpy as np
import pytest

from jaxdefect.data import folds
from jaxdefect.data.samples import Samples

CLASSES = ('good', 'defect')


def make(labels, groups=None, order=None):
  labels = np.asarray(labels, np.int32)
  groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
  order = np.arange(len(labels)) if order is None else np.asarray(order)
  names = tuple(f'part {i}' for i in order)
  return Samples(names, labels[order], CLASSES, groups[order])


def by_name(given, found):
  return {frozenset(given.names[i] for i in fold.test) for fold in found}


def mixed(n=60, seed=0):
  generator = np.random.default_rng(seed)
  groups = generator.integers(0, 35, n)
  return generator.integers(0, 2, n), groups


def assert_apart(given, found):
  for fold in found:
    assert not set(given.groups[fold.train]) & set(given.groups[fold.test])
    assert len(fold.train) + len(fold.test) == len(given.names)


def test_k_folds_of_single_images_are_even_in_every_class_and_in_all():
  given = make([0] * 27 + [1] * 13)
  (found,) = folds.k_fold(given, k=5, seed=0)
  counts = np.array([np.bincount(given.labels[fold.test], minlength=2) for fold in found])
  assert np.ptp(counts, axis=0).max() <= 1
  assert np.ptp(counts.sum(1)) <= 1
  assert sorted(np.concatenate([fold.test for fold in found])) == list(range(40))


@pytest.mark.parametrize('seed', range(5))
def test_groups_stay_whole(seed):
  given = make(*mixed(seed=seed))
  for found in (
    folds.k_fold(given, k=4, seed=seed)[0],
    folds.leave_one_out(given),
    folds.leave_two_out(given),
    folds.leave_pair_out(given, positive='defect'),
  ):
    assert_apart(given, found)


def test_uneven_groups_are_balanced_as_far_as_they_go():
  # Four lots of six defects and singles: the lots go to four folds, the singles fill up.
  labels = [1] * 24 + [0] * 24 + [1] * 4
  groups = [*np.repeat(range(4), 6), *range(4, 32)]
  given = make(labels, groups)
  (found,) = folds.k_fold(given, k=4, seed=1)
  assert [np.bincount(given.labels[fold.test]).tolist() for fold in found] == [[6, 7]] * 4


def test_folds_depend_on_names_and_seed_alone():
  labels, groups = mixed()
  given = make(labels, groups)
  shuffled = make(labels, groups, order=np.random.default_rng(9).permutation(60))
  makers = (
    lambda s, seed: folds.k_fold(s, k=3, seed=seed)[0],
    lambda s, seed: folds.leave_pair_out(s, positive='defect', limit=20, seed=seed),
  )
  for maker in makers:
    assert by_name(given, maker(given, 3)) == by_name(shuffled, maker(shuffled, 3))
    assert by_name(given, maker(given, 3)) != by_name(given, maker(given, 4))


def test_repeats_differ_and_the_first_ones_stay():
  given = make([0] * 20 + [1] * 20)
  many = folds.k_fold(given, k=4, seed=7, repeats=3)
  assert len({frozenset(by_name(given, found)) for found in many}) == 3
  assert by_name(given, folds.k_fold(given, k=4, seed=7)[0]) == by_name(given, many[0])


def test_leave_one_out_leaves_out_one_group():
  given = make([0, 1, 0, 1, 1], [0, 1, 2, 3, 3])
  found = folds.leave_one_out(given)
  assert [fold.test.tolist() for fold in found] == [[0], [1], [2], [3, 4]]


def test_leave_pair_out_has_every_pair_of_the_two_kinds():
  given = make([0, 1, 0, 1, 1, 0])
  found = folds.leave_pair_out(given, positive='defect')
  assert {tuple(fold.test) for fold in found} == {
    tuple(sorted((i, j))) for i in (1, 3, 4) for j in (0, 2, 5)
  }
  assert len(folds.leave_two_out(given)) == 15


def test_leave_pair_out_of_groups_trains_without_either():
  given = make([0, 1, 0, 1, 1, 0, 0, 1], [0, 0, 2, 3, 3, 5, 6, 7])
  found = folds.leave_pair_out(given, positive='defect')
  # Groups 0 (both kinds), 2, 5, 6 (good), 3 and 7 (defects): 5 with 0, and 3 x 2.
  assert len(found) == 11
  assert [0, 1, 3, 4] in [fold.test.tolist() for fold in found]
  marks = given.labels == 1
  crossing = [
    fold for fold in folds.leave_two_out(given) if folds.crosses(fold, marks, given.groups)
  ]
  assert by_name(given, crossing) == by_name(given, found)


def test_a_limit_draws_some_of_the_pairs():
  given = make([0] * 12 + [1] * 12)
  every = by_name(given, folds.leave_pair_out(given, positive='defect'))
  some = by_name(given, folds.leave_pair_out(given, positive='defect', limit=30))
  assert len(every) == 144
  assert len(some) == 30
  assert some < every
  assert by_name(given, folds.leave_pair_out(given, positive='defect', limit=999)) == every


@pytest.mark.parametrize(
  ('call', 'said'),
  [
    (lambda s: folds.k_fold(s, k=5, seed=0), r"'defect' has 4 images \(2 different\), but 5 folds"),
    (lambda s: folds.k_fold(s, k=1, seed=0), 'k must be at least 2'),
    (lambda s: folds.leave_two_out(s), r"'defect' has 4 images \(2 different\), but leave-two-out"),
    (lambda s: folds.leave_pair_out(s, positive='dent'), "no class 'dent'"),
    (lambda s: folds.leave_pair_out(s, positive='defect', limit=0), 'limit must be at least 1'),
  ],
)
def test_bad_input_is_a_sentence(call, said):
  given = make([0] * 8 + [1] * 4, [*range(8), 8, 8, 8, 9])
  with pytest.raises(ValueError, match=said):
    call(given)


def test_one_image_of_a_class_cannot_be_left_out():
  with pytest.raises(ValueError, match="Class 'defect' has 1 images, but leave-one-out needs 2"):
    folds.leave_one_out(make([0, 0, 0, 1]))


def test_groups_that_are_too_mixed_are_named():
  # Both kinds in every group: without two of three groups little is left, but something is.
  given = make([0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2])
  assert len(folds.leave_pair_out(given, positive='defect')) == 3
  with pytest.raises(ValueError, match='no image of class'):
    folds.leave_pair_out(make([0, 1, 0, 1], [0, 0, 1, 1]), positive='defect')
  # Three groups of two classes each: two folds cannot both have all three classes.
  three = given._replace(labels=np.array([0, 1, 0, 2, 1, 2], np.int32), classes=('a', 'b', 'c'))
  with pytest.raises(ValueError, match='one of 2 folds is left without it'):
    folds.k_fold(three, k=2, seed=0)


def test_a_rare_class_goes_to_every_fold_where_it_can():
  # A large good lot, and two lots with one defect each, which must not share a fold.
  given = make([0] * 10 + [0, 0, 1] * 2, [*[0] * 10, 1, 1, 1, 2, 2, 2])
  (found,) = folds.k_fold(given, k=2, seed=0)
  assert [int(given.labels[fold.test].sum()) for fold in found] == [1, 1]
