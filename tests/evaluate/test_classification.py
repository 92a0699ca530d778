"""Metrics by hand, against scikit-learn, and in every corner."""

import json
import math

import numpy as np
import pytest
from sklearn import metrics as sk_metrics

from jaxdefect.contracts import ClassScores
from jaxdefect.evaluate import classification, intervals


def _predictions(scores) -> ClassScores:
  scores = np.asarray(scores, np.float32)
  exponentials = np.exp(scores - scores.max(axis=1, keepdims=True)) if scores.size else scores
  return ClassScores(scores, exponentials / exponentials.sum(axis=1, keepdims=True))


def _random(n: int, num_classes: int, seed: int = 0) -> tuple[ClassScores, np.ndarray]:
  generator = np.random.default_rng(seed)
  labels = generator.integers(num_classes, size=n)
  scores = generator.normal(size=(n, num_classes)) + 1.5 * np.eye(num_classes)[labels]
  return _predictions(scores), labels


def test_value_by_hand():
  # True a a a b b: predicted a a b b b.
  scores = [[2, 0], [3, 1], [0, 1], [1, 4], [0, 0.5]]
  report = classification.evaluate(_predictions(scores), np.array([0, 0, 0, 1, 1]), ('a', 'b'))
  metrics = report['metrics']
  assert report['confusion_matrix'] == [[2, 1], [0, 2]]
  assert report['n'] == 5
  assert report['support'] == {'a': 3, 'b': 2}
  assert metrics['accuracy'] == pytest.approx(4 / 5)
  assert metrics['balanced_accuracy'] == pytest.approx((2 / 3 + 1) / 2)
  assert metrics['recall/a'] == pytest.approx(2 / 3)
  assert metrics['precision/b'] == pytest.approx(2 / 3)
  assert metrics['f1/a'] == pytest.approx(0.8)
  assert metrics['macro_f1'] == pytest.approx(0.8)
  # Log-odds of a: positives 2, 2, -1 against negatives -3, -0.5: 2 + 2 + 1 of 6 pairs.
  assert metrics['auroc/a'] == pytest.approx(5 / 6)
  assert metrics['auroc/b'] == pytest.approx(5 / 6)
  assert metrics['auroc'] == pytest.approx(5 / 6)
  assert report['intervals']['accuracy'] == list(intervals.wilson(4, 5))
  assert report['intervals']['recall/b'] == list(intervals.wilson(2, 2))


def test_calibration_error_by_hand():
  # Ten images at 0.8, five of them right: |0.5 - 0.8|. Two at 1.0, both right: no gap.
  probabilities = np.array([[0.8, 0.2]] * 10 + [[1.0, 0.0]] * 2)
  labels = np.array([0] * 5 + [1] * 5 + [0] * 2)
  report = classification.evaluate(ClassScores(probabilities, probabilities), labels, ('a', 'b'))
  assert report['metrics']['ece'] == pytest.approx(10 * 0.3 / 12)


def test_matches_scikit_learn():
  predictions, labels = _random(200, 5)
  metrics = classification.evaluate(predictions, labels, 'abcde')['metrics']
  predicted = predictions.scores.argmax(1)
  assert metrics['macro_f1'] == pytest.approx(
    sk_metrics.f1_score(labels, predicted, average='macro')
  )
  assert metrics['balanced_accuracy'] == pytest.approx(
    sk_metrics.balanced_accuracy_score(labels, predicted)
  )
  one_hot = np.eye(5)[labels]
  assert metrics['auroc'] == pytest.approx(
    sk_metrics.roc_auc_score(one_hot, predictions.probabilities, average='macro')
  )


def test_auroc_reads_probabilities_not_decisions():
  # Every image is called b, and yet the probabilities of a rank all of them rightly.
  scores = [[0.4, 5], [0.3, 5], [0.2, 5], [0.1, 5]]
  report = classification.evaluate(_predictions(scores), np.array([0, 0, 1, 1]), ('a', 'b'))
  assert report['metrics']['accuracy'] == 0.5
  assert report['metrics']['auroc/a'] == 1.0


