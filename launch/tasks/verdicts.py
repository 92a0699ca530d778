"""Reject, ask or pass: what ``Verdicts`` are turned into."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from jaxdefect.contracts import RULES, VERDICTS, AnomalyMaps, Verdicts
from jaxdefect.evaluate import anomaly, thresholds, verdicts
from jaxdefect.explain import anomaly_figures, overlays
from jaxdefect.explain.anomaly_sections import Gallery
from launch.tasks import anomaly as anomaly_task
from launch.tasks.drawn import Drawn

EVALUATOR = verdicts
HEADLINES = ('rejected', 'asked', 'miss_rate', 'false_reject_rate', 'false_review_rate')

_GALLERIES = {
  'misses': ('Misses', 'Defective, and passed as good.'),
  'scrap': ('Scrap', 'Good, and rejected.'),
  'asked': ('Asked about', 'What goes to a person, by rising score of the anomaly method.'),
}


def reduce(predictions: Verdicts) -> Verdicts:
  """One value of each map is enough for the figures."""
  maps: AnomalyMaps = predictions.anomaly
  return predictions._replace(anomaly=maps._replace(maps=maps.maps.max((1, 2), keepdims=True)))


def evaluate(predictions: Any, seen: dict, fitted: Any) -> dict[str, Any]:
  """The report of ``evaluate.verdicts``, with the samples that the rule goes by."""
  calibration = fitted.calibration
  report = verdicts.evaluate(
    predictions,
    seen['label'],
    fitted.classes,
    threshold=None if calibration is None else float(calibration['threshold']),
    groups=seen.get('group'),
  )
  counts = np.asarray(fitted.memory['confirmed']).tolist()
  report['confirmed'] = dict(zip(fitted.classes, counts))
  return report


def validate(predictions: Any, seen: dict, classes: tuple[str, ...]) -> dict[str, float]:
  """The AUROCs of both parts, without intervals."""
  metrics = verdicts.evaluate(predictions, seen['label'], classes, num_resamples=1)['metrics']
  return {name: value for name, value in metrics.items() if name.startswith('auroc/')}


def complete(made, fitted, known, predictions, seen, batches, directory, result) -> dict[str, Any]:
  """Adds the rule's settings; returns the anomaly scores, and pictures with their maps."""
  del known, directory
  result['min_confirmed'] = made.config.method.min_confirmed
  labels, verdict = seen['label'], np.asarray(predictions.verdict)
  scores = np.asarray(predictions.anomaly.scores)
  groups = {}
  threshold = None
  if fitted.calibration is not None:
    threshold = result['threshold'] = float(fitted.calibration['threshold'])
    groups['good, calibrating'] = np.asarray(fitted.calibration['scores'])
  for name in anomaly_figures.order_of_groups(fitted.classes):
    own = scores[labels == fitted.classes.index(name)]
    if own.size and len(groups) < 7:
      groups[name] = own
  figures = [
    ('Scores of the anomaly method', anomaly_figures.score_histogram(groups, threshold=threshold))
  ]
  if fitted.calibration is None:
    return {'figures': figures}
  good = fitted.classes.index(anomaly.GOOD)
  defects = anomaly.defective(labels, fitted.classes)
  passed, asked, rejected = (verdict == VERDICTS.index(one) for one in ('ok', 'review', 'reject'))
  rising, limit = np.argsort(scores, kind='stable'), made.config.pictures
  rows = {
    'misses': [i for i in rising if defects[i] and passed[i]],
    'scrap': [i for i in rising[::-1] if labels[i] == good and rejected[i]],
    'asked': [i for i in rising if asked[i]],
  }
  rows = {kind: [int(i) for i in found[:limit]] for kind, found in rows.items()}
  wanted = {int(seen['index'][i]): i for found in rows.values() for i in found}
  maps = _maps(made.method, fitted, batches, wanted.keys())
  drawn = {
    place: _draw(made.source, fitted, predictions, labels, row, place, maps[place])
    for place, row in wanted.items()
  }
  galleries = [
    Gallery(*_GALLERIES[kind], [drawn[int(seen['index'][i])] for i in found])
    for kind, found in rows.items()
  ]
  scale = None
  if any(one.overlay is not None for one in drawn.values()):
    scale = tuple(float(fitted.calibration[end]) for end in ('map_floor', 'map_ceiling'))
  return {'figures': figures, 'galleries': galleries, 'map_scale': scale}


