"""Mean and deviation of numbers that come batch by batch.

Shape legend: N images, h x w places, C channels; ... any leading axes.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np


class Moments(NamedTuple):
  """What is known of the numbers of each channel.

  Attributes:
    count: [...] how many numbers per channel.
    mean: [..., C].
    squares: [..., C] sum of the squared differences from the mean.
  """

  count: Any
  mean: Any
  squares: Any


def moments_of(values: jax.Array, valid: jax.Array) -> Moments:
  """Moments of maps per channel, over the places of the valid images.

  Args:
    values: [N, h, w, C].
    valid: [N] bool, False marks padding, whatever it holds.

  Returns:
    ``Moments`` of a scalar count.
  """
  chex.assert_rank([values, valid], [4, 1])
  count = valid.sum() * (values.shape[1] * values.shape[2])
  keep = valid[:, None, None, None]
  mean = jnp.where(keep, values, 0).sum((0, 1, 2)) / jnp.maximum(count, 1)
  squares = jnp.square(jnp.where(keep, values - mean, 0)).sum((0, 1, 2))
  return Moments(count, mean, squares)


def merged(a: Moments | None, b: Moments) -> Moments:
  """Moments of two disjoint sets together (Chan et al. 1979, equation 2.1).

  Args:
    a: of the first set; None where it is empty.
    b: of the second.

  Returns:
    ``Moments`` in float64, on the host.

  >>> two, four = (Moments(1, np.array([x]), np.zeros(1)) for x in (2.0, 4.0))
  >>> both = merged(two, four)
  >>> both.count, both.mean.tolist(), both.squares.tolist()
  (2, [3.0], [2.0])
  """
  b = Moments(int(b.count), *(np.asarray(x, np.float64) for x in b[1:]))
  if a is None or not b.count:
    return b if a is None else a
  count = int(a.count) + b.count
  apart = b.mean - np.asarray(a.mean, np.float64)
  mean = a.mean + apart * (b.count / count)
  squares = a.squares + b.squares + np.square(apart) * (int(a.count) / count * b.count)
  return Moments(count, mean, squares)


def deviation(moments: Moments) -> Any:
  """Standard deviation [..., C] (divided by the count); one where nothing deviates."""
  variance = jnp.asarray(moments.squares) / jnp.maximum(_column(moments), 1)
  return jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 1)


def _column(moments: Moments) -> jax.Array:
  """The counts, so that they broadcast over channels."""
  count = jnp.asarray(moments.count)
  return count[..., None] if count.ndim else count
