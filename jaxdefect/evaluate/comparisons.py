r"""AUROC from a table of comparisons: which positive met which negative, and who won.

Shape legend: n images, m positives, q negatives, R resamples.

An ordinary AUROC compares every positive with every negative by the scores of one model. In cross-
validation each pair has its own models, and some pairs have none; the table keeps what is needed of
either, and the figure, its variance and its resamples are sums over it. With
:math:`W_{ij}` the weight of the comparisons of a pair and :math:`w_{ij}` the part that was won,

.. math:: \hat A = \frac{\sum w_{ij}}{\sum W_{ij}}, \qquad
          u_i = \frac{\sum_j w_{ij} - \hat A\, W_{ij}}{\sum W}, \qquad
          v_j = \frac{\sum_i w_{ij} - \hat A\, W_{ij}}{\sum W},

and the variance is that of the sums of :math:`u_i` and :math:`v_j` over independent images; for
one model and all pairs it is DeLong's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdefect.data.folds import Fold
from jaxdefect.evaluate import auroc_interval, delong, intervals


class Comparisons(NamedTuple):
  """The table; rows are the positives and columns the negatives, in the order of the images.

  Attributes:
    won: [m, q] weight of the comparisons that the positive won, ties half.
    weight: [m, q] weight of all comparisons of the pair; 0 where there was none.
  """

  won: np.ndarray
  weight: np.ndarray

  @property
  def auroc(self) -> float:
    """In 0..1."""
    return float(self.won.sum() / self.weight.sum())


def pooled(
  folds: Sequence[Fold], scores: Sequence[np.ndarray], positive: np.ndarray
) -> Comparisons:
  """All pairs, by scores of whatever model each image was left out of.

  Args:
    folds: each image in the test part of one.
    scores: of the test images of each fold.
    positive: [n] bool.

  Returns:
    The table, of weight 1.

  Raises:
    ValueError: an image is in no test part, or in several.
  """
  places = np.concatenate([fold.test for fold in folds])
  if len(places) != len(positive) or len(np.unique(places)) != len(positive):
    raise ValueError('folds must have each image in the test part of one of them, and of no other.')
  own = np.empty(len(positive))
  own[places] = np.concatenate(scores)
  won = _won(own[positive], own[~positive])
  return Comparisons(won / won.size, np.full(won.shape, 1 / won.size))


def within(
  folds: Sequence[Fold],
  scores: Sequence[np.ndarray],
  positive: np.ndarray,
  *,
  apart: np.ndarray | None = None,
) -> Comparisons:
  """The pairs that one model scored both images of.

  Args:
    folds: any.
    scores: of the test images of each fold.
    positive: [n] bool.
    apart: [n] groups, images of one of which are not compared, and all pairs count alike; None
      compares all pairs of a fold, and folds count alike.

  Returns:
    The table, of weight 1.

  Raises:
    ValueError: no fold holds a pair.
  """
  row = np.cumsum(positive) - 1
  column = np.cumsum(~positive) - 1
  won = np.zeros((int(positive.sum()), int((~positive).sum())))
  weight = np.zeros_like(won)
  for fold, of_fold in zip(folds, scores):
    side = positive[fold.test]
    up, down = fold.test[side], fold.test[~side]
    if not (len(up) and len(down)):
      continue
    each = np.full((len(up), len(down)), 1 / (len(up) * len(down)))
    if apart is not None:
      each = (apart[up][:, None] != apart[down]).astype(float)
    of_fold = np.asarray(of_fold, np.float64)
    block = np.ix_(row[up], column[down])
    won[block] += each * _won(of_fold[side], of_fold[~side])
    weight[block] += each
  total = weight.sum()
  if not total > 0:
    raise ValueError('no fold has a positive and a negative image in its test part.')
  return Comparisons(won / total, weight / total)


def average(tables: Sequence[Comparisons]) -> Comparisons:
  """One table for several repetitions, each counting alike."""
  return Comparisons(*(np.mean(parts, axis=0) for parts in zip(*tables)))


def with_interval(
  table: Comparisons,
  positive: np.ndarray,
  groups: np.ndarray,
  *,
  added: float | None = 0.0,
  confidence: float = 0.95,
) -> delong.Auroc:
  """The figure with DeLong's variance and interval for a table.

  Args:
    table: of the images.
    positive: [n] bool.
    groups: [n]; images of one group are no independent evidence.
    added: variance that the choice of the training images adds; None adds DeLong's once more.
    confidence: coverage that is asked for, in (0, 1).

  Returns:
    The AUROC; its interval is on the logit scale, or ``auroc_interval.guaranteed`` where no pair
    is lost.
  """
  value = table.auroc
  parts = (table.won - value * table.weight) / table.weight.sum()
  variance = delong.variances(
    parts.sum(axis=1)[None], parts.sum(axis=0)[None], groups=(groups[positive], groups[~positive])
  )[0, 0]
  variance = float(variance + (variance if added is None else added))
  pairs = auroc_interval.independent_pairs(positive, groups=groups)
  ends = auroc_interval.from_variance(value, variance, pairs, confidence=confidence)
  return delong.Auroc(value, variance, *ends)


def bootstrap(
  table: Comparisons,
  positive: np.ndarray,
  groups: np.ndarray,
  *,
  num_resamples: int = 1000,
  confidence: float = 0.95,
  seed: int = 0,
) -> tuple[float, float]:
  """Percentile interval over resampled images, or groups; the models stay as they are.

  Args:
    table: of the images.
    positive: [n] bool.
    groups: [n].
    num_resamples: R.
    confidence: coverage that is asked for, in (0, 1).
    seed: makes it repeatable.

  Returns:
    (low, high); a point where no pair is lost.
  """
  return intervals.bootstrap(
    lambda marks, weights: _weighted(table, marks, weights),
    positive,
    num_resamples=num_resamples,
    confidence=confidence,
    seed=seed,
    weighted=True,
    groups=groups,
  )


def largest_step(table: Comparisons, positive: np.ndarray, groups: np.ndarray) -> float:
  """By how much the figure moves at most when one group is struck off the table.

  Args:
    table: of the images.
    positive: [n] bool.
    groups: [n].

  Returns:
    In 0..1; what one picture more or less may do, were the models to stay.
  """
  kept = groups != np.unique(groups)[:, None]  # [G, n]
  moved = np.abs(_weighted(table, positive, kept.astype(np.int32)) - table.auroc)
  return float(np.nanmax(moved)) if not np.isnan(moved).all() else 0.0


def _weighted(table: Comparisons, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """[R] AUROCs of images that count ``weights`` [R, n] times; NaN where nothing is compared."""
  up, down = weights[:, positive].astype(np.float64), weights[:, ~positive]
  won, total = (((up @ part) * down).sum(axis=1) for part in table)
  return np.divide(won, total, out=np.full(len(up), np.nan), where=total > 0)


def _won(up: np.ndarray, down: np.ndarray) -> np.ndarray:
  """[m, q]: one where the positive scores higher, a half where they tie."""
  return 0.5 + 0.5 * np.sign(up[:, None] - down)