def _maps(method: Any, fitted: Any, batches: Any, wanted: Any) -> dict[int, np.ndarray]:
  predict, found = jax.jit(method.predict), {}
  for batch in batches:
    rows = [r for r in np.flatnonzero(batch['valid']) if int(batch['index'][r]) in wanted]
    if rows:
      maps = np.asarray(predict(fitted, batch).anomaly.maps)
      found |= {int(batch['index'][r]): maps[r] for r in rows}
  return found


def _draw(source, fitted, predictions, labels, row, place, heat) -> anomaly_figures.DrawnMap:
  picture, stored = source.read(place), fitted.calibration
  named = fitted.classes[int(predictions.head.scores[row].argmax())]
  by = RULES[int(predictions.rule[row])]
  return anomaly_figures.DrawnMap(
    image=overlays.as_rgb(picture),
    overlay=anomaly_task.calibrated_overlay(picture, heat, stored) if heat.size > 1 else None,
    title=f'{VERDICTS[int(predictions.verdict[row])]}, by rule: {by}',
    reason=(
      f'{fitted.classes[int(labels[row])]}; the head says {named}; anomaly score '
      f'{float(predictions.anomaly.scores[row]):.4g} of {float(stored["threshold"]):.4g}'
    ),
    name=source.names[place],
  )


def warnings(result: dict[str, Any]) -> list[str]:
  """Which modes are too young to be rejected, few test images, no threshold."""
  found = []
  least = result['min_confirmed']
  young = [
    f'{name} ({count})'
    for name, count in result['confirmed'].items()
    if name != anomaly.GOOD and count < least
  ]
  if young:
    found.append(
      f'Fewer than {least} confirmed samples of {", ".join(young)}: such a part is never rejected, '
      'it goes to a person, and the anomaly method runs beside the head.'
    )
  few = [name for name, count in result['support'].items() if 0 < count < 20]
  if few:
    found.append(f'Fewer than 20 test images of {", ".join(few)}: read their intervals.')
  if 'threshold' not in result:
    found.append('No good parts set a threshold, so the anomaly method flags nothing.')
  return found


def table(run: Any, predictions: Any, seen: dict, source: Any) -> list[dict]:
  """One row per picture: the verdict, the rule that produced it, and what the rule saw."""
  stored = run.fitted.calibration
  if stored is None:
    raise ValueError(
      f'{run.directory} has no threshold; train it with a config that has calibration'
    )
  scores = np.asarray(predictions.anomaly.scores)
  p_values = thresholds.p_values(scores, np.asarray(stored['scores']))
  rows = []
  for i, place in enumerate(seen['index']):
    best = int(predictions.head.scores[i].argmax())
    rows.append(
      {
        'image': source.names[place],
        'verdict': VERDICTS[int(predictions.verdict[i])],
        'rule': RULES[int(predictions.rule[i])],
        'class': run.fitted.classes[best],
        'probability': round(float(predictions.head.probabilities[i, best]), 6),
        'score': float(f'{scores[i]:.7g}'),
        'threshold': float(f'{float(stored["threshold"]):.7g}'),
        'p_value': round(float(p_values[i]), 6),
      }
    )
  return rows


def flat(rows: list[dict], classes: tuple[str, ...]) -> list[list]:
  """The same for a spreadsheet, the header first."""
  del classes
  columns = ['image', 'verdict', 'rule', 'class', 'probability', 'score', 'threshold', 'p_value']
  return [columns, *([row[name] for name in columns] for row in rows)]


def overlay(run: Any, picture: np.ndarray, predictions: Any, row: dict) -> np.ndarray | None:
  """The anomaly map of the only prediction over its picture."""
  return anomaly_task.overlay(run, picture, predictions.anomaly, row)


def draw(run: Any, source: Any, batches: Any, rows: list[dict]) -> Iterator[Drawn]:
  """The anomaly map over each picture, on the run's one colour scale."""
  del rows
  for batch in batches:
    maps = np.asarray(run.predict(batch).anomaly.maps)
    if maps[0].size == 1:
      return  # the method does not say where
    for row in np.flatnonzero(batch['valid']):
      place = int(batch['index'][row])
      calibration = run.fitted.calibration
      yield Drawn(
        place, anomaly_task.calibrated_overlay(source.read(place), maps[row], calibration)
      )


def legend(run: Any) -> Figure:
  """The run's one scale of maps."""
  return anomaly_task.map_legend(run.fitted.calibration)
