"""How sure we are: an interval for every number that we print.

Shape legend: N images, R resamples.

- A share of independent images (accuracy, recall): ``wilson``; of images that come in groups (six
  exposures of one tile, crops of one board): ``clustered_wilson``.
- Any other statistic of one test set (macro F1, AUROC): ``bootstrap`` over its images, or groups.
- The same metric over several seeds: ``mean_interval``.
- The mean of a metric over several test sets, each with its interval: ``combined_interval``.

The first two say how much the test images matter for a fixed model; the third says how much the
seed (the split and the initialisation) matters. Neither contains the other.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

# Resamples are drawn in blocks, so that a large test set needs a bounded memory.
_BLOCK_ELEMENTS = 2_000_000


def wilson(successes: float, n: float, *, confidence: float = 0.95) -> tuple[float, float]:
  r"""Wilson's score interval for a share of independent trials.

  With :math:`\hat p = s/n` and the normal quantile :math:`z`,

  .. math:: \frac{\hat p + z^2/2n \pm z\sqrt{\hat p(1-\hat p)/n + z^2/4n^2}}{1 + z^2/n}

  It stays inside [0, 1] and keeps a width when every trial succeeds, unlike the normal interval.

  Args:
    successes: how many trials succeeded, 0..n; an effective number need not be whole.
    n: number of trials; with none the answer is (0, 1).
    confidence: coverage that is asked for, in (0, 1).

  Returns:
    (low, high), shares in 0..1.

  Raises:
    ValueError: if ``successes`` is not within 0..n, or ``confidence`` not within (0, 1).

  >>> low, high = wilson(10, 10)
  >>> print(f'{low:.4f} {high:.4f}')
  0.7225 1.0000

  Wilson, JASA 22 (1927) 209-212.
  """
  _check_confidence(confidence)
  if n < 0 or not 0 <= successes <= n:
    raise ValueError(f'successes is {successes} of n = {n}; 0 <= successes <= n is needed.')
  if n == 0:
    return 0.0, 1.0
  z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
  p = successes / n
  scale = 1 + z * z / n
  centre = (p + z * z / (2 * n)) / scale
  half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
  # At the ends one bound is exact; do not let rounding move it.
  low = 0.0 if successes == 0 else max(0.0, centre - half)
  high = 1.0 if successes == n else min(1.0, centre + half)
  return low, high


def clustered_wilson(
  hits: np.ndarray, groups: np.ndarray, *, confidence: float = 0.95
) -> tuple[float, float]:
  r"""Wilson's interval for a share of images that come in groups, by an effective number of trials.

  Images of one part tell less than as many parts would. With G groups of :math:`n_g` images and
  :math:`s_g` hits, the variance of :math:`\hat p = \sum s_g / \sum n_g` as a ratio of totals is

  .. math:: v = \frac{G}{G - 1}\,\frac{1}{n^2} \sum_g (s_g - \hat p\, n_g)^2,

  that of n independent images :math:`\hat p (1 - \hat p) / n`, and n is divided by their quotient,
  the design effect, where that is above 1. Where all images agree nothing can be estimated, and the
  groups are counted.

  Args:
    hits: [N] bool.
    groups: [N] the group of each image; where all differ this is ``wilson``.
    confidence: coverage that is asked for, in (0, 1).

  Returns:
    (low, high), shares in 0..1.

  >>> hits, groups = np.arange(60) < 6, np.arange(60) // 6  # one part of ten, six times
  >>> low, high = clustered_wilson(hits, groups)
  >>> print(f'{low:.2f} {high:.2f}')
  0.02 0.42

  Korn and Graubard, Survey Methodology 24 (1998) 193-201.
  """
  hits = np.asarray(hits, bool)
  n = hits.size
  _, members = np.unique(np.asarray(groups), return_inverse=True)
  sizes, sums = np.bincount(members), np.bincount(members, weights=hits)
  if n == 0 or len(sizes) == n:
    return wilson(int(hits.sum()), n, confidence=confidence)
  p, effective = float(hits.mean()), float(len(sizes))
  if 0 < p < 1 and len(sizes) > 1:
    variance = float(np.square(sums - p * sizes).sum()) / n**2 * len(sizes) / (len(sizes) - 1)
    effective = n / max(1.0, n * variance / (p * (1 - p)))
  return wilson(p * effective, effective, confidence=confidence)


def bootstrap(
  statistic: Callable[..., float | np.ndarray],
  *arrays: np.ndarray,
  num_resamples: int = 1000,
  confidence: float = 0.95,
  seed: int = 0,
  weighted: bool = False,
  groups: np.ndarray | None = None,
) -> tuple[float, float]:
  """Percentile bootstrap interval: resample the images, look where the statistic falls.

  Percentile, not BCa: our statistics are bounded and nearly unbiased, and BCa's jackknife is
  undefined where a class has one image. Like any bootstrap it collapses to a point when no image
  disagrees; read the Wilson interval of the accuracy then.

  Args:
    statistic: ``(*arrays) -> float`` on resampled arrays; or, with ``weighted``,
      ``(*arrays, weights) -> [R]`` where ``weights`` [R,N] int32 says how often each image was
      drawn, which is as exact and much faster.
    *arrays: [N, ...] each, aligned; an image is a row of all of them.
    num_resamples: R, how many times the images are drawn.
    confidence: coverage that is asked for, in (0, 1).
    seed: makes the interval repeatable.
    weighted: which of the two forms ``statistic`` has.
    groups: [N] the group of each image; whole groups are drawn then, as many as there are. Only
      with ``weighted``. None draws images.

  Returns:
    (low, high) in the statistic's unit. Resamples where it is undefined (NaN) are left out; both
    are NaN where none is left, for example without images.

  Raises:
    ValueError: if the arrays differ in length, or a number is out of range.

  >>> values = np.arange(100.0)
  >>> low, high = bootstrap(np.mean, values)
  >>> bool(low < values.mean() < high)
  True

  Efron, Annals of Statistics 7 (1979) 1-26.
  """
  _check_confidence(confidence)
  if num_resamples < 1:
    raise ValueError(f'num_resamples is {num_resamples}; at least 1 is needed.')
  lengths = {len(array) for array in arrays}
  if len(lengths) != 1:
    raise ValueError(f'arrays have the lengths {sorted(lengths)}; they must be given and be equal.')
  n = lengths.pop()
  if n == 0:
    return math.nan, math.nan
  members = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
  number = int(members.max()) + 1  # of what is drawn
  if groups is not None and (not weighted or len(members) != n):
    raise ValueError(f'groups has {len(members)} entries for {n} images, or weighted is not set.')

  generator = np.random.default_rng(seed)
  block = max(1, min(num_resamples, _BLOCK_ELEMENTS // n))
  values = []
  for start in range(0, num_resamples, block):
    size = min(block, num_resamples - start)
    drawn = generator.integers(number, size=(size, number))  # [R, N]
    if weighted:
      offsets = np.arange(size)[:, None] * number
      weights = np.bincount((drawn + offsets).ravel(), minlength=size * number)
      weights = weights.astype(np.int32).reshape(size, number)[:, members]
      values.append(np.asarray(statistic(*arrays, weights), np.float64).reshape(size))
    else:
      values.append(np.array([statistic(*(a[rows] for a in arrays)) for rows in drawn], np.float64))
  return percentile_interval(np.concatenate(values), confidence=confidence)


def percentile_interval(values: np.ndarray, *, confidence: float = 0.95) -> tuple[float, float]:
  """The middle part of resampled values that holds ``confidence`` of them.

  Args:
    values: [R] resampled statistics; NaN marks an undefined one and is left out.
    confidence: coverage that is asked for, in (0, 1).

  Returns:
    (low, high) in the unit of ``values``; NaN twice where no value is defined.

  >>> percentile_interval(np.arange(101.0), confidence=0.5)
  (25.0, 75.0)
  """
  _check_confidence(confidence)
  values = values[~np.isnan(values)]
  if values.size == 0:
    return math.nan, math.nan
  tail = (1 - confidence) / 2
  low, high = np.quantile(values, [tail, 1 - tail])
  return float(low), float(high)


class MeanInterval(NamedTuple):
  """A mean over seeds.

  Attributes:
    mean: arithmetic mean.
    sd: standard deviation with n - 1; NaN for one value.
    low: lower end of the interval for the mean; NaN for one value.
    high: upper end of the interval for the mean; NaN for one value.
  """

  mean: float
  sd: float
  low: float
  high: float


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> MeanInterval:
  r"""Student's interval for a mean over a few independent runs.

  .. math:: \bar x \pm t_{n-1,\,(1+c)/2}\; s/\sqrt{n}

  The ends may leave the range of the metric (above 1 for an accuracy near 1): with few seeds that
  is what is known, and it is not clipped.

  Args:
    values: one finite number per seed.
    confidence: coverage c that is asked for, in (0, 1).

  Returns:
    (mean, sd, low, high) in the unit of ``values``; one value has a mean and nothing else.

  Raises:
    ValueError: if there is no value, or one that is not finite.

  >>> mean, sd, low, high = mean_interval([1.0, 2.0, 3.0])
  >>> print(f'{mean:.1f} {sd:.1f} {low:.3f} {high:.3f}')
  2.0 1.0 -0.484 4.484

  Student, Biometrika 6 (1908) 1-25.
  """
  _check_confidence(confidence)
  data = np.asarray(values, np.float64)
  if data.ndim != 1 or data.size == 0 or not np.isfinite(data).all():
    raise ValueError(f'values is {list(values)}; one or more finite numbers are needed.')
  mean = float(data.mean())
  if data.size == 1:
    return MeanInterval(mean, math.nan, math.nan, math.nan)
  sd = float(data.std(ddof=1))
  t = float(scipy.stats.t.ppf(0.5 + confidence / 2, data.size - 1))
  half = t * sd / math.sqrt(data.size)
  return MeanInterval(mean, sd, mean - half, mean + half)


class CombinedInterval(NamedTuple):
  """A weighted mean of several independent figures.

  Attributes:
    mean: weighted mean.
    low: lower end of its interval.
    high: upper end of its interval.
  """

  mean: float
  low: float
  high: float


def combined_interval(
  values: Sequence[float],
  ends: Sequence[tuple[float, float]],
  weights: Sequence[float] | None,
) -> CombinedInterval:
  r"""Interval of a weighted mean of figures of independent test sets, from their own intervals.

  With weights :math:`w_i` that sum to 1 and figures :math:`x_i` in :math:`[l_i, u_i]`,

  .. math::
    \bar x = \sum_i w_i x_i, \qquad
    \bar x - \sqrt{\sum_i w_i^2 (x_i - l_i)^2} \;\le\; \mu \;\le\;
    \bar x + \sqrt{\sum_i w_i^2 (u_i - x_i)^2}

  the method of variance estimates recovery: each interval keeps its own two sides, so that a figure
  near 1 stays below it.

  Args:
    values: one finite number per test set.
    ends: (low, high) of each at the confidence that is wanted, around its value.
    weights: non-negative, of any sum; None weighs all alike.

  Returns:
    (mean, low, high) in the unit of ``values``.

  Raises:
    ValueError: the lengths differ, there is no figure, an interval does not hold its value, or the
      weights are negative or all nought.

  >>> mean, low, high = combined_interval([0.9, 0.7], [(0.87, 0.92), (0.66, 0.74)], [1, 1])
  >>> print(f'{mean:.3f} {low:.4f} {high:.4f}')
  0.800 0.7750 0.8224

  Zou and Donner, Statistics in Medicine 27 (2008) 1693-1702, equation 4.
  """
  x, sides = np.asarray(values, np.float64), np.asarray(ends, np.float64).reshape(-1, 2)
  w = np.ones_like(x) if weights is None else np.asarray(weights, np.float64)
  if x.ndim != 1 or not x.size or len(sides) != x.size or w.shape != x.shape:
    raise ValueError(
      f'there are {x.size} values, {len(sides)} intervals and {w.size} weights; one of each per '
      'test set is needed.'
    )
  if not np.isfinite(x).all() or not ((sides[:, 0] <= x) & (x <= sides[:, 1])).all():
    raise ValueError(f'the intervals {list(ends)} do not hold the values {list(values)}.')
  if not (w >= 0).all() or not 0 < w.sum() < math.inf:
    raise ValueError(f'weights is {list(weights or ())}; numbers from 0 on, not all 0, are needed.')
  w = w / w.sum()
  mean = float(w @ x)
  below, above = (float(np.sqrt(np.square(w * (x - side)).sum())) for side in sides.T)
  return CombinedInterval(mean, mean - below, mean + above)


def _check_confidence(confidence: float) -> None:
  if not 0 < confidence < 1:
    raise ValueError(f'confidence is {confidence}; a number between 0 and 1 is needed.')
