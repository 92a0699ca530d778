"""The simulated lines of table R1: what they show is what they are."""

import numpy as np

from jaxdefect.explain import readiness_figures
from launch import review_tables
from launch.review_tables import EACH, LINES, ONCE, OURS, PARTS


def test_more_looks_approve_more_lines():
  rows = review_tables.simulated(0.95)
  shares = {name: (parts > 0).mean() for name, parts in rows.items()}
  assert shares[OURS] <= 0.05
  assert shares[ONCE] <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / LINES)
  assert shares[EACH] > 0.1
  # Whoever looks every time has looked at the last time, too.
  assert (rows[EACH][rows[ONCE] > 0] > 0).all()


def test_a_cell_says_how_many():
  found = review_tables.of_cell(OURS, '98 %')
  parts = review_tables.simulated(0.98)[OURS]
  assert found['metrics']['approved'] == (parts > 0).mean()
  assert found['metrics']['median_parts'] == np.median(parts[parts > 0])
  low, high = found['intervals']['approved']
  assert low < found['metrics']['approved'] < high
  assert review_tables.of_cell(OURS, '90 %')['metrics'].keys() == {'approved'}


def test_figure_shows_its_curves():
  curves = {'bad': {'ours': np.array([0.0, 0.1])}, 'good': {'ours': np.array([0.5, 1.0])}}
  figure = readiness_figures.approvals(curves, promised=0.05, target=0.9)
  drawn = [axes.lines[0].get_ydata().tolist() for axes in figure.axes]
  assert drawn == [[0, 10], [50, 100]]
  assert PARTS > 1
