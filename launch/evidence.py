"""Does the interval hold? Many small data sets out of one, each cross-validated and then checked.

Features are computed once per data set and backbone and kept below the folder of the runs; heads
and folds are linear algebra on them (``evaluate.ridge_head``).
"""

import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl
from ml_collections import ConfigDict

from jaxdefect.data import duplicates, samples
from jaxdefect.data.folds import Fold
from jaxdefect.data.samples import Samples
from jaxdefect.evaluate import cross_validation, delong, intervals, ridge_head
from jaxdefect.explain import report
from launch import evidence_tables, experiment, frozen
from launch.evidence_tables import Setting
from launch.versions import versions

OTHER = 'other'
_RESAMPLES = 500
_REPEATS = 20
_FEWEST_GROUPS = 3  # of a kind, so that one is left when two are left out


class Problem(NamedTuple):
  """Two kinds of picture as features.

  Attributes:
    features: [N, F] of length one.
    positive: [N] bool.
    groups: [N] int, alike for pictures that stay together.
    names: [N].
  """

  features: np.ndarray
  positive: np.ndarray
  groups: np.ndarray
  names: np.ndarray


def from_resampled(
  config: ConfigDict, setting: Setting, directory: pathlib.Path, *, seeds: Sequence[int]
) -> dict[str, Any]:
  """All schemes on many data sets out of one, and how often and how far they are off.

  Args:
    config: names the data, the backbone and its weights.
    setting: the two kinds of picture, and how many.
    directory: where the features are kept.
    seeds: one data set each.

  Returns:
    Scheme -> a report as ``reproduce.compact`` takes it.
  """
  started = time.monotonic()
  problem = load(config, setting, directory)
  with threadpoolctl.threadpool_limits(1):  # 50 x 50 systems: threads would only wait
    found = [trial(problem, setting, seed) for seed in seeds]
  trials = [one for one in found if one]
  named = {
    'split': {
      'kind': 'resampled',
      'seeds': [min(seeds), max(seeds)],
      'pictures': evidence_tables.PICTURES,
      **setting._asdict(),
      'positives_in_all': int(problem.positive.sum()),
      'negatives_in_all': int((~problem.positive).sum()),
    },
    'config': config.to_dict(),
    'seconds': round(time.monotonic() - started, 1),
    'versions': versions(),
  }
  return {
    scheme: {**summary([one[scheme] for one in trials]), **named} for scheme in setting.schemes
  }


def load(config: ConfigDict, setting: Setting, directory: pathlib.Path) -> Problem:
  """The features of the pictures that the setting names, computed or read back."""
  source = experiment.load_source(config.data)
  wanted = {source.class_number(name) for name in (setting.positive, *setting.negatives)}
  indices = [i for i, label in enumerate(source.labels) if int(label) in wanted]
  names = np.array([source.names[i] for i in indices])
  path = directory / 'features.npz'
  if not path.exists():
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / 'features.partial.npz'
    pooled = frozen.features(config, source, indices)[:, 0]
    groups = duplicates.find(source)[indices]
    np.savez(partial, features=pooled, groups=groups, names=names)
    partial.replace(path)
  with np.load(path) as stored:
    if stored['names'].tolist() != names.tolist():
      raise ValueError(f'{path} has the features of other pictures; delete it.')
    positive = source.labels[indices] == source.class_number(setting.positive)
    return Problem(ridge_head.unit_vectors(stored['features']), positive, stored['groups'], names)


def draw(problem: Problem, counts: tuple[int, int], seed: int, among: np.ndarray) -> np.ndarray:
  """Whole groups in the seed's order that fit into ``counts`` (negatives, positives)."""
  given = Samples(
    names=tuple(problem.names[among].tolist()),
    labels=problem.positive[among].astype(np.int32),
    classes=(OTHER, 'positive'),
    groups=problem.groups[among],
  )
  return among[samples.draw(given, counts, seed=seed)]


