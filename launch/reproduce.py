"""Runs the tables of the sources: python -m launch.reproduce --table=B3 [--seeds=0,1] [--jobs=2].

Each cell and seed is a run of launch.train below --workdir; a finished one is not run again, an
interrupted one goes on. With --jobs several run at a time, as far as the memory allows, each on its
share of the cores and with its output below <workdir>/logs/. The figures are kept in
docs/results/<table>/, and docs/results.md and results.csv are rendered from those files alone:
--render does only that (and docs/parameters.md, which is counted, docs/performance.md with its
pictures, from benchmarks/results/, and the scores in README.md and on other pages), --check fails
if a page is not what the files and the code say. --list names the tables.
"""

import concurrent.futures
import json
import multiprocessing
import pathlib
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from jaxdefect import data
from jaxdefect.explain import report
from jaxdefect.train import metric_log
from launch import (
  adaptation,
  anomaly_tables,
  command,
  evaluate,
  evidence,
  evidence_tables,
  experiment,
  finished_run,
  loop_evidence,
  parameters_page,
  parity_tables,
  performance_page,
  results_csv,
  results_page,
  review_tables,
  side_by_side,
  table_figures,
  tables,
  target_adaptation,
  train,
  view_evidence,
)

# Lists of file names, which stay with the run.
_LISTS = ('near_duplicates', 'left_out')
SHARES = (0.05, 0.2, 0.7)  # of a target's pictures
LOG_LINES = 20


def load_config(name: str, overrides: dict, seed: int) -> ConfigDict:
  """A config of configs/ by ``stem[:variant]``, with ``{'split.per_class': 20}`` laid over it."""
  stem, colon, variant = name.partition(':')
  config = command.load_config(f'{command.CONFIGS / stem}.py{colon}{variant}')
  config.update_from_flattened_dict({**overrides, 'seeds': (seed,)})
  return config


def run_cell(cell: tables.Cell, seed: int, runs: pathlib.Path) -> dict:
  """Trains (or finds trained) one seed of a cell and returns what the results page needs."""
  if cell.shots == 'readiness':
    return compact(review_tables.of_cell(cell.row, cell.column))
  config = load_config(cell.config, cell.overrides, seed)
  if cell.shots in _ON_FEATURES:
    return compact(_ON_FEATURES[cell.shots](cell, config, seed, _features(cell, runs)))
  directory = _directory(cell.config, cell.overrides, seed, runs)
  start = config.pretrained.weights
  if start.startswith(anomaly_tables.RUN):
    start = start.removeprefix(anomaly_tables.RUN)
    config.pretrained.weights = str(_start_run(start, seed, runs))
  result = _train(config, seed, directory)
  if cell.shots == 'boxes':
    result = {**result, **_from_boxes(directory)}
  elif cell.shots == 'parity':
    result = {**result, **parity_tables.of_cell(directory, cell.metric)}
  elif cell.shots == 'target':
    result = {**result, **_from_target(directory)}
  elif cell.shots is not None:
    result = {**result, **_from_shots(cell, directory)}
  return compact({**result, 'log': _log(directory)})


def _of_trained(cell: tables.Cell, config: ConfigDict, seed: int, features: pathlib.Path) -> dict:
  training = load_config('classifier_folder', evidence_tables.TRAINED[cell.row], seed)
  return view_evidence.of_trained_cell(cell.row, cell.column, config, training, features)


# Cells that are many small data sets drawn from one: what computes them.
_ON_FEATURES = {
  'evidence': lambda cell, config, seed, at: evidence.of_cell(cell.row, cell.column, config, at),
  'views': lambda cell, config, seed, at: view_evidence.of_cell(cell.row, cell.column, config, at),
  'loop': lambda cell, config, seed, at: loop_evidence.of_cell(cell.row, cell.column, config, at),
  'trained': _of_trained,
}


