"""Losses of box regression and objectness, and weights against unequal classes.

Shape legend: ... any axes, K classes.

Padding may hold anything: select with ``jnp.where(valid, prediction, target)`` *before* a loss, or
its gradient is NaN wherever the padding is.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp


def smooth_l1(prediction: jax.Array, target: jax.Array, *, beta: float = 1 / 9) -> jax.Array:
  r"""Absolute difference, rounded off to a parabola near zero.

  .. math::
    \ell(d) = \begin{cases} d^2 / (2\beta) & |d| < \beta \\
                            |d| - \beta / 2 & \text{otherwise} \end{cases}

  Args:
    prediction: [...] box deltas.
    target: [...] of the same shape.
    beta: where the two pieces meet, in the unit of the deltas; 0 is the plain L1 distance. The
      default is the one of Faster R-CNN.

  Returns:
    [...] values, one per element, float32 or wider.

  Raises:
    ValueError: beta outside what is allowed.

  References:
    Girshick, `Fast R-CNN <https://arxiv.org/abs/1504.08083>`_, equation 3 (beta 1).

  >>> smooth_l1(jnp.array([0.5, -3.0]), jnp.zeros(2), beta=1.0).tolist()
  [0.125, 2.5]
  """
  chex.assert_equal_shape([prediction, target])
  if not beta >= 0:
    raise ValueError(f'beta is {beta}; it must be 0 or more.')
  dtype = jnp.promote_types(jnp.promote_types(prediction.dtype, target.dtype), jnp.float32)
  distance = jnp.abs(prediction.astype(dtype) - target.astype(dtype))
  if beta == 0:
    return distance
  # The parabola of a huge distance overflows: it must not be computed where it is not used.
  near = jnp.minimum(distance, beta)
  return jnp.where(distance < beta, near * near / (2 * beta), distance - beta / 2)


def sigmoid_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
  r"""Cross-entropy of independent yes-or-no questions.

  .. math::
    \ell(x, t) = -t \log \sigma(x) - (1 - t) \log(1 - \sigma(x)) = \log(1 + e^x) - t x

  Args:
    logits: [...] x.
    targets: [...] t of the same shape, booleans or probabilities in [0, 1].

  Returns:
    [...] values in nats, one per element, float32 or wider.

  >>> print(sigmoid_cross_entropy(jnp.zeros(1), jnp.ones(1)))  # log 2
  [0.6931472]
  """
  chex.assert_equal_shape([logits, targets])
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  return jax.nn.softplus(logits) - targets.astype(logits.dtype) * logits


def balance_weights(counts: jax.typing.ArrayLike | Sequence[int]) -> jax.Array:
  r"""Class weights that make every class count as much as the most frequent one.

  .. math:: w_c = N_{max} / N_c

  A class without examples has no loss to be weighted; its weight is 1, so that nothing is
  infinite.

  Args:
    counts: [K] numbers of training examples (boxes, for a detector), 0 or more.

  Returns:
    [K] weights, 1 or more, float32 or wider.

  References:
    Xia & Long, section 3.5.

  >>> balance_weights((300, 80, 0)).tolist()
  [1.0, 3.75, 1.0]
  """
  numbers = jnp.asarray(counts)
  chex.assert_rank(numbers, 1)
  numbers = numbers.astype(jnp.promote_types(numbers.dtype, jnp.float32))
  present = numbers > 0
  largest = jnp.max(numbers, initial=0)
  return jnp.where(present, largest / jnp.where(present, numbers, 1), 1)
