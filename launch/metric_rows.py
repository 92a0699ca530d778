"""Renders a table with several metrics per cell; where asked, more per class or over products."""

from jaxdefect.evaluate import intervals, seeds
from launch.grid import Cell, Column, Table


def lines(table: Table, runs_of: list[tuple[Cell, list[dict]]]) -> list[str]:
  """The Markdown of a table.

  Args:
    table: one with ``metrics``.
    runs_of: its cells with their committed reports, one per seed.

  Returns:
    Lines: the table, what is missing, the table per class, the means over products.
  """
  found = [(cell, runs) for cell, runs in runs_of if runs]
  head = ['method', 'setting', 'paper', 'M', *(column.heading for column in table.metrics)]
  head += ['seeds', 'n', 'minutes']
  rows = [_row(table, cell, runs) for cell, runs in runs_of]
  parts = [_line(head), _line(['---'] * len(head)), *rows]
  missing = len(table.cells) - len(found)
  if missing:
    parts += ['', f'{missing} of {len(table.cells)} figures have not been run yet.']
  if table.per_class and found:
    parts += ['', 'AP@0.5 per class:', '', *_per_class(table, found)]
  means = _means(table, runs_of) if table.averaged else []
  if means:
    heading = next(c.heading for c in table.metrics if c.metric == table.averaged)
    parts += ['', f'{heading}, over the products, weighted by their test pictures and not:', '']
    parts += [_line(['method', 'weighted', 'mean', 'seeds']), _line(['---'] * 4), *means]
  return parts


def _means(table: Table, runs_of: list[tuple[Cell, list[dict]]]) -> list[str]:
  """A line for every row that has a run of every product; each seed is one mean."""
  columns, rows = (list(dict.fromkeys(c[i] for c, _ in runs_of)) for i in (1, 0))
  parts = []
  for row in rows:
    runs = [{run['seed']: run for run in runs} for cell, runs in runs_of if cell.row == row]
    seeds = sorted(set.intersection(*(set(one) for one in runs)))
    if len(runs) < len(columns) or not seeds:
      continue
    shown = []
    for weight in ('n', None):
      means = [_mean(table.averaged, [one[seed] for one in runs], weight) for seed in seeds]
      shown.append(_figure(means, Column('', 'mean')))
    parts.append(_line([row, *shown, str(len(seeds))]))
  return parts


def _mean(metric: str, runs: list[dict], weight: str | None) -> dict:
  found = intervals.combined_interval(
    [run['metrics'][metric] for run in runs],
    [run['intervals'][metric] for run in runs],
    [run[weight] for run in runs] if weight else None,
  )
  return {'metrics': {'mean': found.mean}, 'intervals': {'mean': found[1:]}}


def _row(table: Table, cell: Cell, runs: list[dict]) -> str:
  paper = '' if cell.paper is None else f'{cell.paper:.1f}'
  if not runs:
    empty = [''] * (len(table.metrics) - 1)
    return _line(
      [cell.row, cell.column, paper, '', 'not run', *empty, f'0 of {table.seeds}', '', '']
    )
  figures = [_figure(runs, column) for column in table.metrics]
  done = f'{len(runs)}' if len(runs) == table.seeds else f'{len(runs)} of {table.seeds}'
  minutes = sum(run['seconds'] for run in runs) / len(runs) / 60
  size = f'{runs[0]["parameters"] / 1e6:.2f}' if 'parameters' in runs[0] else ''
  n = sum(run['n'] for run in runs)
  return _line([cell.row, cell.column, paper, size, *figures, done, f'{n:,}', f'{minutes:.0f}'])


def _figure(runs: list[dict], column: Column) -> str:
  """``75.1 [73.0, 77.2]``: mean over seeds with its interval, or one run with its own."""
  metric, factor = column.metric, 100 if column.percent else column.factor
  figures = [run['metrics'].get(metric, run.get(metric)) for run in runs]
  if None in figures:
    return ''  # nothing of the kind in such a run
  if isinstance(figures[0], list):  # a range
    low, high = (factor * sum(ends) / len(ends) for ends in zip(*figures))
    return f'{low:.1f} to {high:.1f}'
  values = [factor * figure for figure in figures]
  if len(set(values)) > 1:
    mean, _, low, high = intervals.mean_interval(values)
    high = min(high, 100) if column.percent else high
    return f'{mean:.1f} [{max(low, 0):.1f}, {high:.1f}]'
  interval = seeds.interval(runs, metric) if metric in runs[0]['metrics'] else []
  if interval:
    low, high = (factor * end for end in interval[:2])
    return f'{values[0]:.1f} [{low:.1f}, {high:.1f}]'
  spread = runs[0].get('sd', {}).get(metric)
  return f'{values[0]:.1f}' + (f' (sd {factor * spread:.1f})' if spread is not None else '')


def _per_class(table: Table, found: list[tuple[Cell, list[dict]]]) -> list[str]:
  classes = sorted({name for _, runs in found for run in runs for name in run['support']})
  parts = [_line(['method', 'setting', *classes]), _line(['---'] * (len(classes) + 2))]
  for cell, runs in found:
    figures = []
    for name in classes:
      figures.append(_figure(runs, Column(name, f'{table.per_class}{name}')))
    parts.append(_line([cell.row, cell.column, *figures]))
  return parts


def _line(cells: list[str]) -> str:
  return f'| {" | ".join(cells)} |'
