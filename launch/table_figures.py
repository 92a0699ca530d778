"""The figures above the tables: from committed reports, or from runs where pictures are needed."""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdefect.data import Source
from jaxdefect.explain import contact_sheet, epoch_figures, figures, overlays
from launch import (
  evidence_figures,
  experiment,
  finished_run,
  loop_evidence,
  results_page,
  review_tables,
  tables,
)
from launch.grid import Cell

MOST_CLASSES = 12  # rows of a sheet
SHARE = '70'  # % of the target, of the curves over epochs


def slug(config: str, overrides: dict[str, Any]) -> str:
  """The name of a run's folder."""
  parts = [config.replace(':', '-')] + [f'{k.split(".")[-1]}-{v}' for k, v in overrides.items()]
  return '_'.join(parts).replace('/', '-').replace(':', '-')


def draw(name: str, folder: pathlib.Path, runs: pathlib.Path) -> None:
  """Draws the figures of a table; one whose reports or runs are not there stays as it is.

  Args:
    name: of the table.
    folder: docs/results.
    runs: where ``reproduce`` keeps its runs.
  """
  for figure in tables.TABLES[name].figures:
    _DRAWN[figure](name, folder / name / figure, runs)


def _approvals(name: str, path: pathlib.Path, runs: pathlib.Path) -> None:
  review_tables.draw(path.parent)


def _loop(name: str, path: pathlib.Path, runs: pathlib.Path) -> None:
  reports = _reports(name, path)
  if reports:
    loop_evidence.draw(path.parent, path.name, reports)


def _recall(name: str, path: pathlib.Path, runs: pathlib.Path) -> None:
  """Figure 4 of source C: how fast what was learned elsewhere becomes knowledge of this product."""
  shown = {
    column: {row: report['history'][SHARE]['validation_recall'] for row, report in rows.items()}
    for column, rows in _reports(name, path).items()
  }
  if shown:
    figures.save(path, epoch_figures.curves(shown, y='recall of defects, validation'))


def _gains(name: str, path: pathlib.Path, runs: pathlib.Path) -> None:
  shown: dict[str, dict[tuple[str, str], dict]] = {}
  for column, rows in _reports(name, path).items():
    for row, report in rows.items():
      network, colon, views = row.partition(': ')
      if colon and views != 'no views':
        shown.setdefault(column, {})[network, views] = report
  if shown:
    figures.save(path, evidence_figures.gains(shown))


def _thirty(name: str, path: pathlib.Path, runs: pathlib.Path) -> None:
  shown: dict[str, dict[int, list[dict]]] = {}
  for seed in range(tables.TABLES[name].seeds):
    for column, rows in _reports(name, path, seed).items():
      for row, report in rows.items():
        shown.setdefault(column, {}).setdefault(int(row.rsplit(' ', 1)[1]), []).append(report)
  if shown:
    figures.save(path, evidence_figures.thirty(shown))


def _evidence(
  name: str, path: pathlib.Path, runs: pathlib.Path, *, rows: tuple[str, ...] = ()
) -> None:
  """Grad-CAM of each row's run on one test picture per class (B, figures 2, 3; C, figure 5)."""
  cells = tables.TABLES[name].cells
  cells = [c for c in cells if c.column == cells[0].column and (not rows or c.row in rows)]
  folders = {cell.row: _directory(cell, runs) for cell in cells}
  shown = {
    row: finished_run.read_run(folder)
    for row, folder in folders.items()
    if (folder / 'evidence.json').exists()
  }
  if not shown:
    return
  first = next(iter(shown.values()))
  source, split = experiment.read_split(first.directory, first.config)
  for run in shown.values():
    if experiment.read_split(run.directory, run.config)[1].test != split.test:
      raise ValueError(f'{run.directory} and {first.directory} are tested on other pictures')
  places = _first_of_each(source, split.test, first.fitted.classes)
  columns = [_overlays(run, source, places) for run in shown.values()]
  sheet = [
    contact_sheet.Row(
      source.classes[source.labels[place]],
      columns[0][place][0],
      np.stack([column[place][1] for column in columns]),
      ', '.join(f'{row}: wrong' for row, column in zip(shown, columns) if column[place][2]),
    )
    for place in places
  ]
  path.parent.mkdir(parents=True, exist_ok=True)
  figures.save(path, contact_sheet.contact_sheet(sheet, headings=('original', *shown)))


def _first_of_each(source: Source, test: Any, classes: tuple[str, ...]) -> list[int]:
  """The first test picture of each class; of many classes ``MOST_CLASSES``, evenly."""
  named = [source.classes[source.labels[i]] for i in test]
  firsts = [test[named.index(name)] for name in classes if name in named]
  kept = np.linspace(0, len(firsts) - 1, min(len(firsts), MOST_CLASSES)).astype(int)
  return [firsts[i] for i in kept]


def _overlays(
  run: finished_run.Finished, source: Source, places: list[int]
) -> dict[int, tuple[np.ndarray, np.ndarray, bool]]:
  """Place -> the picture, its evidence laid over it on the run's one scale, whether it is wrong."""
  found = {}
  for batch in experiment.eval_batches(run.config, source, places, run.fitted.classes):
    heat = run.evidence(batch)
    assert heat is not None
    said = np.asarray(run.predict(batch).scores.argmax(-1))
    for i in np.flatnonzero(batch['valid']):
      picture = np.asarray(batch['image'][i])
      laid = overlays.overlay(picture, np.asarray(heat[i]), ceiling=run.evidence_ceiling)
      found[int(batch['index'][i])] = (picture, laid, bool(said[i] != batch['label'][i]))
  return found


def _directory(cell: Cell, runs: pathlib.Path) -> pathlib.Path:
  return runs / slug(cell.config, cell.overrides) / 'seed_0'


def _reports(name: str, path: pathlib.Path, seed: int = 0) -> dict[str, dict[str, dict]]:
  """Column -> row -> the committed report of a seed."""
  reports: dict[str, dict[str, dict]] = {}
  for cell in tables.TABLES[name].cells:
    file = results_page.path(path.parent.parent, name, cell, seed)
    if file.exists():
      reports.setdefault(cell.column, {})[cell.row] = json.loads(file.read_text())
  return reports


_DRAWN: dict[str, Callable[[str, pathlib.Path, pathlib.Path], None]] = {
  'approved.png': _approvals,
  'loop.png': _loop,
  'gains.png': _gains,
  'gradcam.png': _evidence,
  'maml_gradcam.png': functools.partial(_evidence, rows=('MAML', 'random')),
  'recall.png': _recall,
  'thirty.png': _thirty,
}
