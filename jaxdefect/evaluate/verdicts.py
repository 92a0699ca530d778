"""What a rule that rejects, asks or passes does to good and to defective parts.

Shape legend: N images.

Good and defective are as in ``evaluate.anomaly``. Three things can happen to a part, and they cost
differently: a defect that passes is a miss, one that is asked about costs a minute of a person, a
good part that is rejected is scrap, one that is asked about costs the minute.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdefect.contracts import RULES, VERDICTS, Verdicts
from jaxdefect.evaluate import anomaly, intervals
from jaxdefect.evaluate.anomaly import GOOD

# The type of predictions that this evaluator reads.
READS = Verdicts


def evaluate(
  predictions: Verdicts,
  labels: np.ndarray,
  classes: Sequence[str],
  *,
  threshold: float | None = None,
  groups: np.ndarray | None = None,
  confidence: float = 0.95,
  num_resamples: int = 1000,
  seed: int = 0,
) -> dict[str, Any]:
  """Scores verdicts; everything in the answer can be written as JSON.

  Args:
    predictions: of N images, without padding.
    labels: [N] integers that count in ``classes``.
    classes: names; one is ``'good'``.
    threshold: of the anomaly scores, for what that method would have done alone; None leaves it
      out.
    groups: [N] the part that each image is of; None means that every image is of another one.
    confidence: coverage of the intervals, in (0, 1).
    num_resamples: bootstrap resamples of the images, for the AUROCs.
    seed: makes the bootstrap repeatable.

  Returns:
    A dict with

    - ``metrics``: of defective parts ``rejected``, ``asked`` and ``miss_rate``, which sum to one;
      of good ones ``false_reject_rate`` and ``false_review_rate``; ``review_rate``, the share of
      all images that a person looks at; ``rejected/<class>``, ``asked/<class>`` and
      ``missed/<class>`` of every class of defects; ``auroc/supervised`` (good against the
      largest other score) and ``auroc/anomaly``. What is undefined is absent.
      What each part would have done alone, flagging what it does not take for good:
      ``miss_rate/supervised``, ``false_alarm_rate/supervised``, and with a threshold
      ``miss_rate/anomaly``, ``false_alarm_rate/anomaly``.
    - ``intervals`` (Wilson over groups, bootstrap for the AUROCs), ``interval_kinds``,
      ``confidence``.
    - ``verdicts``: class -> verdict -> images; ``rules``: verdict -> rule -> images.
    - ``n``, ``support``, ``classes``, ``absent_classes``.

  Raises:
    ValueError: as ``anomaly.evaluate``, or there is no class of defects.
  """
  if GOOD not in classes or len(classes) < 2:
    held = ', '.join(classes) or 'none'
    raise ValueError(f'classes are {held}; verdicts need {GOOD!r} and a class of defects.')
  labels = np.asarray(labels)
  n, good = len(labels), list(classes).index(GOOD)
  heads = np.asarray(predictions.head.scores, np.float64)
  margin = np.delete(heads, good, axis=1).max(axis=1) - heads[:, good]
  settings: dict[str, Any] = {'groups': groups, 'confidence': confidence, 'seed': seed}
  settings['num_resamples'] = num_resamples
  named = {
    'auroc/supervised': anomaly.AnomalyMaps(margin, margin[:, None, None]),
    'auroc/anomaly': predictions.anomaly,
  }
  report: dict[str, Any] = {'metrics': {}, 'intervals': {}, 'interval_kinds': {}}
  ranked = {name: anomaly.evaluate(one, labels, classes, **settings) for name, one in named.items()}
  for name, one in ranked.items():
    if 'auroc' in one['metrics']:
      for key in ('metrics', 'intervals', 'interval_kinds'):
        report[key][name] = one[key]['auroc']
  shared = ranked['auroc/anomaly']
  report |= {k: shared[k] for k in ('confidence', 'n', 'classes', 'support', 'absent_classes')}

  verdict, rule = np.asarray(predictions.verdict), np.asarray(predictions.rule)
  own = np.arange(n) if groups is None else np.asarray(groups)
  passed, asked, rejected = (verdict == VERDICTS.index(one) for one in ('ok', 'review', 'reject'))

  def share(name: str, hits: np.ndarray, of: np.ndarray) -> None:
    if of.any() and not math.isnan(hits[of].mean()):
      low, high = intervals.clustered_wilson(hits[of], own[of], confidence=confidence)
      report['metrics'][name] = float(hits[of].mean())
      report['intervals'][name] = [float(low), float(high)]
      report['interval_kinds'][name] = 'wilson'

  defects = anomaly.defective(labels, classes)
  share('rejected', rejected, defects)
  share('asked', asked, defects)
  share('miss_rate', passed, defects)
  share('false_reject_rate', rejected, labels == good)
  share('false_review_rate', asked, labels == good)
  share('review_rate', asked, np.ones(n, bool))
  alone = {'supervised': margin > 0}
  if threshold is not None:
    alone['anomaly'] = np.asarray(predictions.anomaly.scores) > np.float32(threshold)
  for name, flagged in alone.items():
    share(f'miss_rate/{name}', ~flagged, defects)
    share(f'false_alarm_rate/{name}', flagged, labels == good)
  for k, name in enumerate(classes):
    if k != good and (defects & (labels == k)).any():
      share(f'rejected/{name}', rejected, labels == k)
      share(f'asked/{name}', asked, labels == k)
      share(f'missed/{name}', passed, labels == k)
  report['verdicts'] = {
    name: {one: int(((labels == k) & (verdict == v)).sum()) for v, one in enumerate(VERDICTS)}
    for k, name in enumerate(classes)
  }
  report['rules'] = {
    one: {by: int(((verdict == v) & (rule == r)).sum()) for r, by in enumerate(RULES)}
    for v, one in enumerate(VERDICTS)
  }
  return report
