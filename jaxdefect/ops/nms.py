"""Non-maximum suppression: exact, greedy, of fixed size.

Shape legend: n boxes (padding included).

Both functions work on one image; ``vmap`` them over images. Memory is n x n bytes.
"""

import chex
import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.ops.boxes import box_iou


def nms(
  boxes: jax.Array,
  scores: jax.Array,
  *,
  iou_threshold: float,
  max_outputs: int,
  valid: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Keeps a box unless it overlaps a better one that was kept.

  Boxes are visited by falling score, ties by rising index. A box goes if its IoU with a kept one
  is above the threshold (not at it), as in torchvision.

  Args:
    boxes: [n, 4] in pixels.
    scores: [n]; not NaN where valid.
    iou_threshold: overlap in 0..1 that two kept boxes may have.
    max_outputs: length of the result; may be larger than n.
    valid: [n] bool, False marks padding, which neither is kept nor suppresses; by default all.

  Returns:
    ``(indices, valid)``, [max_outputs] int32 into ``boxes`` by falling score and [max_outputs]
    bool; padding comes last, with index 0.

  Raises:
    ValueError: if ``max_outputs`` is negative.

  >>> boxes = jnp.array([[0.0, 0, 4, 4], [0.0, 0, 4, 5], [9.0, 9, 12, 12]])
  >>> kept, valid = nms(boxes, jnp.array([0.5, 0.9, 0.7]), iou_threshold=0.5, max_outputs=3)
  >>> kept.tolist(), valid.tolist()
  ([1, 2, 0], [True, True, False])
  """
  return _greedy(boxes, scores, None, iou_threshold, max_outputs, valid)


def nms_per_class(
  boxes: jax.Array,
  scores: jax.Array,
  labels: jax.Array,
  *,
  iou_threshold: float,
  max_outputs: int,
  valid: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """As :func:`nms`, but boxes of different classes do not suppress each other.

  Equal to torchvision's ``batched_nms``, without its shifts of coordinates, which round.

  Args:
    boxes: [n, 4] in pixels.
    scores: [n]; not NaN where valid.
    labels: [n] integers: the class, or anything else that sets boxes apart, as a pyramid level.
    iou_threshold: overlap in 0..1 that two kept boxes of one class may have.
    max_outputs: length of the result over all classes; may be larger than n.
    valid: [n] bool, False marks padding; by default all are valid.

  Returns:
    ``(indices, valid)`` as :func:`nms`, all classes in one order of falling score.

  Raises:
    ValueError: if ``max_outputs`` is negative.

  >>> boxes, scores = jnp.array([[0.0, 0, 4, 4]] * 3), jnp.array([0.5, 0.9, 0.7])
  >>> kept, valid = nms_per_class(
  ...   boxes, scores, jnp.array([0, 0, 1]), iou_threshold=0.5, max_outputs=2
  ... )
  >>> kept.tolist(), valid.tolist()
  ([1, 2], [True, True])
  """
  return _greedy(boxes, scores, jnp.asarray(labels), iou_threshold, max_outputs, valid)


def _greedy(boxes, scores, labels, iou_threshold, max_outputs, valid):
  boxes, scores = jnp.asarray(boxes), jnp.asarray(scores)
  num = boxes.shape[0]
  valid = jnp.ones(num, bool) if valid is None else jnp.asarray(valid, bool)
  chex.assert_shape(boxes, (num, 4))
  chex.assert_shape([scores, valid], (num,))
  if labels is not None:
    chex.assert_shape(labels, (num,))
  if max_outputs < 0:
    raise ValueError(f'max_outputs must not be negative, came as {max_outputs}.')

  # Best first, padding last; the index as a key settles ties.
  scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
  place = jnp.arange(num, dtype=jnp.int32)
  order = lax.sort((~valid, -scores, place), num_keys=3)[2]
  boxes, valid = boxes[order], valid[order]

  # Who would suppress whom: earlier rows, later columns.
  overlaps = (box_iou(boxes, boxes) > iou_threshold) & (place[:, None] < place)  # [n, n]
  if labels is not None:
    labels = labels[order]
    overlaps &= labels[:, None] == labels

  # kept[j] = valid[j] and no kept i < j overlaps j. Each round of substitution settles at least
  # one more box for good, from the best on, so the fixed point is unique and is the greedy
  # answer; it takes as many rounds as the longest chain of suppressions, usually fewer than ten.
  def substitute(carry):
    kept, _ = carry
    again = valid & ~jnp.any(overlaps & kept[:, None], axis=0)
    return again, jnp.any(again != kept)

  kept, _ = lax.while_loop(lambda carry: carry[1], substitute, (valid, jnp.array(True)))

  # Kept ones to the front, still by falling score.
  front = jnp.argsort(~kept, stable=True)[:max_outputs]
  indices, found = jnp.where(kept[front], order[front], 0), kept[front]
  missing = max_outputs - front.shape[0]
  return jnp.pad(indices, (0, missing)), jnp.pad(found, (0, missing))
