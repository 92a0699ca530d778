"""Task-aligned assignment: the cells that learn an object are those that already do both best.

Shape legend: A cells, K classes, M true boxes (padded); one image, vmap for more.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.ops.boxes import box_iou


class AlignedTargets(NamedTuple):
  """What the cells of one image are to learn.

  Attributes:
    target: [A] int32, the true box that the cell learns; meaningful where positive.
    positive: [A] bool.
    score: [A] in 0..1, the probability that it should give the class of that box, and the weight
      of its box; 0 where not positive.
  """

  target: jax.Array
  positive: jax.Array
  score: jax.Array


def task_aligned_targets(
  scores: jax.Array,
  boxes: jax.Array,
  centres: jax.Array,
  true: jax.Array,
  labels: jax.Array,
  valid: jax.Array,
  *,
  top_k: int = 10,
  alpha: float = 0.5,
  beta: float = 6.0,
) -> AlignedTargets:
  r"""Assigns the cells of one image to its objects by what the network now says of them.

  With the score s that a cell gives the object's class and the IoU u of its box with the object,

  .. math::
    t = s^\alpha u^\beta, \qquad
    \hat t = t\, \frac{\max_{\text{positives of the object}} u}
                      {\max_{\text{positives of the object}} t}

  (TOOD, section 3.2). The ``top_k`` cells of largest t, of those whose centre lies
  inside the object, are its positives, if t > 0; ties go to the lowest index. A cell that several
  objects choose learns the one that its box overlaps most. An object that no centre lies inside
  has no positives.

  TOOD's alpha is 1, and 13 cells; the defaults here are those of detectors of the YOLOv8 class.

  Args:
    scores: [A, K] probabilities.
    boxes: [A, 4] predicted boxes, pixels.
    centres: [A, 2] (x, y) of the cells, pixels.
    true: [M, 4] true boxes, pixels; M may be 0.
    labels: [M] their classes.
    valid: [M] bool, False marks padding, which gets nothing.
    top_k: most positives of an object.
    alpha: exponent of the score.
    beta: exponent of the overlap.

  Returns:
    ``AlignedTargets``. No gradient passes.

  Raises:
    ValueError: top_k below 1, or a negative exponent.

  References:
    Feng et al., `TOOD <https://arxiv.org/abs/2108.07755>`_, 2021.

  >>> boxes = jnp.array([[0.0, 0, 8, 8], [0.0, 0, 8, 6], [8.0, 0, 16, 8]])
  >>> centres = jnp.array([[3.0, 3.0], [5.0, 3.0], [12.0, 4.0]])
  >>> said = task_aligned_targets(
  ...   jnp.full((3, 1), 0.25), boxes, centres, boxes[:1], jnp.array([0]), jnp.array([True])
  ... )
  >>> said.positive.tolist(), [round(s, 3) for s in said.score.tolist()]  # 0.75 ** 6
  ([True, True, False], [1.0, 0.178, 0.0])
  """
  num = scores.shape[0]
  chex.assert_rank(scores, 2)
  chex.assert_shape([boxes, centres], [(num, 4), (num, 2)])
  chex.assert_shape(true, (None, 4))
  chex.assert_shape([labels, valid], true.shape[:1])
  if top_k < 1 or alpha < 0 or beta < 0:
    raise ValueError(
      f'top_k is {top_k}, alpha {alpha} and beta {beta}; the first must be 1 or more, '
      'the others 0 or more'
    )
  scores, boxes = lax.stop_gradient((scores, boxes))
  # One true box of padding stands in where there are none at all.
  if true.shape[0] == 0:
    true, labels, valid = jnp.zeros((1, 4)), jnp.zeros(1, jnp.int32), jnp.zeros(1, bool)

  x, y = centres[:, :1], centres[:, 1:]
  inside = (x > true[:, 0]) & (x < true[:, 2]) & (y > true[:, 1]) & (y < true[:, 3])  # [A, M]
  overlap = box_iou(boxes, true)  # [A, M]
  alignment = scores[:, labels] ** alpha * overlap**beta
  alignment = jnp.where(inside & valid, alignment, 0)

  best, cells = lax.top_k(alignment.T, min(top_k, num))  # [M, k]
  objects = jnp.arange(true.shape[0])[:, None]
  chosen = jnp.zeros(alignment.shape, bool).at[cells, objects].set(best > 0)  # [A, M]
  target = jnp.argmax(jnp.where(chosen, overlap, -1), axis=1).astype(jnp.int32)  # [A]
  positive = chosen.any(axis=1)

  own = positive[:, None] & (target[:, None] == objects[:, 0])  # [A, M]
  largest = jnp.where(own, alignment, 0).max(axis=0)  # [M]
  share = jnp.where(own, overlap, 0).max(axis=0) / jnp.where(largest > 0, largest, 1)
  score = jnp.where(own, alignment * share, 0).sum(axis=1)
  return AlignedTargets(target, positive, score)
