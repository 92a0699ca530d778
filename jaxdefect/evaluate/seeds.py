"""One report for several seeds, whatever the task: means, spreads and what can be added up.

Shape legend: K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdefect.evaluate import intervals


def aggregate(reports: Sequence[dict[str, Any]], *, confidence: float = 0.95) -> dict[str, Any]:
  """One report for several seeds: mean, standard deviation and Student's interval per metric.

  Args:
    reports: what an evaluator's ``evaluate`` returned, one per seed.
    confidence: coverage of the intervals, in (0, 1).

  Returns:
    A dict like ``evaluate``'s: ``metrics`` holds the means, ``sd`` the standard deviations (n - 1)
    and ``intervals`` those of the means, see ``interval`` (both need two seeds); ``per_seed`` the
    values behind them, in the order of ``reports``; ``n_seeds``; ``n`` the images of all seeds
    together; ``left_out`` the metrics that some seed lacks. Where every report counts the same
    classes, ``confusion_matrix`` and ``support`` are summed over the seeds, and the precisions of
    ``precision_recall`` averaged over the seeds that hold the class.

  Raises:
    ValueError: if there is no report.
  """
  if not reports:
    raise ValueError('reports is empty; one report per seed is needed.')
  tables = [report['metrics'] for report in reports]
  shared = [name for name in tables[0] if all(name in table for table in tables)]
  per_seed = {name: [float(table[name]) for table in tables] for name in shared}
  summary = {
    name: intervals.mean_interval(values, confidence=confidence)
    for name, values in per_seed.items()
  }
  several = len(reports) > 1
  ends = {name: interval(reports, name, confidence=confidence) for name in shared if several}
  result: dict[str, Any] = {
    'metrics': {name: item.mean for name, item in summary.items()},
    'sd': {name: item.sd for name, item in summary.items() if several},
    'intervals': {name: found[:2] for name, found in ends.items() if found},
    'interval_kinds': {name: found[2] for name, found in ends.items() if found},
    'confidence': confidence,
    'n': sum(int(report.get('n', 0)) for report in reports),
    'n_seeds': len(reports),
    'per_seed': per_seed,
    'left_out': sorted({name for table in tables for name in table} - set(shared)),
  }
  classes = reports[0].get('classes')
  if classes and all(report.get('classes') == classes for report in reports):
    result['classes'] = list(classes)
    if all('confusion_matrix' in report for report in reports):
      confusion = np.sum([report['confusion_matrix'] for report in reports], axis=0)
      result['confusion_matrix'] = confusion.tolist()
    if all('support' in report for report in reports):
      counts = [sum(int(report['support'][name]) for report in reports) for name in classes]
      result['support'] = dict(zip(classes, counts))
      result['absent_classes'] = [name for name, count in zip(classes, counts) if count == 0]
    if all('precision_recall' in report for report in reports):
      result['precision_recall'] = _mean_curves(
        [report['precision_recall'] for report in reports], classes
      )
  return result


def interval(
  reports: Sequence[Mapping[str, Any]], name: str, *, confidence: float = 0.95
) -> list[Any]:
  """The interval of a metric's mean over seeds, and its kind.

  Student's. Seeds that agree to the last digit, as perfect ones do, would give it no width, though
  their test images are no more than they are; then it is the widest of the seeds' own.

  Args:
    reports: one per seed, as of ``aggregate``; each has the metric.
    name: of the metric.
    confidence: coverage of Student's interval, in (0, 1).

  Returns:
    ``[low, high, kind]``, or an empty list where there is none: of one seed, or of seeds that
    agree, without an interval of its own.

  >>> run = {'metrics': {'accuracy': 1.0}, 'intervals': {'accuracy': [0.9, 1.0]},
  ...        'interval_kinds': {'accuracy': 'wilson'}}
  >>> interval([run, run], 'accuracy')
  [0.9, 1.0, 'wilson']
  """
  values = [float(report['metrics'][name]) for report in reports]
  if len(set(values)) > 1:
    item = intervals.mean_interval(values, confidence=confidence)
    return [item.low, item.high, 'student']
  own = [report for report in reports if name in report.get('intervals', {})]
  if not own:
    return []
  widest = max(own, key=lambda report: np.ptp(report['intervals'][name]))
  kind = widest.get('interval_kinds', {}).get(name, 'wilson')
  return [*widest['intervals'][name], kind]


def _mean_curves(curves: Sequence[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
  """The mean precision at each recall; a score has no meaning across models and is dropped."""
  held = {
    name: [c['precision'][name] for c in curves if name in c['precision']] for name in classes
  }
  return {
    'iou': curves[0]['iou'],
    'recall': curves[0]['recall'],
    'precision': {name: np.mean(rows, axis=0).tolist() for name, rows in held.items() if rows},
  }
