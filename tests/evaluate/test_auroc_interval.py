"""The interval that needs no variance: sharp, valid for any distribution, and never exceeded."""

import numpy as np
import pytest

from jaxdefect.evaluate import auroc_interval, delong


def test_the_bound_for_a_perfect_ranking_is_sharp():
  # The worst case: a share 1 - A of the defects scores below every good part, the rest above.
  low, _ = auroc_interval.guaranteed(1.0, 8)
  generator = np.random.default_rng(0)
  seen = generator.random((200_000, 8)) < low  # of 8 defects and any number of good parts
  assert seen.all(1).mean() == pytest.approx(0.025, abs=0.0015)


def test_guaranteed_value_by_hand():
  # k (A ln(A / t) + (1 - A) ln((1 - A) / (1 - t))) = ln 40 at both ends.
  for end in auroc_interval.guaranteed(0.8, 30):
    divergence = 0.8 * np.log(0.8 / end) + 0.2 * np.log(0.2 / (1 - end))
    assert 30 * divergence == pytest.approx(np.log(40), rel=1e-6)
  assert auroc_interval.guaranteed(0.8, 0) == (0.0, 1.0)


def test_guaranteed_grows_with_the_figure_and_narrows_with_the_pairs():
  ends = np.array([auroc_interval.guaranteed(value, 20) for value in np.linspace(0, 1, 41)])
  assert (np.diff(ends, axis=0) >= 0).all()
  widths = [np.subtract(*auroc_interval.guaranteed(0.9, k)[::-1]) for k in (1, 5, 25, 125)]
  assert (np.diff(widths) < 0).all()


def test_guaranteed_holds_where_half_the_defects_are_of_a_kind_that_is_not_seen():
  generator = np.random.default_rng(1)
  held = []
  for _ in range(300):
    unseen = generator.random(6) < 0.3
    scores = np.concatenate([np.where(unseen, -9, 9) + generator.normal(size=6), np.zeros(200)])
    found = delong.auroc(scores, np.arange(206) < 6)
    low, high = auroc_interval.guaranteed(found.value, 6)
    held.append(low <= 0.7 <= high)
  assert np.mean(held) > 0.95


def test_a_large_variance_near_one_is_cut_off():
  low, high = auroc_interval.from_variance(0.998, 1e-4, 25)
  widest = auroc_interval.guaranteed(0.998, 25)
  assert (low, high) == (widest[0], pytest.approx(1, abs=1e-3))
  assert auroc_interval.from_variance(0.8, 1e-4, 25)[0] > auroc_interval.guaranteed(0.8, 25)[0]


def test_independent_pairs_share_no_group():
  positive = np.array([True, True, True, False, False])
  assert auroc_interval.independent_pairs(positive) == 2
  assert auroc_interval.independent_pairs(positive, groups=np.array([0, 0, 0, 1, 2])) == 1
  # Three boards with both kinds of crop: two of them make a pair, the third has no partner.
  assert auroc_interval.independent_pairs(positive, groups=np.array([0, 1, 2, 0, 1])) == 1


def test_rejects_bad_arguments():
  with pytest.raises(ValueError, match='scale is'):
    auroc_interval.from_variance(0.5, 0.1, 3, scale='probit')
  for call in (
    lambda: auroc_interval.guaranteed(0.5, 3, confidence=95),
    lambda: auroc_interval.from_variance(0.5, 0.1, 3, confidence=0),
  ):
    with pytest.raises(ValueError, match='confidence is'):
      call()
