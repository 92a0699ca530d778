"""Leave-out scores in closed form are those of heads that are fitted again."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from jaxdefect.data import folds
from jaxdefect.data.folds import Fold
from jaxdefect.data.samples import Samples
from jaxdefect.evaluate import ridge_head


def make(n=30, features=200, seed=0):
  generator = np.random.default_rng(seed)
  positive = np.arange(n) % 3 == 0
  x = generator.normal(size=(n, features)) + 0.5 * positive[:, None] + 3
  return ridge_head.unit_vectors(x), positive


def test_fit_value_by_hand():
  # x = -1, 1, y = -1, 1: sum of squares 2, so w = 2 / (2 + penalty) and b = 0.
  head = ridge_head.fit(np.array([[-1.0], [1.0]]), np.array([False, True]), penalty=2.0)
  np.testing.assert_allclose((head.weights[0], head.bias), (0.5, 0), atol=1e-12)


@pytest.mark.parametrize('features', [5, 200])
def test_fit_matches_scikit_learn(features):
  x, positive = make(features=features)
  head = ridge_head.fit(x, positive, penalty=0.3)
  other = Ridge(alpha=0.3, solver='svd').fit(x, np.where(positive, 1.0, -1.0))
  np.testing.assert_allclose(ridge_head.scores(head, x), other.predict(x), atol=1e-9)


@pytest.mark.parametrize('penalty', [1e-3, 1.0])
def test_leave_out_equals_refitting(penalty):
  x, positive = make()
  groups = np.where(np.arange(30) < 6, 0, np.arange(30))
  given = Samples(tuple(map(str, range(30))), positive.astype(np.int32), ('good', 'defect'), groups)
  found = [
    *folds.leave_one_out(given),
    *folds.leave_pair_out(given, positive='defect', limit=40),
    *folds.k_fold(given, k=3, seed=0)[0],
    Fold(np.arange(4, 30), np.array([2, 0])),  # two more are in neither part
  ]
  scored = ridge_head.LeaveOut(x, positive, penalty=penalty)(found)
  for fold, scores in zip(found, scored):
    head = ridge_head.fit(x[fold.train], positive[fold.train], penalty=penalty)
    np.testing.assert_allclose(scores, ridge_head.scores(head, x[fold.test]), atol=1e-8)


def test_balance_of_the_classes_changes_no_ranking():
  # The direction is Fisher's, whatever numbers stand for the classes.
  x, positive = make()
  head = ridge_head.fit(x, positive, penalty=0.1)
  other = Ridge(alpha=0.1, solver='svd').fit(x, np.where(positive, 7.0, 2.0))
  cosine = head.weights @ other.coef_
  cosine /= np.linalg.norm(head.weights) * np.linalg.norm(other.coef_)
  assert cosine == pytest.approx(1, abs=1e-9)


def test_unit_vectors_and_spread():
  np.testing.assert_allclose(
    ridge_head.unit_vectors([[3.0, 4.0], [0.0, 0.0]]), [[0.6, 0.8], [0, 0]]
  )
  assert ridge_head.spread([[0.0, 0.0], [2.0, 0.0]]) == 1.0


def test_rejects_what_cannot_be_fitted():
  x, positive = make()
  with pytest.raises(ValueError, match='penalty must be larger than 0, got 0'):
    ridge_head.fit(x, positive, penalty=0)
  with pytest.raises(ValueError, match='positive marks 30 of 30 images'):
    ridge_head.fit(x, positive | True, penalty=1)
  with pytest.raises(ValueError, match='a row of features and one mark'):
    ridge_head.fit(x, positive[:3], penalty=1)
  score = ridge_head.LeaveOut(x, positive, penalty=1)
  with pytest.raises(ValueError, match='Fold 0 tests images that it trains on'):
    score([Fold(np.arange(30), np.array([3]))])
  with pytest.raises(ValueError, match='Fold 0 trains on one kind of image alone'):
    score([Fold(np.flatnonzero(positive), np.array([1]))])
