"""Sums over a table of comparisons are the AUROC, its variance and its resamples."""

import numpy as np
import pytest

from jaxdefect.data.folds import Fold
from jaxdefect.evaluate import anomaly, comparisons, delong, intervals

POSITIVE = np.array([True, True, False, False])
ALONE = np.arange(4)


def fold(*test):
  return Fold(np.setdiff1d(ALONE, test), np.array(test))


def scored(n=40, seed=0):
  generator = np.random.default_rng(seed)
  positive = generator.random(n) < 0.4
  return generator.normal(size=n) + positive, positive


def one_table(scores, positive):
  return comparisons.pooled([Fold(np.array([]), np.arange(len(scores)))], [scores], positive)


def test_one_model_and_all_pairs_is_delong():
  scores, positive = scored()
  table = one_table(scores, positive)
  expected = delong.auroc(scores, positive)
  found = comparisons.with_interval(table, positive, np.arange(40))
  np.testing.assert_allclose(found, expected, rtol=1e-12)
  groups = np.arange(40) // 3
  np.testing.assert_allclose(
    comparisons.with_interval(table, positive, groups),
    delong.auroc(scores, positive, groups=groups),
    rtol=1e-12,
  )


def test_added_variance_widens_the_interval():
  scores, positive = scored()
  table = one_table(scores, positive)
  fixed, full, doubled = (
    comparisons.with_interval(table, positive, np.arange(40), added=added)
    for added in (0.0, 0.01, None)
  )
  assert full.variance == pytest.approx(fixed.variance + 0.01)
  assert doubled.variance == pytest.approx(2 * fixed.variance)
  assert full.low < doubled.low < fixed.low < fixed.value < fixed.high < doubled.high < full.high


def test_pooled_ranks_scores_of_different_models_together():
  # Each model alone puts the positive above the negative; together 3 of 4 pairs are won.
  table = comparisons.pooled([fold(0, 2), fold(1, 3)], [[5.0, 4.0], [2.0, 1.0]], POSITIVE)
  assert table.auroc == 0.75
  assert comparisons.within([fold(0, 2), fold(1, 3)], [[5.0, 4.0], [2.0, 1.0]], POSITIVE).auroc == 1
  with pytest.raises(ValueError, match='each image in the test part of one'):
    comparisons.pooled([fold(0, 2)], [[5.0, 4.0]], POSITIVE)


def test_within_compares_by_one_model_and_weighs_folds_alike():
  found = comparisons.within([fold(0, 1, 2), fold(1, 3)], [[0.0, 3.0, 1.0], [1.0, 2.0]], POSITIVE)
  # The first fold wins one of two, the second loses its only one: (1/2 + 0) / 2.
  assert found.auroc == 0.25
  np.testing.assert_allclose(found.weight, [[0.25, 0], [0.25, 0.5]])


def test_apart_leaves_out_pairs_of_a_group_and_weighs_pairs_alike():
  groups = np.array([0, 1, 0, 3])
  folds = [Fold(np.array([1]), np.array([0, 2, 3]))]
  table = comparisons.within(folds, [[1.0, 0.0, 2.0]], POSITIVE, apart=groups)
  np.testing.assert_allclose(table.weight, [[0, 1], [0, 0]])
  assert table.auroc == 0
  with pytest.raises(ValueError, match='no fold has a positive and a negative'):
    comparisons.within([fold(0, 1)], [[1.0, 2.0]], POSITIVE)


def test_ties_count_half_and_repetitions_alike():
  tied = comparisons.within([fold(0, 2)], [[1.0, 1.0]], POSITIVE)
  won = comparisons.within([fold(1, 3)], [[2.0, 1.0]], POSITIVE)
  assert tied.auroc == 0.5
  assert comparisons.average([tied, won]).auroc == 0.75


def test_bootstrap_is_that_of_the_ordinary_auroc():
  scores, positive = scored()
  groups = np.arange(40) // 2
  found = comparisons.bootstrap(one_table(scores, positive), positive, groups, seed=3)
  expected = intervals.bootstrap(
    anomaly.auroc, scores, positive, seed=3, weighted=True, groups=groups
  )
  np.testing.assert_allclose(found, expected, atol=1e-12)


def test_largest_step_is_what_one_group_may_do():
  scores, positive = np.array([0.0, 3, 1, 2]), np.array([True, True, False, False])
  table = one_table(scores, positive)
  assert table.auroc == 0.5
  # Without the lowest positive all is won, without the highest one nothing is.
  assert comparisons.largest_step(table, positive, np.arange(4)) == 0.5
  # Without both of them there is no figure, which is no step.
  assert comparisons.largest_step(table, positive, np.array([0, 0, 1, 2])) == 0.0
