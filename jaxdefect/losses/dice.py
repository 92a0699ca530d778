"""Dice loss of a mask.

Shape legend: N images, H x W pixels.
"""

import chex
import jax
import jax.numpy as jnp


def dice_loss(logits: jax.Array, target: jax.Array, *, smooth: float = 1.0) -> jax.Array:
  r"""One minus the Dice coefficient of a mask, image by image.

  With :math:`p = \sigma(\text{logit})` and the true mask t,

  .. math:: \ell = 1 - \frac{2 \sum_x t_x p_x + s}{\sum_x t_x^2 + \sum_x p_x^2 + s}

  Squares in the denominator make the loss 0 where p = t, whatever t is; s keeps an image without a
  marked pixel defined.

  Args:
    logits: [N, H, W].
    target: [N, H, W] booleans or probabilities in 0..1.
    smooth: s > 0, in pixels.

  Returns:
    [N] values in 0..1, float32 or wider.

  Raises:
    ValueError: smooth outside what is allowed.

  References:
    Milletari et al., `V-Net <https://arxiv.org/abs/1606.04797>`_, section 3.

  >>> mask = jnp.array([[[True, False]]])
  >>> print(dice_loss(jnp.array([[[-50.0, 50.0]]]), mask))  # 1 - (0 + 1) / (1 + 1 + 1)
  [0.6666666]
  """
  chex.assert_rank(logits, 3)
  chex.assert_equal_shape([logits, target])
  if not smooth > 0:
    raise ValueError(f'smooth is {smooth}; it must be larger than 0.')
  p = jax.nn.sigmoid(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
  t = target.astype(p.dtype)
  shared = (t * p).sum((1, 2))
  size = (t * t).sum((1, 2)) + (p * p).sum((1, 2))
  return 1 - (2 * shared + smooth) / (size + smooth)
