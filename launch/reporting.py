"""Figures and pictures of a fitted run: what ``launch.train`` writes at its end."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from jaxdefect.contracts import Fitted, References, State, to_fitted
from jaxdefect.data import task_pools
from jaxdefect.explain import report
from jaxdefect.train import metric_log
from launch import augmentation, experiment, tasks
from launch.versions import stamp


def validation(
  made: experiment.Experiment, known: References, key: jax.Array
) -> Callable[[State], dict[str, float]]:
  """``evaluate`` for ``train.fit``: adapt to the references, score the validation part."""
  batches = experiment.eval_batches(
    made.config, made.source, made.split.validation, made.spec.classes
  )

  def evaluate(state: State) -> dict[str, float]:
    fitted = made.method.adapt(key, to_fitted(state, made.spec.classes), known)
    predictions, seen = tasks.predict_all(made.method, fitted, batches)
    return tasks.of(predictions).validate(predictions, seen, fitted.classes)

  return evaluate


def validation_tasks(
  made: experiment.Experiment, key: jax.Array, *, seed: int
) -> Callable[[State], dict[str, float]] | None:
  """``evaluate`` for learning to learn: adapt to products held back, score their other pictures.

  What is chosen by it (rates, number of steps) has seen neither the target nor a training task.
  """
  config = made.config
  held = []
  for name, source in experiment.load_tasks(config, 'validation_tasks').items():
    pools = task_pools(name, source, seed=seed)
    known = experiment.references(config, source, pools.support)
    held.append((name, known, experiment.eval_batches(config, source, pools.query, known.classes)))
  if not held:
    return None

  def evaluate(state: State) -> dict[str, float]:
    start = to_fitted(state, made.spec.classes)
    metrics: dict[str, float] = {}
    for name, known, batches in held:
      fitted = made.method.adapt(key, start, known)
      predictions, seen = tasks.predict_all(made.method, fitted, batches)
      figures = tasks.of(predictions).validate(predictions, seen, fitted.classes)
      metrics |= {f'{metric}/{name}': value for metric, value in figures.items()}
    for metric in {name.split('/')[0] for name in metrics}:
      values = [value for name, value in metrics.items() if name.startswith(f'{metric}/')]
      metrics[metric] = sum(values) / len(values)
    return metrics

  return evaluate


def title(config: ConfigDict) -> str:
  """``classifier on pictures``: the method, and the folder of its pictures where there is one."""
  return f'{config.method.name} on {where(config)}'


def where(config: ConfigDict) -> str:
  """Name of the folder of the pictures, or of the data set where it is generated."""
  return pathlib.Path(config.data.get('dir') or '').name or config.data.name


def lots_unknown(config: ConfigDict) -> list[str]:
  """The sentence for data that could have lots and have none; [] elsewhere."""
  if config.data.get('lots') != '':
    return []
  return [
    'Lots are not known: pictures of one part, coil or burst of defects may both train and test, '
    'and the figures are too good for the next lot then. Tell this beside the figure until '
    '--config.data.lots=FILE names the lots (a table with the columns image and lot).'
  ]


def write(
  made: experiment.Experiment,
  fitted: Fitted,
  known: References,
  directory: pathlib.Path,
  *,
  seed: int,
  seconds: float,
  fit_seconds: float,
  sheet: Figure | None = None,
) -> dict[str, Any]:
  """Scores the test part and writes report.json and report.html.

  Args:
    made: the experiment.
    fitted: what was trained and adapted.
    known: the references.
    directory: folder of the run.
    seed: of the run.
    seconds: that all this took, with opening the data.
    fit_seconds: that training and ``adapt`` took.
    sheet: what random views look like, where there are any.

  Returns:
    The report.
  """
  config, source, split = made.config, made.source, made.split
  batches = experiment.eval_batches(config, source, split.test, fitted.classes)
  predictions, seen = tasks.predict_all(made.method, fitted, batches)
  seen['group'] = made.split.groups(made.source)[seen['index']]
  task = tasks.of(predictions)
  result = task.evaluate(predictions, seen, fitted)
  pictures = task.complete(made, fitted, known, predictions, seen, batches, directory, result)
  if sheet is not None:
    pictures['figures'] = [*pictures.get('figures', []), (augmentation.CAPTION, sheet)]
  result |= {
    'seed': seed,
    'seconds': round(seconds, 1),
    'fit_seconds': round(fit_seconds, 2),
    'start_weights': made.pretrained_source,
    'split': split.report,
    **stamp(config),
    'warnings': task.warnings(result) + lots_unknown(config),
  }
  if source.notes:
    result.setdefault('notes', [str(note) for note in source.notes])
  records = metric_log.read(directory / 'metrics.jsonl') if config.steps else []
  report.write_report(directory, result, title=title(config), records=records, **pictures)
  return result
