"""The simulated loop: it starts and tests alike in any order, and learns from what it chooses."""

import numpy as np

from jaxdefect.explain import loop_figures
from launch import evidence, loop_evidence
from launch.evidence_tables import Setting
from launch.loop_evidence import CHANCE, COUNTS, QUEUE

SETTING = Setting('defect', ('good',))


def problem(n=500, seed=0):
  generator = np.random.default_rng(seed)
  positive = generator.random(n) < 0.5
  x = generator.normal(size=(n, 20))
  x[:, 0] += 1.2 * np.where(positive, 1, -1)
  names = np.array([f'{i:04}' for i in range(n)])
  return evidence.Problem(x, positive, np.arange(n), names)


def test_both_orders_begin_with_the_same_and_learn():
  curves = {
    order: np.array(
      [loop_evidence.curve(problem(), SETTING, seed, order=order) for seed in range(3)]
    )
    for order in (QUEUE, CHANCE)
  }
  for values in curves.values():
    assert values.shape == (3, len(COUNTS))
    assert values[:, -1].mean() > values[:, 0].mean()
  np.testing.assert_array_equal(curves[QUEUE][:, 0], curves[CHANCE][:, 0])
  assert (curves[QUEUE][:, 1:] != curves[CHANCE][:, 1:]).any()


def test_figure_shows_means_and_bands():
  values = np.array([[0.5, 0.7], [0.7, 0.9]])
  figure = loop_figures.curves({'caps': {'queue': values}}, counts=(30, 40))
  line = figure.axes[0].lines[0]
  np.testing.assert_allclose(line.get_ydata(), [0.6, 0.8])
  assert line.get_xdata().tolist() == [30, 40]
