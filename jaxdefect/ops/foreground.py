"""Which places of an image show the part: the first principal component of its own features.

Shape legend: h x w places, P = h * w, D features.
"""

import chex
import jax
import jax.numpy as jnp
from jax import lax

# Powers of two: the second component is left with (lambda_2 / lambda_1) ** 1024 of the first.
_SQUARINGS = 10
_BORDER = 0.2  # of each side, which is not the centre


def first_component(features: jax.Array) -> jax.Array:
  """Coordinates of vectors along the direction in which they vary most.

  The direction is the column with the largest diagonal entry of a high power of the covariance,
  reached by squaring: matrix products alone, which any runtime has, and the same in each.

  Args:
    features: [P, D].

  Returns:
    [P], float32 at least, of mean zero; the sign says nothing.
  """
  features = features.astype(jnp.promote_types(features.dtype, jnp.float32))
  centred = features - features.mean(0)

  def normalised(matrix: jax.Array) -> jax.Array:
    return matrix / jnp.maximum(jnp.trace(matrix), jnp.finfo(matrix.dtype).tiny)

  def square(matrix: jax.Array, _: None) -> tuple[jax.Array, None]:
    return normalised(jnp.matmul(matrix, matrix, precision=lax.Precision.HIGHEST)), None

  covariance = jnp.matmul(centred.T, centred, precision=lax.Precision.HIGHEST)
  power, _ = lax.scan(square, normalised(covariance), length=_SQUARINGS)
  column = power[:, jnp.diagonal(power).argmax()]
  direction = column / jnp.maximum(jnp.linalg.norm(column), jnp.finfo(column.dtype).tiny)
  return jnp.matmul(centred, direction, precision=lax.Precision.HIGHEST)


def foreground_mask(features: jax.Array, *, threshold: float = 10.0) -> jax.Array:
  r"""Says which places belong to the object in the middle of an image.

  With :math:`c` the first principal component, one of the two sides :math:`c > t` and
  :math:`-c > t` is the object: the one that holds more places of the centre (all but a fifth of
  each side's length at each border). Where both hold as many, both are kept. The side is dilated by
  one place in all eight directions and closed (dilated and eroded) by as much; what lies beyond the
  border counts for neither.

  The authors take one side where it holds more than 35 % of the centre and the other one where not,
  so that the sign of c, which nothing determines, decides where both or neither do. Wherever
  exactly one does, that is the side that is taken here.

  Args:
    features: [h, w, D] of one image.
    threshold: t, in units of the features; 10 is for the normalised last layer of DINOv2.

  Returns:
    [h, w] bool.

  Raises:
    ValueError: a negative ``threshold``.

  Reference:
    Damm et al., `AnomalyDINO <https://arxiv.org/abs/2405.14529>`_, section 3, and the authors'
    program.
  """
  chex.assert_rank(features, 3)
  if threshold < 0:
    raise ValueError(f'threshold must be 0 or more, got {threshold}.')
  height, width, size = features.shape
  component = first_component(features.reshape(-1, size)).reshape(height, width)
  sides = jnp.stack([component > threshold, -component > threshold])
  rows, columns = (slice(int(n * _BORDER), int(n * (1 - _BORDER))) for n in (height, width))
  held = sides[:, rows, columns].sum((1, 2))
  mask = (sides & (held == held.max())[:, None, None]).any(0)
  grown = _dilate(_dilate(mask))  # the second is half of the closing
  return ~_dilate(~grown)


def _dilate(mask: jax.Array) -> jax.Array:
  """[h, w] bool, with the neighbours of each place in all eight directions."""
  rows = jnp.pad(mask, ((1, 1), (0, 0)))
  mask = rows[:-2] | rows[1:-1] | rows[2:]
  columns = jnp.pad(mask, ((0, 0), (1, 1)))
  return columns[:, :-2] | columns[:, 1:-1] | columns[:, 2:]
