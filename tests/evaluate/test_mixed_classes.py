"""Accuracy by the number of defects on a picture."""

import types

import numpy as np
import pytest

from jaxdefect.contracts import ClassScores
from jaxdefect.evaluate import classification, intervals, mixed_classes
from launch.tasks import recognition

CLASSES = ('Normal', 'C', 'S', 'C+S', 'C+EL+S')


def scored(labels, named, classes=CLASSES):
  scores = np.eye(len(classes))[np.asarray(named, int)]
  return ClassScores(scores, scores), np.asarray(labels, int)


def test_value_by_hand():
  #             one defect     two        none
  predictions, labels = scored([1, 1, 2, 3, 3, 0], [1, 2, 2, 3, 4, 1])
  found = mixed_classes.evaluate(classification.evaluate(predictions, labels, CLASSES))
  assert found['metrics'] == {'mixed_accuracy/1': 2 / 3, 'mixed_accuracy/2': 1 / 2}
  assert found['intervals']['mixed_accuracy/1'] == list(intervals.wilson(2, 3))
  assert found['interval_kinds'] == {'mixed_accuracy/1': 'wilson', 'mixed_accuracy/2': 'wilson'}
  assert found['mixed_accuracy'] == [
    '1 defect: 66.7 % of 3 images',
    '2 defects: 50.0 % of 2 images',
  ]


def test_numbers_add_up_to_the_accuracy_of_defective_images():
  generator = np.random.default_rng(0)
  predictions, labels = scored(*generator.integers(0, len(CLASSES), (2, 200)))
  report = classification.evaluate(predictions, labels, CLASSES)
  found = mixed_classes.evaluate(report, no_defect='none of these')
  counts = {1: np.isin(labels, (0, 1, 2)).sum(), 2: (labels == 3).sum(), 3: (labels == 4).sum()}
  total = sum(found['metrics'][f'mixed_accuracy/{m}'] * n for m, n in counts.items())
  assert total / 200 == pytest.approx(report['metrics']['accuracy'])


def test_no_images():
  predictions, labels = scored([], [])
  report = classification.evaluate(predictions, labels, CLASSES)
  assert mixed_classes.evaluate(report)['metrics'] == {}


@pytest.mark.parametrize('classes', [CLASSES, ('Normal', 'C', 'S', 'EL', 'L')])
def test_the_report_has_it_where_classes_are_mixed(classes):
  predictions, labels = scored([1, 1, 2, 3, 3, 0], [1, 2, 2, 3, 4, 1], classes)
  fitted = types.SimpleNamespace(classes=classes)
  report = recognition.evaluate(predictions, {'label': labels}, fitted)
  assert ('mixed_accuracy/2' in report['metrics']) == (classes is CLASSES)
  assert ('mixed_accuracy' in report) == (classes is CLASSES)
