r"""AUROC with DeLong's variance: one figure, and the difference of two on the same images.

Shape legend: N images, m positives, n negatives, S models that scored the same images.

With :math:`\psi` one for a won comparison, a half for a tie and zero otherwise, the AUROC is
:math:`\hat A = \frac1{mn}\sum_{ij} \psi(x_i, y_j)`. Each image's part in it is its placement among
those of the other kind, :math:`V_{10}(x_i) = \frac1n\sum_j \psi(x_i, y_j)` and
:math:`V_{01}(y_j) = \frac1m\sum_i \psi(x_i, y_j)`, and

.. math:: \widehat{\operatorname{var}} \hat A = \tfrac1m s^2(V_{10}) + \tfrac1n s^2(V_{01}).

DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837-845; by midranks in N log N as Sun and
Xu, IEEE Signal Processing Letters 21 (2014) 1389-1393; for images in groups (crops of one board,
parts of one lot) Obuchowski, Biometrics 53 (1997) 567-578.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.stats

from jaxdefect.evaluate import auroc_interval


class Auroc(NamedTuple):
  """An AUROC and how sure it is.

  Attributes:
    value: in 0..1.
    variance: DeLong's; NaN where a kind has one image, or one group, alone.
    low: lower end of the interval.
    high: upper end.
  """

  value: float
  variance: float
  low: float
  high: float


class Difference(NamedTuple):
  """The first AUROC minus the second one, on the same images.

  Attributes:
    value: in -1..1.
    variance: of the difference, covariance included; NaN as in ``Auroc``.
    covariance: of the two AUROCs.
    low: lower end of the interval.
    high: upper end.
  """

  value: float
  variance: float
  covariance: float
  low: float
  high: float


def auroc(
  scores: np.ndarray,
  positive: np.ndarray,
  *,
  groups: np.ndarray | None = None,
  confidence: float = 0.95,
  scale: str = 'logit',
) -> Auroc:
  """The AUROC with DeLong's variance and an interval.

  Args:
    scores: [N], larger for positives.
    positive: [N] bool.
    groups: [N] the group of each image, where images of one group are no independent evidence.
    confidence: coverage that is asked for, in (0, 1).
    scale: as for ``auroc_interval.from_variance``.

  Returns:
    The figure, its variance and its interval.

  Raises:
    ValueError: shapes do not agree, a score is not finite, or a kind of image is missing.

  >>> scores, positive = np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, True, False, False])
  >>> found = auroc(scores, positive)
  >>> print(f'{found.value} {found.variance} [{found.low:.3f}, {found.high:.3f}]')
  0.75 0.125 [0.069, 0.992]
  """
  values, covariance, pairs = _of_models(np.asarray(scores)[None], positive, groups)
  value, variance = float(values[0]), float(covariance[0, 0])
  low, high = auroc_interval.from_variance(
    value, variance, pairs, confidence=confidence, scale=scale
  )
  return Auroc(value, variance, low, high)


def difference(
  first: np.ndarray,
  second: np.ndarray,
  positive: np.ndarray,
  *,
  groups: np.ndarray | None = None,
  confidence: float = 0.95,
) -> Difference:
  r"""How much the AUROC of one model exceeds that of another one on the same images.

  Both err on the same hard images, so that the variance of the difference,
  :math:`v_1 + v_2 - 2 c_{12}`, is mostly far below that of two independent test sets. Where it is
  zero or unknown, the two single intervals at half the error each are subtracted.

  Args:
    first: [N] scores of one model.
    second: [N] scores of the other one.
    positive: [N] bool.
    groups: as for ``auroc``.
    confidence: coverage that is asked for, in (0, 1).

  Returns:
    ``first`` minus ``second``, with a normal interval cut off at -1 and 1.

  Raises:
    ValueError: as ``auroc``.
  """
  values, covariance, pairs = _of_models(np.stack([first, second]), positive, groups)
  value = float(values[0] - values[1])
  variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
  if variance > 1e-15:
    half = auroc_interval.quantile(confidence) * math.sqrt(variance)
    low, high = max(value - half, -1.0), min(value + half, 1.0)
  else:
    each = 1 - (1 - confidence) / 2
    (low_1, high_1), (low_2, high_2) = (
      auroc_interval.from_variance(
        float(values[s]), float(covariance[s, s]), pairs, confidence=each
      )
      for s in (0, 1)
    )
    low, high = low_1 - high_2, high_1 - low_2
  return Difference(value, max(variance, 0.0), float(covariance[0, 1]), low, high)


def variances(
  of_positives: np.ndarray,
  of_negatives: np.ndarray,
  *,
  groups: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
  r"""The covariance of AUROCs from what each image adds to them.

  Args:
    of_positives: [S, m] :math:`(V_{10} - \hat A)/m`, or any such parts that sum to zero.
    of_negatives: [S, n] :math:`(V_{01} - \hat A)/n`.
    groups: ([m], [n]) the group of each image; None means that each is on its own.

  Returns:
    [S, S]; NaN where the images of a kind are one, or of one group.
  """
  if groups is None:
    total = 0.0
    for parts in (of_positives, of_negatives):
      size = parts.shape[1]
      total = total + (parts @ parts.T * (size / (size - 1)) if size > 1 else np.nan)
    return np.asarray(total)
  members = np.unique(np.concatenate(groups), return_inverse=True)[1]
  count, m = members.max() + 1, of_positives.shape[1]
  sums, present = [], []
  for parts, own in ((of_positives, members[:m]), (of_negatives, members[m:])):
    summed = np.stack([np.bincount(own, weights=row, minlength=count) for row in parts])
    sums.append(summed)  # [S, G]
    present.append(np.bincount(own, minlength=count) > 0)
  total = np.zeros((len(of_positives), len(of_positives)))
  for summed, of_kind in zip(sums, present):
    size = int(of_kind.sum())
    total = total + (summed @ summed.T * (size / (size - 1)) if size > 1 else np.nan)
  both = sums[0] @ sums[1].T * (count / max(count - 1, 1))
  return total + both + both.T


def _of_models(
  scores: np.ndarray, positive: np.ndarray, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, int]:
  """[S] AUROCs, their covariance [S, S], and the independent pairs."""
  scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
  if scores.ndim != 2 or scores.shape[1:] != positive.shape:
    raise ValueError(
      f'scores have the shape {scores.shape[1:]} and positive {positive.shape}; one number and '
      'one mark for each image are needed.'
    )
  if not np.isfinite(scores).all():
    raise ValueError(f'scores hold {int((~np.isfinite(scores)).sum())} that are not finite.')
  m, n = int(positive.sum()), int((~positive).sum())
  if not m or not n:
    raise ValueError(
      f'positive marks {m} of {m + n} images; an AUROC needs images that are and that are not.'
    )
  if groups is not None and len(groups) != m + n:
    raise ValueError(f'groups has {len(groups)} entries for {m + n} images.')
  # A midrank among all, less that among one's own kind, counts the others below, ties half.
  among_all = scipy.stats.rankdata(scores, axis=1)
  among_positives = scipy.stats.rankdata(scores[:, positive], axis=1)
  among_negatives = scipy.stats.rankdata(scores[:, ~positive], axis=1)
  v10 = (among_all[:, positive] - among_positives) / n
  v01 = 1 - (among_all[:, ~positive] - among_negatives) / m
  values = v10.mean(axis=1)
  own = None
  if groups is not None:
    groups = np.asarray(groups)
    own = groups[positive], groups[~positive]
  covariance = variances((v10 - values[:, None]) / m, (v01 - values[:, None]) / n, groups=own)
  return values, covariance, auroc_interval.independent_pairs(positive, groups=groups)
