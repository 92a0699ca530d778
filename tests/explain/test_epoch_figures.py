"""Curves over epochs: a line for each start, in its own colour."""

import pytest

from jaxdefect.explain import epoch_figures


def test_lines_are_the_values():
  shown = {'caps': {'MAML': [0.2, 0.9], 'random': [0.1, 0.4, 0.8]}}
  figure = epoch_figures.curves(shown, y='recall')
  (axes,) = figure.axes
  assert [line.get_ydata().tolist() for line in axes.lines] == list(shown['caps'].values())
  assert len({line.get_color() for line in axes.lines}) == 2
  assert axes.get_ylabel() == 'recall'


def test_rejects_nothing():
  with pytest.raises(ValueError, match='shown is empty'):
    epoch_figures.curves({}, y='recall')
