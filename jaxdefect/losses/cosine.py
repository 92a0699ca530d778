"""Directions of vectors and the cosines between them.

Shape legend: N examples, D dimensions of an embedding, K classes.
"""

import chex
import jax
import jax.numpy as jnp


def unit_vectors(x: jax.Array, *, axis: int = -1) -> jax.Array:
  r"""Divides vectors by their Euclidean length.

  .. math:: \hat x = x / \lVert x \rVert, \qquad \hat 0 = 0

  The zero vector has no direction: it stays zero and its gradient is zero. Very long and very
  short vectors neither overflow nor underflow on the way.

  Args:
    x: floating point array of any shape; half types are raised to float32.
    axis: axis that holds one vector, keyword-only.

  Returns:
    Array of the shape of ``x``, float32 or wider.

  >>> unit_vectors(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
  [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
  """
  x = jnp.asarray(x)
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))

  # A direction does not depend on the scale, so the scale needs no gradient, of any order.
  largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=axis, keepdims=True))
  is_zero = largest < jnp.finfo(x.dtype).tiny
  scaled = x / jnp.where(is_zero, 1, largest)

  # The inner `where` keeps sqrt away from 0, whose infinite slope would turn into NaN.
  squares = jnp.sum(jnp.square(scaled), axis=axis, keepdims=True)
  return jnp.where(is_zero, 0, scaled / jnp.sqrt(jnp.where(is_zero, 1, squares)))


def cosine_logits(
  embeddings: jax.Array, class_weights: jax.Array, *, scale: float = 1.0
) -> jax.Array:
  r"""Cosine between each embedding and each class direction, times a scale.

  .. math:: s \cos \theta_{nk} = s \, \hat x_n \cdot \hat w_k

  These are the logits of :func:`arcface` without a margin: what it ranks classes by at inference.

  Args:
    embeddings: [N, D].
    class_weights: [D, K], one column per class.
    scale: factor on the cosine, keyword-only.

  Returns:
    [N, K] logits between ``-scale`` and ``scale``, float32 or wider.

  >>> cosine_logits(jnp.array([[2.0, 0.0]]), jnp.eye(2), scale=30.0).tolist()
  [[30.0, 0.0]]
  """
  chex.assert_rank([embeddings, class_weights], 2)
  chex.assert_equal(embeddings.shape[1], class_weights.shape[0])
  cosine = jnp.matmul(
    unit_vectors(embeddings), unit_vectors(class_weights, axis=0), precision='highest'
  )
  return scale * jnp.clip(cosine, -1, 1)
