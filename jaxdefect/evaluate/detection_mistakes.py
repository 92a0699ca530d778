"""What a detector got most wrong: true boxes that it missed, and alarms without a cause.

Shape legend: N images, D detections and M true boxes per image (padding included), K classes.

The kinds of mistakes are those of TIDE (Bolya et al., ECCV 2020, section 2.2), with its IoU
thresholds: 0.5 is a match, below 0.1 there is nothing to speak of.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxdefect.contracts import Detections
from jaxdefect.evaluate import coco_matches

MATCH_IOU, BACKGROUND_IOU = 0.5, 0.1


class BoxMistake(NamedTuple):
  """A true box that was missed, or a detection that is a false alarm.

  Attributes:
    row: of the image in the predictions.
    box: edges (x0, y0, x1, y1) in pixels of the picture as it was read.
    label: of a miss its true class, of a false alarm the class that it names.
    score: of a miss the score of the detection that matches it, below the threshold, 0 without
      any; of a false alarm its own.
    kind: of a miss ``'wrong class'`` (a working detection of another class covers it with
      IoU >= 0.5), ``'low score'`` (only a score below the threshold matches), ``'poor overlap'``
      (a working detection of its class covers it with IoU >= 0.1, and none matches) or
      ``'nothing'``; of a false alarm ``'duplicate'`` (its true box is taken by a better detection),
      ``'wrong class'`` (it covers a true box of another class with IoU >= 0.5), ``'poor overlap'``
      (it covers one of its class with 0.1 <= IoU < 0.5) or ``'background'``.
    other: for ``'wrong class'`` the class of the other box, otherwise -1.
  """

  row: int
  box: tuple[float, float, float, float]
  label: int
  score: float
  kind: str
  other: int


def find(
  predictions: Detections,
  truth: Mapping[str, np.ndarray],
  classes: Sequence[str],
  *,
  min_score: float = 0.5,
) -> tuple[list[BoxMistake], list[BoxMistake]]:
  """Lists every miss and every false alarm at one score threshold, the worst first.

  Matching is COCO's at IoU 0.5 (``coco_matches``), over all scores. A miss is a true box whose
  match scores below the threshold, or that has none. The worst miss has the lowest such score;
  among equals (most have none at all) the largest box. The worst false alarm has the largest score.

  Args:
    predictions: [N, D, ...] as for ``average_precision.evaluate``.
    truth: as for ``average_precision.evaluate``.
    classes: K names.
    min_score: the working threshold, 0..1; detections below it raise no alarm.

  Returns:
    The misses and the false alarms.

  Raises:
    ValueError: as ``average_precision.evaluate``, or if ``min_score`` is not within 0..1.
  """
  if not 0 <= min_score <= 1:
    raise ValueError(f'min_score is {min_score}; 0 to 1 is allowed.')
  boxes = coco_matches.in_original_pixels(predictions, truth, classes)
  if not len(boxes.found):
    return [], []
  found_score, taken = _matches(boxes, len(classes))
  working = boxes.kept & (boxes.score >= min_score)

  misses, alarms = [], []
  missed = boxes.true_kept & (found_score < min_score)
  free = working & ~taken
  for row in np.flatnonzero(missed.any(axis=1) | free.any(axis=1)).tolist():
    iou = _pairwise_iou(boxes.found[row], boxes.true[row])  # [D, M]
    same = boxes.label[row][:, None] == boxes.true_label[row]
    seen = np.where(working[row][:, None], iou, 0.0)
    for place in np.flatnonzero(missed[row]).tolist():
      score = max(float(found_score[row, place]), 0.0)
      kind, other = _kind(seen[:, place], same[:, place], boxes.label[row])
      if score > 0 and kind != 'wrong class':
        kind = 'low score'
      elif kind == 'duplicate':
        # The detection that would match was taken by a neighbour that it overlaps more.
        kind = 'poor overlap'
      misses.append(
        BoxMistake(
          row,
          _edges(boxes.true[row, place]),
          int(boxes.true_label[row, place]),
          score,
          kind or 'nothing',
          other,
        )
      )
    seen = np.where(boxes.true_kept[row], iou, 0.0)
    for place in np.flatnonzero(free[row]).tolist():
      kind, other = _kind(seen[place], same[place], boxes.true_label[row])
      alarms.append(
        BoxMistake(
          row,
          _edges(boxes.found[row, place]),
          int(boxes.label[row, place]),
          float(boxes.score[row, place]),
          kind or 'background',
          other,
        )
      )
  misses.sort(key=lambda one: (one.score, -_area(one.box)))
  alarms.sort(key=lambda one: -one.score)
  return misses, alarms


def _matches(boxes: coco_matches.Boxes, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
  """Score of each true box's match [N, M] (-1 without one), and which detections match [N, D]."""
  coco = coco_matches.match(boxes, num_classes, iou_thresholds=(MATCH_IOU,))
  found_score, taken = np.full(boxes.true_kept.shape, -1.0), np.zeros(boxes.kept.shape, bool)
  for one in coco.evalImgs:
    if one is None:
      continue
    for truth_id, match_id in zip(one['gtIds'], np.asarray(one['gtMatches']).reshape(-1)):
      if match_id > 0:
        row, place = divmod(int(match_id) - 1, boxes.kept.shape[1])
        taken[row, place] = True
        found_score[row, (truth_id - 1) % boxes.true_kept.shape[1]] = boxes.score[row, place]
  return found_score, taken


def _kind(iou: np.ndarray, same: np.ndarray, label: np.ndarray) -> tuple[str, int]:
  """What the partners [P] of one box, with their overlaps and classes, say about it."""
  own, others = np.where(same, iou, 0.0), np.where(same, 0.0, iou)
  if own.max(initial=0.0) >= MATCH_IOU:
    return 'duplicate', -1
  if others.max(initial=0.0) >= MATCH_IOU:
    return 'wrong class', int(label[others.argmax()])
  if own.max(initial=0.0) >= BACKGROUND_IOU:
    return 'poor overlap', -1
  return '', -1


def _pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """[A, 4] and [B, 4] -> [A, B]; 0 where both are empty."""
  low = np.maximum(a[:, None, :2], b[None, :, :2])
  high = np.minimum(a[:, None, 2:], b[None, :, 2:])
  shared = np.maximum(high - low, 0).prod(axis=-1)
  areas = [np.maximum(x[:, 2:] - x[:, :2], 0).prod(axis=-1) for x in (a, b)]
  union = areas[0][:, None] + areas[1] - shared
  return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _edges(box: np.ndarray) -> tuple[float, float, float, float]:
  x0, y0, x1, y1 = box.tolist()
  return x0, y0, x1, y1


def _area(box: tuple[float, float, float, float]) -> float:
  return (box[2] - box[0]) * (box[3] - box[1])
