"""From scored boxes to the few that count: region proposals and final detections, of one image.

Shape legend: A anchors, L pyramid levels, R regions, K classes, P proposals kept, D detections.

Everything has a fixed size and a ``valid`` mask; ``jax.vmap`` gives the batch axis.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from jaxdefect.ops.boxes import clip_boxes, decode_boxes
from jaxdefect.ops.nms import nms, nms_per_class


def select_proposals(
  objectness: jax.Array,
  deltas: jax.Array,
  anchors: jax.Array,
  size: jax.Array,
  *,
  level_sizes: Sequence[int],
  num_before: int,
  num_after: int,
  iou_threshold: float = 0.7,
  min_size: float = 1e-3,
) -> tuple[jax.Array, jax.Array]:
  """Keeps an image's best boxes of the region proposal network.

  As in torchvision: the ``num_before`` best of each level are decoded and clipped to the image,
  the ones that are too small fall out, non-maximum suppression acts within each level, and the
  ``num_after`` best of all levels stay. No gradient passes.

  Args:
    objectness: [A] logits, levels one after the other.
    deltas: [A, 4] boxes, encoded against the anchors with weights 1.
    anchors: [A, 4] pixels.
    size: [2] (height, width) of the picture, pixels.
    level_sizes: L numbers of anchors, summing to A.
    num_before: boxes that enter suppression, per level.
    num_after: P.
    iou_threshold: of suppression.
    min_size: shortest side that a proposal may have, pixels.

  Returns:
    ([P, 4] boxes by falling objectness, [P] bool).
  """
  chex.assert_shape([deltas, anchors], (*objectness.shape, 4))
  chex.assert_equal(sum(level_sizes), objectness.shape[0])
  objectness, deltas = jax.lax.stop_gradient((objectness, deltas))
  kept_boxes, kept_scores, kept_valid = [], [], []
  start = 0
  for length in level_sizes:
    scores, order = jax.lax.top_k(objectness[start : start + length], min(num_before, length))
    level = decode_boxes(deltas[start + order], anchors[start + order], (1.0, 1.0, 1.0, 1.0))
    level = clip_boxes(level, size)
    large = (level[:, 2:] - level[:, :2]).min(-1) >= min_size
    chosen, valid = nms(
      level,
      scores,
      iou_threshold=iou_threshold,
      max_outputs=min(num_after, level.shape[0]),
      valid=large,
    )
    kept_boxes.append(level[chosen])
    kept_scores.append(scores[chosen])
    kept_valid.append(valid)
    start += length
  all_boxes, scores, valid = map(jnp.concatenate, (kept_boxes, kept_scores, kept_valid))
  missing = max(num_after - scores.shape[0], 0)  # fewer anchors than proposals asked for
  all_boxes = jnp.pad(all_boxes, ((0, missing), (0, 0)))
  scores, valid = jnp.pad(scores, (0, missing)), jnp.pad(valid, (0, missing))
  _, best = jax.lax.top_k(jnp.where(valid, scores, -jnp.inf), num_after)
  return all_boxes[best], valid[best]


def select_detections(
  scores: jax.Array,
  boxes: jax.Array,
  valid: jax.Array,
  *,
  score_threshold: float = 0.05,
  iou_threshold: float = 0.5,
  num_before: int = 400,
  num_after: int = 100,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Keeps an image's best (region, class) pairs: threshold, suppression per class, the best D.

  Args:
    scores: [R, K] probabilities, background left out.
    boxes: [R, K, 4], or [R, 1, 4] where all classes of a region share its box; pixels, clipped.
    valid: [R] bool.
    score_threshold: a pair counts above this score.
    iou_threshold: of suppression within a class.
    num_before: pairs that enter suppression, the best ones.
    num_after: D.

  Returns:
    ([D, 4] boxes, [D] scores by falling score, [D] int32 labels, [D] bool); 0 where not valid.
  """
  num, classes = scores.shape
  chex.assert_shape(boxes, (num, {1, classes}, 4))
  counts = (scores > score_threshold) & valid[:, None]
  flat = jnp.where(counts, scores, 0.0).reshape(-1)  # [R*K]
  best_scores, order = jax.lax.top_k(flat, min(num_before, flat.shape[0]))
  region, label = order // classes, (order % classes).astype(jnp.int32)
  best_boxes = boxes[region, 0 if boxes.shape[1] == 1 else label]
  chosen, keep = nms_per_class(
    best_boxes,
    best_scores,
    label,
    iou_threshold=iou_threshold,
    max_outputs=num_after,
    valid=counts.reshape(-1)[order],
  )
  return (
    jnp.where(keep[:, None], best_boxes[chosen], 0.0),
    jnp.where(keep, best_scores[chosen], 0.0),
    jnp.where(keep, label[chosen], 0),
    keep,
  )
