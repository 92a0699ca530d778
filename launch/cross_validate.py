"""Evidence from a few labelled pictures: python -m launch.cross_validate --config=FILE
[--positive=CLASS] [--frozen] [--hold_out=15] [--workdir=DIR].

Says how well the method of a config tells CLASS from the rest when it is trained on all pictures
there are, from models that were trained on most of them: AUROC by leave-one-out, leave-pair-out and
repeated stratified k-fold, with intervals and a stability figure. Near-copies stay together, and so
do lots where --config.data.lots=FILE names them. At first contact --hold_out pictures are set aside
(in whole lots), by the sum of their pixels, in the data folder's hold_out.json or the file that
--config.data.hold_out names; no launcher trains on them from then on. --look tests the model of all
others on them, once: every look at them while something is still being chosen uses them up.

--frozen leaves the backbone as it is and trains a ridge head on its features, with --views random
views of each picture: seconds, where training a network for every fold takes minutes each. An
interrupted run goes on with the next fold. Writes DIR/report.json, report.html and scores.csv.
"""

import csv
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxdefect import data
from jaxdefect.data import duplicates, hold_out, samples
from jaxdefect.data.folds import Fold, leave_one_out
from jaxdefect.data.good_parts import GOOD
from jaxdefect.data.samples import Samples
from jaxdefect.evaluate import cross_validation, delong, intervals
from jaxdefect.explain import evidence_figures, overlays, report
from jaxdefect.explain.anomaly_figures import DrawnMap
from jaxdefect.explain.anomaly_sections import Gallery
from launch import command, experiment, reporting
from launch.frozen_folds import FrozenFolds
from launch.trained_folds import TrainedFolds
from launch.versions import stamp

# Defaults, by whether the backbone is frozen.
_SCHEMES = {
  True: ('leave_one_out', 'leave_pair_out', 'k_fold'),
  False: ('leave_one_out', 'k_fold'),
}
_REPEATS = {True: 20, False: 1}
# Beyond, a model for every two groups is too many even where it costs a small system alone.
_MOST_FOR_PAIRS = 200


def define(values: flags.FlagValues) -> None:
  command.define_config(values)
  flags.DEFINE_string('workdir', None, 'folder of the run', flag_values=values)
  flags.DEFINE_string('positive', '', 'class that is to be found', flag_values=values)
  flags.DEFINE_bool('frozen', False, 'train only a head on fixed features', flag_values=values)
  flags.DEFINE_integer(
    'views', 0, 'with --frozen: random views of each training picture', flag_values=values
  )
  flags.DEFINE_list('schemes', [], f'of {", ".join(cross_validation.SCHEMES)}', flag_values=values)
  flags.DEFINE_integer('k', 5, 'folds of k_fold', flag_values=values)
  flags.DEFINE_integer(
    'repeats', None, 'how many times k folds are drawn (20 with --frozen, else 1)',
    flag_values=values,
  )  # fmt: skip
  flags.DEFINE_integer(
    'pair_limit', None, 'at most so many models of leave_pair_out', flag_values=values
  )
  flags.DEFINE_integer(
    'hold_out', 15, 'pictures to set aside where none are yet; 0 for none', flag_values=values
  )
  flags.DEFINE_bool('look', False, 'test a model on the hold-out, once', flag_values=values)
  flags.DEFINE_bool('progress', True, 'show a bar', flag_values=values)


def main(values: flags.FlagValues) -> None:
  config = command.config(values)
  directory = pathlib.Path(values.workdir or f'runs/cross_validate/{command.config_name()}')
  settings: dict[str, Any] = {'k': values.k}
  if values.schemes:
    settings['schemes'] = tuple(values.schemes)
  if values.repeats:
    settings['repeats'] = values.repeats
  if values.pair_limit:
    settings['pair_limit'] = values.pair_limit
  path = experiment.hold_out_file(config.data)
  held_before = path.exists()
  result = run(
    config,
    directory,
    positive=values.positive,
    frozen=values.frozen,
    views=values.views,
    size=values.hold_out,
    look=values.look,
    progress=values.progress,
    **settings,
  )
  _tell(result)
  for sentence in result['warnings']:
    print(f'note: {sentence}')
  if path.exists() and not held_before:
    print(
      f'set {result["held_out"]} pictures aside, in {path}: they train nothing from now on; train '
      'older runs anew'
    )
  print(f'report: {directory / "report.html"}')


def _tell(result: dict[str, Any]) -> None:
  """Prints whose figure it is, then the figures, the least biased first."""
  whose = f'{result["method"]}, trained on all but what is scored'
  print(f'{result["positive"]} against the rest, {result["n"]} pictures; {whose}:')
  first = [f'auroc/{name}' for name in cross_validation.LEAST_BIASED_FIRST]
  names = [name for name in first if name in result['metrics']]
  for name in dict.fromkeys((*names, *result['metrics'])):
    low, high = result['intervals'][name]
    note = '  the figure to tell: its bias is the least' if name == names[0] else ''
    print(f'{name}: {result["metrics"][name]:.4f} [{low:.4f}, {high:.4f}]{note}')


