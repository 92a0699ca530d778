"""The losses of Faster R-CNN's two stages, for one image (vmap for more).

Shape legend: A anchors, S sampled anchors or regions, K classes.
"""

import chex
import jax
import jax.numpy as jnp

from jaxdefect.losses.cross_entropy import softmax_cross_entropy
from jaxdefect.losses.detection import sigmoid_cross_entropy, smooth_l1
from jaxdefect.ops.targets import AnchorTargets, RegionTargets


def proposal_loss(
  objectness: jax.Array, deltas: jax.Array, targets: AnchorTargets, *, beta: float = 1 / 9
) -> tuple[jax.Array, jax.Array]:
  r"""How badly the proposal network scored and placed the sampled anchors.

  .. math:: \frac{1}{S} \sum_s \mathrm{BCE}(o_s, p_s), \qquad
            \frac{1}{S} \sum_{s: p_s = 1} \mathrm{smooth}_{L_1}(\delta_s - \delta^*_s)

  Args:
    objectness: [A] logits.
    deltas: [A, 4] encoded boxes.
    targets: which anchors count, and what they should have said.
    beta: where smooth L1 turns from quadratic to linear.

  Returns:
    Two scalars, objectness and boxes; 0 where nothing was sampled.
  """
  chex.assert_shape(deltas, (objectness.shape[0], 4))
  count = jnp.maximum(targets.valid.sum(), 1)
  wrong = sigmoid_cross_entropy(
    objectness[targets.indices], targets.positive.astype(objectness.dtype)
  )
  away = smooth_l1(deltas[targets.indices], targets.deltas, beta=beta).sum(-1)
  return (
    jnp.where(targets.valid, wrong, 0.0).sum() / count,
    jnp.where(targets.positive, away, 0.0).sum() / count,
  )


def region_loss(
  logits: jax.Array,
  deltas: jax.Array,
  targets: RegionTargets,
  *,
  class_weights: jax.Array | None = None,
  beta: float = 1 / 9,
) -> tuple[jax.Array, jax.Array]:
  r"""How badly the second stage classified and placed the sampled regions.

  .. math:: -\frac{1}{S} \sum_s w_{c_s} \log p(c_s | f_s), \qquad
            \frac{1}{S} \sum_{s: c_s > 0} \mathrm{smooth}_{L_1}(\delta_s - \delta^*_s)

  the class part being equation 5 of source A with weights, cross-entropy without.

  Args:
    logits: [S, K + 1], the background first.
    deltas: [S, 4 (K + 1)] a box per class, or [S, 4] one box for all classes.
    targets: the regions, and what should have been said of them.
    class_weights: [K + 1], or None for 1.
    beta: where smooth L1 turns from quadratic to linear.

  Returns:
    Two scalars, classes and boxes; 0 where nothing was sampled.
  """
  chex.assert_rank([logits, deltas], 2)
  count = jnp.maximum(targets.valid.sum(), 1)
  wrong = softmax_cross_entropy(logits, targets.label, class_weights=class_weights)
  boxes = deltas.reshape(deltas.shape[0], -1, 4)  # [S, K + 1 or 1, 4]
  own = targets.label if boxes.shape[1] > 1 else jnp.zeros_like(targets.label)
  chosen = jnp.take_along_axis(boxes, own[:, None, None], axis=1)[:, 0]
  away = smooth_l1(chosen, targets.deltas, beta=beta).sum(-1)
  return (
    jnp.where(targets.valid, wrong, 0.0).sum() / count,
    jnp.where(targets.positive, away, 0.0).sum() / count,
  )
