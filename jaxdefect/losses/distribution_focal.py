"""Distribution focal loss: a number is learned as a distribution over whole numbers.

Shape legend: ... any axes, B bins.
"""

import chex
import jax
import jax.numpy as jnp


def distribution_focal(logits: jax.Array, target: jax.Array) -> jax.Array:
  r"""Cross-entropy with the two whole numbers beside the target, each the more the nearer it is.

  With :math:`S = \mathrm{softmax}` over the numbers 0 to B - 1, and
  :math:`y_i \le y \le y_{i+1} = y_i + 1`,

  .. math:: \ell(S, y) = -\left((y_{i+1} - y) \log S_i + (y - y_i) \log S_{i+1}\right)

  Its minimum is where the mean of S is y and nothing lies elsewhere; that mean is what the network
  then says (equation 5).

  Args:
    logits: [..., B].
    target: [...] y; what lies outside of 0..B - 1 counts as the nearest of these.

  Returns:
    [...] values in nats, float32 or wider.

  References:
    Li et al., `Generalized Focal Loss <https://arxiv.org/abs/2006.04388>`_, 2020, equation 6.

  >>> print(distribution_focal(jnp.zeros((1, 4)), jnp.array([1.3])))  # log 4
  [1.3862944]
  """
  chex.assert_equal_shape_prefix([logits, target], target.ndim)
  chex.assert_rank(logits, target.ndim + 1)
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  places = jnp.arange(logits.shape[-1], dtype=logits.dtype)
  target = jnp.clip(target.astype(logits.dtype), 0, logits.shape[-1] - 1)
  # A hat about y: 1 - |i - y| for the two neighbours, nothing else. No gather, whose gradient is a
  # scatter.
  weights = jnp.maximum(1 - jnp.abs(places - target[..., None]), 0)
  return -(weights * jax.nn.log_softmax(logits)).sum(-1)