def run(
  config: ConfigDict,
  directory: pathlib.Path,
  *,
  positive: str = '',
  frozen: bool = False,
  views: int = 0,
  size: int = 15,
  look: bool = False,
  progress: bool = True,
  **settings: Any,
) -> dict[str, Any]:
  """Cross-validates a config's method and writes the report.

  Args:
    config: names the data, the method and its training; its first seed counts.
    directory: folder of the run.
    positive: name of the class that is to be found; '' where there are two and one is 'good'.
    frozen: whether the backbone stays as it is and a ridge head is trained.
    views: of each training picture, for the frozen head.
    size: of the hold-out where none was set aside yet; 0 sets none aside.
    look: whether to test the model of all other pictures on the hold-out, which uses it up.
    progress: show a bar.
    **settings: ``schemes``, ``k``, ``repeats``, ``pair_limit`` of ``cross_validation.evaluate``.

  Returns:
    The report.
  """
  started = time.monotonic()
  seed = int(config.seeds[0])
  if views and not frozen:
    raise ValueError('--views is for --frozen; method.augmentation gives a trained network views')
  path = experiment.hold_out_file(config.data)
  fresh = size > 0 and not path.exists()  # a file that is named is made here
  divided: hold_out.Divided | None = None
  if fresh:
    source = experiment.load_whole(config.data)
  else:
    source, divided = experiment.load_divided(config.data)
  positive = _positive(source, positive)
  groups = _groups(config, source)
  if fresh:
    divided = _set_aside(config, source, groups, size, seed=seed)
  free = list(range(len(source))) if divided is None else divided.free
  held = [] if divided is None else divided.held
  given = samples.take(source, free, groups=groups)
  few = len(np.unique(given.groups)) <= _MOST_FOR_PAIRS
  settings = {'schemes': _SCHEMES[frozen and few], 'repeats': _REPEATS[frozen], **settings}
  pairs = frozen and few and 'pair_limit' not in settings
  settings['training'] = 'measured' if pairs else 'assumed'
  planned = cross_validation.plan(given, positive=positive, seed=seed, **settings)

  places = np.asarray(free + held, int)
  made: dict[str, Any] = {'positive': positive, 'seed': seed}
  scorer: Callable[[Sequence[Fold]], list[np.ndarray]]
  if frozen:
    scorer = FrozenFolds(config, source, places, given=len(free), views=views, **made)
  else:
    scorer = TrainedFolds(config, source, places, directory=directory, progress=progress, **made)
  # Nothing was written so far, and all that is wrong with the input has been said.
  experiment.write_config(_with(config, positive, frozen, views, settings), directory)
  if fresh:
    hold_out.write(path, hold_out.make(source, held, seed=seed))

  result = cross_validation.evaluate(scorer, given, positive=positive, seed=seed, **settings)
  marks = samples.is_positive(given, positive)
  once = planned.ones or (planned.drawn[0] if planned.drawn else leave_one_out(given))
  scores = np.empty(len(free))
  for fold, found in zip(once, scorer(once)):  # finished folds are not trained again
    scores[fold.test] = found
  if held and look:
    result['hold_out'] = _on_hold_out(scorer, source, free, held, groups, positive)
    for name, value in result['hold_out'].pop('figures').items():
      result['metrics'][name], result['intervals'][name], kind = value
      result['interval_kinds'][name] = kind
  result |= {
    'method': 'ridge head on fixed features' if frozen else config.method.name,
    'schemes': list(settings['schemes']),
    'seed': seed,
    'held_out': len(held),
    'seconds': round(time.monotonic() - started, 1),
    'start_weights': scorer.start_weights,
    **stamp(config),
    'lots': bool(config.data.get('lots')),
  }
  result['warnings'] = _warnings(result, config)
  _write_scores(directory / 'scores.csv', given, scores)
  figures = [
    ('What each scheme says, with the interval for the model of all pictures',
     evidence_figures.schemes(result)),
    (f'Scores by {len(once)} models: each picture by one that never saw it or its group',
     evidence_figures.scores(scores, marks, name=positive)),
  ]  # fmt: skip
  title = f'Cross-validation: {result["method"]} on {reporting.where(config)}'
  galleries = _hardest(source, free, marks, scores, positive, limit=config.pictures)
  report.write_report(directory, result, title=title, figures=figures, galleries=galleries)
  return result


def _positive(source: data.Source, name: str) -> str:
  if name:
    source.class_number(name)
    return name
  others = [one for one in source.classes if one != GOOD]
  if len(others) == 1 and len(source.classes) == 2:
    return others[0]
  raise ValueError(
    f'--positive=CLASS is needed: which of {", ".join(source.classes)} is to be found?'
  )


