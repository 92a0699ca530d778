"""Telling one class from the rest by a plane, in closed form.

Shape legend: N examples, F features.
"""

import chex
import jax
import jax.numpy as jnp


def linear_discriminant(
  features: jax.Array, positive: jax.Array, *, shrinkage: float = 0.1
) -> jax.Array:
  r"""Fisher's discriminant of few positive examples against the others, as log-odds.

  With means :math:`m_1, m_0`, numbers :math:`n_1, n_0` and the covariance :math:`S` of the examples
  around the mean of their own side,

  .. math::
    w = (S + \lambda \tfrac{\operatorname{tr} S}{F} I)^{-1} (m_1 - m_0), \qquad
    b = \log \frac{n_1}{n_0} - \tfrac{1}{2} w \cdot (m_1 + m_0),

  so that :math:`w \cdot f + b` is the log-odds of the class for two Gaussians of one covariance.
  Where a mean alone is compared by its cosine, what all examples share counts for the class; here
  it counts for nothing, and directions in which examples differ anyway count little.

  Args:
    features: [N, F].
    positive: [N] bool, the examples of the class.
    shrinkage: :math:`\lambda` > 0, how much of a sphere is mixed into the covariance; it makes the
      plane exist where examples are fewer than features.

  Returns:
    [F + 1] the weights and, last, the offset; float32 or wider.

  Raises:
    ValueError: shrinkage is not positive.

  References:
    Fisher 1936; Friedman 1989 for the shrinkage.

  >>> plane = linear_discriminant(
  ...   jnp.array([[1.0], [3.0], [-1.0], [-3.0]]), jnp.array([True, True, False, False])
  ... )
  >>> [round(float(x), 3) for x in plane]  # variance 1, shrunk to 1.1; means 2 and -2
  [3.636, 0.0]
  """
  chex.assert_rank([features, positive], [2, 1])
  chex.assert_equal(features.shape[0], positive.shape[0])
  if not shrinkage > 0:
    raise ValueError(f'shrinkage is {shrinkage}; it must be larger than 0.')
  features = features.astype(jnp.promote_types(features.dtype, jnp.float32))
  sides = jnp.stack([~positive, positive]).astype(features.dtype)  # [2, N]
  counts = sides.sum(axis=1)
  means = jnp.matmul(sides, features, precision='highest') / jnp.maximum(counts, 1)[:, None]
  rest = features - means[positive.astype(jnp.int32)]
  covariance = jnp.matmul(rest.T, rest, precision='highest') / features.shape[0]
  size = features.shape[1]
  # The small number serves examples that are all alike, which have no covariance to shrink.
  sphere = shrinkage * jnp.trace(covariance) / size + jnp.finfo(features.dtype).eps
  weights = jnp.linalg.solve(covariance + sphere * jnp.eye(size), means[1] - means[0])
  prior = jnp.log(jnp.maximum(counts[1], 1) / jnp.maximum(counts[0], 1))
  return jnp.append(weights, prior - jnp.dot(weights, means.sum(0), precision='highest') / 2)
