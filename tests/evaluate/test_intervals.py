"""Intervals against hand-worked values, and against their own promise of coverage."""

import math

import numpy as np
import pytest

from jaxdefect.evaluate import intervals


@pytest.mark.parametrize(
  ('successes', 'n', 'low', 'high'),
  [
    # z = 1.959964, z^2 = 3.841459; (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    (0, 10, 0.0, 0.277533),  # z^2 / (n + z^2)
    (10, 10, 0.722467, 1.0),
    (5, 10, 0.236593, 0.763407),
    (81, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 17 (1998), table I
    (15, 148, 0.0624, 0.1605),
  ],
)
def test_wilson_value_by_hand(successes, n, low, high):
  np.testing.assert_allclose(intervals.wilson(successes, n), (low, high), atol=5e-5)


def test_wilson_without_trials_knows_nothing():
  assert intervals.wilson(0, 0) == (0.0, 1.0)


def test_wilson_covers_as_promised():
  # The exact coverage: sum the binomial over the outcomes whose interval holds p.
  n = 60
  coverage = []
  for p in np.linspace(0.05, 0.95, 37):
    held = [low <= p <= high for low, high in (intervals.wilson(s, n) for s in range(n + 1))]
    mass = [math.comb(n, s) * p**s * (1 - p) ** (n - s) for s in range(n + 1)]
    coverage.append(np.dot(held, mass))
  assert 0.94 < np.mean(coverage) < 0.965
  assert min(coverage) > 0.91


@pytest.mark.parametrize(('successes', 'n'), [(-1, 3), (4, 3), (0, -1)])
def test_wilson_rejects_impossible_counts(successes, n):
  with pytest.raises(ValueError, match='successes'):
    intervals.wilson(successes, n)


@pytest.mark.parametrize('confidence', [0.0, 1.0, 95])
def test_rejects_bad_confidence(confidence):
  for call in (
    lambda: intervals.wilson(1, 2, confidence=confidence),
    lambda: intervals.mean_interval([1, 2], confidence=confidence),
    lambda: intervals.bootstrap(np.mean, np.arange(3.0), confidence=confidence),
  ):
    with pytest.raises(ValueError, match='confidence'):
      call()


def test_mean_interval_value_by_hand():
  # mean 3, s = sqrt(10/4) = 1.5811, t(4, 0.975) = 2.776445, half = t s / sqrt(5) = 1.963243
  result = intervals.mean_interval([1, 2, 3, 4, 5])
  np.testing.assert_allclose(result, (3, 1.5811388, 1.0367568, 4.9632432), atol=1e-6)
  # t(1, 0.975) = 12.706205, s = 0.7071068, half = 6.353102
  np.testing.assert_allclose(intervals.mean_interval([0, 1])[2:], (-5.853102, 6.853102), atol=1e-5)


def test_mean_interval_covers_as_promised():
  draws = np.random.default_rng(0).normal(2.0, 3.0, size=(2000, 4))
  held = [low <= 2.0 <= high for _, _, low, high in map(intervals.mean_interval, draws)]
  assert 0.935 < np.mean(held) < 0.965


def test_mean_of_one_seed_has_no_interval():
  mean, *rest = intervals.mean_interval([0.5])
  assert mean == 0.5
  assert np.isnan(rest).all()


@pytest.mark.parametrize('values', [[], [np.nan, 1.0], [np.inf]])
def test_mean_interval_rejects_what_is_no_number(values):
  with pytest.raises(ValueError, match='values'):
    intervals.mean_interval(values)


def test_bootstrap_matches_the_exact_resampling_distribution():
  # 12 of 40 succeed: a resample's count is Binomial(40, 0.3); its quantiles are 6 and 18.
  hits = (np.arange(40) < 12).astype(float)
  low, high = intervals.bootstrap(np.mean, hits, num_resamples=20_000)
  np.testing.assert_allclose((low * 40, high * 40), (7, 18), atol=1.0)


def test_bootstrap_covers_as_promised():
  generator = np.random.default_rng(1)
  held = []
  for trial in range(300):
    sample = generator.normal(1.0, 2.0, size=80)
    low, high = intervals.bootstrap(
      lambda x, w: w @ x / len(x), sample, num_resamples=400, seed=trial, weighted=True
    )
    held.append(low <= 1.0 <= high)
  assert 0.91 < np.mean(held) < 0.98


def test_weighted_bootstrap_equals_plain_bootstrap(monkeypatch):
  x = np.random.default_rng(2).normal(size=30)
  y = x + np.random.default_rng(3).normal(size=30)
  plain = intervals.bootstrap(lambda a, b: np.mean(a * b), x, y, seed=4)
  weighted = intervals.bootstrap(lambda a, b, w: w @ (a * b) / 30, x, y, seed=4, weighted=True)
  np.testing.assert_allclose(plain, weighted, atol=1e-12)
  # Blocks only bound the memory; they change nothing.
  monkeypatch.setattr(intervals, '_BLOCK_ELEMENTS', 100)
  blocks = intervals.bootstrap(lambda a, b, w: w @ (a * b) / 30, x, y, seed=4, weighted=True)
  np.testing.assert_allclose(plain, blocks, atol=1e-12)


def test_bootstrap_depends_on_its_seed_alone():
  x = np.random.default_rng(5).normal(size=50)
  assert intervals.bootstrap(np.mean, x, seed=1) == intervals.bootstrap(np.mean, x, seed=1)
  assert intervals.bootstrap(np.mean, x, seed=1) != intervals.bootstrap(np.mean, x, seed=2)


def test_bootstrap_skips_undefined_resamples():
  values = np.array([0.0, 1.0])
  # Undefined unless both values are drawn, and then always 0.5.
  spread = lambda x: x.mean() if len(set(x)) == 2 else np.nan  # noqa: E731
  assert intervals.bootstrap(spread, values) == (0.5, 0.5)
  assert np.isnan(intervals.bootstrap(np.mean, np.zeros(0))).all()


def test_bootstrap_rejects_arrays_that_do_not_align():
  with pytest.raises(ValueError, match='lengths'):
    intervals.bootstrap(np.mean, np.zeros(3), np.zeros(4))
  with pytest.raises(ValueError, match='num_resamples'):
    intervals.bootstrap(np.mean, np.zeros(3), num_resamples=0)


def test_clustered_wilson_of_single_images_is_wilson():
  hits = np.arange(50) < 7
  assert intervals.clustered_wilson(hits, np.arange(50)) == intervals.wilson(7, 50)
  assert intervals.clustered_wilson(hits[:0], hits[:0]) == (0.0, 1.0)


def test_clustered_wilson_of_copies_counts_each_part_once():
  parts = np.arange(40) < 9
  low, high = intervals.clustered_wilson(np.repeat(parts, 5), np.repeat(np.arange(40), 5))
  # The variance of a ratio has G - 1 where the binomial one has G.
  np.testing.assert_allclose((low, high), intervals.wilson(9 * 39 / 40, 39), atol=1e-12)
  assert intervals.clustered_wilson(np.zeros(12, bool), np.arange(12) // 4) == intervals.wilson(
    0, 3
  )


def test_clustered_wilson_covers_where_wilson_does_not():
  generator = np.random.default_rng(0)
  groups, held = np.repeat(np.arange(60), 6), []
  for _ in range(400):
    rate = generator.beta(0.3, 2.7, 60)  # of a tile, 0.1 in the mean
    hits = generator.random(360) < rate[groups]
    ends = (
      intervals.clustered_wilson(hits, groups),
      intervals.wilson(int(hits.sum()), hits.size),
    )
    held.append([low <= 0.1 <= high for low, high in ends])
  clustered, plain = np.mean(held, axis=0)
  assert 0.92 < clustered < 0.98
  assert plain < 0.85


def test_bootstrap_of_groups_draws_whole_groups():
  values, groups = np.array([1.0, 1, 1, 5, 5, 5]), np.array([4, 4, 4, 7, 7, 7])
  seen = []

  def mean(x, weights):
    seen.append(weights)
    return weights @ x / weights.sum(1)

  interval = intervals.bootstrap(mean, values, weighted=True, groups=groups)
  assert interval == (1.0, 5.0)  # one of four draws is the same part twice
  weights = np.concatenate(seen)
  assert (weights[:, :1] == weights[:, :3]).all()
  assert (weights.sum(1) == 6).all()
  with pytest.raises(ValueError, match='groups has 2 entries for 6 images'):
    intervals.bootstrap(mean, values, weighted=True, groups=groups[:2])


def test_combined_interval_value_by_hand():
  # Weights 0.75 and 0.25: 0.9 - sqrt(0.0225^2 + 0.025^2) and 0.9 + sqrt(0.015^2 + 0.0125^2).
  found = intervals.combined_interval([0.95, 0.75], [(0.92, 0.97), (0.65, 0.8)], [300, 100])
  np.testing.assert_allclose(found, (0.9, 0.9 - 0.033634, 0.9 + 0.019526), atol=5e-7)
  one = intervals.combined_interval([0.5], [(0.25, 0.625)], None)
  assert one == (0.5, 0.25, 0.625)


def test_combined_interval_covers_as_promised():
  """The mean of two shares from samples of two sizes, near the end of their range."""
  rates, sizes, weights = np.array([0.95, 0.8]), np.array([120, 60]), np.array([2, 1])
  truth = weights @ rates / weights.sum()
  draws = np.random.default_rng(0).binomial(sizes, rates, size=(2000, 2))
  held = 0
  for drawn in draws:
    ends = [intervals.wilson(int(s), int(n)) for s, n in zip(drawn, sizes)]
    _, low, high = intervals.combined_interval(drawn / sizes, ends, weights)
    held += low <= truth <= high
  assert 0.93 < held / len(draws) < 0.97


@pytest.mark.parametrize(
  ('values', 'ends', 'weights', 'sentence'),
  [
    ([], [], None, 'there are 0 values'),
    ([0.5], [(0.4, 0.6)], [1, 1], '1 values, 1 intervals and 2 weights'),
    ([0.7], [(0.4, 0.6)], None, 'do not hold'),
    ([math.nan], [(0.4, 0.6)], None, 'do not hold'),
    ([0.5], [(0.4, 0.6)], [-1.0], 'weights is'),
    ([0.5], [(0.4, 0.6)], [0.0], 'not all 0'),
  ],
)
def test_combined_interval_rejects(values, ends, weights, sentence):
  with pytest.raises(ValueError, match=sentence):
    intervals.combined_interval(values, ends, weights)
