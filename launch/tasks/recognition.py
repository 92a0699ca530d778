"""One class per picture: what ``ClassScores`` are turned into."""

import functools
import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from jaxdefect.contracts import AnomalyMaps
from jaxdefect.data import decode
from jaxdefect.data.good_parts import GOOD
from jaxdefect.evaluate import (
  anomaly,
  classification,
  linear_probe,
  localisation,
  mixed_classes,
  runner,
)
from jaxdefect.explain import gradcam, mistakes, overlays, plots
from launch import experiment
from launch.tasks.drawn import Drawn

EVALUATOR = classification
HEADLINES = ('accuracy', 'macro_f1', 'auroc')


def evaluate(predictions: Any, seen: dict, fitted: Any) -> dict[str, Any]:
  """The report of ``evaluate.classification``; of good or defective, also as an inspection's.

  Where classes are combinations of defects, also by how many there are.
  """
  report = classification.evaluate(predictions, seen['label'], fitted.classes)
  if set(fitted.classes) == {anomaly.GOOD, anomaly.DEFECT}:
    _as_inspection(report, predictions, seen['label'])
  if mixed_classes.has_mixed(fitted.classes):
    found = mixed_classes.evaluate(report)
    report['mixed_accuracy'] = found['mixed_accuracy']
    for key in ('metrics', 'intervals', 'interval_kinds'):
      report[key] |= found[key]
  return report


def _as_inspection(report: dict[str, Any], predictions: Any, labels: Any) -> None:
  """Adds the figures that anomaly methods have, so that the two can stand side by side."""
  places = [report['classes'].index(name) for name in (anomaly.DEFECT, anomaly.GOOD)]
  margins = predictions.scores[:, places[0]] - predictions.scores[:, places[1]]
  found = anomaly.evaluate(AnomalyMaps(margins, margins), labels, report['classes'])
  for key in ('metrics', 'intervals', 'interval_kinds'):
    report[key] |= {name: found[key][name] for name in ('fpr95',) if name in found[key]}
  for name, recall in (('false_alarm_rate', 'recall/good'), ('miss_rate', 'recall/defect')):
    if recall in report['metrics']:
      low, high = report['intervals'][recall]
      report['metrics'][name] = 1 - report['metrics'][recall]
      report['intervals'][name] = [1 - high, 1 - low]
      report['interval_kinds'][name] = report['interval_kinds'][recall]


def validate(predictions: Any, seen: dict, classes: tuple[str, ...]) -> dict[str, float]:
  """Accuracy, macro F1 and AUROC, without intervals."""
  figures = classification.evaluate(predictions, seen['label'], classes, num_resamples=1)
  return {k: figures['metrics'][k] for k in HEADLINES if k in figures['metrics']}


def complete(made, fitted, known, predictions, seen, batches, directory, result) -> dict[str, Any]:
  """Adds the pixel-linear floor; returns the worst mistakes with their evidence.

  Where nothing was wrong these are the least certain answers.
  """
  config, source = made.config, made.source
  result['floor'] = _floor(made, fitted.classes, batches)
  told, limit = (predictions, seen['label']), config.pictures
  shown = classification.worst_mistakes(*told, limit=limit)
  shown = shown or classification.least_certain(*told, limit=limit)
  ceiling, activations = None, made.method.activations
  if activations is not None:
    ceiling = mistakes.evidence_ceiling(activations, fitted, known.batches)
    (directory / 'evidence.json').write_text(json.dumps({'ceiling': ceiling}) + '\n')
  if activations is not None and 'mask' in source.annotations:
    result['localisation'] = _localisation(made, fitted, batches)
  pictures = mistakes.illustrate(
    shown, fitted, batches, activations=activations, ceiling=ceiling, names=source.names
  )
  return {'mistakes': pictures, 'ceiling': ceiling, 'figures': _fine_tuning(fitted, result)}


def _localisation(made: experiment.Experiment, fitted: Any, batches: Any) -> dict[str, Any]:
  """Grad-CAM of what is not good against the masks of the test part, at their own size."""
  explain = jax.jit(functools.partial(gradcam.gradcam, made.method.activations, contrast=True))
  good = fitted.classes.index('good') if 'good' in fitted.classes else -1
  maps, masks = [], []
  for batch in batches:
    rows = np.flatnonzero(batch['valid'] & (batch['label'] != good))
    if rows.size:
      _, found = explain(fitted, batch, targets=np.asarray(batch['label']))
      for row in rows:
        mask = np.asarray(made.source.annotations['mask'][int(batch['index'][row])])
        masks.append(mask)
        maps.append(overlays.resize_map(np.asarray(found[row]), mask.shape))
  return localisation.evaluate(maps, masks)


