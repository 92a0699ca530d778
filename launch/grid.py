"""A table of a source as a grid of runs: what is run, and what the paper printed.

A ``Cell`` is one figure of a table: a config with overrides, run once per seed.
"""

from typing import NamedTuple


class Cell(NamedTuple):
  """One figure of a table.

  Attributes:
    row: name of the row.
    column: name of the column.
    config: file and variant below configs/.
    overrides: ``{'split.per_class': 20}``.
    metric: the figure in the report.
    paper: what the source printed, in %; None where it has no such figure.
    shots: data set ('' for the run's own unseen classes) on which the run is tried from a few
      references per class, 'boxes': the classes that a detector's run held back are added from a
      few boxes, 'target': what learned to learn adapts to shares of its target, 'evidence', 'views'
      and 'trained': heads on features, or networks, learn from many small data sets, and what is
      said of them is checked, 'readiness' and 'loop': a line is simulated, or 'parity': the run is
      converted; None scores the run's test part.
  """

  row: str
  column: str
  config: str
  overrides: dict
  metric: str = 'accuracy'
  paper: float | None = None
  shots: str | None = None


class Column(NamedTuple):
  """One metric of a table with several.

  Attributes:
    heading: name of the column.
    metric: the figure in the report, among its ``metrics`` or beside them.
    percent: whether it is a share, to be printed in %.
    factor: by which any other figure is multiplied.
  """

  heading: str
  metric: str
  percent: bool = True
  factor: float = 1


class Table(NamedTuple):
  """A table of a source.

  Attributes:
    title: heading.
    note: what differs from the paper, in whole sentences.
    seeds: how many runs per cell.
    cells: the figures.
    metrics: the columns; () is a table of recognisers, which has one figure per cell.
    averaged: metric of which a second table has the means over the settings, which are products; ''
      has none.
    figures: files beside the reports that are shown above the table, see ``table_figures``.
    per_class: prefix of the metrics of a second table, one column per class; '' has none.
    missing: what data a table of a source would need that cannot be had, in a sentence; '' for a
      table that can be run.
  """

  title: str
  note: str
  seeds: int
  cells: tuple[Cell, ...]
  metrics: tuple[Column, ...] = ()
  per_class: str = ''
  averaged: str = ''
  figures: tuple[str, ...] = ()
  missing: str = ''
