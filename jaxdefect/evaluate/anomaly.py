"""Scores of an anomaly method: how well it ranks, and what its threshold does.

Shape legend: N images, R resamples.

Good parts are the class ``'good'``. Where there is a class ``'defect'``, further classes are
neither (doubtful grades, say); where there is none, every other class is a defect. Both are also
reported apart, class by class. Without a defect there is a false-alarm rate and nothing else.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import chex
import numpy as np

from jaxdefect.contracts import AnomalyMaps
from jaxdefect.evaluate import delong, intervals, thresholds

# The type of predictions that this evaluator reads.
READS = AnomalyMaps

GOOD, DEFECT = 'good', 'defect'


def evaluate(
  predictions: AnomalyMaps,
  labels: np.ndarray,
  classes: Sequence[str],
  *,
  calibration: Mapping[str, Any] | None = None,
  kinds: Sequence[str] | None = None,
  groups: np.ndarray | None = None,
  confidence: float = 0.95,
  num_resamples: int = 1000,
  seed: int = 0,
) -> dict[str, Any]:
  r"""Scores anomaly scores; everything in the answer can be written as JSON.

  AUROC is the chance that a defective part scores higher than a good one, ties counting half.
  Average precision is :math:`\sum_i (R_i - R_{i-1}) P_i` over the distinct scores, from the largest
  on. At the threshold, a part above it is flagged: the recall is the share of the defective parts
  that are (the miss rate is the rest), the false-alarm rate that of the good ones.

  Args:
    predictions: ``scores`` [N], without padding; the maps are not looked at.
    labels: [N] integers that count in ``classes``.
    classes: names; one is ``'good'``.
    calibration: ``Fitted.calibration``, for its ``threshold`` and ``false_alarm_rate``; None
      leaves out all that needs a threshold.
    kinds: [N] name of each image's defect, for the recall of each; None leaves it out.
    groups: [N] the part that each image is of, where there are several of one; the intervals count
      parts then. None means that every image is of another part.
    confidence: coverage of the intervals, in (0, 1).
    num_resamples: bootstrap resamples of the images.
    seed: makes the bootstrap repeatable.

  Returns:
    A dict with

    - ``metrics``: flat floats in 0..1: ``auroc``, ``average_precision``, ``fpr95`` (share of the
      good parts that are flagged where 95 % of the defective ones are); with a threshold ``f1``,
      ``precision``, ``recall``, ``miss_rate``, ``false_alarm_rate``, ``recall/<kind>`` where there
      are several; per further class ``auroc/<class>`` (against the good ones) and
      ``flagged/<class>``. What is undefined is absent.
    - ``intervals``: name -> [low, high]; Wilson for shares of images, bootstrap over images for
      the AUROCs, ``average_precision``, ``fpr95`` and ``f1``, both over groups where there are
      such (an AUROC without a lost pair, or with no won one, has what is certain then);
      ``interval_kinds``, ``confidence``.
    - ``n``, ``support`` (class -> images), ``classes``, ``absent_classes``, with a threshold
      ``threshold``, ``nominal_false_alarm_rate`` and
      ``likely_false_alarm_rate`` (``thresholds.rate_interval``), and ``kinds`` (kind -> images).

  Raises:
    ValueError: there is no class ``'good'``, a label is out of range, or a score is not finite.
  """
  scores, labels = _checked(predictions, labels, classes)
  n, good = len(scores), list(classes).index(GOOD)
  own = np.arange(n) if groups is None else np.asarray(groups)
  support = np.bincount(labels, minlength=len(classes))
  defects = defective(labels, classes)
  apart = [k for k, name in enumerate(classes) if name not in (GOOD, DEFECT)]
  report: dict[str, Any] = {
    'metrics': {},
    'intervals': {},
    'interval_kinds': {},
    'confidence': confidence,
    'n': n,
    'classes': list(classes),
    'support': {name: int(count) for name, count in zip(classes, support)},
    'absent_classes': [name for name, count in zip(classes, support) if count == 0],
  }

  def put(name: str, kind: str, value: float, interval: tuple[float, float]) -> None:
    if not math.isnan(value):
      report['metrics'][name] = float(value)
      report['intervals'][name] = [float(end) for end in interval]
      report['interval_kinds'][name] = kind

  def share(name: str, hits: np.ndarray, of: np.ndarray) -> None:
    if of.any():
      interval = intervals.clustered_wilson(hits[of], own[of], confidence=confidence)
      put(name, 'wilson', hits[of].mean(), interval)

  def ranked(name: str, statistic: Any, positive: np.ndarray, *columns: np.ndarray) -> None:
    rows = positive | (labels == good)
    arrays = [column[rows] for column in (scores, positive, *columns)]
    if positive.any() and not positive[rows].all():
      value = statistic(*arrays, np.ones((1, int(rows.sum())), np.int32))[0]
      if statistic is auroc and value in (0, 1):  # all resamples would say the same
        sure = delong.auroc(*arrays, groups=own[rows], confidence=confidence)
        put(name, 'guaranteed', value, (sure.low, sure.high))
        return
      interval = intervals.bootstrap(
        statistic,
        *arrays,
        num_resamples=num_resamples,
        confidence=confidence,
        seed=seed,
        weighted=True,
        groups=own[rows],
      )
      put(name, 'bootstrap', value, interval)

  ranked('auroc', auroc, defects)
  ranked('average_precision', average_precision, defects)
  ranked('fpr95', fpr95, defects)
  for k in apart:
    ranked(f'auroc/{classes[k]}', auroc, labels == k)
  if calibration is None:
    return report

  threshold = np.float32(calibration['threshold'])
  report['threshold'] = float(threshold)
  nominal = float(str(np.float32(calibration['false_alarm_rate'])))  # 0.05, not 0.0500000007
  report['nominal_false_alarm_rate'] = nominal
  if 'scores' in calibration:
    likely = thresholds.rate_interval(
      len(calibration['scores']), false_alarm_rate=nominal, confidence=confidence
    )
    report['likely_false_alarm_rate'] = list(likely)
  flagged = scores > threshold
  ranked('f1', _f1, defects, flagged)
  if defects.any():
    share('precision', defects, flagged & (defects | (labels == good)))
  share('recall', flagged, defects)
  share('miss_rate', ~flagged, defects)
  share('false_alarm_rate', flagged, labels == good)
  for k in apart:
    share(f'flagged/{classes[k]}', flagged, labels == k)
  if kinds is not None:
    kind = np.asarray(kinds, object)
    names = sorted(set(kind[defects].tolist()))
    if len(names) > 1:
      report['kinds'] = {name: int((defects & (kind == name)).sum()) for name in names}
      for name in names:
        share(f'recall/{name}', flagged, defects & (kind == name))
  return report


def worst(
  predictions: AnomalyMaps,
  labels: np.ndarray,
  classes: Sequence[str],
  threshold: float,
  *,
  limit: int = 12,
) -> dict[str, list[int]]:
  """Which images to look at.

  Args:
    predictions: as for ``evaluate``.
    labels: likewise.
    classes: likewise.
    threshold: above which a part is flagged.
    limit: at most so many of each.

  Returns:
    Rows of ``predictions``: ``misses`` (defective and not flagged, the lowest score first),
    ``false_alarms`` (good and flagged, the highest first), ``calm`` (good and not flagged, evenly
    over the scores), ``hits`` (defective and flagged, evenly over the scores).
  """
  scores, labels = _checked(predictions, labels, classes)
  good, defect = list(classes).index(GOOD), defective(labels, classes)
  flagged, rising = scores > np.float32(threshold), np.argsort(scores, kind='stable')
  misses = [int(i) for i in rising if defect[i] and not flagged[i]]
  alarms = [int(i) for i in rising[::-1] if labels[i] == good and flagged[i]]
  calm = [int(i) for i in rising if labels[i] == good and not flagged[i]]
  hits = [int(i) for i in rising if defect[i] and flagged[i]]
  return {
    'misses': misses[:limit],
    'false_alarms': alarms[:limit],
    'calm': _evenly(calm, limit),
    'hits': _evenly(hits, limit),
  }


def _evenly(rows: list[int], limit: int) -> list[int]:
  if len(rows) <= limit:
    return rows
  return [rows[i] for i in np.linspace(0, len(rows) - 1, limit).round().astype(int)]


def auroc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Mann-Whitney's statistic for images that count ``weights`` times.

  Args:
    scores: [N].
    positive: [N] bool.
    weights: [R, N] integers.

  Returns:
    [R] in 0..1; NaN where no positive, or nothing but positives, is drawn.
  """
  hits, alarms = _curve(scores, positive, weights)
  pairs = hits[:, -1] * alarms[:, -1]
  below = (np.diff(alarms) * (hits[:, 1:] + hits[:, :-1])).sum(axis=1) / 2
  return np.divide(below, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def average_precision(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """The mean precision over the positives; arguments and answer as those of ``auroc``."""
  hits, alarms = _curve(scores, positive, weights)
  precision = hits[:, 1:] / np.maximum(hits[:, 1:] + alarms[:, 1:], 1)
  total = hits[:, -1]
  area = (np.diff(hits) * precision).sum(axis=1)
  return np.divide(area, total, out=np.full(len(total), np.nan), where=total > 0)


def fpr95(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Negatives at or above the score that 95 % of the positives reach; as ``auroc``, in 0..1."""
  hits, alarms = _curve(scores, positive, weights)
  total, good = hits[:, -1], alarms[:, -1]
  reached = (hits >= 0.95 * total[:, None] - 1e-9).argmax(axis=1)
  found = alarms[np.arange(len(alarms)), reached]
  return np.divide(found, good, out=np.full(len(good), np.nan), where=(good > 0) & (total > 0))


def _curve(
  scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Positives and negatives from each distinct score on: float64 [R, distinct + 1] twice."""
  order = np.argsort(-scores, kind='stable')
  ends = np.flatnonzero(np.append(np.diff(scores[order]) < 0, True))
  drawn = weights[:, order]
  counts = (
    np.cumsum(drawn * side[order], axis=1)[:, ends].astype(np.float64)
    for side in (positive, ~positive)
  )
  hits, alarms = (np.pad(count, ((0, 0), (1, 0))) for count in counts)
  return hits, alarms


def _f1(
  scores: np.ndarray, positive: np.ndarray, flagged: np.ndarray, weights: np.ndarray
) -> np.ndarray:
  """[R]."""
  del scores
  both = weights @ (positive & flagged).astype(int)
  total = weights @ positive.astype(int) + weights @ flagged.astype(int)
  return np.divide(2.0 * both, total, out=np.full(len(total), np.nan), where=total > 0)


def defective(labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
  """Which images are of a defect, as told above: [N] bool from [N] labels."""
  if DEFECT in classes:
    return labels == list(classes).index(DEFECT)
  return labels != list(classes).index(GOOD)


def _checked(
  predictions: AnomalyMaps, labels: np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  scores, labels = np.asarray(predictions.scores, np.float32), np.asarray(labels)
  chex.assert_rank([scores, labels], [1, 1])
  chex.assert_equal_shape([scores, labels])
  if GOOD not in classes:
    raise ValueError(
      f'classes are {", ".join(classes) or "none"}; anomaly scores need a class {GOOD!r}.'
    )
  if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
    raise ValueError(
      f'labels lie in {labels.min()}..{labels.max()}; 0..{len(classes) - 1} is allowed.'
    )
  broken = int((~np.isfinite(scores)).sum())
  if broken:
    raise ValueError(
      f'predictions holds {broken} of {len(scores)} images with a score that is not finite; '
      'the model has probably diverged.'
    )
  return scores, labels.astype(np.int64)
