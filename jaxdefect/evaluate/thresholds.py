r"""From scores of held-out good parts to a threshold with a promised false-alarm rate.

Shape legend: n good parts that calibrate, N images, H x W pixels of a map.

Split-conformal: a method is fitted without the n good parts and scores them. With the scores in
rising order, the threshold is

.. math:: t = s_{(k)}, \qquad k = \lceil (n + 1)(1 - a) \rceil

and a part is flagged when its score is above t. If the next good part is exchangeable with the n,
each of its n + 1 ranks is as likely as the others, so it is flagged with a probability of at most
a, and of exactly :math:`\lfloor (n + 1) a \rfloor / (n + 1)` where scores do not tie. That is the
mean over calibrations: with one set of n parts the rate is Beta distributed about it, and with
n = 99, a = 0.05 lies between 1.7 and 10 % nineteen times in twenty.

Pictures of one part (six exposures of a tile, crops of a board, copies) are not exchangeable: they
rise and fall together. One of each group, drawn at random, is, with a picture of a new part; so
that is what calibrates, and n counts parts (Dunn, Wasserman and Ramdas, JASA 118 (2023) 2491-2502).

Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World* (2005), section 4.2; Laxhammar
and Falkman, Annals of Mathematics and Artificial Intelligence 74 (2015) 67-94.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from jaxdefect.contracts import AnomalyMaps, Batch, Fitted

GOOD = 'good'

# The strongest colour lies so many times as far above the floor as the 95 % quantile does.
SCALE = 3.0


def conformal_threshold(scores: np.ndarray, *, false_alarm_rate: float) -> float:
  """The threshold above which a good part lies with a chosen probability at most.

  Args:
    scores: [n] of good parts that the method was not fitted to, in any order.
    false_alarm_rate: a, in (0, 1).

  Returns:
    t, one of the scores; flag what is above it.

  Raises:
    ValueError: the rate is out of range, a score is not finite, or n < 1 / a - 1: so few parts
      cannot promise so low a rate with any threshold.

  >>> conformal_threshold(np.arange(1.0, 20.0), false_alarm_rate=0.1)  # k = 18 of 19
  18.0
  """
  scores = np.asarray(scores)
  chex.assert_rank(scores, 1)
  alarms = check_enough(len(scores), false_alarm_rate)
  if not np.isfinite(scores).all():
    raise ValueError(
      f'{int((~np.isfinite(scores)).sum())} of the {len(scores)} scores of good parts are not '
      'finite; the model has probably diverged.'
    )
  return float(np.sort(scores)[len(scores) - alarms])


def check_enough(n: int, false_alarm_rate: float) -> int:
  """Refuses a rate that n good parts cannot promise.

  Args:
    n: good parts that are held out.
    false_alarm_rate: a, in (0, 1).

  Returns:
    ``floor((n + 1) a)``: among n + 1 good parts so many are flagged.

  Raises:
    ValueError: with how many good parts are needed.
  """
  if not 0 < false_alarm_rate < 1:
    raise ValueError(
      f'false_alarm_rate is {false_alarm_rate:g}; a number between 0 and 1 is needed.'
    )
  alarms = math.floor((n + 1) * false_alarm_rate + 1e-9)
  if alarms < 1:
    raise ValueError(
      f'A false-alarm rate of {false_alarm_rate:g} needs '
      f'{math.ceil(1 / false_alarm_rate - 1e-9) - 1} good parts that are held out, '
      f'but there are {n}.'
    )
  return alarms


def rate_interval(
  n: int, *, false_alarm_rate: float, confidence: float = 0.95
) -> tuple[float, float]:
  """Where the false-alarm rate of one threshold lies, whose mean over thresholds is promised.

  The rate has the distribution Beta(m, n + 1 - m), m = floor((n + 1) a) (Vovk 2012).

  Args:
    n: good parts that calibrated.
    false_alarm_rate: a, in (0, 1).
    confidence: share of the calibrations, in (0, 1).

  Returns:
    (low, high), shares in 0..1.

  >>> [round(end, 3) for end in rate_interval(99, false_alarm_rate=0.05)]
  [0.017, 0.1]
  """
  alarms = check_enough(n, false_alarm_rate)
  tail = (1 - confidence) / 2
  low, high = scipy.stats.beta.ppf([tail, 1 - tail], alarms, n + 1 - alarms)
  return float(low), float(high)


def p_values(scores: np.ndarray, calibration: np.ndarray) -> np.ndarray:
  r"""How often a good part scores so high.

  .. math:: p = \frac{1 + \#\{i : s_i \ge s\}}{n + 1}

  A score is above the threshold of rate a exactly where p is at most a.

  Args:
    scores: [N].
    calibration: [n] scores of held-out good parts.

  Returns:
    [N] float64 in (0, 1].

  >>> p_values(np.array([0.5, 3.0]), np.array([1.0, 2.0, 3.0])).tolist()
  [1.0, 0.5]
  """
  chex.assert_rank([scores, calibration], [1, 1])
  ranked = np.sort(np.asarray(calibration))
  at_least = len(ranked) - np.searchsorted(ranked, np.asarray(scores), side='left')
  return (1 + at_least) / (len(ranked) + 1)


def calibrate(
  predict: Callable[[Fitted, Batch], AnomalyMaps],
  fitted: Fitted,
  batches: Iterable[Batch],
  *,
  false_alarm_rate: float,
  groups: Sequence[int] | np.ndarray | None = None,
) -> Fitted:
  """Sets the threshold and the one colour scale of a fitted method from held-out good parts.

  The colour scale begins at the median, over the good parts, of the largest value of their maps,
  and ends three times as far above it as their 95 % quantile lies: a usual good part stays
  uncoloured, one in twenty reaches a third of the scale.

  Args:
    predict: ``Method.predict`` of an anomaly method.
    fitted: what predicts; it must not have seen the good parts.
    batches: padded batches of good parts; rows that are not valid change nothing.
    false_alarm_rate: a, in (0, 1).
    groups: group of each picture by its ``index``; one of each counts. None means that every
      picture is of another part.

  Returns:
    ``fitted`` with ``calibration``: ``scores`` (float32 [n], rising), and the scalars
    ``false_alarm_rate``, ``threshold``, ``map_floor`` and ``map_ceiling``.

  Raises:
    ValueError: a picture is of another class, or as ``conformal_threshold``.
  """
  scores, peaks, index = score_good_parts(jax.jit(predict), fitted, batches)
  own = one_of_each(index if groups is None else np.asarray(groups)[index])
  return calibrated(fitted, scores[own], peaks[own], false_alarm_rate)


def with_false_alarm_rate(fitted: Fitted, false_alarm_rate: float) -> Fitted:
  """Another threshold from the stored scores; no picture is needed.

  Args:
    fitted: from ``calibrate`` or ``cross_calibration``.
    false_alarm_rate: a, in (0, 1).

  Returns:
    ``fitted`` with the threshold of this rate.

  Raises:
    ValueError: it was never calibrated, or as ``conformal_threshold``.
  """
  if fitted.calibration is None:
    raise ValueError(
      'the run has no scores of held-out good parts, so that no false-alarm rate can be chosen.'
    )
  stored = fitted.calibration
  threshold = conformal_threshold(np.asarray(stored['scores']), false_alarm_rate=false_alarm_rate)
  changed = {
    'false_alarm_rate': jnp.float32(false_alarm_rate),
    'threshold': jnp.float32(threshold),
  }
  return dataclasses.replace(fitted, calibration={**stored, **changed})


def one_of_each(groups: Sequence[int] | np.ndarray) -> np.ndarray:
  """A picture of each group, drawn at random but every time the same.

  Args:
    groups: [n] the group of each picture.

  Returns:
    Places in ``groups``, rising, as many as there are groups.

  >>> one_of_each([7, 3, 3, 3]).size
  2
  """
  shuffled = np.random.default_rng(0).permutation(len(groups))
  _, first = np.unique(np.asarray(groups)[shuffled], return_index=True)
  return np.sort(shuffled[first])


def score_good_parts(
  predict: Callable, fitted: Fitted, batches: Iterable[Batch]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """What is kept of good parts to calibrate with; their maps are dropped batch by batch.

  Args:
    predict: as for ``calibrate``, compiled.
    fitted: likewise.
    batches: likewise.

  Returns:
    Score, largest value of the map, and ``index`` of each valid image, each [n].

  Raises:
    ValueError: a picture is of another class.
  """
  good = fitted.classes.index(GOOD) if GOOD in fitted.classes else 0
  parts: list[tuple[Any, ...]] = []
  for batch in batches:
    valid = np.asarray(batch['valid'])
    for label in np.asarray(batch['label'])[valid & (batch['label'] != good)][:1]:
      name = repr(fitted.classes[label]) if label < len(fitted.classes) else 'another class'
      raise ValueError(
        f'a picture of {name} is among those that set the threshold; only good parts can.'
      )
    found = predict(fitted, batch)
    peaks = np.asarray(found.maps).max(axis=(1, 2))
    parts.append((np.asarray(found.scores)[valid], peaks[valid], np.asarray(batch['index'])[valid]))
  if not parts:
    return np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)
  scores, peaks, index = (np.concatenate(column) for column in zip(*parts))
  return scores.astype(np.float32), peaks.astype(np.float32), index


def calibrated(
  fitted: Fitted, scores: np.ndarray, peaks: np.ndarray, false_alarm_rate: float
) -> Fitted:
  """Puts a calibration beside what was fitted.

  Args:
    fitted: what predicts.
    scores: [n] of good parts, in any order.
    peaks: [n], the largest value of each one's map.
    false_alarm_rate: a, in (0, 1).

  Returns:
    As ``calibrate``.

  Raises:
    ValueError: as ``conformal_threshold``.
  """
  threshold = conformal_threshold(scores, false_alarm_rate=false_alarm_rate)
  floor, high = np.quantile(peaks, [0.5, 0.95])
  # Maps that are all alike still need a scale.
  spread = max(high - floor, 1e-3 * abs(floor), 1e-6)
  calibration = {
    'scores': jnp.asarray(np.sort(scores)),
    'false_alarm_rate': jnp.float32(false_alarm_rate),
    'threshold': jnp.float32(threshold),
    'map_floor': jnp.float32(floor),
    'map_ceiling': jnp.float32(floor + SCALE * spread),
  }
  return dataclasses.replace(fitted, calibration=calibration)
