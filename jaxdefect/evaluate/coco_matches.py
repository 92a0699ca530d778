"""Which detection found which true box, by the rules of COCO and through pycocotools.

Shape legend: N images, D detections and M true boxes per image (padding included), K classes,
T IoU thresholds, S detections of one class over all images.

Within an image and a class the detections choose by falling score: each takes the free true box
that it overlaps most, if the IoU reaches the threshold. At most 100 detections per image and class
count. Everything is measured in pixels of the pictures as they were read.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import chex
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jaxdefect.contracts import Detections

# What an evaluator needs of the batches, beside the predictions.
TRUTH_KEYS = ('boxes', 'box_label', 'box_valid', 'scale')
MAX_DETECTIONS = 100


class Boxes(NamedTuple):
  """Detections and true boxes side by side, checked, in pixels of the pictures as they were read.

  Attributes:
    found: [N, D, 4] float64, edges (x0, y0, x1, y1); zero where ``kept`` is False.
    score: [N, D] float64.
    label: [N, D] int64.
    kept: [N, D] bool; False marks padding.
    true: [N, M, 4] float64, edges; zero where ``true_kept`` is False.
    true_label: [N, M] int64.
    true_kept: [N, M] bool.
  """

  found: np.ndarray
  score: np.ndarray
  label: np.ndarray
  kept: np.ndarray
  true: np.ndarray
  true_label: np.ndarray
  true_kept: np.ndarray


class Ranked(NamedTuple):
  """All detections of one class, by falling score; ties in the order of the images.

  Attributes:
    image: [S] int64, the row of the image.
    score: [S] float64.
    hit: [T, S] bool, whether the detection found a true box at each IoU threshold.
    truths: [N] int64, true boxes of the class in each image.
  """

  image: np.ndarray
  score: np.ndarray
  hit: np.ndarray
  truths: np.ndarray


def in_original_pixels(
  predictions: Detections, truth: Mapping[str, np.ndarray], classes: Sequence[str]
) -> Boxes:
  """Checks detections and ground truth, and divides the network's pixels by ``scale``.

  Args:
    predictions: [N, D, ...] boxes in pixels of the network's input.
    truth: the batches' ``boxes`` [N, M, 4] in pixels of the network's input, ``box_label`` [N, M],
      ``box_valid`` [N, M] and ``scale`` [N] (network pixels per pixel of the picture).
    classes: K names that both labels count in.

  Returns:
    The boxes. What padding holds is never looked at.

  Raises:
    ValueError: if a key or a class is missing, a score or an edge is not finite, a true box has no
      area, or a scale is not positive.
  """
  missing = [key for key in TRUTH_KEYS if key not in truth]
  if missing:
    raise ValueError(
      f'truth has the keys {", ".join(map(str, truth)) or "(none)"}; {missing[0]} is needed.'
    )
  if len(set(classes)) != len(classes):
    raise ValueError(f'classes holds {", ".join(classes)}; every name may occur once.')
  found, score = (np.asarray(x, np.float64) for x in (predictions.boxes, predictions.scores))
  label, kept = np.asarray(predictions.labels, np.int64), np.asarray(predictions.valid, bool)
  true, scale = (np.asarray(truth[key], np.float64) for key in ('boxes', 'scale'))
  true_label, true_kept = np.asarray(truth['box_label']), np.asarray(truth['box_valid'], bool)
  chex.assert_shape([found, true], (len(found), None, 4))
  chex.assert_shape([score, label, kept], found.shape[:2])
  chex.assert_shape([true_label, true_kept], true.shape[:2])
  chex.assert_shape(scale, (len(found),))

  if not (np.isfinite(scale) & (scale > 0)).all():
    raise ValueError(f'truth has the scale {scale.min()}; positive numbers are needed.')
  for what, labels in (('predictions', label[kept]), ('truth', true_label[true_kept])):
    wrong = labels[(labels < 0) | (labels >= len(classes))]
    if wrong.size:
      raise ValueError(
        f'{what} holds a box of class {wrong[0]}; 0 to {len(classes) - 1} are allowed.'
      )
  broken = kept & ~(np.isfinite(found).all(axis=-1) & np.isfinite(score))
  if broken.any():
    raise ValueError(
      f'predictions holds {int(broken.any(axis=1).sum())} of {len(found)} images with a box or '
      'score that is not finite; the model has probably diverged.'
    )
  # NaN fails the comparison too.
  flat = true_kept & ~((true[..., 2] > true[..., 0]) & (true[..., 3] > true[..., 1]))
  if flat.any():
    row, place = np.argwhere(flat)[0]
    edges = ', '.join(f'{edge:g}' for edge in true[row, place])
    raise ValueError(f'truth has the box ({edges}) in image {row}; boxes need a positive area.')

  scale = scale[:, None, None]
  return Boxes(
    found=np.where(kept[..., None], found / scale, 0.0),
    score=np.where(kept, score, 0.0),
    label=label,
    kept=kept,
    true=np.where(true_kept[..., None], true / scale, 0.0),
    true_label=true_label.astype(np.int64),
    true_kept=true_kept,
  )


def match(
  boxes: Boxes, num_classes: int, *, iou_thresholds: Sequence[float] | None = None
) -> COCOeval:
  """Runs COCO's matching on arrays: nothing is written, nothing is printed.

  Ids count from 1, because COCO reads 0 as 'not matched': image ``row + 1``, class ``label + 1``,
  true box ``row * M + place + 1``, detection ``row * D + place + 1``.

  Args:
    boxes: from ``in_original_pixels``.
    num_classes: K.
    iou_thresholds: None takes COCO's ten, 0.50 to 0.95.

  Returns:
    The ``COCOeval`` after ``evaluate``, over boxes of every size.
  """
  listed = [{'id': row + 1} for row in range(len(boxes.found))]
  names = [{'id': k + 1} for k in range(num_classes)]
  true = _annotations(boxes.true, boxes.true_label, boxes.true_kept, None)
  found = _annotations(boxes.found, boxes.label, boxes.kept, boxes.score)
  # pycocotools reports its progress on stdout.
  with contextlib.redirect_stdout(io.StringIO()):
    sides = []
    for annotations in (true, found):
      side = COCO()
      dataset = {'images': listed, 'categories': names, 'annotations': annotations}
      side.dataset = dataset  # pyright: ignore[reportAttributeAccessIssue]
      side.createIndex()
      sides.append(side)
    coco = COCOeval(*sides, iouType='bbox')
    coco.params.areaRng, coco.params.areaRngLbl = [[0.0, np.inf]], ['all']
    coco.params.maxDets = [MAX_DETECTIONS]
    if iou_thresholds is not None:
      coco.params.iouThrs = np.asarray(iou_thresholds, np.float64)
    coco.evaluate()
  return coco


def _annotations(
  edges: np.ndarray, label: np.ndarray, kept: np.ndarray, score: np.ndarray | None
) -> list[dict]:
  corner, size = edges[..., :2], np.maximum(edges[..., 2:] - edges[..., :2], 0)
  width = kept.shape[1]
  listed = []
  for row, place in np.argwhere(kept).tolist():
    one = {
      'id': row * width + place + 1,
      'image_id': row + 1,
      'category_id': int(label[row, place]) + 1,
      'bbox': [*corner[row, place].tolist(), *size[row, place].tolist()],
      'area': float(size[row, place].prod()),
      'iscrowd': 0,
    }
    if score is not None:
      one['score'] = float(score[row, place])
    listed.append(one)
  return listed


def accumulate(coco: COCOeval) -> dict[str, np.ndarray]:
  """COCO's own accumulation, without its printing.

  Args:
    coco: from ``match``.

  Returns:
    ``precision`` [T, 101, K] and the ``scores`` there, at COCO's recall levels, and the final
    ``recall`` [T, K]; -1 for a class without a true box.
  """
  with contextlib.redirect_stdout(io.StringIO()):
    coco.accumulate()
  return {name: coco.eval[name][..., 0, 0] for name in ('precision', 'scores', 'recall')}


def rank(coco: COCOeval) -> list[Ranked]:
  """The matches of every class over all images, ready to be counted again and again.

  Args:
    coco: from ``match``.

  Returns:
    One ``Ranked`` per class.
  """
  n, num_classes = len(coco.params.imgIds), len(coco.params.catIds)
  thresholds = len(coco.params.iouThrs)
  ranked = []
  for k in range(num_classes):
    images, scores = [np.zeros(0, np.int64)], [np.zeros(0)]
    hits = [np.zeros((thresholds, 0), bool)]
    truths = np.zeros(n, np.int64)
    for one in coco.evalImgs[k * n : (k + 1) * n]:
      if one is None:  # neither a detection nor a true box
        continue
      row = int(one['image_id']) - 1
      truths[row] = len(one['gtIds'])
      images.append(np.full(len(one['dtIds']), row, np.int64))
      scores.append(np.asarray(one['dtScores'], np.float64))
      hits.append(np.asarray(one['dtMatches']).reshape(thresholds, -1) > 0)
    score = np.concatenate(scores)
    order = np.argsort(-score, kind='stable')
    hit = np.concatenate(hits, axis=1)[:, order]
    ranked.append(Ranked(np.concatenate(images)[order], score[order], hit, truths))
  return ranked
