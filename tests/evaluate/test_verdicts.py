"""Shares of rejected, asked and passed parts, by hand."""

import json

import numpy as np
import pytest

from jaxdefect.contracts import AnomalyMaps, ClassScores, Verdicts
from jaxdefect.evaluate import verdicts

CLASSES = ('good', 'bent', 'stained')


def predictions(verdict, rule, heads=None, scores=None):
  n = len(verdict)
  heads = np.zeros((n, 3)) if heads is None else np.asarray(heads, float)
  scores = np.arange(n) if scores is None else np.asarray(scores, float)
  return Verdicts(
    np.asarray(verdict), np.asarray(rule), ClassScores(heads, heads),
    AnomalyMaps(scores, scores[:, None, None]),
  )  # fmt: skip


def test_value_by_hand():
  labels = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
  said = predictions([0, 0, 1, 2, 2, 1, 0, 2, 2], [0, 0, 1, 0, 0, 2, 0, 0, 0])
  report = verdicts.evaluate(said, labels, CLASSES, threshold=4.5)
  metrics = report['metrics']
  assert metrics['miss_rate/anomaly'] == pytest.approx(1 / 5)  # the score of place 4 is 4
  assert metrics['false_alarm_rate/anomaly'] == 0
  assert metrics['rejected'] == pytest.approx(3 / 5)
  assert metrics['asked'] == pytest.approx(1 / 5)
  assert metrics['miss_rate'] == pytest.approx(1 / 5)
  assert metrics['false_reject_rate'] == pytest.approx(1 / 4)
  assert metrics['false_review_rate'] == pytest.approx(1 / 4)
  assert metrics['review_rate'] == pytest.approx(2 / 9)
  assert metrics['rejected/bent'] == pytest.approx(1 / 2)
  assert metrics['missed/stained'] == pytest.approx(1 / 3)
  assert metrics['auroc/anomaly'] == 1
  assert metrics['auroc/supervised'] == 0.5
  assert report['verdicts']['stained'] == {'ok': 1, 'review': 0, 'reject': 2}
  assert report['rules']['review'] == {'supervised': 0, 'anomaly': 1, 'few samples': 1}
  assert report['support'] == {'good': 4, 'bent': 2, 'stained': 3}
  low, high = report['intervals']['miss_rate']
  assert low < 1 / 5 < high
  json.dumps(report)


def test_the_head_ranks_by_its_margin():
  heads = [[3, 0, 0], [1, 0, 0], [0, 0, 2], [0, 3, 0]]
  report = verdicts.evaluate(predictions([0] * 4, [0] * 4, heads), np.array([0, 0, 1, 2]), CLASSES)
  assert report['metrics']['auroc/supervised'] == 1
  assert report['metrics']['miss_rate/supervised'] == 0
  assert report['metrics']['false_alarm_rate/supervised'] == 0
  assert 'miss_rate/anomaly' not in report['metrics']


def test_pictures_of_one_part_are_one_trial():
  labels = np.array([0] * 20 + [1] * 20)
  said = predictions([1] * 10 + [0] * 10 + [2] * 20, [1] * 10 + [0] * 30)
  apart = verdicts.evaluate(said, labels, CLASSES[:2])
  together = verdicts.evaluate(said, labels, CLASSES[:2], groups=np.arange(40) // 10)
  width = [np.ptp(one['intervals']['false_review_rate']) for one in (apart, together)]
  assert width[1] > width[0]


def test_good_parts_alone():
  report = verdicts.evaluate(predictions([0, 1], [0, 1]), np.array([0, 0]), CLASSES)
  assert report['metrics'] == {
    **{'false_reject_rate': 0, 'false_review_rate': 0.5, 'review_rate': 0.5},
    'false_alarm_rate/supervised': 0,
  }
  assert report['absent_classes'] == ['bent', 'stained']


@pytest.mark.parametrize('classes', [('bent', 'stained'), ('good',), ()])
def test_rejects_classes_without_good_or_without_defects(classes):
  with pytest.raises(ValueError, match="verdicts need 'good' and a class of defects"):
    verdicts.evaluate(predictions([0], [0]), np.array([0]), classes)
