"""DeLong's variance by hand, against its definition, and against its own promise of coverage."""

import numpy as np
import pytest
import scipy.stats

from jaxdefect.evaluate import delong


def brute_force(scores, positive):
  """[S] AUROCs and [S, S] covariance as the U-statistics that they are, pair by pair."""
  up, down = scores[:, positive], scores[:, ~positive]
  wins = (up[:, :, None] > down[:, None]) + 0.5 * (up[:, :, None] == down[:, None])  # [S, m, n]
  cov = np.cov(wins.mean(2)) / up.shape[1] + np.cov(wins.mean(1)) / down.shape[1]
  return wins.mean((1, 2)), cov


def binormal(generator, auroc, m, n, *, models=1, correlation=0.0):
  """Scores of equal spread with this AUROC: [S, N] and [N]."""
  shift = np.sqrt(2) * scipy.stats.norm.ppf(auroc)
  shared = np.sqrt(correlation) * generator.normal(size=m + n)
  own = np.sqrt(1 - correlation) * generator.normal(size=(models, m + n))
  positive = np.arange(m + n) < m
  return shared + own + shift * positive, positive


def test_value_by_hand():
  # Won: 3 > 2, 3 > 0, 1 > 0; lost: 1 < 2. V10 = (1, 1/2), V01 = (1/2, 1), s^2 = 1/8 each.
  found = delong.auroc(np.array([3.0, 1, 2, 0]), np.array([True, True, False, False]))
  assert found.value == 0.75
  assert found.variance == pytest.approx(1 / 8 / 2 + 1 / 8 / 2)
  # logit 0.75 = 1.0986; half = 1.95996 * 0.353553 / 0.1875 = 3.69569
  np.testing.assert_allclose((found.low, found.high), (0.06932, 0.99179), atol=1e-5)


@pytest.mark.parametrize('levels', [5, 1000])
def test_matches_the_definition_with_and_without_ties(levels):
  generator = np.random.default_rng(levels)
  scores = generator.integers(0, levels, (2, 40)).astype(float)
  positive = generator.random(40) < 0.4
  values, cov = brute_force(scores, positive)
  for s in (0, 1):
    found = delong.auroc(scores[s], positive)
    np.testing.assert_allclose((found.value, found.variance), (values[s], cov[s, s]), rtol=1e-12)
  found = delong.difference(*scores, positive)
  np.testing.assert_allclose(found.value, values[0] - values[1], atol=1e-12)
  np.testing.assert_allclose(found.covariance, cov[0, 1], rtol=1e-9)
  np.testing.assert_allclose(found.variance, cov[0, 0] + cov[1, 1] - 2 * cov[0, 1], rtol=1e-9)


@pytest.mark.parametrize('auroc', [0.75, 0.97])
def test_covers_as_promised_also_near_one(auroc):
  generator = np.random.default_rng(0)
  held = []
  for _ in range(400):
    scores, positive = binormal(generator, auroc, 25, 25)
    for scale in ('logit', 'identity'):
      found = delong.auroc(scores[0], positive, scale=scale)
      held.append(found.low <= auroc <= found.high)
  logit, identity = np.mean(np.reshape(held, (-1, 2)), axis=0)
  assert 0.92 < logit < 0.985
  if auroc > 0.9:
    assert identity < 0.88  # why the logit scale is the default


def test_difference_covers_and_gains_from_the_same_images():
  generator = np.random.default_rng(1)
  held, widths, apart = [], [], []
  for _ in range(250):
    scores, positive = binormal(generator, 0.8, 40, 60, models=2, correlation=0.8)
    found = delong.difference(*scores, positive)
    held.append(found.low <= 0 <= found.high)
    widths.append(found.variance)
    apart.append(sum(delong.auroc(one, positive).variance for one in scores))
  assert 0.91 < np.mean(held) < 0.98
  assert np.mean(widths) < 0.4 * np.mean(apart)


def test_where_all_pairs_are_won_the_interval_says_what_so_few_can():
  scores, positive = np.arange(50.0), np.arange(50) >= 25
  found = delong.auroc(scores, positive)
  assert (found.value, found.variance, found.high) == (1, 0, 1)
  assert found.low == pytest.approx(0.025 ** (1 / 25))
  assert delong.auroc(-scores, positive).high == pytest.approx(1 - 0.025 ** (1 / 25))
  # Two models without a fault may still differ, by as much as one interval is wide.
  twice = delong.difference(scores, scores**2, positive)
  assert twice.value == 0
  assert -twice.low == twice.high == pytest.approx(1 - 0.0125 ** (1 / 25))


def test_one_image_of_a_kind_has_no_variance_but_an_interval():
  found = delong.auroc(np.array([2.0, 0, 1, 3]), np.array([True, False, False, False]))
  assert found.value == pytest.approx(2 / 3)
  assert np.isnan(found.variance)
  assert 0 < found.low < 0.02 < 0.98 < found.high <= 1


def test_copies_in_groups_count_once():
  generator = np.random.default_rng(2)
  scores, positive = binormal(generator, 0.8, 12, 15)
  alone = delong.auroc(scores[0], positive)
  again = np.repeat(np.arange(27), 4)
  np.testing.assert_allclose(
    delong.auroc(scores[0][again], positive[again], groups=again), alone, rtol=1e-12
  )
  assert delong.auroc(scores[0][again], positive[again]).variance < 0.3 * alone.variance


def test_groups_of_both_kinds_bring_their_covariance():
  # Boards with a shift of their own, each with a good and a bad crop: the shift cancels in part.
  generator = np.random.default_rng(3)
  values, said = [], []
  groups, positive = np.arange(40) // 2, np.arange(40) % 2 == 1
  for _ in range(250):
    scores = generator.normal(size=20).repeat(2) * 2 + generator.normal(size=40) + 2.5 * positive
    found = delong.auroc(scores, positive, groups=groups)
    values.append(found.value)
    said.append((found.variance, delong.auroc(scores, positive).variance))
  grouped, single = np.mean(said, axis=0)
  assert 0.75 < grouped / np.var(values) < 1.35
  assert single > 1.5 * np.var(values)


def test_rejects_what_does_not_fit():
  with pytest.raises(ValueError, match=r'positive marks 0 of 3 images'):
    delong.auroc(np.arange(3.0), np.zeros(3, bool))
  with pytest.raises(ValueError, match='1 that are not finite'):
    delong.auroc(np.array([0, np.nan]), np.array([True, False]))
  with pytest.raises(ValueError, match='one number and one mark for each image'):
    delong.auroc(np.arange(3.0), np.ones(2, bool))
  with pytest.raises(ValueError, match='groups has 1 entries for 2 images'):
    delong.auroc(np.arange(2.0), np.array([True, False]), groups=np.zeros(1))
