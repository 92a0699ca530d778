"""Figures hold the numbers that they are given, in every corner and without a warning."""

import io
import itertools

import matplotlib
import numpy as np
import pytest
from PIL import Image

from jaxdefect.explain import epoch_figures, plots


def _texts(axes) -> list[str]:
  return [text.get_text() for text in axes.texts]


def _open(figure) -> Image.Image:
  return Image.open(io.BytesIO(plots.to_png(figure)))


RECORDS = [
  {'step': 10, 'seconds': 1.0, 'loss': 2.0, 'accuracy': 0.5, 'learning_rate': 1e-3},
  {'step': 20, 'seconds': 2.0, 'loss': None, 'accuracy': 0.7, 'images_per_second': 80.0},
  {'step': 30, 'seconds': 3.0, 'loss': 1.0, 'accuracy': 0.9, 'validation/accuracy': 0.6},
]


def test_curves_hold_the_records():
  figure = plots.learning_curves(RECORDS)
  panels = {axes.get_title(loc='left'): axes for axes in figure.axes if axes.get_title(loc='left')}
  assert list(panels) == ['Loss', 'Accuracy', 'Learning rate']
  (loss,) = panels['Loss'].lines
  np.testing.assert_array_equal(loss.get_xydata(), [[10, 2], [30, 1]])  # null is left out
  training, validation = panels['Accuracy'].lines
  np.testing.assert_array_equal(training.get_ydata(), [0.5, 0.7, 0.9])
  np.testing.assert_array_equal(validation.get_xydata(), [[30, 0.6]])
  assert panels['Accuracy'].get_ylabel() == '%'
  assert all(axes.get_xlabel() == 'step' for axes in panels.values())
  assert [text.get_text() for text in figure.legends[0].get_texts()] == ['training', 'validation']
  assert _open(figure).width > 1000


def test_curves_of_a_detector_have_their_own_units():
  record = {'step': 1, 'loss': 2.0, 'box': 0.5, 'rpn_box': 0.1, 'classification': 1.0}
  figure = plots.learning_curves([record, {'step': 2, 'validation/map50': 0.5}])
  units = {axes.get_title(loc='left'): axes.get_ylabel() for axes in figure.axes}
  assert units['Loss'] == 'sum of the losses'
  assert units['mAP@0.5'] == '%'
  assert units['Boxes'] == units['RPN, boxes'] == 'smooth L1'
  assert units['Classification loss'] == 'nats'


def test_a_unit_is_only_given_where_it_is_known():
  record = {'step': 1, 'loss': 2.0, 'box': 0.5, 'distribution': 1.0, 'positives': 8.0, 'dice': 0.5}
  figure = plots.learning_curves([record])
  units = {axes.get_title(loc='left'): axes.get_ylabel() for axes in figure.axes}
  assert (units['Boxes'], units['Distribution']) == ('1 - CIoU', 'nats')
  assert (units['Positives'], units['Training dice']) == ('', '%')
  figure = plots.learning_curves([{'step': 1, 'loss': 2.0, 'distance': 4.0}])  # Deep SVDD
  assert [axes.get_ylabel() for axes in figure.axes[:2]] == ['', '']


def test_curves_without_records_say_so():
  figure = plots.learning_curves([{'step': 1, 'loss': None}])
  assert _texts(figure.axes[0]) == ['nothing was logged']
  assert _open(figure).height > 50


def test_confusion_matrix_prints_counts_and_colours_shares():
  figure = plots.confusion_matrix([[8, 2], [0, 5]], ('good', 'bad'))
  axes = figure.axes[0]
  assert sorted(_texts(axes)) == ['2', '5', '8']
  shares = axes.images[0].get_array()
  np.testing.assert_allclose(shares.filled(0), [[0.8, 0.2], [0, 1]])
  assert shares.mask.tolist() == [[False, False], [True, False]]
  assert [label.get_text() for label in axes.get_yticklabels()] == ['good', 'bad']


