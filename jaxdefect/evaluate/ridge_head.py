r"""A linear head on cached features whose leave-out scores cost one fit: ridge least squares.

Shape legend: n images, F features, t images that are left out together.

Least squares on the labels :math:`\pm 1` with a free intercept,
:math:`\min_{w,b} \sum_i (y_i - b - w^T x_i)^2 + \lambda \|w\|^2`, gives the direction of Fisher's
discriminant with a regularised covariance. From 50 images and hundreds of features, any sensible
linear head separates the training images, and this one ranks about as logistic regression does. But
it is linear in the labels, :math:`\hat y = H y`, so a model without the images S scores them as

.. math:: \hat y_S^{(-S)} = y_S - (I - H_{SS})^{-1} (y_S - \hat y_S),

exactly: any fold costs a t x t system instead of a fit (Pahikkala et al., SCAI 2008, for leaving
out pairs; Allen, Technometrics 16 (1974) 125-127, for single images). How many images a class has
moves the intercept and scales w, and changes no ranking by one model.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdefect.data.folds import Fold


class RidgeHead(NamedTuple):
  """A fitted head.

  Attributes:
    weights: [F].
    bias: a number.
  """

  weights: np.ndarray
  bias: float


def unit_vectors(features: np.ndarray) -> np.ndarray:
  """[n, F] features brought to length one, each by itself, so that no fold learns of another."""
  features = np.asarray(features, np.float64)
  return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def spread(features: np.ndarray) -> float:
  """Mean squared distance of [n, F] features from their mean: the natural unit of a penalty."""
  features = np.asarray(features, np.float64)
  return float(np.square(features - features.mean(axis=0)).sum(axis=1).mean())


def fit(features: np.ndarray, positive: np.ndarray, *, penalty: float) -> RidgeHead:
  """Fits the head.

  Args:
    features: [n, F], for example ``unit_vectors``.
    positive: [n] bool.
    penalty: lambda, larger than 0, in the squared unit of the features: some multiple of their
      ``spread``, for example, which knows no labels. It is the same for all folds.

  Returns:
    The head, which scores about 1 for positives and -1 for the others.

  Raises:
    ValueError: shapes do not agree, a kind is missing, or ``penalty`` is not positive.
  """
  x, y = _checked(features, positive, penalty)
  mean = x.mean(axis=0)
  centred = x - mean
  # F may be large and n is small: w lies in the span of the images.
  gram = centred @ centred.T + penalty * np.eye(len(x))
  weights = centred.T @ np.linalg.solve(gram, y - y.mean())
  return RidgeHead(weights, float(y.mean() - mean @ weights))


def scores(head: RidgeHead, features: np.ndarray) -> np.ndarray:
  """[n] scores of [n, F] features, larger for positives."""
  return np.asarray(features, np.float64) @ head.weights + head.bias


class LeaveOut:
  """The scores of any fold of the given images; a ``cross_validation.Scorer``."""

  def __init__(self, features: np.ndarray, positive: np.ndarray, *, penalty: float):
    """Takes what ``fit`` takes; one eigendecomposition of n x n serves all folds."""
    x, self._y = _checked(features, positive, penalty)
    n = len(x)
    centred = x - x.mean(axis=0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    shrunk = np.maximum(values, 0) / (np.maximum(values, 0) + penalty)
    self._hat = np.full((n, n), 1 / n) + (vectors * shrunk) @ vectors.T
    self._residual = self._y - self._hat @ self._y

  def __call__(self, folds: Sequence[Fold]) -> list[np.ndarray]:
    """The scores of each fold's test images by the head that is fitted to its training images.

    Args:
      folds: in places of the given images; what is in neither part is left out as well.

    Returns:
      One array per fold.

    Raises:
      ValueError: a fold tests what it trains on, or trains on one kind alone.
    """
    n = len(self._y)
    found: list[np.ndarray] = [np.zeros(0)] * len(folds)
    by_size: dict[int, list[tuple[int, np.ndarray]]] = {}
    for place, fold in enumerate(folds):
      left = np.ones(n, bool)
      left[fold.train] = False
      if not left[fold.test].all():
        raise ValueError(f'Fold {place} tests images that it trains on.')
      if abs(self._y[~left].sum()) == (~left).sum():
        raise ValueError(f'Fold {place} trains on one kind of image alone, or on none.')
      out = np.flatnonzero(left)
      by_size.setdefault(len(out), []).append((place, out))
    for size, members in by_size.items():
      out = np.stack([one for _, one in members])  # [q, t]
      system = np.eye(size) - self._hat[out[:, :, None], out[:, None, :]]  # [q, t, t]
      wrong = np.linalg.solve(system, self._residual[out][..., None])[..., 0]
      for (place, one), row in zip(members, self._y[out] - wrong):
        found[place] = row[np.searchsorted(one, folds[place].test)]
    return found


def _checked(
  features: np.ndarray, positive: np.ndarray, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
  x, marks = np.asarray(features, np.float64), np.asarray(positive, bool)
  if x.ndim != 2 or marks.shape != x.shape[:1]:
    raise ValueError(
      f'features have the shape {x.shape} and positive {marks.shape}; a row of features and one '
      'mark for each image are needed.'
    )
  if not penalty > 0:
    raise ValueError(f'penalty must be larger than 0, got {penalty}.')
  if marks.all() or not marks.any():
    raise ValueError(
      f'positive marks {int(marks.sum())} of {len(marks)} images; a head needs images that are '
      'and that are not.'
    )
  return x, np.where(marks, 1.0, -1.0)
