r"""Bounds on a rate that hold however often they are looked at.

Shape legend: n trials with k successes.

An exact interval holds at one look that was planned before. Whoever looks every morning and stops
on the first good one sees it fail far more often: with a bound that is wrong in 5 % of mornings,
some morning of a hundred is wrong in most lines. Here the evidence that the rate p exceeds p0 is
the mean likelihood ratio over the rates above it,

.. math:: E_n(p_0) = \frac1{1 - p_0} \int_{p_0}^1
          \Big(\frac{q}{p_0}\Big)^k \Big(\frac{1-q}{1-p_0}\Big)^{n-k} dq,

which under any p of at most p0 is a supermartingale that starts at 1, and so by Ville's inequality
ever reaches 1/a with a probability of at most a. The integral is an incomplete beta function. The
lower bound is the largest p0 with :math:`E_n(p_0) \ge 1/a`; E falls in p0 below k / (n + 1), so
all smaller ones are excluded as well.

Robbins, Annals of Mathematical Statistics 41 (1970) 1397-1409; Ramdas, Gruenwald, Vovk and Shafer,
Statistical Science 38 (2023) 576-601. The price against one planned look is half as many trials
again: 88 instead of 59 without a failure at a target of 95 %.
"""

import math

import numpy as np
import scipy.special
import scipy.stats

_HALVINGS = 60


def log_evidence(successes: float, n: float, rate: float) -> float:
  """The logarithm of the evidence that the rate of success is larger than ``rate``.

  Args:
    successes: k, not necessarily whole.
    n: trials.
    rate: p0, in (0, 1).

  Returns:
    log E; the rate is larger, at error rate a over all looks together, once it reaches log(1/a).

  Raises:
    ValueError: the numbers make no sense.

  >>> [round(math.exp(log_evidence(k, n, 0.9)), 2) for k, n in ((0, 0), (30, 30), (60, 60))]
  [1.0, 7.32, 91.08]
  """
  if not 0 <= successes <= n:
    raise ValueError(f'successes is {successes} of {n} trials; it can be 0 to {n}.')
  if not 0 < rate < 1:
    raise ValueError(f'rate is {rate}; a number between 0 and 1 is needed.')
  a, b = successes + 1, n - successes + 1
  above = scipy.stats.beta.logsf(rate, a, b)
  alone = successes * math.log(rate) + (n - successes) * math.log1p(-rate)
  return float(scipy.special.betaln(a, b) + above - math.log1p(-rate) - alone)


def lower_bound(successes: float, n: float, *, confidence: float = 0.95) -> float:
  """What the rate of success lies above, at all looks together.

  Args:
    successes: k.
    n: trials.
    confidence: 1 - a, in (0, 1).

  Returns:
    In 0..1; 0 where nothing is known yet.

  >>> round(lower_bound(15, 15), 3), round(lower_bound(95, 100), 3)
  (0.745, 0.866)
  """
  _check(confidence)
  wanted = -math.log1p(-confidence)
  low, high = 0.0, successes / (n + 1)
  for _ in range(_HALVINGS):
    middle = (low + high) / 2
    if middle > 0 and log_evidence(successes, n, middle) >= wanted:
      low = middle
    else:
      high = middle
  return low


def upper_bound(successes: float, n: float, *, confidence: float = 0.95) -> float:
  """What the rate of success lies below, at all looks together; as ``lower_bound``.

  >>> round(upper_bound(0, 100), 3)
  0.044
  """
  return 1 - lower_bound(n - successes, n, confidence=confidence)


def trials_needed(
  successes: int,
  n: int,
  *,
  rate: float,
  expected: float | None = None,
  confidence: float = 0.95,
  limit: int = 100_000,
) -> int | None:
  """How many more trials show that the rate of success is above a target, if they go as expected.

  Args:
    successes: k.
    n: trials so far.
    rate: the target, in (0, 1).
    expected: rate of success from now on, in 0..1; None is the rate so far, (k + 1/2) / (n + 1).
    confidence: 1 - a.
    limit: more than so many are as good as never.

  Returns:
    Further trials, 0 where it is shown already; None where the expected rate is not above the
    target, so that no number will do, or where ``limit`` would not.

  >>> trials_needed(15, 15, rate=0.9), trials_needed(15, 15, rate=0.9, expected=1.0)
  (78, 28)
  """
  _check(confidence)
  wanted = -math.log1p(-confidence)
  own = (successes + 0.5) / (n + 1) if expected is None else expected

  def shown(more: int) -> bool:
    return log_evidence(successes + own * more, n + more, rate) >= wanted

  if log_evidence(successes, n, rate) >= wanted:
    return 0
  if own <= rate or not shown(limit):
    return None
  low, high = 0, limit  # not shown, shown
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (low, middle) if shown(middle) else (middle, high)
  return high


def first_crossing(outcomes: np.ndarray, *, rate: float, confidence: float = 0.95) -> np.ndarray:
  """The first look of each line at which the rate of success is shown to be above a target.

  Args:
    outcomes: [L, n] bool, the trials of L lines in their order.
    rate: the target.
    confidence: 1 - a.

  Returns:
    [L] trials until then; -1 where it never is.
  """
  _check(confidence)
  counts = np.cumsum(np.asarray(outcomes, bool), axis=1)  # [L, n]
  trials = np.arange(1, counts.shape[1] + 1)
  a, b = counts + 1.0, trials - counts + 1.0
  evidence = scipy.special.betaln(a, b) + scipy.stats.beta.logsf(rate, a, b)
  evidence -= math.log1p(-rate) * (1 + trials - counts) + counts * math.log(rate)
  shown = evidence >= -math.log1p(-confidence)
  return np.where(shown.any(axis=1), shown.argmax(axis=1) + 1, -1)


def _check(confidence: float) -> None:
  if not 0 < confidence < 1:
    raise ValueError(f'confidence is {confidence}; a number between 0 and 1 is needed.')
