"""A bet on the order of scores: seldom won on a line that has not changed, soon on one that has."""

import numpy as np
import pytest

from jaxdefect.review import drift


@pytest.mark.parametrize('defects', [0.0, 0.05])
def test_a_calm_line_is_seldom_said_to_have_changed(defects):
  found = []
  for seed in range(300):
    generator = np.random.default_rng(seed)
    scores = generator.gamma(3.0, size=400)
    scores[generator.random(400) < defects] += 50
    found.append(drift(generator.gamma(3.0, size=50), scores, confidence=0.9, seed=seed).found)
  assert np.mean(found) <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 300)


@pytest.mark.parametrize('shift', [1.5, -1.5])
def test_a_changed_line_is_found_whenever_it_changes(shift):
  for start in (0, 300):
    late = []
    for seed in range(20):
      generator = np.random.default_rng(seed)
      scores = generator.normal(size=start + 200)
      scores[start:] += shift
      one = drift(generator.normal(size=80), scores, seed=seed)
      assert one.found
      assert one.larger == (shift > 0)
      late.append(one.since - start)
    assert min(late) > 0
    assert np.median(late) < 80


def test_only_the_order_counts():
  generator = np.random.default_rng(0)
  before, scores = generator.normal(size=40), generator.normal(size=100) + 0.5
  plain, bent = drift(before, scores), drift(np.exp(before), np.exp(scores))
  np.testing.assert_allclose(plain.stakes, bent.stakes)
  assert plain.evidence == plain.stakes.max()


def test_ties_and_long_changes_are_harmless():
  same = drift(np.ones(30), np.ones(300))
  assert not same.found
  changed = drift(np.zeros(2000), np.ones(3000))
  assert changed.found
  assert np.isfinite(changed.stakes).all()
  assert drift(np.ones(3), np.zeros(0)).evidence == 1


def test_bad_input():
  with pytest.raises(ValueError, match='calibration holds no score'):
    drift(np.zeros(0), np.zeros(3))
  with pytest.raises(ValueError, match='a score is not finite'):
    drift(np.zeros(3), np.array([np.nan]))
  with pytest.raises(ValueError, match='defect_rate is 1; it can be 0 up to'):
    drift(np.zeros(3), np.zeros(3), defect_rate=1)