def _log(directory: pathlib.Path) -> list[dict]:
  """At most ``LOG_LINES`` lines of a run's log, evenly, with its last."""
  lines = metric_log.read(directory / 'metrics.jsonl')
  every = -(-len(lines) // LOG_LINES) or 1
  return lines[::-every][::-1]


def _start_run(name: str, seed: int, runs: pathlib.Path) -> pathlib.Path:
  """The run that gives another one its start weights, made where it is missing."""
  directory = _directory(name, {}, seed, runs)
  _train(load_config(name, {}, seed), seed, directory)
  return directory


def _train(config: ConfigDict, seed: int, directory: pathlib.Path) -> dict:
  """Trains where it is not yet done; in a process of its own where the memory is measured."""
  if 'calibration' not in config or (directory / 'report.json').exists():
    return train.train_seed(config, seed, directory)
  with concurrent.futures.ProcessPoolExecutor(
    1,
    mp_context=multiprocessing.get_context('spawn'),
    initializer=command.remember_compilations,
  ) as pool:
    return pool.submit(train.train_seed, config, seed, directory).result()


def _from_boxes(directory: pathlib.Path) -> dict:
  path = directory / 'boxes.json'
  if not path.exists():
    report.write_json(path, adaptation.from_boxes(directory, (5, 10)))
  return {**json.loads(path.read_text()), 'intervals': {}}


def _from_target(directory: pathlib.Path) -> dict:
  path = directory / 'target.json'
  if not path.exists():
    report.write_json(path, target_adaptation.from_shares(directory, SHARES))
  return json.loads(path.read_text())


def _from_shots(cell: tables.Cell, directory: pathlib.Path) -> dict:
  path = directory / f'shots{cell.shots}.json'
  if not path.exists():
    run = finished_run.read_run(directory)
    if cell.shots:
      settings = load_config(f'contrastive_margin_{cell.shots}', {}, 0).data
      source = data.load(settings.name, dir=settings.dir)
      images: Sequence[int] = range(len(source))
    else:
      source, split = experiment.read_split(directory, run.config)
      images = split.references + split.test
    scores = evaluate.recognise_from_shots(run, source, images, (1, 3, 5), draws=100)
    report.write_json(path, scores)
  keys = ('metrics', 'intervals', 'sd', 'n', 'draws')
  return {k: v for k, v in json.loads(path.read_text()).items() if k in keys}


def compact(result: dict) -> dict:
  """What is committed of a report: no machine's paths, no lists of file names."""
  keys = ('metrics', 'intervals', 'interval_kinds', 'confidence', 'n', 'classes', 'support')
  keys += ('confusion_matrix', 'seed', 'seconds', 'start_weights', 'versions', 'draws', 'sd')
  keys += ('parameters', 'training_boxes', 'test_boxes', 'history')
  keys += ('threshold', 'nominal_false_alarm_rate', 'likely_false_alarm_rate', 'kinds')
  keys += ('curve', 'fit_seconds', 'ms_per_image', 'model_bytes', 'peak_bytes', 'log')
  kept = {k: result[k] for k in keys if k in result}
  if 'floor' in result:
    kept['floor'] = {'accuracy': result['floor']['metrics']['accuracy']}
  config = json.loads(json.dumps(result['config']))
  named = [config.get(part, {}) for part in ('data', 'pretrained')]
  named += [one for part in ('tasks', 'validation_tasks') for one in config.get(part, {}).values()]
  for one in named:
    if 'dir' in one:
      one['dir'] = pathlib.PurePath(one['dir']).name
    if '/' in (one.get('weights') or ''):  # a run
      one['weights'] = '/'.join(pathlib.PurePath(one['weights']).parts[-2:])
  split = {k: v for k, v in result['split'].items() if k not in _LISTS}
  split['groups_of_near_duplicates'] = len(result['split'].get('near_duplicates', ()))
  return {**kept, 'split': split, 'config': config}


def define(values: flags.FlagValues) -> None:
  flags.DEFINE_list('table', [], f'tables to run: {", ".join(tables.TABLES)}', flag_values=values)
  flags.DEFINE_list('seeds', [], 'only these seeds', flag_values=values)
  flags.DEFINE_string('rows', '', 'only rows with this in their name', flag_values=values)
  flags.DEFINE_string('columns', '', 'only this column', flag_values=values)
  flags.DEFINE_integer('jobs', 1, 'cells that run at a time, at most', flag_values=values)
  flags.DEFINE_string('workdir', 'runs/reproduce', 'folder of the runs', flag_values=values)
  flags.DEFINE_string('docs', 'docs', 'folder of results/ and results.md', flag_values=values)
  flags.DEFINE_bool('list', False, 'only say what there is', flag_values=values)
  flags.DEFINE_bool('render', False, 'only render results.md', flag_values=values)
  flags.DEFINE_bool('check', False, 'only compare results.md with the files', flag_values=values)


def main(values: flags.FlagValues) -> None:
  docs = pathlib.Path(values.docs)
  if values.list:
    print('\n'.join(results_page.inventory(docs / 'results')))
    return
  if values.check:
    for name, text in _pages(docs).items():
      if (docs / name).read_text() != text:
        raise ValueError(f'{docs / name} is not what the code and docs/results/ say: run --render')
    return
  if not values.render:
    if not values.table:
      raise ValueError(f'--table is needed; there are {", ".join(tables.TABLES)}')
    for name in values.table:
      if name not in tables.TABLES:
        raise ValueError(f'there is no table {name!r}; there are {", ".join(tables.TABLES)}')
      if tables.TABLES[name].missing:
        raise ValueError(f'table {name} cannot be run: {tables.TABLES[name].missing}')
    if values.jobs < 1:
      raise ValueError(f'--jobs={values.jobs} is no number of processes')
    _run_tables(values)
  for name, text in _pages(docs).items():
    (docs / name).write_text(text)
  if values.render and _measured(docs).is_dir():
    performance_page.draw(_measured(docs), docs / 'performance')


def _pages(docs: pathlib.Path) -> dict[str, str]:
  pages = {
    'results.md': results_page.render(docs / 'results'),
    'results.csv': results_csv.render(docs / 'results'),
    'parameters.md': parameters_page.render(),
  }
  if _measured(docs).is_dir():
    pages['performance.md'] = performance_page.render(_measured(docs))
  written = [docs.parent / 'README.md', *sorted(docs.glob('*.md'))]
  for page in (one for one in written if one.exists()):
    text = page.read_text()
    if page.name not in pages and results_page.SCORE.search(text):
      name = str(pathlib.Path('..') / page.name) if page.parent != docs else page.name
      pages[name] = results_page.fill_scores(text, docs / 'results')
  return pages


def _measured(docs: pathlib.Path) -> pathlib.Path:
  """The results of benchmarks/, which a wheel does not have."""
  return docs.parent / 'benchmarks' / 'results'


def _run_tables(values: flags.FlagValues) -> None:
  docs, runs = pathlib.Path(values.docs), pathlib.Path(values.workdir)
  chosen = [
    (name, cell, seed)
    for name in values.table
    for seed in _seeds(values, tables.TABLES[name])
    for cell in tables.TABLES[name].cells
    if values.rows in cell.row and values.columns in ('', cell.column)
  ]
  if not chosen:
    cells = [cell for name in values.table for cell in tables.TABLES[name].cells]
    rows, columns = (list(dict.fromkeys(named)) for named in zip(*(cell[:2] for cell in cells)))
    raise ValueError(
      f'no cell of {", ".join(values.table)} has a row with {values.rows!r} and the column '
      f'{values.columns!r}; rows are {", ".join(rows)}, columns {", ".join(columns)}'
    )
  missing = [one for one in chosen if not results_page.path(docs / 'results', *one).exists()]
  if values.jobs == 1:
    for one in missing:
      _run_one(*one, docs, runs)
      _say(*one, docs)
  else:
    todo = {_name(*one): one for one in missing}
    jobs = [
      side_by_side.Task(
        name,
        _folders(*one[1:], runs),
        results_page.path(runs / 'logs', *one).with_suffix('.log'),
        (*one, docs, runs),
      )
      for name, one in todo.items()
    ]
    for job, event in side_by_side.run(_run_one, jobs, values.jobs):
      if event == 'started':
        print(f'{job.name}: started, see {job.log}', flush=True)
      else:
        _say(*todo[job.name], docs)
  for name in values.table:
    table_figures.draw(name, docs / 'results', runs)


def _seeds(values: flags.FlagValues, table: tables.Table) -> Sequence[int]:
  """The seeds that were asked for, of those that the table has."""
  try:
    asked = [int(seed) for seed in values.seeds]
  except ValueError:
    raise ValueError(f'--seeds={",".join(values.seeds)} are no whole numbers') from None
  if any(seed not in range(table.seeds) for seed in asked):
    raise ValueError(f'--seeds={",".join(values.seeds)}: {table.title} has 0 to {table.seeds - 1}')
  return asked or range(table.seeds)


def _name(table: str, cell: tables.Cell, seed: int) -> str:
  return f'{table} {cell.row}, {cell.column}, seed {seed}'


def _run_one(
  table: str, cell: tables.Cell, seed: int, docs: pathlib.Path, runs: pathlib.Path
) -> None:
  result = run_cell(cell, seed, runs)
  path = results_page.path(docs / 'results', table, cell, seed)
  path.parent.mkdir(parents=True, exist_ok=True)
  report.write_json(path, result)


def _say(table: str, cell: tables.Cell, seed: int, docs: pathlib.Path) -> None:
  """Puts a new figure on the page and the terminal."""
  (docs / 'results.md').write_text(results_page.render(docs / 'results'))
  path = results_page.path(docs / 'results', table, cell, seed)
  metrics = json.loads(path.read_text())['metrics']
  figure = metrics.get(cell.metric, metrics.get('jax/figure'))
  print(f'{_name(table, cell, seed)}: {100 * figure:.2f} %', flush=True)


def _folders(cell: tables.Cell, seed: int, runs: pathlib.Path) -> frozenset[pathlib.Path]:
  """What ``run_cell`` writes into."""
  if cell.shots == 'readiness':
    return frozenset()
  if cell.shots in _ON_FEATURES:
    return frozenset({_features(cell, runs)})
  start = load_config(cell.config, cell.overrides, seed).pretrained.weights
  found = {_directory(cell.config, cell.overrides, seed, runs)}
  if start.startswith(anomaly_tables.RUN):
    found.add(_directory(start.removeprefix(anomaly_tables.RUN), {}, seed, runs))
  return frozenset(found)


def _directory(config: str, overrides: dict, seed: int, runs: pathlib.Path) -> pathlib.Path:
  return runs / table_figures.slug(config, overrides) / f'seed_{seed}'


def _features(cell: tables.Cell, runs: pathlib.Path) -> pathlib.Path:
  return runs / 'evidence' / table_figures.slug(cell.config, cell.overrides)


if __name__ == '__main__':
  command.run(define, main)
