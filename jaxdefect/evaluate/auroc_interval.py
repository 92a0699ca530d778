"""An interval for an AUROC from its variance, and one that needs none.

Shape legend: N images, m positives, n negatives.
"""

import math
import statistics
from collections.abc import Callable

import numpy as np
import scipy.optimize
import scipy.special

_SCALES = ('logit', 'identity')


def from_variance(
  value: float,
  variance: float,
  pairs: int,
  *,
  confidence: float = 0.95,
  scale: str = 'logit',
) -> tuple[float, float]:
  r"""An interval for an AUROC from its variance.

  On the logit scale, :math:`\operatorname{logit}\hat A \pm z \sqrt v / \hat A(1 - \hat A)`, it
  stays inside (0, 1) and covers better near 1 (Qin and Hotilovac, Statistical Methods in Medical
  Research 17 (2008) 207-221). Where every pair is won or lost, or a kind has one image alone, the
  variance says nothing, and ``guaranteed`` takes its place; nowhere is it wider than that.

  Args:
    value: the AUROC.
    variance: its variance, zero or NaN where it says nothing.
    pairs: pairs without a common image, for ``guaranteed``; see ``independent_pairs``.
    confidence: coverage that is asked for, in (0, 1).
    scale: ``'logit'``, or ``'identity'`` for DeLong's own :math:`\hat A \pm z \sqrt v`.

  Returns:
    (low, high) in 0..1.

  Raises:
    ValueError: ``scale`` is neither, or ``confidence`` not within (0, 1).
  """
  if scale not in _SCALES:
    raise ValueError(f'scale is {scale!r}; it can be {" or ".join(_SCALES)}.')
  widest = guaranteed(value, pairs, confidence=confidence)
  if not (variance > 1e-15 and 0 < value < 1):
    return widest
  half = quantile(confidence) * math.sqrt(variance)
  if scale == 'identity':
    ends = value - half, value + half
  else:
    centre, half = scipy.special.logit(value), half / (value * (1 - value))
    ends = scipy.special.expit(centre - half), scipy.special.expit(centre + half)
  return max(float(ends[0]), widest[0]), min(float(ends[1]), widest[1])


def guaranteed(value: float, pairs: int, *, confidence: float = 0.95) -> tuple[float, float]:
  r"""An interval that holds whatever the distributions of the scores are.

  :math:`k = \min(m, n)` pairs have no image in common, and their mean spreads at least as much as
  the AUROC does; so by Hoeffding the AUROC :math:`\theta` can be any number with

  .. math:: k \left(\hat A \ln\tfrac{\hat A}{\theta} +
            (1 - \hat A) \ln\tfrac{1 - \hat A}{1 - \theta}\right) \le \ln\tfrac{2}{1 - c}.

  Where all pairs are won the lower end is :math:`((1 - c)/2)^{1/k}`, which is sharp: a share
  :math:`1 - \theta` of the defects may be of a kind that the model does not see at all, and k
  pictures happened to hold none of it (the 'rule of three'). It is much wider than DeLong's, which
  starts to count as soon as a pair is lost.

  Args:
    value: the AUROC.
    pairs: k.
    confidence: coverage c that is asked for, in (0, 1).

  Returns:
    (low, high) in 0..1; (0, 1) without pairs.

  >>> print('{:.3f} {}'.format(*guaranteed(1.0, 25)))
  0.863 1.0

  Hoeffding, JASA 58 (1963) 13-30, theorem 1 and section 5; Hanley and Lippman-Hand, JAMA 249
  (1983) 1743-1745.
  """
  quantile(confidence)  # refuses a bad one
  if pairs < 1:
    return 0.0, 1.0
  bound = math.log(2 / (1 - confidence)) / pairs

  def excess(theta: float) -> float:
    won = value * math.log(value / theta) if value > 0 else 0.0
    lost = (1 - value) * math.log((1 - value) / (1 - theta)) if value < 1 else 0.0
    return won + lost - bound

  tiny = 1e-15  # at the very ends the divergence is infinite
  inside = min(max(value, tiny), 1 - tiny)
  low = 0.0 if value <= 0 else _root(excess, tiny, inside)
  high = 1.0 if value >= 1 else _root(excess, inside, 1 - tiny)
  return low, high


def independent_pairs(positive: np.ndarray, *, groups: np.ndarray | None = None) -> int:
  """How many pairs of a positive and a negative have no image, and no group, in common.

  Args:
    positive: [N] bool.
    groups: [N]; None means that every image is on its own.

  Returns:
    k of ``guaranteed``.

  >>> independent_pairs(np.array([True, True, False, False]), groups=np.array([0, 0, 1, 2]))
  1
  """
  own = np.arange(len(positive)) if groups is None else groups
  sides = [len(np.unique(own[side])) for side in (positive, ~positive)]
  return min(*sides, len(np.unique(own)) // 2)


def quantile(confidence: float) -> float:
  """The normal quantile that a two-sided interval of this coverage reaches to."""
  if not 0 < confidence < 1:
    raise ValueError(f'confidence is {confidence}; a number between 0 and 1 is needed.')
  return statistics.NormalDist().inv_cdf(0.5 + confidence / 2)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
  """Where it changes its sign; the outer end where it has not yet done so."""
  at_low, at_high = function(low), function(high)
  if at_low * at_high > 0:
    return low if at_high < at_low else high
  return float(scipy.optimize.bisect(function, low, high, xtol=1e-10))  # pyright: ignore
