"""Misses and false alarms are found, named and put in order."""

import numpy as np
import pytest

from jaxdefect.contracts import Detections
from jaxdefect.evaluate import detection_mistakes

CLASSES = ('a', 'b')
# A hundred pixels apart, and one inside the first with IoU 0.25.
LEFT, RIGHT, QUARTER = (0, 0, 40, 40), (100, 0, 150, 50), (0, 0, 20, 20)


def _case(found, true, *, scale: float = 2.0):
  """One image; boxes are given in the picture's pixels and stored in the network's."""
  depth = len(found) + 1
  detections = Detections(
    boxes=np.zeros((1, depth, 4), np.float32),
    scores=np.zeros((1, depth), np.float32),
    labels=np.zeros((1, depth), np.int32),
    valid=np.arange(depth)[None] < len(found),
  )
  for j, (box, score, label) in enumerate(found):
    detections.boxes[0, j] = np.multiply(box, scale)
    detections.scores[0, j], detections.labels[0, j] = score, label
  truth = {
    'boxes': np.array([[np.multiply(box, scale) for box, _ in true]]).reshape(1, -1, 4),
    'box_label': np.array([[label for _, label in true]], np.int32).reshape(1, -1),
    'box_valid': np.ones((1, len(true)), bool),
    'scale': np.array([scale]),
  }
  return detections, truth


def test_all_is_well():
  case = _case([(LEFT, 0.9, 0), (RIGHT, 0.8, 1)], [(RIGHT, 1), (LEFT, 0)])
  assert detection_mistakes.find(*case, CLASSES) == ([], [])


def test_nothing_and_background():
  misses, alarms = detection_mistakes.find(*_case([(RIGHT, 0.9, 0)], [(LEFT, 0)]), CLASSES)
  assert [(m.box, m.label, m.score, m.kind, m.other) for m in misses] == [
    (LEFT, 0, 0.0, 'nothing', -1)
  ]
  assert [(m.box, m.label, m.kind, m.other) for m in alarms] == [(RIGHT, 0, 'background', -1)]
  assert alarms[0].score == pytest.approx(0.9)


def test_what_is_not_found_is_missed_at_every_threshold():
  misses, _ = detection_mistakes.find(*_case([], [(LEFT, 0)]), CLASSES, min_score=0.0)
  assert [(m.box, m.score, m.kind) for m in misses] == [(LEFT, 0.0, 'nothing')]


def test_wrong_class_names_the_other():
  found = [(LEFT, 0.9, 1), (LEFT, 0.2, 0)]
  misses, alarms = detection_mistakes.find(*_case(found, [(LEFT, 0)]), CLASSES)
  assert [(m.kind, m.other) for m in misses] == [('wrong class', 1)]
  assert misses[0].score == pytest.approx(0.2)
  assert [(m.kind, m.label, m.other) for m in alarms] == [('wrong class', 1, 0)]


def test_low_score_depends_on_the_threshold():
  case = _case([(LEFT, 0.3, 0)], [(LEFT, 0)])
  misses, alarms = detection_mistakes.find(*case, CLASSES)
  assert [m.kind for m in misses] == ['low score']
  assert alarms == []
  assert detection_mistakes.find(*case, CLASSES, min_score=0.3 - 1e-6) == ([], [])


def test_poor_overlap_and_duplicate():
  found = [(LEFT, 0.9, 0), (LEFT, 0.8, 0), (QUARTER, 0.7, 0)]
  misses, alarms = detection_mistakes.find(*_case(found, [(LEFT, 0)]), CLASSES)
  assert misses == []
  assert [m.kind for m in alarms] == ['duplicate', 'poor overlap']
  misses, _ = detection_mistakes.find(*_case(found[2:], [(LEFT, 0)]), CLASSES)
  assert [m.kind for m in misses] == ['poor overlap']


def test_the_worst_come_first():
  small, large = (0, 0, 10, 10), (50, 50, 90, 95)
  found = [(LEFT, 0.4, 0), (RIGHT, 0.1, 0), ((60, 100, 70, 110), 0.7, 1), ((0, 90, 9, 99), 0.95, 1)]
  true = [(LEFT, 0), (RIGHT, 0), (small, 1), (large, 1)]
  misses, alarms = detection_mistakes.find(*_case(found, true), CLASSES)
  assert [m.box for m in misses] == [large, small, RIGHT, LEFT]
  assert [round(m.score, 2) for m in alarms] == [0.95, 0.7]


def test_corners():
  no_truth = _case([(LEFT, 0.9, 0)], [])
  assert [m.kind for m in detection_mistakes.find(*no_truth, CLASSES)[1]] == ['background']
  no_detection = _case([], [(LEFT, 0)])
  assert [m.kind for m in detection_mistakes.find(*no_detection, CLASSES)[0]] == ['nothing']
  detections, truth = _case([], [])
  none = Detections(*(part[:0] for part in detections))
  empty = {key: value[:0] for key, value in truth.items()}
  assert detection_mistakes.find(none, empty, CLASSES) == ([], [])


def test_rejects_bad_threshold():
  with pytest.raises(ValueError, match='min_score'):
    detection_mistakes.find(*_case([], []), CLASSES, min_score=1.5)
