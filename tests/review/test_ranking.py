"""The mix that orders the queue, by hand, and what is new to what is known."""

import numpy as np
import pytest

from jaxdefect.review import ranking


def test_value_by_hand():
  margin, novelty, anomaly = np.array([0.2, 1.0]), np.array([0.5, 0.0]), np.array([0.9, 0.1])
  found = ranking.priority(margin, novelty, anomaly=anomaly, asked=np.array([True, False]))
  np.testing.assert_allclose(found, [0.5 * 0.8 + 0.3 * 0.9 + 0.2 * 0.5 + 1, 0.03])
  without = ranking.priority(margin, novelty)
  np.testing.assert_allclose(without, [(0.5 * 0.8 + 0.2 * 0.5) / 0.7, 0])


def test_less_sure_stranger_and_newer_come_first():
  generator = np.random.default_rng(0)
  base = generator.random((3, 50))
  before = ranking.priority(base[0], base[1], anomaly=base[2])
  for row, sign in ((0, -1), (1, 1), (2, 1)):
    changed = base.copy()
    changed[row] = np.clip(changed[row] + sign * 0.1, 0, 1)
    after = ranking.priority(changed[0], changed[1], anomaly=changed[2])
    assert (after >= before - 1e-12).all()
    assert after.sum() > before.sum()


def test_novelty():
  generator = np.random.default_rng(1)
  known = generator.normal(size=(40, 8)) + 5
  assert ranking.novelty(known[:3], known).tolist() == [0, 0, 0]  # known ones are not new
  assert ranking.novelty(-known[:2], known).tolist() == [1, 1]
  np.testing.assert_allclose(ranking.novelty(3 * known, known), ranking.novelty(known, known))
  # By a plain loop.
  new = generator.normal(size=(9, 8)) + 4
  unit = [one / np.linalg.norm(one) for one in known]
  own = [min(1 - a @ b for j, b in enumerate(unit) if i != j) for i, a in enumerate(unit)]
  for one, said in zip(new, ranking.novelty(new, known)):
    distance = min(1 - one / np.linalg.norm(one) @ b for b in unit)
    assert said == np.mean([d < distance for d in own])


def test_bad_input():
  with pytest.raises(ValueError, match=r'margin must lie in 0\.\.1, came as 2 to 2'):
    ranking.priority(np.array([2.0]), np.array([0.0]))
  with pytest.raises(ValueError, match='two pictures and as many features are needed'):
    ranking.novelty(np.zeros((3, 4)), np.zeros((1, 4)))
