"""Figures and pictures of a fitted run: what ``launch.train`` writes at its end."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax

from jaxdefect.contracts import Fitted, References, State, to_fitted
from jaxdefect.evaluate import classification, linear_probe, runner
from jaxdefect.explain import mistakes, report
from jaxdefect.train import metric_log
from launch import experiment


def validation(
  made: experiment.Experiment, known: References, key: jax.Array
) -> Callable[[State], dict[str, float]]:
  """``evaluate`` for ``train.fit``: adapt to the references, score the validation part."""
  batches = experiment.eval_batches(
    made.config, made.source, made.split.validation, made.spec.classes
  )

  def evaluate(state: State) -> dict[str, float]:
    fitted = made.method.adapt(key, to_fitted(state, made.spec.classes), known)
    predictions, seen = runner.predict_all(made.method.predict, fitted, batches)
    figures = classification.evaluate(predictions, seen['label'], fitted.classes, num_resamples=1)[
      'metrics'
    ]
    return {name: figures[name] for name in ('accuracy', 'macro_f1') if name in figures}

  return evaluate


def write(
  made: experiment.Experiment,
  fitted: Fitted,
  known: References,
  directory: pathlib.Path,
  *,
  seed: int,
  seconds: float,
) -> dict[str, Any]:
  """Scores the test part and writes report.json, report.html and the colour scale.

  Args:
    made: the experiment.
    fitted: what was trained and adapted.
    known: the references, on which the colour scale of the overlays is set.
    directory: folder of the run.
    seed: of the run.
    seconds: that training took.

  Returns:
    The report.
  """
  config, source, split = made.config, made.source, made.split
  batches = experiment.eval_batches(config, source, split.test, fitted.classes)
  predictions, seen = runner.predict_all(made.method.predict, fitted, batches)
  result = classification.evaluate(predictions, seen['label'], fitted.classes)
  result['floor'] = _floor(made, fitted.classes, batches)

  wrong = classification.worst_mistakes(predictions, seen['label'], limit=config.pictures)
  ceiling, activations = None, made.method.activations
  if activations is not None:
    ceiling = mistakes.evidence_ceiling(activations, fitted, known.batches)
    (directory / 'evidence.json').write_text(json.dumps({'ceiling': ceiling}) + '\n')
  pictures = mistakes.illustrate(
    wrong, fitted, batches, activations=activations, ceiling=ceiling, names=source.names
  )
  result |= {
    'seed': seed,
    'seconds': round(seconds, 1),
    'start_weights': made.pretrained_source,
    'split': split.report,
    'config': config.to_dict(),
    'versions': experiment.versions(),
    'warnings': warnings(result),
  }
  records = metric_log.read(directory / 'metrics.jsonl') if config.steps else []
  title = f'{config.method.name} on {config.data.name}'
  report.write_report(
    directory, result, title=title, records=records, mistakes=pictures, ceiling=ceiling
  )
  return result


def _floor(made: experiment.Experiment, classes: tuple[str, ...], batches: Any) -> dict[str, Any]:
  """A linear model on the pixels of the same split: what needs no learned features at all."""
  references = made.split.train + made.split.references
  training = experiment.eval_batches(made.config, made.source, references, classes)
  probe = linear_probe.fit(training, classes)
  predictions, seen = runner.predict_all(linear_probe.predict, probe, batches)
  result = classification.evaluate(predictions, seen['label'], classes)
  return {'name': 'linear model on pixels', **result}


def warnings(result: dict[str, Any]) -> list[str]:
  """What the reader of a report must not overlook."""
  found = []
  few = [name for name, count in result['support'].items() if 0 < count < 20]
  if few:
    found.append(f'Fewer than 20 test images of {", ".join(few)}: read their intervals.')
  gap = result['metrics'].get('accuracy', 0) - result['floor']['metrics'].get('accuracy', 0)
  if gap < 0.05:
    found.append('The model is less than 5 points above a linear model on pixels.')
  return found


def read_ceiling(directory: pathlib.Path) -> float:
  """The colour scale that the run's calibration pictures fixed."""
  path = directory / 'evidence.json'
  if not path.exists():
    raise ValueError(f'{path} does not exist: the run has not finished')
  return float(json.loads(path.read_text())['ceiling'])
