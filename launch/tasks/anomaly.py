"""How far a picture is from good parts: what ``AnomalyMaps`` are turned into."""

import resource
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from jaxdefect.contracts import AnomalyMaps
from jaxdefect.evaluate import anomaly, region_overlap, thresholds
from jaxdefect.explain import anomaly_figures, overlays, plots
from jaxdefect.explain.anomaly_sections import Gallery
from launch.tasks.drawn import Drawn

EVALUATOR = anomaly
HEADLINES = ('auroc', 'average_precision', 'false_alarm_rate', 'miss_rate')

# Batches on which the speed is measured.
_TIMED = 5

_GALLERIES = {
  'misses': ('Worst misses', 'Defective and not flagged, the lowest score first.'),
  'false_alarms': ('Worst false alarms', 'Good and flagged, the highest score first.'),
  'hits': ('Found defects', 'Defective and flagged, evenly over their scores.'),
  'calm': ('Good parts', 'Good and not flagged, evenly over their scores: they should be calm.'),
}


def reduce(predictions: AnomalyMaps) -> AnomalyMaps:
  """Maps of all test images need not be kept: one value of each is enough for the figures."""
  return predictions._replace(maps=predictions.maps.max((1, 2), keepdims=True))


def evaluate(predictions: Any, seen: dict, fitted: Any) -> dict[str, Any]:
  """The report of ``evaluate.anomaly``."""
  return anomaly.evaluate(
    predictions,
    seen['label'],
    fitted.classes,
    calibration=fitted.calibration,
    groups=seen.get('group'),
  )


def validate(predictions: Any, seen: dict, classes: tuple[str, ...]) -> dict[str, float]:
  """AUROC and average precision, without intervals; none where no defect validates."""
  return anomaly.evaluate(predictions, seen['label'], classes, num_resamples=1)['metrics']


def complete(made, fitted, known, predictions, seen, batches, directory, result) -> dict[str, Any]:
  """Adds recall per kind, pixels and cost; returns pictures with their maps, scores and ROC."""
  del known, directory
  source, labels = made.source, seen['label']
  kinds = None
  if 'kind' in source.annotations:
    kinds = [source.annotations['kind'][int(i)] for i in seen['index']]
  result |= anomaly.evaluate(
    predictions,
    labels,
    fitted.classes,
    calibration=fitted.calibration,
    kinds=kinds,
    groups=seen.get('group'),
  )
  predict = jax.jit(made.method.predict)
  result |= _cost(predict, fitted, batches)
  chosen: dict[str, list[int]] = {}
  threshold = result.get('threshold')
  if threshold is not None:
    limit = made.config.pictures
    chosen = anomaly.worst(predictions, labels, fitted.classes, threshold, limit=limit)
    chosen['calm'], chosen['hits'] = chosen['calm'][::2], chosen['hits'][::2]
  wanted = {int(seen['index'][row]): row for rows in chosen.values() for row in rows}
  drawn: dict[int, anomaly_figures.DrawnMap] = {}
  masks = source.annotations.get('mask')
  left_out: list[str] = []

  def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Maps and masks at the masks' size; draws in passing what is wanted."""
    for batch in batches:
      valid = np.flatnonzero(batch['valid'])
      places = batch['index'][valid].tolist()
      if masks is None and not wanted.keys() & set(places):
        continue
      maps = np.asarray(predict(fitted, batch).maps)
      for row, place in zip(valid, places):
        localises = maps[row].size > 1
        if place in wanted:
          drawn[place] = _draw(made, fitted, seen, predictions, wanted[place], maps[row])
        name = fitted.classes[int(batch['label'][row])]
        if masks is None or not localises or name not in (anomaly.GOOD, anomaly.DEFECT):
          continue
        mask = np.asarray(masks[place])
        if name == anomaly.DEFECT and not mask.any():
          left_out.append(source.names[place])  # nobody marked where the defect is
          continue
        yield overlays.resize_map(maps[row], mask.shape), mask

  pixels = region_overlap.evaluate(pairs())
  if pixels['images']:
    result['pixels'] = {**pixels, 'without_a_mark': left_out}
    result['metrics'] |= pixels['metrics']
  galleries = [
    Gallery(*_GALLERIES[kind], [drawn[int(seen['index'][row])] for row in chosen[kind]])
    for kind in _GALLERIES
    if chosen
  ]
  scale = None
  if any(one.overlay is not None for one in drawn.values()):
    scale = tuple(float(fitted.calibration[end]) for end in ('map_floor', 'map_ceiling'))
  return {
    'figures': _figures(fitted, predictions, labels, result),
    'galleries': galleries,
    'map_scale': scale,
  }


def _draw(made, fitted, seen, predictions, row: int, heat: np.ndarray) -> anomaly_figures.DrawnMap:
  place = int(seen['index'][row])
  picture, score = made.source.read(place), float(predictions.scores[row])
  stored = fitted.calibration
  p = thresholds.p_values(np.float32([score]), np.asarray(stored['scores']))[0]
  return anomaly_figures.DrawnMap(
    image=overlays.as_rgb(picture),
    overlay=calibrated_overlay(picture, heat, stored) if heat.size > 1 else None,
    title=f'score {score:.4g}',
    reason=(f'{kind}; ' if (kind := _kind(made.source, place)) else '')
    + f'threshold {float(stored["threshold"]):.4g}; '
    + f'p = {p:.2g}, the share of good parts that score so high',
    name=made.source.names[place],
  )


def _kind(source: Any, place: int) -> str:
  return source.annotations['kind'][place] if 'kind' in source.annotations else ''


