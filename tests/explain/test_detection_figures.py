"""Mistakes of a detector as pictures, and precision against recall."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxdefect.contracts import Detections
from jaxdefect.evaluate import average_precision, detection_mistakes
from jaxdefect.explain import detection_figures, detections, figures

CLASSES = ('dent', 'crack')


def _case() -> tuple[Detections, dict]:
  """Two images of 100 pixels at scale 2; the second names a crack a dent and sees a ghost."""
  boxes = np.array([[[0, 0, 80, 80], [0, 0, 0, 0]], [[20, 20, 100, 100], [160, 160, 198, 198]]])
  predictions = Detections(
    boxes=boxes.astype(np.float32),
    scores=np.array([[0.9, 0.0], [0.8, 0.7]], np.float32),
    labels=np.zeros((2, 2), np.int32),
    valid=np.array([[True, False], [True, True]]),
  )
  truth = {
    'boxes': boxes[:, :1].astype(np.float32),
    'box_label': np.array([[0], [1]], np.int32),
    'box_valid': np.ones((2, 1), bool),
    'scale': np.full(2, 2.0, np.float32),
    'index': np.array([7, 3], np.int32),
  }
  return predictions, truth


def _read(index: int) -> np.ndarray:
  return np.full((100, 100, 1), 10 * index, np.uint8)


NAMES = tuple(f'picture {i}' for i in range(8))


def test_mistakes_show_their_own_picture_and_reason():
  case = _case()
  misses, alarms = detection_mistakes.find(*case, CLASSES)
  kwargs = {'names': NAMES}
  (miss,) = detection_figures.illustrate(misses, *case, CLASSES, _read, missed=True, **kwargs)
  assert (miss.title, miss.reason, miss.name) == ('crack', 'taken for dent', 'picture 3')
  assert miss.min_score == 0.5
  assert (miss.image == 30).all(-1).mean() > 0.5  # the picture with index 3
  assert (miss.image == detections.RED).all(-1).any()
  first, second = detection_figures.illustrate(alarms, *case, CLASSES, _read, missed=False)
  assert (first.title, first.reason, first.name) == ('dent 0.80', 'marked as crack', '')
  assert (second.title, second.reason) == ('dent 0.70', 'nothing is marked there')
  # The ghost lies at 80..99 of 100 pixels, and its thick line with it.
  orange = (second.image == detections.class_colors(1)[0]).all(-1)
  side = len(orange)
  assert orange[int(0.82 * side) : int(0.97 * side), int(0.8 * side) + 2].all()


def test_weak_detections_are_not_drawn():
  case = _case()
  rows = detection_mistakes.find(*case, CLASSES, min_score=0.75)[0]
  (miss,) = detection_figures.illustrate(rows, *case, CLASSES, _read, missed=True, min_score=0.75)
  corner = miss.image[int(0.78 * len(miss.image)) :, int(0.78 * len(miss.image)) :]
  assert (corner == 30).all()


def test_every_kind_of_mistake_has_words():
  case = _case()
  box = (10.0, 10.0, 50.0, 50.0)
  for missed, words in ((True, detection_figures._MISSED), (False, detection_figures._ALARM)):
    rows = [detection_mistakes.BoxMistake(1, box, 1, 0.25, kind, 0) for kind in words]
    drawn = detection_figures.illustrate(rows, *case, CLASSES, _read, missed=missed)
    reasons = [one.reason for one in drawn]
    assert len(set(reasons)) == 4
    assert not any('{' in reason for reason in reasons)
    assert any('dent' in reason for reason in reasons)


def test_sheet_holds_every_mistake():
  case = _case()
  _, alarms = detection_mistakes.find(*case, CLASSES)
  drawn = detection_figures.illustrate(alarms, *case, CLASSES, _read, missed=False, names=NAMES)
  figure = detection_figures.mistake_sheet(drawn, title='Worst false alarms')
  shown = [axes.texts[0].get_text() for axes in figure.axes if axes.images]
  assert shown == [
    'dent 0.80: marked as crack\npicture 3',
    'dent 0.70: nothing is marked there\npicture 3',
  ]
  assert Image.open(io.BytesIO(figures.to_png(figure))).width > 600


def test_curves_hold_the_numbers():
  report = average_precision.evaluate(*_case(), CLASSES, num_resamples=2)
  figure = detection_figures.precision_recall(report['precision_recall'], report['metrics'])
  axes = figure.axes[0]
  lines = {line.get_label(): line for line in axes.lines}
  assert list(lines) == ['dent  100.0', 'crack  0.0']
  assert lines['dent  100.0'].get_xdata().max() == 100
  assert (lines['dent  100.0'].get_ydata() == pytest.approx(100)) is True
  assert len(lines['crack  0.0'].get_xdata()) == 0  # no recall is ever reached
  assert Image.open(io.BytesIO(figures.to_png(figure))).width > 600


def test_many_classes_show_the_best_and_the_worst():
  recall = np.linspace(0, 1, 101)
  precision = {f'class {i}': np.where(recall < i / 30, 1.0, 0.0).tolist() for i in range(20)}
  metrics = {f'ap50/class {i}': i / 30 for i in range(20)}
  curves = {'recall': recall.tolist(), 'precision': precision}
  figure = detection_figures.precision_recall(curves, metrics)
  assert len(figure.axes[0].lines) == 20
  named = [text.get_text().split('  ')[0] for text in figure.legends[0].get_texts()]
  assert named == [f'class {i}' for i in (19, 18, 17, 2, 1, 0)]


def test_a_class_that_begins_with_an_underscore_is_named():
  curves = {'recall': [0.0, 1.0], 'precision': {'_void': [1.0, 0.5]}}
  figure = detection_figures.precision_recall(curves, {'ap50/_void': 0.8})
  assert [text.get_text().strip() for text in figure.legends[0].get_texts()] == ['_void  80.0']


def test_no_class_gives_an_empty_panel():
  figure = detection_figures.precision_recall({'recall': [], 'precision': {}}, {})
  assert figure.legends == []
  assert figures.to_png(figure)
