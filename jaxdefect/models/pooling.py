"""Pooling over space."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def max_pool(x: jax.Array) -> jax.Array:
  """Largest value of every 3x3 window at stride 2, as in the stem of every ResNet.

  One pixel is padded on each side with minus infinity.

  Args:
    x: [N, H, W, C] values.

  Returns:
    [N, ceil(H/2), ceil(W/2), C].
  """
  return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


def global_average_pool(x: jax.Array) -> jax.Array:
  """Mean over all pixels, in float32 at least.

  Args:
    x: [N, H, W, C] a feature map.

  Returns:
    [N, C] features.
  """
  return jnp.mean(x.astype(jnp.promote_types(x.dtype, jnp.float32)), axis=(1, 2))
