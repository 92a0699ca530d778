"""The comparison itself.

Shape legend: N images, K classes, D detections.
"""

import numpy as np
import pytest

from jaxdefect.contracts import AnomalyMaps, ClassScores, Detections, Verdicts
from jaxdefect.convert import parity

_SCORES = np.array([[0.1, 0.9], [0.5, 0.5 + 2e-5], [7.0, 7.0]], np.float32)


def scores(offset):
  return ClassScores(_SCORES + np.asarray(offset, np.float32), np.full((3, 2), 0.5))


def test_value_by_hand():
  found = parity.compare(scores(0), scores([[0, 0], [5e-5, 0], [0, 0]]))
  rms = np.sqrt(np.mean(_SCORES.astype(float) ** 2))
  assert found.differences['scores'] == pytest.approx(5e-5 / rms, rel=1e-2)
  assert found.differences['probabilities'] == 0
  assert (found.equal, found.n) == (2, 3)  # the second image changed its class
  assert found.failure() is None


@pytest.mark.parametrize('offset', [1e-2, np.nan, np.inf])
def test_too_large_a_difference_fails(offset):
  found = parity.compare(scores(0), scores(offset))
  assert 'the scores of the exported model differ from ours' in found.failure()
  assert 'at most 0.0001 is allowed' in found.failure()


def test_rejects_another_number_of_classes():
  other = ClassScores(np.zeros((3, 5)), np.zeros((3, 5)))
  with pytest.raises(ValueError, match=r'gives scores of shape \(3, 5\), ours has \(3, 2\)'):
    parity.compare(scores(0), other)


def boxes(*rows):
  """One image of (box, score, label), padded to four."""
  missing = 4 - len(rows)
  return Detections(
    np.array([[row[0] for row in rows] + [[0, 0, 0, 0]] * missing], np.float32),
    np.array([[row[1] for row in rows] + [0] * missing], np.float32),
    np.array([[row[2] for row in rows] + [0] * missing]),
    np.array([[True] * len(rows) + [False] * missing]),
  )


def test_boxes_are_paired_within_their_class():
  ours = boxes(([0, 0, 9, 9], 0.9, 0), ([0, 0, 9, 9], 0.8, 1), ([20, 20, 30, 30], 0.7, 0))
  same = boxes(([0, 0, 9, 9.02], 0.9, 0), ([20, 20, 30, 30], 0.7, 0), ([0, 0, 9, 9], 0.8, 1))
  found = parity.compare(ours, same)
  assert found.differences == pytest.approx({'boxes': 0.02, 'scores': 0}, abs=1e-5)
  assert found.equal == found.n == 1
  moved = parity.compare(ours, boxes(([0, 0, 9, 9.5], 0.9, 0), *_rest()))
  assert '0.5 pixels' in moved.failure()
  renamed = parity.compare(ours, boxes(([0, 0, 9, 9], 0.9, 1), *_rest()))
  assert renamed.equal == 0
  fewer = parity.compare(ours, boxes(*_rest()))
  assert fewer.equal == 0


def _rest():
  return ([20, 20, 30, 30], 0.7, 0), ([0, 0, 9, 9], 0.8, 1)


def test_outputs_become_predictions():
  some, maps = np.zeros(2), np.zeros((2, 3, 3))
  two = {'scores': np.zeros((2, 2)), 'probabilities': np.zeros((2, 2))}
  assert isinstance(parity.predictions(two), ClassScores)
  anomaly = {'scores': some, 'maps': maps, 'flagged': some, 'p_values': some}
  assert isinstance(parity.predictions(anomaly), AnomalyMaps)
  verdicts = {'verdict': some, 'rule': some, **two, 'anomaly': some, 'maps': maps}
  assert isinstance(parity.predictions(verdicts), Verdicts)
  with pytest.raises(ValueError, match='no predictions of ours'):
    parity.predictions({'x': some})
  assert parity.compare(parity.predictions(verdicts), parity.predictions(verdicts)).equal == 2
