"""Renders docs/results.csv: a line for every committed figure of a real run, for other programs."""

import csv
import io
import json
import pathlib
from collections.abc import Iterator

from launch import results_page, tables

HEAD = ('table', 'method', 'setting', 'seed', 'metric', 'value', 'low', 'high', 'confidence')
HEAD += ('paper', 'n', 'training_seconds', 'device', 'jax')


def render(folder: pathlib.Path) -> str:
  """The file's text.

  Args:
    folder: docs/results.

  Returns:
    CSV with a heading; ``value``, ``low`` and ``high`` (the interval of that run, where it has one)
    as the report has them, to six digits: shares lie in [0, 1]. ``paper`` is what the source
    printed for the figure that the table is about, on the same scale.
  """
  text = io.StringIO()
  lines = csv.writer(text, lineterminator='\n')
  lines.writerow(HEAD)
  for name, table in tables.TABLES.items():
    for cell in table.cells:
      for seed in range(table.seeds):
        path = results_page.path(folder, name, cell, seed)
        if path.exists():
          start = (name, cell.row, cell.column, seed)
          lines.writerows((*start, *rest) for rest in _figures(table, cell, path))
  return text.getvalue()


def _figures(table: tables.Table, cell: tables.Cell, path: pathlib.Path) -> Iterator[tuple]:
  run = json.loads(path.read_text())
  names = dict.fromkeys((cell.metric, *(column.metric for column in table.metrics)))
  if table.per_class:
    names |= dict.fromkeys(f'{table.per_class}{one}' for one in run['support'])
  for metric in names:
    value = run['metrics'].get(metric, run.get(metric))
    if value is None:
      continue
    low, high = run.get('intervals', {}).get(metric) or ('', '')
    if isinstance(value, list):  # a range
      value, (low, high) = '', value
    confidence = '' if low == '' else run.get('confidence', '')
    paper = '' if metric != cell.metric or cell.paper is None else cell.paper / 100
    about = (run['n'], round(run['seconds'], 1), run['versions']['device'], run['versions']['jax'])
    yield metric, *map(_short, (value, low, high, confidence, paper)), *about


def _short(figure: float | str) -> str:
  return figure if isinstance(figure, str) else f'{figure:.6g}'
