"""Ranking and threshold figures of anomaly scores, by hand and against scikit-learn."""

import json

import numpy as np
import pytest
from sklearn import metrics as sk_metrics

from jaxdefect.contracts import AnomalyMaps
from jaxdefect.evaluate import anomaly

GRADES = ('good', 'possibly good', 'possibly defective', 'defect')
CALIBRATION = {'threshold': np.float32(1.5), 'false_alarm_rate': np.float32(0.05)}


def predictions(scores):
  scores = np.asarray(scores, np.float32)
  return AnomalyMaps(scores, np.zeros((len(scores), 1, 1), np.float32))


def test_value_by_hand():
  scores, labels = [0.0, 1.0, 2.0, 3.0, 1.5, 9.0], [0, 0, 0, 1, 1, 1]
  report = anomaly.evaluate(
    predictions(scores), labels, ('good', 'defect'), calibration=CALIBRATION, num_resamples=50
  )
  found = report['metrics']
  assert found['auroc'] == pytest.approx(8 / 9)
  assert found['average_precision'] == pytest.approx((1 + 1 + 3 / 4) / 3)
  # Flagged is what lies above 1.5: one good part and two defective ones.
  assert found['precision'] == found['recall'] == found['f1'] == pytest.approx(2 / 3)
  assert found['miss_rate'] == found['false_alarm_rate'] == pytest.approx(1 / 3)
  assert report['threshold'] == 1.5
  assert report['nominal_false_alarm_rate'] == pytest.approx(0.05)
  assert set(report['intervals']) == set(found)
  assert report['interval_kinds']['auroc'] == 'bootstrap'
  assert report['interval_kinds']['miss_rate'] == 'wilson'
  json.dumps(report, allow_nan=False)


@pytest.mark.parametrize('seed', range(3))
def test_matches_scikit_learn_with_weights(seed):
  generator = np.random.default_rng(seed)
  scores = generator.integers(0, 12, 60).astype(np.float32)
  positive = generator.random(60) < 0.3
  weights = generator.integers(0, 3, (4, 60)).astype(np.int32)
  for row, auroc, precision in zip(
    weights,
    anomaly.auroc(scores, positive, weights),
    anomaly.average_precision(scores, positive, weights),
  ):
    again = np.repeat(np.arange(60), row)
    assert auroc == pytest.approx(sk_metrics.roc_auc_score(positive[again], scores[again]))
    assert precision == pytest.approx(
      sk_metrics.average_precision_score(positive[again], scores[again])
    )


def test_doubtful_grades_are_reported_apart():
  scores, labels = [0, 1, 2, 1, 3, 2, 0, 5, 6], [0, 0, 0, 1, 1, 2, 2, 3, 3]
  report = anomaly.evaluate(
    predictions(scores), labels, GRADES, calibration=CALIBRATION, num_resamples=20
  )
  found = report['metrics']
  assert found['auroc'] == 1.0  # of the defective against the good ones
  assert found['auroc/possibly good'] == pytest.approx(4.5 / 6)
  assert found['flagged/possibly good'] == found['flagged/possibly defective'] == 0.5
  assert found['miss_rate'] == 0
  assert 'flagged/defect' not in found


def test_every_other_class_is_a_defect_where_none_is_called_so():
  report = anomaly.evaluate(
    predictions([0, 1, 2, 3]), [0, 1, 2, 2], ('good', 'bent', 'dirty'), calibration=CALIBRATION
  )
  assert report['metrics']['recall'] == pytest.approx(2 / 3)
  assert report['metrics']['flagged/bent'] == 0
  assert report['metrics']['flagged/dirty'] == 1


def test_recall_of_each_kind():
  report = anomaly.evaluate(
    predictions([0, 1, 2, 3]),
    [0, 1, 1, 1],
    ('good', 'defect'),
    calibration=CALIBRATION,
    kinds=['', 'stain', 'stain', 'hole'],
    num_resamples=20,
  )
  assert report['kinds'] == {'hole': 1, 'stain': 2}
  assert report['metrics']['recall/stain'] == 0.5
  assert report['metrics']['recall/hole'] == 1


