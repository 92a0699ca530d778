"""Grad-CAM: which part of the picture made the model say so.

Shape legend: N images, h x w cells of the last feature maps, C channels, K classes.
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxdefect.contracts import Batch, Fitted


def gradcam(
  activations: Callable[..., tuple] | None,
  fitted: Fitted,
  batch: Batch,
  *,
  targets: jax.Array | None = None,
  contrast: bool = False,
) -> tuple[Any, jax.Array]:
  r"""Class activation maps, weighted by gradients.

  With :math:`A` the last feature maps and :math:`s_t` the score of the target class,

  .. math::
    \alpha_c = \frac{1}{hw}\sum_{ij} \frac{\partial s_t}{\partial A_{ijc}}, \qquad
    M_{ij} = \max\Bigl(0, \sum_c \alpha_c A_{ijc}\Bigr)

  The maps are in the score's unit and are *not* normalised: on the same model they can be compared
  between images (see ``overlays.absolute_ceiling``). Pure; ``jax.jit`` it with ``activations``
  bound by ``functools.partial``.

  Args:
    activations: ``Method.activations``, ``(fitted, batch, tap) -> (predictions, feature_maps)``.
    fitted: what predicts.
    batch: as in ``contracts.batch``.
    targets: [N] integers, the class to explain in each image; None explains the predicted one.
    contrast: explain :math:`s_t` minus the mean score of the other classes: what speaks for the
      class *rather than* for another. A softmax cannot see what all logits share, and a cosine
      near 1 has no slope left, while its lead over the other classes has.

  Returns:
    The predictions, and the maps [N,h,w] float32, zero for padding.

  Raises:
    ValueError: if the method shows no feature maps, or a target is no class.

  Selvaraju et al., ICCV 2017, equations 1 and 2.
  """
  if activations is None:
    raise ValueError('activations is None: this method shows no feature maps to explain.')
  shapes, maps_shape = jax.eval_shape(lambda f, b: activations(f, b, None), fitted, batch)
  chex.assert_rank([shapes.scores, maps_shape], [2, 4])
  n, num_classes = shapes.scores.shape
  if targets is not None:
    chex.assert_shape(targets, (n,))
    if n and not isinstance(targets, jax.core.Tracer):
      low, high = int(np.min(targets)), int(np.max(targets))
      if low < 0 or high >= num_classes:
        raise ValueError(f'targets spans {low}..{high}; 0 to {num_classes - 1} are allowed.')
  valid = batch['valid'] if 'valid' in batch else jnp.ones((n,), bool)

  # Rows do not see each other, so one gradient of the sum gives every image its own.
  def total(tap: jax.Array) -> tuple[jax.Array, tuple]:
    predictions, maps = activations(fitted, batch, tap)
    chosen = predictions.scores.argmax(axis=-1) if targets is None else jnp.asarray(targets)
    scores = jnp.take_along_axis(predictions.scores, chosen[:, None], axis=-1)[:, 0]
    if contrast:
      others = predictions.scores.sum(axis=-1) - scores
      scores = scores - others / max(num_classes - 1, 1)
    return jnp.where(valid, scores, 0.0).sum(), (predictions, maps)

  tap = jnp.zeros(maps_shape.shape, maps_shape.dtype)
  gradient, (predictions, maps) = jax.grad(total, has_aux=True)(tap)

  weights = gradient.astype(jnp.float32).mean(axis=(1, 2))  # [N, C]
  evidence = jnp.einsum('nhwc,nc->nhw', maps.astype(jnp.float32), weights)
  return predictions, jnp.where(valid[:, None, None], jax.nn.relu(evidence), 0.0)