def test_bootstrap_statistics_match_scikit_learn():
  # Rounded scores tie; weights repeat images: both must count as in the repeated data.
  predictions, labels = _random(60, 3)
  scores = np.round(predictions.scores.astype(np.float64), 1)
  generator = np.random.default_rng(7)
  drawn = generator.integers(60, size=(4, 60))
  weights = np.stack([np.bincount(rows, minlength=60) for rows in drawn])
  auroc = classification._macro_auroc(scores, labels, weights)
  predicted = scores.argmax(1)
  confusion = np.stack(
    [sk_metrics.confusion_matrix(labels[rows], predicted[rows]) for rows in drawn]
  )
  recall, f1 = classification._macro_recall_and_f1(confusion)
  for i, rows in enumerate(drawn):
    truth, answer = labels[rows], predicted[rows]
    one_hot = np.eye(3)[truth]
    assert auroc[i] == pytest.approx(sk_metrics.roc_auc_score(one_hot, scores[rows]))
    assert f1[i] == pytest.approx(sk_metrics.f1_score(truth, answer, average='macro'))
    assert recall[i] == pytest.approx(sk_metrics.balanced_accuracy_score(truth, answer))


def test_intervals_hold_their_metrics_and_repeat():
  predictions, labels = _random(150, 4)
  report = classification.evaluate(predictions, labels, 'abcd', num_resamples=200)
  for name, (low, high) in report['intervals'].items():
    assert 0 <= low < report['metrics'][name] < high <= 1, name
  assert {'accuracy', 'macro_f1', 'auroc', 'recall/a'} <= set(report['intervals'])
  assert report == classification.evaluate(predictions, labels, 'abcd', num_resamples=200)
  narrow = classification.evaluate(predictions, labels, 'abcd', confidence=0.5)['intervals']
  assert all(narrow[k][1] - narrow[k][0] < v[1] - v[0] for k, v in report['intervals'].items())


def test_absent_class_is_left_out_and_named():
  predictions, labels = _random(80, 3)
  scores = np.concatenate([predictions.scores, np.full((80, 1), -9)], axis=1)
  report = classification.evaluate(_predictions(scores), labels, ('a', 'b', 'c', 'never'))
  three = classification.evaluate(predictions, labels, ('a', 'b', 'c'))
  assert report['absent_classes'] == ['never']
  assert report['support']['never'] == 0
  assert not [name for name in report['metrics'] if name.endswith('/never')]
  for name in ('macro_f1', 'auroc', 'balanced_accuracy'):
    assert report['metrics'][name] == pytest.approx(three['metrics'][name])


def test_a_class_that_is_never_predicted_has_precision_zero():
  report = classification.evaluate(_predictions([[1, 0], [1, 0]]), np.array([0, 1]), ('a', 'b'))
  assert report['metrics']['precision/b'] == 0.0
  assert report['metrics']['f1/b'] == 0.0
  assert 'precision/b' not in report['intervals']


def test_one_class_has_no_auroc():
  report = classification.evaluate(_predictions([[0.0], [0.0]]), np.array([0, 0]), ('only',))
  assert report['metrics']['accuracy'] == 1.0
  assert 'auroc' not in report['metrics']


def test_no_image_gives_no_metric():
  report = classification.evaluate(_predictions(np.zeros((0, 2))), np.zeros(0, int), ('a', 'b'))
  assert report['metrics'] == {}
  assert report['intervals'] == {}
  assert report['n'] == 0
  assert report['absent_classes'] == ['a', 'b']


def test_report_is_plain_json():
  predictions, labels = _random(40, 3)
  report = classification.evaluate(predictions, labels, ('a', 'b', 'c'))
  assert json.loads(json.dumps(report, allow_nan=False)) == report
  assert all(math.isfinite(value) for value in report['metrics'].values())
  summary = classification.aggregate([report, report])
  assert json.loads(json.dumps(summary, allow_nan=False)) == summary


@pytest.mark.parametrize(
  ('scores', 'labels', 'classes', 'word'),
  [
    ([[1, 2]], [2], 'ab', 'labels'),
    ([[1, 2]], [-1], 'ab', 'labels'),
    ([[1, 2]], [0], 'abc', 'classes'),
    ([[1, 2]], [0], 'aa', 'classes'),
    ([[1, np.nan]], [0], 'ab', 'not finite'),
  ],
)
def test_rejects_what_does_not_fit(scores, labels, classes, word):
  with pytest.raises(ValueError, match=word):
    classification.evaluate(ClassScores(np.array(scores), np.array(scores)), labels, classes)


