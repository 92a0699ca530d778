"""Average precision and recall of many resamples at once, from one matching.

Shape legend: N images, K classes, T IoU thresholds, S detections of one class, H hits among them,
R resamples, Q false-positive rates.

A resample is a row of weights: how often each image was drawn. The matches inside an image do not
depend on the other images, so they are made once (``coco_matches``) and only counted again here.
"""

from collections.abc import Sequence

import numpy as np

from jaxdefect.evaluate.coco_matches import Ranked

# Resamples are counted in blocks, so that many detections need a bounded memory.
_BLOCK_ELEMENTS = 4_000_000


def average_precisions(
  ranked: Sequence[Ranked], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  r"""Average precision and final recall where image i counts ``weights[:, i]`` times.

  An image that is drawn w times stands for w copies of each of its detections, next to each other
  in the ranking (where scores tie inside an image, COCO would take the copies of the image in
  turn). Between hits precision only falls, so that its envelope needs the hits alone:

  .. math:: \text{precision at hit } j = \frac{\sum_{i \le j,\ \text{hit}} w_i}{\sum_{i \le j} w_i}

  With weights of one this is COCO's accumulation to rounding.

  Args:
    ranked: K classes, from ``coco_matches.rank``.
    weights: [R, N] integers.

  Returns:
    Average precision and recall, both [R, T, K]; NaN where a class has no true box.
  """
  size, thresholds = len(weights), len(ranked[0].hit)
  precision = np.full((size, thresholds, len(ranked)), np.nan)
  recall = np.full_like(precision, np.nan)
  for k, one in enumerate(ranked):
    for rows in _blocks(size, len(one.image)):
      precision[rows, :, k], recall[rows, :, k] = _of_class(one, weights[rows])
  return precision, recall


def _of_class(one: Ranked, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """[R, T] twice."""
  size, thresholds = len(weights), len(one.hit)
  total = weights @ one.truths  # [R]
  needed = _hits_needed(total)  # [R, 101]
  drawn = weights[:, one.image]  # [R, S]
  above = np.cumsum(drawn, axis=1)
  # Rows are told apart by adding a stride, so that one search serves all of them.
  start = np.arange(size)[:, None] * (total.max() + 1)
  precision, recall = np.empty((size, thresholds)), np.empty((size, thresholds))
  for t, hit in enumerate(one.hit):
    places = np.flatnonzero(hit)
    hits = np.cumsum(drawn[:, places], axis=1)  # [R, H]
    envelope = np.zeros((size, len(places) + 1))  # the last column: recall never reached
    envelope[:, :-1] = hits / (above[:, places] + np.spacing(1))  # COCO's guard against 0/0
    envelope = np.maximum.accumulate(envelope[:, ::-1], axis=1)[:, ::-1]
    first = np.searchsorted((hits + start).ravel(), (needed + start).ravel())
    first = first.reshape(size, -1) - np.arange(size)[:, None] * len(places)
    precision[:, t] = np.take_along_axis(envelope, first, axis=1).mean(axis=1)
    recall[:, t] = drawn[:, places].sum(axis=1) / np.maximum(total, 1)
  absent = total == 0
  precision[absent], recall[absent] = np.nan, np.nan
  return precision, recall


def _hits_needed(total: np.ndarray) -> np.ndarray:
  """[R] true boxes -> [R, 101] hits from which each recall is reached, in COCO's arithmetic."""
  levels = np.linspace(0.0, 1.0, 101)
  needed = np.zeros((len(total), len(levels)), np.int64)
  for count in np.unique(total[total > 0]):
    needed[total == count] = np.searchsorted(np.arange(count + 1) / count, levels)
  return needed


def recall_at(ranked: Sequence[Ranked], weights: np.ndarray, rates: Sequence[float]) -> np.ndarray:
  """Share of all true boxes found at IoU 0.5 with at most so many false positives per image.

  Detections of equal score are accepted or refused together.

  Args:
    ranked: K classes, from ``coco_matches.rank``; the first IoU threshold is read.
    weights: [R, N] integers, how often each image counts; each row sums to N.
    rates: Q false positives per image.

  Returns:
    [R, Q] recalls in 0..1; NaN where no image with a true box is drawn.
  """
  score = np.concatenate([one.score for one in ranked])
  order = np.argsort(-score, kind='stable')
  score = score[order]
  image = np.concatenate([one.image for one in ranked])[order]
  hit = np.concatenate([one.hit[0] for one in ranked])[order]
  truths = np.sum([one.truths for one in ranked], axis=0)  # [N]
  # Where a run of equal scores ends; only there can a threshold lie.
  ends = np.flatnonzero(np.append(score[1:] < score[:-1], True)) if len(score) else []

  total = weights @ truths  # [R]
  recalls = np.full((len(weights), len(rates)), np.nan)
  for rows in _blocks(len(weights), len(image)):
    drawn = weights[rows][:, image]
    hits, alarms = (np.cumsum(drawn * part, axis=1)[:, ends] for part in (hit, ~hit))
    hits = np.pad(hits, ((0, 0), (1, 0)))  # nothing accepted, nothing found
    for q, rate in enumerate(rates):
      accepted = (alarms <= rate * weights.shape[1] + 1e-9).sum(axis=1)
      found = np.take_along_axis(hits, accepted[:, None], axis=1)[:, 0]
      recalls[rows, q] = np.where(total[rows] > 0, found / np.maximum(total[rows], 1), np.nan)
  return recalls


def _blocks(size: int, width: int) -> list[slice]:
  step = max(1, _BLOCK_ELEMENTS // max(width, 1))
  return [slice(start, start + step) for start in range(0, size, step)]