@pytest.mark.parametrize('size', [1, 38])
def test_labels_fit_into_the_picture(size):
  # What matplotlib draws lies inside the figure, and a number inside its cell.
  classes = [f'class number {i}' for i in range(size)]
  counts = np.diag(np.full(size, 1234))
  figure = plots.confusion_matrix(counts, classes)
  figure.draw_without_rendering()
  renderer = figure.canvas.get_renderer()
  axes = figure.axes[0]
  cell = axes.get_window_extent(renderer).width / size
  assert all(text.get_window_extent(renderer).width < cell for text in axes.texts)
  box = figure.get_tightbbox(renderer)
  assert box.x0 > -0.05
  assert box.y0 > -0.05
  ticks = axes.get_xticklabels()
  boxes = [tick.get_window_extent(renderer) for tick in ticks]
  assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))


def test_names_are_no_formulas_and_may_be_in_any_script():
  names = ('a$x_1$b', '划痕', 'Größe\\frac{')
  _open(plots.confusion_matrix(np.eye(3, dtype=int), names, title='$title'))
  _open(plots.contact_sheet([np.zeros((4, 4), np.uint8)] * 3, names, title='划痕 $'))


def test_contact_sheet_shows_each_picture():
  images = [np.full((4, 6), i, np.uint8) for i in range(5)]
  figure = plots.contact_sheet(images, [f'n {i}' for i in range(5)], columns=3, title='Sheet')
  shown = [axes for axes in figure.axes if axes.images]
  assert len(shown) == 5
  assert [_texts(axes) for axes in shown] == [[f'n {i}'] for i in range(5)]
  assert all((axes.images[0].get_array() == i).all() for i, axes in enumerate(shown))
  _open(plots.contact_sheet([], []))


def test_k_shot_curve_has_bands_for_ours_alone():
  series = {
    'ours': {'k': [10, 20], 'mean': [0.9, 0.95], 'low': [0.85, 0.93], 'high': [0.94, 1.02]},
    'paper': {'k': [10, 50], 'mean': [0.98, 0.99]},
  }
  figure = plots.k_shot_curve(series, band='95 % interval')
  axes = figure.axes[0]
  assert len(axes.collections) == 1
  np.testing.assert_allclose(axes.lines[0].get_ydata(), [90, 95])
  assert axes.collections[0].get_paths()[0].vertices[:, 1].max() == 100  # no share is above
  assert [label.get_text() for label in axes.get_xticklabels()] == ['10', '20', '50']
  _open(figure)


def test_color_scale_names_its_ceiling():
  figure = plots.color_scale(2.5)
  labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
  assert labels == ['0', '1.25', '2.5 and more']
  _open(figure)


def test_nothing_global_changes(tmp_path):
  before = dict(matplotlib.rcParams)
  plots.save(tmp_path / 'a.png', plots.learning_curves(RECORDS))
  assert dict(matplotlib.rcParams) == before
  assert [path.name for path in tmp_path.iterdir()] == ['a.png']
  # The same figure gives the same bytes: committed pictures do not change by themselves.
  assert (tmp_path / 'a.png').read_bytes() == plots.to_png(plots.learning_curves(RECORDS))


def test_rejects_what_does_not_fit():
  with pytest.raises(ValueError, match='counts'):
    plots.confusion_matrix([[1, 2]], ('a', 'b'))
  with pytest.raises(ValueError, match='counts'):
    plots.confusion_matrix(np.zeros((0, 0)), ())
  with pytest.raises(ValueError, match='captions'):
    plots.contact_sheet([np.zeros((2, 2))], [])


def test_names_are_shown_as_they_are_written():
  line = {'k': [1, 5], 'mean': [0.5, 0.6]}
  figure = plots.k_shot_curve({'_void': line, 'a $\\b$ c': line})
  shown = [text.get_text() for text in figure.legends[0].get_texts()]
  assert [name.strip() for name in shown] == ['_void', 'a $\\b$ c']
  assert _open(figure).width > 300
  assert _open(epoch_figures.curves({'cost_$a_$': {'row': [0.1, 0.2]}}, y='AUROC')).width > 300