def _groups(config: ConfigDict, source: data.Source) -> np.ndarray:
  copies = duplicates.find(source)
  return samples.lots(source, copies=copies) if config.data.get('lots') else copies


def _set_aside(
  config: ConfigDict, source: data.Source, groups: np.ndarray, size: int, *, seed: int
) -> hold_out.Divided:
  path = experiment.hold_out_file(config.data)
  if path.is_relative_to(os.devnull):
    raise ValueError(
      f'{source.name} has no folder that could keep a hold-out; name a file by '
      '--config.data.hold_out=FILE, or set --hold_out=0'
    )
  first = pathlib.Path(config.data.get('dir') or os.devnull) / hold_out.FILE
  if first.exists():  # what it holds out would train beside a second one
    raise ValueError(
      f'data.hold_out is {path}, which does not exist, but {first} holds a hold-out already; '
      'leave data.hold_out empty, or name the file that there is'
    )
  everything = samples.take(source, range(len(source)), groups=groups)
  held = hold_out.draw(everything, size, seed=seed).tolist()
  return hold_out.Divided(sorted(set(range(len(source))) - set(held)), held)


def _with(
  config: ConfigDict, positive: str, frozen: bool, views: int, settings: dict[str, Any]
) -> ConfigDict:
  """What the folder holds a run of: folds of other settings must not be mixed."""
  return ConfigDict(
    {
      **config.to_dict(),
      'cross_validation': {'positive': positive, 'frozen': frozen, 'views': views, **settings},
    }
  )


def _on_hold_out(
  scorer: Any,
  source: data.Source,
  free: Sequence[int],
  held: Sequence[int],
  groups: np.ndarray,
  positive: str,
) -> dict[str, Any]:
  """What the model of all free pictures says of those that were set aside."""
  count = len(free)
  fold = Fold(np.arange(count), np.arange(count, count + len(held)))
  scores = scorer([fold])[0]
  marks = source.labels[np.asarray(held)] == source.class_number(positive)
  own = groups[np.asarray(held)]
  found: dict[str, Any] = {
    'n': len(held),
    'positives': int(marks.sum()),
    'groups': len(np.unique(own)),
    'scores': {source.names[i]: float(f'{s:.6g}') for i, s in zip(held, scores)},
    'figures': {},
  }
  if 0 < marks.sum() < len(marks):
    said = delong.auroc(scores, marks, groups=own)
    found['figures']['auroc/hold_out'] = said.value, [said.low, said.high], 'delong'
  if scorer.decides:
    for name, kind, wanted in (
      ('detection_rate/hold_out', marks, True),
      ('false_alarm_rate/hold_out', ~marks, True),
    ):
      if kind.any():
        hits = (scores[kind] > 0) == wanted
        low, high = intervals.clustered_wilson(hits, own[kind])
        found['figures'][name] = float(hits.mean()), [low, high], 'wilson'
  return found


def _warnings(result: dict[str, Any], config: ConfigDict) -> list[str]:
  found = reporting.lots_unknown(config)
  if 'hold_out' in result and result['hold_out']['n'] < 30:
    found.append(
      f'{result["hold_out"]["n"]} pictures are held out: read the interval, not the figure; and '
      'each look at them while something is still being chosen uses them up.'
    )
  return found


def _hardest(
  source: data.Source,
  free: Sequence[int],
  marks: np.ndarray,
  scores: np.ndarray,
  positive: str,
  *,
  limit: int,
) -> list[Gallery]:
  """The pictures that were ranked worst when they were left out: wrong labels show here first."""
  rising = np.argsort(scores, kind='stable')
  found = []
  for heading, sentence, rows in (
    (f'Hardest of {positive}', 'Left out, they scored lowest.', rising[marks[rising]]),
    (f'Most like {positive}', 'Left out, they scored highest.', rising[~marks[rising]][::-1]),
  ):
    pictures = [
      DrawnMap(
        image=overlays.as_rgb(source.read(free[row])),
        overlay=None,
        title=f'score {scores[row]:.4g}',
        reason=source.classes[source.labels[free[row]]],
        name=source.names[free[row]],
      )
      for row in rows[: limit // 2].tolist()
    ]
    found.append(Gallery(heading, f'{sentence} Is the label right?', pictures))
  return found


def _write_scores(path: pathlib.Path, given: Samples, scores: np.ndarray) -> None:
  partial = path.with_name(path.name + '.partial')
  with open(partial, 'w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow(('image', 'class', 'group', 'score'))
    for name, label, group, score in zip(given.names, given.labels, given.groups, scores):
      writer.writerow((name, given.classes[label], int(group), f'{score:.7g}'))
  partial.replace(path)


if __name__ == '__main__':
  command.run(define, main)
