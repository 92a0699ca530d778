"""Evaluates a finished run again: python -m launch.evaluate --workdir=RUN.

Reads the run's split, so it scores the very images that training never saw, and prints the figures
with their intervals. --data=NAME:DIR tries the run on another data set, recognised from --shots
references per class alone, over --draws random choices of references. --hold_out scores the
pictures that launch.cross_validate set aside, and keeps every such look, with its date, in
RUN/hold_out_looks.json. --false_alarm_rate=0.01 sets another threshold for an
anomaly method; the run stays as it is.
"""

import dataclasses
import datetime
import json
import pathlib

import jax
import numpy as np
from absl import flags

from jaxdefect import data
from jaxdefect.contracts import ClassScores, NewClassError, References
from jaxdefect.data import duplicates
from jaxdefect.evaluate import classification, few_shot, runner
from launch import command, experiment, finished_run, tasks, unseen


def define(values: flags.FlagValues) -> None:
  flags.DEFINE_string('workdir', None, 'folder of a finished run', flag_values=values)
  flags.DEFINE_string('data', '', 'another data set, NAME:DIR', flag_values=values)
  flags.DEFINE_bool(
    'hold_out', False, 'score what launch.cross_validate set aside', flag_values=values
  )
  flags.DEFINE_list('shots', ['1', '3', '5'], 'references per class', flag_values=values)
  flags.DEFINE_integer('draws', 100, 'random choices of references', flag_values=values)
  flags.DEFINE_string('out', '', 'JSON file to write', flag_values=values)
  command.define_false_alarm_rate(values)


def main(values: flags.FlagValues) -> None:
  command.require(values, 'workdir')
  directory = pathlib.Path(values.workdir)
  run = finished_run.read_run(directory, false_alarm_rate=values.false_alarm_rate)
  if values.data:
    name, _, folder = values.data.partition(':')
    source = data.load(name, dir=folder)
    result = recognise_from_shots(
      run, source, range(len(source)), [int(s) for s in values.shots], draws=values.draws
    )
  elif values.hold_out:
    source, divided = experiment.load_divided(run.config.data)
    if divided is None:
      raise ValueError(f'nothing of {source.name} is held out; launch.cross_validate sets it aside')
    unseen.require(directory, run.config)
    result = score(run, source, divided.held, duplicates.find(source))
  else:
    source, split = unseen.read_split(directory, run.config)
    result = score(run, source, split.test, split.groups(source))
  if 'n' in result:
    print(f'{result["n"]} images')
  for name, value in result['metrics'].items():
    told = '/' not in name or name.startswith('recall/') or values.data
    if told and not classification.adds_nothing(result, name):
      interval = result['intervals'].get(name)
      print(
        f'{name}: {value:.4f}' + (f' [{interval[0]:.4f}, {interval[1]:.4f}]' if interval else '')
      )
  if values.hold_out and not values.data:
    print(_keep_look(directory / 'hold_out_looks.json', result))
  for name, true, said in result.get('mistakes', ()):
    print(f'wrong: {name} is {true}, and was called {said}')
  if values.out:
    pathlib.Path(values.out).write_text(json.dumps(result, indent=1) + '\n')


def _keep_look(path: pathlib.Path, result: dict) -> str:
  """Writes down that the hold-out was looked at, and says how often it was."""
  looks = json.loads(path.read_text()) if path.exists() else []
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  partial = path.with_suffix('.partial')
  partial.write_text(json.dumps([*looks, {'date': now, **result}], indent=1) + '\n')
  partial.replace(path)
  if not looks:
    return f'kept in {path}: the first look of this run at what was set aside'
  return (
    f'kept in {path}: look {len(looks) + 1} of this run at what was set aside, the first on '
    f'{looks[0]["date"][:10]}; it tests only what was not chosen by an earlier look'
  )


def score(run, source, indices, groups) -> dict:
  """The figures of a run on some images of a data set, whose groups the intervals count."""
  batches = experiment.eval_batches(run.config, source, indices, run.fitted.classes)
  predictions, seen = tasks.predict_all(run.method, run.fitted, batches)
  seen['group'] = groups[seen['index']]
  result = tasks.of(predictions).evaluate(predictions, seen, run.fitted)
  if isinstance(predictions, ClassScores):
    wrong = classification.worst_mistakes(predictions, seen['label'], limit=len(indices))
    classes = run.fitted.classes
    result['mistakes'] = [
      [source.names[seen['index'][one['row']]], classes[one['true']], classes[one['predicted']]]
      for one in wrong
    ]
  return result


def recognise_from_shots(run, source, indices, shots, *, draws: int, seed: int = 0) -> dict:
  """Accuracy on classes known by a few references alone, over random choices of references.

  Every image is a reference class of its own in one ``adapt`` call, which gives the similarity of
  each image with each other; ``evaluate.few_shot`` draws from that table.
  """
  indices = list(indices)
  empty = dataclasses.replace(run.fitted, memory=None, classes=())
  own = tuple(f'{source.names[i]}' for i in indices)
  batches = experiment.eval_batches(run.config, source, indices, source.classes)
  alone = References(classes=own, batches=_OwnClass(batches, indices))
  try:
    fitted = run.method.adapt(jax.random.key(0), empty, alone)
  except NewClassError as error:
    raise ValueError(
      f'{run.config.method.name} does not tell classes apart by references alone, which shots '
      'are for; contrastive_margin does'
    ) from error
  similarities, _ = runner.predict_all(run.method.predict, fitted, batches)
  labels = source.labels[indices]
  present = sorted(set(labels.tolist()))
  return few_shot.evaluate(
    np.asarray(similarities.scores),
    np.searchsorted(present, labels),
    [source.classes[c] for c in present],
    shots=shots,
    draws=draws,
    seed=seed,
  )


class _OwnClass:
  """Batches in which the n-th image is of the n-th class."""

  def __init__(self, batches, indices):
    self._batches = batches
    self._place = {index: place for place, index in enumerate(indices)}

  def __iter__(self):
    for batch in self._batches:
      label = [self._place.get(int(i), 0) for i in batch['index']]
      yield {**batch, 'label': np.array(label, np.int32)}


if __name__ == '__main__':
  command.run(define, main)