def test_rejects_bad_shape():
  with pytest.raises(AssertionError):
    classification.evaluate(_predictions(np.zeros((3, 2))), np.zeros(2, int), ('a', 'b'))


def test_worst_mistake_comes_first():
  probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.0, 1.0]])
  labels = np.array([1, 1, 1, 0])
  mistakes = classification.worst_mistakes(ClassScores(probabilities, probabilities), labels)
  assert [m['row'] for m in mistakes] == [3, 0, 1]
  assert mistakes[0] == {
    'row': 3,
    'true': 0,
    'predicted': 1,
    'probability': 1.0,
    'true_probability': 0.0,
    'second': 0,
    'second_probability': 0.0,
  }
  limited = classification.worst_mistakes(
    ClassScores(probabilities, probabilities), labels, limit=1
  )
  assert [m['row'] for m in limited] == [3]


def test_least_certain_of_the_right_ones_comes_first():
  probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.0, 1.0], [0.7, 0.3]])
  predictions, labels = ClassScores(probabilities, probabilities), np.array([0, 1, 1, 1, 0])
  found = classification.least_certain(predictions, labels, sure=1.1)
  assert [one['row'] for one in found] == [4, 2, 0, 3]
  assert found[0]['true'] == found[0]['predicted'] == 0
  assert found[0]['probability'] == found[0]['true_probability'] == 0.7
  assert classification.least_certain(predictions, labels, limit=1) == found[:1]
  assert classification.least_certain(predictions, labels, sure=0.65) == found[:3]


def test_aggregate_by_hand():
  reports = [
    {'metrics': {'accuracy': 0.8, 'auroc': 0.9}, 'n': 10},
    {'metrics': {'accuracy': 0.9}, 'n': 10},
    {'metrics': {'accuracy': 1.0}, 'n': 12},
  ]
  summary = classification.aggregate(reports)
  assert summary['metrics'] == {'accuracy': pytest.approx(0.9)}
  assert summary['sd']['accuracy'] == pytest.approx(0.1)
  # t(2, 0.975) = 4.302653; half = 4.302653 * 0.1 / sqrt(3)
  half = 0.2484138
  assert summary['intervals']['accuracy'] == pytest.approx([0.9 - half, 0.9 + half], abs=1e-6)
  assert summary['n_seeds'] == 3
  assert summary['n'] == 32
  assert summary['left_out'] == ['auroc']
  assert summary['per_seed'] == {'accuracy': [0.8, 0.9, 1.0]}


def test_aggregate_sums_confusion_matrices():
  reports = [classification.evaluate(*_random(30, 3, seed), 'abc') for seed in range(3)]
  summary = classification.aggregate(reports)
  assert sum(map(sum, summary['confusion_matrix'])) == 90
  assert sum(summary['support'].values()) == 90


def test_one_seed_has_a_mean_and_no_interval():
  summary = classification.aggregate([{'metrics': {'accuracy': 0.8}, 'n': 10}])
  assert summary['metrics'] == {'accuracy': 0.8}
  assert summary['sd'] == {}
  assert summary['intervals'] == {}
  with pytest.raises(ValueError, match='reports'):
    classification.aggregate([])


def test_perfect_seeds_have_the_interval_of_one_run():
  """No spread is no knowledge: a zero-width interval would say that nothing is left to learn."""

  def run(count):
    scores = np.eye(2)[np.arange(count) % 2]
    predictions = ClassScores(scores, scores)
    return classification.evaluate(predictions, np.arange(count) % 2, ('a', 'b'))

  small, large = run(20), run(40)
  summary = classification.aggregate([large, small])
  assert summary['metrics']['accuracy'] == 1
  assert summary['intervals']['accuracy'] == list(small['intervals']['accuracy'])
  assert summary['interval_kinds']['accuracy'] == 'wilson'
  assert classification.adds_nothing(summary, 'auroc')