def calibrated_overlay(picture: np.ndarray, heat: np.ndarray, stored: dict) -> np.ndarray:
  """A map over its picture, on the one colour scale of the run."""
  floor, ceiling = (float(stored[end]) for end in ('map_floor', 'map_ceiling'))
  return anomaly_figures.overlay(picture, heat, floor=floor, ceiling=ceiling)


def _cost(predict: Any, fitted: Any, batches: Any) -> dict[str, Any]:
  """Time of a picture once compiled, bytes of what is stored, and the run's memory so far."""
  times, images = [], 1
  for _, batch in zip(range(_TIMED), batches):
    images = len(batch['valid'])
    jax.block_until_ready(predict(fitted, batch))  # compiles at the first
    started = time.perf_counter()
    jax.block_until_ready(predict(fitted, batch))
    times.append(time.perf_counter() - started)
  return {
    'ms_per_image': round(1000 * float(np.median(times)) / images, 3),
    'parameters': sum(leaf.size for leaf in jax.tree.leaves(fitted.params)),
    'model_bytes': sum(leaf.nbytes for leaf in jax.tree.leaves(fitted)),
    'peak_bytes': 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
  }


def _figures(fitted, predictions, labels, result) -> list:
  """Scores of every group with the threshold, and the ROC curve."""
  scores, threshold = np.asarray(predictions.scores), result.get('threshold')
  groups = {}
  if fitted.calibration is not None:
    groups['good, calibrating'] = np.asarray(fitted.calibration['scores'])
  for name in anomaly_figures.order_of_groups(fitted.classes):
    of = scores[labels == fitted.classes.index(name)]
    if of.size and len(groups) < 7:
      groups[name] = of
  found = [('Scores', anomaly_figures.score_histogram(groups, threshold=threshold))]
  if 'auroc' in result['metrics']:
    defective = anomaly.defective(labels, fitted.classes)
    rows = defective | (labels == fitted.classes.index(anomaly.GOOD))
    curve = anomaly_figures.roc_curve(
      scores[rows], defective[rows], threshold=threshold, auroc=result['metrics']['auroc']
    )
    found.append(('Every threshold (ROC curve), good against defective', curve))
  return found


def warnings(result: dict[str, Any]) -> list[str]:
  """Few test images, more false alarms than were promised, masks that mark nothing."""
  found = []
  few = [name for name, count in result['support'].items() if 0 < count < 20]
  if few:
    found.append(f'Fewer than 20 test images of {", ".join(few)}: read their intervals.')
  low = result['intervals'].get('false_alarm_rate', (0,))[0]
  likely = result.get('likely_false_alarm_rate')
  if likely and low > likely[1]:
    found.append(
      f'At least {100 * low:.1f} % of the good test images are flagged, where at most '
      f'{100 * likely[1]:.1f} % were to be expected: they differ from the good images that set the '
      'threshold.'
    )
  unmarked = result.get('pixels', {}).get('without_a_mark', ())
  if unmarked:
    found.append(
      f'{len(unmarked)} defective images have an empty mask and are left out of the figures of '
      f'pixels: {", ".join(unmarked[:5])}.'
    )
  return found


def table(run: Any, predictions: Any, seen: dict, source: Any) -> list[dict]:
  """One row per picture: the verdict, and what it comes from."""
  stored = run.fitted.calibration
  if stored is None:
    raise ValueError(
      f'{run.directory} has no threshold; train it with a config that has calibration'
    )
  threshold = np.float32(stored['threshold'])
  p_values = thresholds.p_values(predictions.scores, np.asarray(stored['scores']))
  return [
    {
      'image': source.names[place],
      'verdict': 'flagged' if score > threshold else 'ok',
      'score': float(f'{score:.7g}'),
      'threshold': float(f'{threshold:.7g}'),
      'p_value': round(float(p), 6),
    }
    for place, score, p in zip(seen['index'], predictions.scores, p_values)
  ]


def flat(rows: list[dict], classes: tuple[str, ...]) -> list[list]:
  """The same for a spreadsheet, the header first."""
  del classes
  columns = ['image', 'verdict', 'score', 'threshold', 'p_value']
  return [columns, *([row[name] for name in columns] for row in rows)]


def overlay(run: Any, picture: np.ndarray, predictions: Any, row: dict) -> np.ndarray | None:
  """The map of the only prediction over its picture, where the method says where."""
  del row
  if predictions.maps[0].size == 1:
    return None
  return calibrated_overlay(picture, np.asarray(predictions.maps[0]), run.fitted.calibration)


def draw(run: Any, source: Any, batches: Any, rows: list[dict]) -> Iterator[Drawn]:
  """The map over each picture on the run's one colour scale, and the raw map."""
  del rows
  for batch in batches:
    maps = np.asarray(run.predict(batch).maps)
    if maps[0].size == 1:
      return  # the method does not say where
    for row in np.flatnonzero(batch['valid']):
      place = int(batch['index'][row])
      picture = calibrated_overlay(source.read(place), maps[row], run.fitted.calibration)
      yield Drawn(place, picture, maps[row])


def legend(run: Any) -> Figure:
  """The run's one scale of maps."""
  return map_legend(run.fitted.calibration)


def map_legend(stored: dict) -> Figure:
  """Of what ``calibrated_overlay`` draws."""
  floor, ceiling = (float(stored[end]) for end in ('map_floor', 'map_ceiling'))
  return plots.color_scale(ceiling, floor=floor, label='anomaly map')