def trial(problem: Problem, setting: Setting, seed: int) -> dict[str, dict[str, Any]]:
  """One data set: what each scheme says, and the truth; nothing where it has too few groups."""
  counts = evidence_tables.PICTURES - setting.positives, setting.positives
  drawn = draw(problem, counts, seed, np.arange(len(problem.names)))
  if len(drawn) < sum(counts) and not setting.fewer:
    raise ValueError(f'{counts} pictures of the two kinds cannot be drawn in whole groups')
  given, marks, groups = (part[drawn] for part in problem[:3])
  if min(len(np.unique(groups[side])) for side in (marks, ~marks)) < _FEWEST_GROUPS:
    return {}
  penalty = setting.strength * ridge_head.spread(given)
  rest = ~np.isin(problem.groups, groups)

  def truth(trained: np.ndarray) -> float:
    head = ridge_head.fit(problem.features[trained], problem.positive[trained], penalty=penalty)
    scores = ridge_head.scores(head, problem.features[rest])
    return delong.auroc(scores, problem.positive[rest]).value

  whole = Samples(
    names=tuple(problem.names[drawn].tolist()),
    labels=marks.astype(np.int32),
    classes=(OTHER, setting.positive),
    groups=groups,
  )
  torn = whole._replace(groups=np.arange(len(drawn)))
  score = ridge_head.LeaveOut(given, marks, penalty=penalty)
  # Name -> samples, scheme of cross_validation, repetitions.
  schemes = {
    'leave_one_out': (whole, 'leave_one_out', 1),
    'leave_pair_out': (whole, 'leave_pair_out', 1),
    'torn': (torn, 'leave_pair_out', 1),
    'k_fold': (whole, 'k_fold', _REPEATS),
    'k_fold_once': (whole, 'k_fold', 1),
  }
  found: dict[str, dict[str, Any]] = {}
  for name, (labelled, scheme, repeats) in schemes.items():
    if name in setting.schemes:
      run = cross_validation.evaluate(
        score,
        labelled,
        positive=setting.positive,
        schemes=(scheme,),
        repeats=repeats,
        seed=seed,
        num_resamples=_RESAMPLES,
      )
      found[name] = _said(run, scheme) | {'truth': truth(drawn)}
  if 'k_fold' in found:
    once = found['k_fold']['split_sd']
    found['k_fold']['split_sd'] = once / np.sqrt(_REPEATS)
    found['k_fold_once']['split_sd'] = once
  if 'hold_out' in setting.schemes:
    positives = round(evidence_tables.HELD_OUT * setting.positives / evidence_tables.PICTURES)
    held = draw(problem, (evidence_tables.HELD_OUT - positives, positives), seed, drawn)
    trained = np.setdiff1d(drawn, held)
    fold = Fold(np.searchsorted(drawn, trained), np.searchsorted(drawn, held))
    said = delong.auroc(score([fold])[0], problem.positive[held], groups=problem.groups[held])
    ends = [said.low, said.high]
    found['hold_out'] = {
      **{'said': said.value, 'interval': ends, 'fixed': ends, 'bootstrap': None},
      **{'split_sd': None, 'truth': truth(trained)},
    }
  return found


def _said(run: dict[str, Any], scheme: str) -> dict[str, Any]:
  name = f'auroc/{scheme}'
  return {
    'said': run['metrics'][name],
    'interval': run['intervals'][name],
    'fixed': run['fixed_model_intervals'][name],
    'bootstrap': run['bootstrap_intervals'][name],
    'split_sd': run['stability'][scheme]['split_sd'],
  }


def summary(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """What came of one scheme over all data sets: metrics, intervals and n."""
  said, true = (np.array([one[key] for one in trials]) for key in ('said', 'truth'))
  error = said - true
  metrics = {
    'truth': true.mean(),
    'estimate': said.mean(),
    'bias': error.mean(),
    'estimate_sd': said.std(ddof=1),
    'error_sd': error.std(ddof=1),
    'width': np.mean([one['interval'][1] - one['interval'][0] for one in trials]),
    'no_pair_lost': np.mean(said == 1),
  }
  bias = intervals.mean_interval(error.tolist())
  ends = {'bias': [bias.low, bias.high]}
  kinds = {'bias': 'student'}
  for name, key in (('', 'interval'), ('_fixed', 'fixed'), ('_bootstrap', 'bootstrap')):
    if trials[0][key] is not None:
      low, high = np.array([one[key] for one in trials]).T
      held = int(((low <= true) & (true <= high)).sum())
      metrics[f'coverage{name}'] = held / len(trials)
      ends[f'coverage{name}'] = list(intervals.wilson(held, len(trials)))
      kinds[f'coverage{name}'] = 'wilson'
  if trials[0]['split_sd'] is not None:
    metrics['split_sd'] = np.mean([one['split_sd'] for one in trials])
  return {
    'metrics': {name: float(value) for name, value in metrics.items()},
    'intervals': ends,
    'interval_kinds': kinds,
    'confidence': 0.95,
    'sd': {'truth': float(true.std(ddof=1))},
    'n': len(trials),
  }


def of_cell(row: str, column: str, config: ConfigDict, directory: pathlib.Path) -> dict[str, Any]:
  """The report of one cell; all schemes of its problem are run together and kept.

  Args:
    row: of ``evidence_tables.SCHEMES``.
    column: of ``evidence_tables.PROBLEMS``.
    config: of the cell.
    directory: of the features, and of what was found.
  """
  setting = evidence_tables.PROBLEMS[column][2]
  path = directory / f'evidence_{setting.positives}_{setting.strength:g}.json'
  if not path.exists():
    found = from_resampled(config, setting, directory, seeds=evidence_tables.SEEDS)
    report.write_json(path, {'metrics': {}, 'schemes': found})
  return json.loads(path.read_text())['schemes'][evidence_tables.SCHEMES[row]]
