"""Same or different: losses of all pairs that a batch makes.

Shape legend: N images on this device, M on all devices, D dimensions of an embedding.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class Pairs(NamedTuple):
  """The images of this device, each beside every image of all devices.

  Attributes:
    here: [N, D] embeddings of this device; those of padding are zero.
    everywhere: [M, D] embeddings of all devices.
    same: [N, M], true where both are valid, of one class, and not the same row.
    different: [N, M], true where both are valid and of two classes.
  """

  here: jax.Array
  everywhere: jax.Array
  same: jax.Array
  different: jax.Array


def pairs_of_batch(
  embeddings: jax.Array,
  labels: jax.Array,
  *,
  valid: jax.Array | None = None,
  axis_name: str | None = None,
) -> Pairs:
  """Puts every image beside every other one of the whole batch.

  Args:
    embeddings: [N, D].
    labels: [N] integers.
    valid: [N] bool; False marks padding, which is in no pair. Whatever it holds, NaN included,
      reaches neither values nor gradients. None counts all.
    axis_name: device axis over which the batch is spread. The gradient of the *sum* over devices
      is then right on every device; ``optim.gradient_step`` takes it so.

  Returns:
    The ``Pairs``.
  """
  chex.assert_rank(embeddings, 2)
  num = embeddings.shape[0]
  chex.assert_shape(labels, (num,))
  here = jnp.ones(num, bool) if valid is None else valid.astype(bool)
  embeddings = jnp.where(here[:, None], embeddings, 0)
  whole, start = (embeddings, labels, here), 0
  if axis_name is not None:
    whole = tuple(jax.lax.all_gather(x, axis_name, tiled=True) for x in whole)
    start = jax.lax.axis_index(axis_name) * num
  everywhere, all_labels, all_valid = whole

  both = here[:, None] & all_valid
  alike = labels[:, None] == all_labels
  itself = jnp.arange(all_labels.shape[0]) == start + jnp.arange(num)[:, None]
  return Pairs(embeddings, everywhere, both & alike & ~itself, both & ~alike)


def mean_over_pairs(
  pairs: Pairs, *, same: jax.Array, different: jax.Array
) -> tuple[jax.Array, jax.Array]:
  r"""What a pair costs on average if it is drawn as often from the same class as from another one.

  .. math::
    L_i = \tfrac12 \frac{1}{|S_i|} \sum_{j \in S_i} s_{ij}
        + \tfrac12 \frac{1}{|D_i|} \sum_{j \in D_i} d_{ij}

  with the images S of the class of i and D of the other classes. That is the expectation of a draw
  (an image, a coin, a partner), so no draw depends on how a batch is spread over devices.

  Args:
    pairs: of N images.
    same: [N, M] costs where the pair is of one class.
    different: [N, M] costs where it is of two.

  Returns:
    [N] values and [N] weights: 1, or 1/2 where a kind of partner is missing, or 0 where both are.
    What is missing costs 0, so the sum of the values by the sum of the weights is the mean.

  >>> pairs = pairs_of_batch(jnp.zeros((3, 1)), jnp.array([0, 0, 1]))
  >>> cost = jnp.ones((3, 3))
  >>> [x.tolist() for x in mean_over_pairs(pairs, same=cost, different=3 * cost)]
  [[2.0, 2.0, 1.5], [1.0, 1.0, 0.5]]
  """
  chex.assert_equal_shape([pairs.same, same, different])
  values, weights = 0.0, 0.0
  for cost, where in ((same, pairs.same), (different, pairs.different)):
    count = where.sum(1)
    values += jnp.where(where, cost, 0).sum(1) / (2 * jnp.maximum(count, 1))
    weights += (count > 0) / jnp.asarray(2, cost.dtype)
  return jnp.asarray(values), jnp.asarray(weights)


def weighted_l1_logits(
  a: jax.Array, b: jax.Array, *, kernel: jax.Array, bias: jax.Array
) -> jax.Array:
  r"""How surely each pair is of one class, by one linear layer on the absolute difference.

  .. math:: z_{nm} = \beta + \sum_d w_d \, |a_{nd} - b_{md}|

  Args:
    a: [N, D].
    b: [M, D].
    kernel: [D, 1], w.
    bias: [1], beta.

  Returns:
    [N, M] logits, float32 or wider; :math:`\sigma(z)` is the probability of the same class.

  References:
    Koch et al. 2015, section 3.1, which has no bias: equal images would have probability 1/2.

  >>> one = jnp.ones((2, 1))
  >>> weighted_l1_logits(jnp.eye(2), jnp.eye(2), kernel=-one, bias=jnp.ones(1)).tolist()
  [[1.0, -1.0], [-1.0, 1.0]]
  """
  chex.assert_rank([a, b, kernel, bias], [2, 2, 2, 1])
  wide = jnp.promote_types(a.dtype, jnp.float32)
  apart = jnp.abs(a.astype(wide)[:, None] - b.astype(wide))  # [N, M, D]
  return (apart * kernel[:, 0]).sum(-1) + bias


def squared_distances(a: jax.Array, b: jax.Array) -> jax.Array:
  """Squared Euclidean distances, as sums of squared differences: equal rows are at 0 exactly.

  Args:
    a: [N, D].
    b: [M, D].

  Returns:
    [N, M], float32 or wider.

  >>> squared_distances(jnp.eye(2), jnp.zeros((1, 2))).tolist()
  [[1.0], [1.0]]
  """
  chex.assert_rank([a, b], 2)
  wide = jnp.promote_types(a.dtype, jnp.float32)
  return jnp.square(a.astype(wide)[:, None] - b.astype(wide)).sum(-1)


def contrastive_costs(squared: jax.Array, *, margin: float) -> tuple[jax.Array, jax.Array]:
  r"""Costs of a pair at distance d: d squared, or how far it falls short of a margin, squared.

  .. math:: s = d^2, \qquad d_{\ne} = \max(m - d, 0)^2

  Args:
    squared: [...] squared distances.
    margin: m > 0.

  Returns:
    [...] costs where the pair is of one class, and [...] where it is of two. At distance 0 the
    latter has no direction to grow in, and its gradient is 0.

  Raises:
    ValueError: margin outside what is allowed.

  References:
    Hadsell et al. 2006, equation 4, which halves both.

  >>> [x.tolist() for x in contrastive_costs(jnp.array([0.25, 9.0]), margin=2.0)]
  [[0.25, 9.0], [2.25, 0.0]]
  """
  if not margin > 0:
    raise ValueError(f'margin is {margin}; it must be larger than 0.')
  # The inner `where` keeps sqrt away from 0, whose infinite slope would turn into NaN.
  apart = squared > 0
  distance = jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1)), 0)
  return squared, jnp.square(jnp.maximum(margin - distance, 0))
