"""Scores of a classifier: what it gets right, per class, and how sure that is.

Shape legend: N images, K classes, R resamples.

A class without an image in ``labels`` has no recall, no F1 and no AUROC: those entries are left
out, the class is named under ``absent_classes``, and macro averages run over the other classes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import chex
import numpy as np
from sklearn import metrics as sk_metrics

from jaxdefect.contracts import ClassScores
from jaxdefect.evaluate import auroc_interval, intervals
from jaxdefect.evaluate.seeds import aggregate as aggregate

# The type of predictions that this evaluator reads.
READS = ClassScores

_CALIBRATION_BINS = 15


def evaluate(
  predictions: ClassScores,
  labels: np.ndarray,
  classes: Sequence[str],
  *,
  confidence: float = 0.95,
  num_resamples: int = 1000,
  seed: int = 0,
) -> dict[str, Any]:
  """Scores class predictions; everything in the answer can be written as JSON.

  The predicted class is the one with the largest score. AUROC is one class against the rest and
  ranks the images by the class's probability, never by decisions (a logit would do worse: it says
  nothing without the other classes' logits). ``ece`` is the expected calibration error of the
  largest probability over 15 equal bins (Guo et al. 2017, equation 3).

  Args:
    predictions: [N, K] scores and probabilities, without padding.
    labels: [N] integers that count in ``classes``.
    classes: K names.
    confidence: coverage of the intervals, in (0, 1).
    num_resamples: bootstrap resamples of the images.
    seed: makes the bootstrap repeatable.

  Returns:
    A dict with

    - ``metrics``: flat floats in 0..1: ``accuracy``, ``balanced_accuracy``, ``macro_f1``,
      ``auroc`` (macro), ``ece``, and per class ``recall/<class>``, ``precision/<class>`` (0 where
      the class was never predicted), ``f1/<class>``, ``auroc/<class>``. What is undefined is
      absent; without images there are no metrics at all.
    - ``intervals``: name -> [low, high]; Wilson for ``accuracy``, ``recall/<class>`` and
      ``precision/<class>``; bootstrap over images for ``balanced_accuracy``, ``macro_f1`` and
      ``auroc``, or where nothing is wrong ``'guaranteed'``: Wilson's bounds of all recalls
      together (Bonferroni) and the worst F1 that they allow, and ``auroc_interval.guaranteed``.
      ``interval_kinds`` says which is which, ``confidence`` their coverage.
    - ``n``, ``support`` (class -> images), ``classes``, ``absent_classes``, and
      ``confusion_matrix`` (rows are true classes, columns predicted ones).

  Raises:
    ValueError: if shapes, labels or classes do not fit together, or a score is not finite.
  """
  scores, probabilities, labels = _checked(predictions, labels, classes)
  n, num_classes = scores.shape
  predicted = scores.argmax(axis=1)
  confusion = np.zeros((num_classes, num_classes), np.int64)
  np.add.at(confusion, (labels, predicted), 1)
  support = confusion.sum(axis=1)
  report: dict[str, Any] = {
    'metrics': {},
    'intervals': {},
    'interval_kinds': {},
    'confidence': confidence,
    'n': n,
    'classes': list(classes),
    'support': {name: int(count) for name, count in zip(classes, support)},
    'absent_classes': [name for name, count in zip(classes, support) if count == 0],
    'confusion_matrix': confusion.tolist(),
  }
  if n == 0:
    return report

  values = report['metrics']
  present: list[int] = np.flatnonzero(support).tolist()
  precision, recall, f1, _ = sk_metrics.precision_recall_fscore_support(
    labels,
    predicted,
    labels=present,
    average=None,
    zero_division=0,  # pyright: ignore[reportArgumentType]
  )
  precision, recall, f1 = np.asarray(precision), np.asarray(recall), np.asarray(f1)
  values['accuracy'] = float(sk_metrics.accuracy_score(labels, predicted))
  values['balanced_accuracy'] = float(recall.mean())
  values['macro_f1'] = float(f1.mean())
  # With one class there is no rest to rank it against.
  aurocs = [
    float(sk_metrics.roc_auc_score(labels == k, probabilities[:, k]))
    for k in present
    if len(present) > 1
  ]
  if aurocs:
    values['auroc'] = float(np.mean(aurocs))
  values['ece'] = _calibration_error(probabilities, labels)
  for row, k in enumerate(present):
    values[f'recall/{classes[k]}'] = float(recall[row])
    values[f'precision/{classes[k]}'] = float(precision[row])
    values[f'f1/{classes[k]}'] = float(f1[row])
    if aurocs:
      values[f'auroc/{classes[k]}'] = aurocs[row]

  def put(name: str, kind: str, interval: tuple[float, float]) -> None:
    if not math.isnan(interval[0]):
      report['intervals'][name] = list(interval)
      report['interval_kinds'][name] = kind

  put('accuracy', 'wilson', _wilson(np.trace(confusion), n, confidence))
  for k in present:
    hits, calls = confusion[k, k], confusion[:, k].sum()
    put(f'recall/{classes[k]}', 'wilson', _wilson(hits, support[k], confidence))
    put(f'precision/{classes[k]}', 'wilson', _wilson(hits, calls, confidence))

  # Where nothing is wrong resampling has nothing to vary: what is certain then, of all classes.
  sides = [min(int(support[k]), n - int(support[k])) for k in present]
  each = 1 - (1 - confidence) / len(present)
  if np.trace(confusion) == n:
    count = support[present]
    least = np.array([intervals.wilson(int(c), int(c), confidence=each)[0] for c in count])
    lost = float(((1 - least) * count).sum())
    put('balanced_accuracy', 'guaranteed', (float(least.mean()), 1.0))
    worst = 2 * least * count / (2 * least * count + lost)  # all that is lost taken for this class
    put('macro_f1', 'guaranteed', (float(worst.mean()), 1.0))
  if aurocs and min(aurocs) == 1:
    least = [auroc_interval.guaranteed(1.0, pairs, confidence=each)[0] for pairs in sides]
    put('auroc', 'guaranteed', (float(np.mean(least)), 1.0))

  # Drawing N images again is drawing the cells of the confusion matrix again.
  generator = np.random.default_rng(seed)
  resampled = generator.multinomial(n, confusion.ravel() / n, size=num_resamples)
  resampled = resampled.reshape(num_resamples, num_classes, num_classes)
  recalls, f1s = _macro_recall_and_f1(resampled)
  recall_interval = intervals.percentile_interval(recalls, confidence=confidence)
  if np.trace(confusion) < n:
    put('balanced_accuracy', 'bootstrap', recall_interval)
    put('macro_f1', 'bootstrap', intervals.percentile_interval(f1s, confidence=confidence))
  if aurocs and min(aurocs) < 1:
    interval = intervals.bootstrap(
      _macro_auroc,
      probabilities,
      labels,
      num_resamples=num_resamples,
      confidence=confidence,
      seed=seed,
      weighted=True,
    )
    put('auroc', 'bootstrap', interval)
  return report


def adds_nothing(report: Mapping[str, Any], name: str) -> bool:
  """Whether a figure says less than the accuracy beside it, which has an interval of its own.

  Of a perfect figure the certain bound is all that is known. An AUROC may be perfect beside
  mistakes, as it asks for the order of the scores alone; and where nothing was wrong, accuracy
  says so with the narrower interval.

  >>> report = {'metrics': {'accuracy': 0.9}, 'interval_kinds': {'auroc': 'guaranteed'}}
  >>> adds_nothing(report, 'auroc')
  True
  """
  return 'accuracy' in report['metrics'] and (
    report.get('interval_kinds', {}).get(name) == 'guaranteed'
  )


def worst_mistakes(
  predictions: ClassScores, labels: np.ndarray, *, limit: int = 12
) -> list[dict[str, Any]]:
  """The wrong predictions, the most confident first.

  A mistake is worse the further the wrong class's probability lies above the true one's.

  Args:
    predictions: [N, K] scores and probabilities.
    labels: [N] integers.
    limit: at most so many.

  Returns:
    One dict per mistake: ``row`` (place in ``predictions``), ``true`` and ``predicted`` (classes
    as integers), ``probability`` (of the predicted class), ``true_probability``, ``second`` (the
    class with the second highest score) and ``second_probability``.
  """
  found = _said(predictions, labels)
  wrong = [row for row in found if row['predicted'] != row['true']]
  return sorted(wrong, key=lambda row: row['true_probability'] - row['probability'])[:limit]


def least_certain(
  predictions: ClassScores, labels: np.ndarray, *, limit: int = 12, sure: float = 0.99
) -> list[dict[str, Any]]:
  """The right predictions, the least probable first: what to look at where nothing was wrong.

  Args:
    predictions: [N, K] scores and probabilities.
    labels: [N] integers.
    limit: at most so many.
    sure: probability from which on an answer is not worth looking at; three are shown even so.

  Returns:
    One dict per prediction, as in :func:`worst_mistakes`.
  """
  right = [row for row in _said(predictions, labels) if row['predicted'] == row['true']]
  right.sort(key=lambda row: row['probability'])
  unsure = sum(row['probability'] < sure for row in right)
  return right[: min(limit, max(unsure, 3))]


def _said(predictions: ClassScores, labels: np.ndarray) -> list[dict[str, Any]]:
  scores, probabilities, labels = _checked(predictions, labels, range(predictions.scores.shape[1]))
  best = np.argsort(-scores, axis=1, kind='stable')[:, [0, min(1, scores.shape[1] - 1)]]
  return [
    {
      'row': row,
      'true': int(true),
      'predicted': int(predicted),
      'probability': float(of[predicted]),
      'true_probability': float(of[true]),
      'second': int(second),
      'second_probability': float(of[second]),
    }
    for row, (true, (predicted, second), of) in enumerate(zip(labels, best, probabilities))
  ]


def _checked(
  predictions: ClassScores, labels: np.ndarray, classes: Sequence
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  scores = np.asarray(predictions.scores, np.float64)
  probabilities = np.asarray(predictions.probabilities, np.float64)
  labels = np.asarray(labels)
  chex.assert_rank([scores, probabilities, labels], [2, 2, 1])
  chex.assert_equal_shape([scores, probabilities])
  chex.assert_equal_shape_prefix([scores, labels], 1)
  if scores.shape[1] != len(classes) or len(set(classes)) != len(classes):
    raise ValueError(
      f'classes holds {len(classes)} names ({len(set(classes))} different ones) for scores of '
      f'{scores.shape[1]} classes; one name of its own for each is needed.'
    )
  wrong = labels[(labels < 0) | (labels >= len(classes))]
  if wrong.size:
    raise ValueError(f'labels holds {wrong[0]}; 0 to {len(classes) - 1} are allowed.')
  broken = int((~np.isfinite(scores) | ~np.isfinite(probabilities)).any(axis=1).sum())
  if broken:
    raise ValueError(
      f'predictions holds {broken} of {len(scores)} images with a score that is not finite; '
      'the model has probably diverged.'
    )
  return scores, probabilities, labels.astype(np.int64)


def _wilson(successes: int, n: int, confidence: float) -> tuple[float, float]:
  """Without trials there is nothing to report, rather than (0, 1)."""
  if n == 0:
    return math.nan, math.nan
  return intervals.wilson(int(successes), int(n), confidence=confidence)


def _macro_recall_and_f1(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """[R, K, K] -> [R] twice, over the classes that each resample holds."""
  hits = np.diagonal(confusion, axis1=1, axis2=2)  # [R, K]
  support, calls = confusion.sum(axis=2), confusion.sum(axis=1)
  present = support > 0
  count = present.sum(axis=1)
  recall = (hits / np.maximum(support, 1)).sum(axis=1) / count
  f1 = (2 * hits / np.maximum(support + calls, 1)).sum(axis=1) / count
  return recall, f1


def _macro_auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Mann-Whitney's statistic for images that count ``weights`` [R,N] times; ties count half."""
  total = weights.sum(axis=1)
  sums, counts = np.zeros(len(weights)), np.zeros(len(weights))
  for k in np.unique(labels):
    order = np.argsort(scores[:, k])
    ranked, positive = scores[order, k], labels[order] == k
    drawn = weights[:, order]
    chosen = drawn[:, positive]
    drawn[:, positive] = 0
    below = np.zeros((drawn.shape[0], drawn.shape[1] + 1), drawn.dtype)
    np.cumsum(drawn, axis=1, out=below[:, 1:])
    first = np.searchsorted(ranked, ranked[positive], 'left')
    last = np.searchsorted(ranked, ranked[positive], 'right')
    wins = (chosen * (below[:, first] + below[:, last])).sum(axis=1) / 2
    positives = chosen.sum(axis=1)
    pairs = positives * (total - positives)
    sums += wins / np.maximum(pairs, 1)
    counts += pairs > 0
  return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


def _calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
  top = probabilities.max(axis=1)
  correct = probabilities.argmax(axis=1) == labels
  bins = np.clip(np.ceil(top * _CALIBRATION_BINS).astype(int) - 1, 0, _CALIBRATION_BINS - 1)
  gaps = np.bincount(bins, weights=correct - top, minlength=_CALIBRATION_BINS)
  return float(np.abs(gaps).sum() / len(labels))