def test_intervals_count_parts_where_there_are_groups():
  generator = np.random.default_rng(0)
  parts, labels = generator.normal(size=40), np.arange(40) % 2
  alone = anomaly.evaluate(
    predictions(parts + labels), labels, ('good', 'defect'), calibration=CALIBRATION
  )
  again = [np.repeat(array, 8) for array in (parts + labels, labels, np.arange(40))]
  report = anomaly.evaluate(
    predictions(again[0]), again[1], ('good', 'defect'), calibration=CALIBRATION, groups=again[2]
  )
  for name in ('auroc', 'miss_rate', 'false_alarm_rate', 'f1'):
    assert report['metrics'][name] == pytest.approx(alone['metrics'][name])
    np.testing.assert_allclose(report['intervals'][name], alone['intervals'][name], atol=0.02)


def test_without_defects_there_is_a_false_alarm_rate_alone():
  report = anomaly.evaluate(
    predictions([0, 1, 2, 3]), [0] * 4, ('good', 'defect'), calibration=CALIBRATION
  )
  assert report['metrics'] == {'false_alarm_rate': 0.5}
  assert report['absent_classes'] == ['defect']
  json.dumps(report, allow_nan=False)


def test_without_a_threshold_there_is_the_ranking_alone():
  report = anomaly.evaluate(predictions([0, 1, 2]), [0, 1, 1], ('good', 'defect'))
  assert set(report['metrics']) == {'auroc', 'average_precision', 'fpr95'}
  assert 'threshold' not in report


def test_worst_are_sorted_by_how_wrong_they_are():
  scores, labels = [0, 5, 3, 1, 0.5, 9, 1.2], [0, 0, 0, 1, 1, 1, 0]
  found = anomaly.worst(predictions(scores), labels, ('good', 'defect'), 2.0, limit=5)
  assert found == {'misses': [4, 3], 'false_alarms': [1, 2], 'calm': [0, 6], 'hits': [5]}
  assert anomaly.worst(predictions(scores), labels, ('good', 'defect'), 2.0, limit=1)['calm'] == [0]


def test_rejects_what_does_not_fit():
  with pytest.raises(ValueError, match="need a class 'good'"):
    anomaly.evaluate(predictions([1.0]), [0], ('bent', 'dirty'))
  with pytest.raises(ValueError, match=r'labels lie in 0..2; 0..1 is allowed'):
    anomaly.evaluate(predictions([1.0, 2.0]), [0, 2], ('good', 'defect'))
  with pytest.raises(ValueError, match='1 of 2 images with a score that is not finite'):
    anomaly.evaluate(predictions([1.0, np.inf]), [0, 1], ('good', 'defect'))


def test_false_alarms_where_95_percent_are_found_by_hand():
  # Of 20 defects 19 reach 10; of 4 good parts two lie at or above it, one of them level with it.
  scores = np.array([*range(10, 29), 1, 30, 10, 5, 0], float)
  positive = np.arange(24) < 20
  weights = np.ones((1, 24), int)
  assert anomaly.fpr95(scores, positive, weights).tolist() == [0.5]
  assert np.isnan(anomaly.fpr95(scores, positive, weights * positive)).all()


def test_a_perfect_ranking_of_few_is_not_certain():
  scores = np.array([0.1, 0.2, 0.3, 0.9, 1.0, 1.1], np.float32)
  found = anomaly.evaluate(
    AnomalyMaps(scores, scores[:, None, None]), np.array([0, 0, 0, 1, 1, 1]), ('good', 'defect')
  )
  assert found['metrics']['auroc'] == 1
  assert found['intervals']['auroc'][0] < 0.8
  assert found['intervals']['auroc'][1] == 1
  assert found['interval_kinds']['auroc'] == 'guaranteed'
