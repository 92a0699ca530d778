r"""Has the line changed since the model was calibrated? A bet on the order of scores.

Shape legend: n scores that calibrated, N scores since.

If nothing has changed, the rank of each new score among all before it, those that calibrated
included, is uniform and independent of the ranks before:

.. math:: p_i = \frac{\#\{j < i : s_j > s_i\} + \theta_i (1 + \#\{j < i : s_j = s_i\})}{i},
          \qquad \theta_i \sim U(0, 1).

Against that, a bet on small p (or on large ones) multiplies its stake by
:math:`1 + \lambda (1 - 2 p_i)`. The stake that is spread over several :math:`\lambda` is a
supermartingale as long as nothing has changed, whatever the scores' distribution, so that it ever
reaches 1/a with a probability of at most a. Nobody knows when a change will come: of the stake a
part 1 / (t (t + 1)) is put in with each score t, so that what was lost before a change is little.
A line has defects, which score high: a share of them that is no news is allowed for by dividing by
the most that they can win.

Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World* (2005), section 7.1; Vovk,
Statistical Science 36 (2021) 595-611.
"""

import bisect
from typing import NamedTuple

import numpy as np

# Stakes on small p (larger scores) and on large p (smaller scores).
BETS = (0.9, 0.5, 0.2, -0.2, -0.5, -0.9)
_ENOUGH = 1e200  # so that no stake overflows


class Drift(NamedTuple):
  """What a bet against the line has won.

  Attributes:
    evidence: the largest stake so far, which started at 1.
    since: number of the score at which it first reached 1/a, counted from 1; None where it has not.
    stakes: [N] the stake after each score.
    larger: whether the scores since are larger than those that calibrated, rather than smaller.
  """

  evidence: float
  since: int | None
  stakes: np.ndarray
  larger: bool

  @property
  def found(self) -> bool:
    """Whether the line has changed."""
    return self.since is not None


def drift(
  calibration: np.ndarray,
  scores: np.ndarray,
  *,
  defect_rate: float = 0.05,
  confidence: float = 0.99,
  seed: int = 0,
) -> Drift:
  """Bets that the scores of a line are no longer those that calibrated.

  Args:
    calibration: [n] scores of good parts.
    scores: [N] of the line's parts in their order, whatever they turned out to be.
    defect_rate: share of parts that may score higher than any good one without that being news, in
      [0, 1).
    confidence: 1 - a: a line that has not changed is ever said to have with a probability of at
      most a.
    seed: of the ties.

  Returns:
    The ``Drift``; its stake starts again where scores are handed in anew.

  Raises:
    ValueError: there is no score that calibrated, or one is not finite.
  """
  before, new = np.asarray(calibration, np.float64), np.asarray(scores, np.float64)
  if not before.size:
    raise ValueError('calibration holds no score, so that no score can be compared with any.')
  if not (np.isfinite(before).all() and np.isfinite(new).all()):
    raise ValueError('a score is not finite; the model has probably diverged.')
  if not 0 <= defect_rate < 1:
    raise ValueError(f'defect_rate is {defect_rate}; it can be 0 up to, and not including, 1.')
  thetas = np.random.default_rng(seed).random(new.size)
  known = sorted(before.tolist())
  bets = np.array(BETS)
  # With probability defect_rate, p is 0 and a bet wins 1 + lambda at most.
  fair = 1 + defect_rate * np.maximum(bets, 0)
  playing, stakes = np.zeros(bets.size), np.empty(new.size)
  for i, score in enumerate(new.tolist()):
    left, right = bisect.bisect_left(known, score), bisect.bisect_right(known, score)
    above, ties = len(known) - right, right - left
    p = (above + thetas[i] * (1 + ties)) / (len(known) + 1)
    # What is put in now comes from the 1 / t that had not been put in before.
    playing = (playing + 1 / ((i + 1) * (i + 2))) * (1 + bets * (1 - 2 * p)) / fair
    playing = np.minimum(playing, _ENOUGH)
    stakes[i] = playing.mean() + 1 / (i + 2)
    known.insert(right, score)
  reached = stakes >= 1 / (1 - confidence)
  since = int(reached.argmax()) + 1 if reached.any() else None
  return Drift(
    evidence=float(stakes.max(initial=1.0)),
    since=since,
    stakes=stakes,
    larger=bool(bets[playing.argmax()] > 0),
  )
