"""Figures and pictures of a fitted run: what ``launch.train`` writes at its end."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax

from jaxdefect.contracts import Fitted, References, State, to_fitted
from jaxdefect.evaluate import runner
from jaxdefect.explain import report
from jaxdefect.train import metric_log
from launch import experiment, tasks


def validation(
  made: experiment.Experiment, known: References, key: jax.Array
) -> Callable[[State], dict[str, float]]:
  """``evaluate`` for ``train.fit``: adapt to the references, score the validation part."""
  batches = experiment.eval_batches(
    made.config, made.source, made.split.validation, made.spec.classes
  )

  def evaluate(state: State) -> dict[str, float]:
    fitted = made.method.adapt(key, to_fitted(state, made.spec.classes), known)
    predictions, seen = runner.predict_all(made.method.predict, fitted, batches, keys=tasks.SEEN)
    return tasks.of(predictions).validate(predictions, seen, fitted.classes)

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
  """Scores the test part and writes report.json and report.html.

  Args:
    made: the experiment.
    fitted: what was trained and adapted.
    known: the references.
    directory: folder of the run.
    seed: of the run.
    seconds: that training took.

  Returns:
    The report.
  """
  config, source, split = made.config, made.source, made.split
  batches = experiment.eval_batches(config, source, split.test, fitted.classes)
  predictions, seen = runner.predict_all(made.method.predict, fitted, batches, keys=tasks.SEEN)
  task = tasks.of(predictions)
  result = task.evaluate(predictions, seen, fitted.classes)
  pictures = task.complete(made, fitted, known, predictions, seen, batches, directory, result)
  result |= {
    'seed': seed,
    'seconds': round(seconds, 1),
    'start_weights': made.pretrained_source,
    'split': split.report,
    'config': config.to_dict(),
    'versions': experiment.versions(),
    'warnings': task.warnings(result),
  }
  records = metric_log.read(directory / 'metrics.jsonl') if config.steps else []
  title = f'{config.method.name} on {config.data.name}'
  report.write_report(directory, result, title=title, records=records, **pictures)
  return result
