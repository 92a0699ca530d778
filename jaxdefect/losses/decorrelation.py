"""Descriptors whose entries say different things.

Shape legend: N descriptors, D entries.
"""

import chex
import jax
import jax.numpy as jnp


def mean_square_correlation(x: jax.Array, *, valid: jax.Array) -> jax.Array:
  r"""Mean squared correlation between the entries of descriptors.

  .. math:: \frac{1}{D (D - 1)} \sum_{i \ne j} c_{ij}^2

  with c the correlation matrix over the N descriptors.

  Args:
    x: [N, D].
    valid: [N] bool, the descriptors that count.

  Returns:
    A scalar in 0..1; a constant entry correlates with nothing.

  References:
    Bergmann et al., `Uninformed Students <https://arxiv.org/abs/1911.02357>`_, equation 4, sums the
    c_ij themselves, where opposite signs cancel.

  >>> opposite = jnp.array([[0.0, 0.0], [1.0, -2.0]])
  >>> round(float(mean_square_correlation(opposite, valid=jnp.array([True, True]))), 3)
  1.0
  """
  chex.assert_rank(x, 2)
  weight = valid.astype(x.dtype)[:, None]
  x = jnp.where(weight > 0, x, 0)
  x = weight * (x - x.sum(0) / jnp.maximum(weight.sum(), 1))
  square = jnp.square(x).sum(0)
  x = jnp.where(square > 0, x * jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)
  off = x.T @ x * (1 - jnp.eye(x.shape[1], dtype=x.dtype))
  return jnp.square(off).sum() / max(1, x.shape[1] * (x.shape[1] - 1))