def _fine_tuning(fitted: Any, result: dict[str, Any]) -> list:
  """How ``adapt`` went on, epoch by epoch, where it is a training of its own."""
  memory = fitted.memory or {}
  if 'history' not in memory:
    return []
  result['fine_tuning_epoch'] = int(memory['epoch'])
  columns = {
    name.replace('validation_', 'validation/'): np.asarray(values).tolist()
    for name, values in memory['history'].items()
  }
  count = max(len(values) for values in columns.values())
  records = [
    {'step': epoch} | {name: values[epoch] for name, values in columns.items()}
    for epoch in range(count)
  ]
  caption = f'Fine-tuning on the target; epoch {int(memory["epoch"])} was chosen'
  return [(caption, plots.learning_curves(records, title='Fine-tuning', x='epoch'))]


def _floor(made: experiment.Experiment, classes: tuple[str, ...], batches: Any) -> dict[str, Any]:
  """A linear model on the pixels of the same split: what needs no learned features at all."""
  references = made.split.train + made.split.references
  training = experiment.eval_batches(made.config, made.source, references, classes)
  probe = linear_probe.fit(training, classes)
  predictions, seen = runner.predict_all(linear_probe.predict, probe, batches)
  report = classification.evaluate(predictions, seen['label'], classes)
  return {'name': 'linear model on pixels', **report}


def warnings(result: dict[str, Any]) -> list[str]:
  """Few test images, or no better than pixels."""
  found = []
  few = [name for name, count in result['support'].items() if 0 < count < 20]
  if few:
    every = len(few) == len(result['classes']) > 1
    named = 'Every class has' if every else ', '.join(few) + (' have' if len(few) > 1 else ' has')
    found.append(f'{named} fewer than 20 test images, so the intervals are wide.')
  missed = np.asarray(result.get('confusion_matrix', np.zeros((0, 0))))
  missed = missed.sum(1) - missed.diagonal()
  if missed.max(initial=0) > 1 and (missed > 0).sum() == 1:
    name = result['classes'][int(missed.argmax())]
    found.append(f'All {missed.max()} mistakes are pictures of {name}.')
  if GOOD not in result['classes']:
    found.append(
      'Every picture is called one of the classes, and none is named good: this sorts known '
      'defects, and does not find them among good parts.'
    )
  gap = result['metrics'].get('accuracy', 0) - result['floor']['metrics'].get('accuracy', 0)
  if gap < 0.05:
    found.append('The model is less than 5 points above a linear model on pixels.')
  return found


def table(run: Any, predictions: Any, seen: dict, source: Any) -> list[dict]:
  """One row per picture: its class, how sure, and every score."""
  rows = []
  for i, place in enumerate(seen['index']):
    best = int(predictions.scores[i].argmax())
    told = predictions.scores[i], predictions.probabilities[i]
    scores, probabilities = (
      {name: round(float(s), 6) for name, s in zip(run.fitted.classes, of)} for of in told
    )
    rows.append(
      {
        'image': source.names[place],
        'class': run.fitted.classes[best],
        'probability': round(float(predictions.probabilities[i, best]), 6),
        'scores': scores,
        'probabilities': probabilities,
      }
    )
  return rows


def flat(rows: list[dict], classes: tuple[str, ...]) -> list[list]:
  """The same for a spreadsheet, the header first."""
  of = ('score', 'probability')
  lines = [['image', 'class', 'probability', *(f'{one}:{c}' for one in of for c in classes)]]
  for row in rows:
    numbers = (row[one][c] for one in ('scores', 'probabilities') for c in classes)
    lines.append([row['image'], row['class'], row['probability'], *numbers])
  return lines


def overlay(run: Any, picture: np.ndarray, predictions: Any, row: dict) -> np.ndarray | None:
  """The evidence of the only prediction over its picture, where the model shows any."""
  del predictions, row
  size = tuple(run.config.data.image_size)
  image = decode.resize(picture, size, interpolation=run.config.data.interpolation)
  maps = run.evidence({'image': image[None]})
  if maps is None:
    return None
  return overlays.overlay(picture, np.asarray(maps[0]), ceiling=run.evidence_ceiling)


def draw(run: Any, source: Any, batches: Any, rows: list[dict]) -> Iterator[Drawn]:
  """The evidence for the predicted class over each picture, on the run's one colour scale."""
  del rows
  for batch in batches:
    maps = run.evidence(batch)
    if maps is None:
      return
    for row in np.flatnonzero(batch['valid']):
      place = int(batch['index'][row])
      picture = overlays.overlay(
        source.read(place), np.asarray(maps[row]), ceiling=run.evidence_ceiling
      )
      yield Drawn(place, picture)


def legend(run: Any) -> Figure:
  """The run's one scale of evidence."""
  return plots.color_scale(
    run.evidence_ceiling, label='evidence for the predicted class (Grad-CAM)'
  )
