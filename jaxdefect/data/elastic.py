"""Elastic deformation: a smooth random displacement of every pixel, which cannot fold the surface.

Shape legend: H x W pixels, h x w nodes of a coarse grid.
"""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# A cubic B-spline of knot spacing d has the standard deviation d / sqrt(3).
_SPACING_OF_SIGMA = math.sqrt(3.0)
# Greatest displacement in units of sigma. Cubic splines cannot fold while no node moves by more
# than d / 2.0464 (Choi and Lee 2000), which is 0.846 sigma.
FOLD_FREE = 0.8


def node_grid(size: tuple[int, int], sigma: float) -> tuple[int, int]:
  """How many nodes hold the displacements of a picture.

  Args:
    size: (H, W) in pixels.
    sigma: smoothness of the displacement, as a fraction of the shorter side.

  Returns:
    (h, w); the same at every resolution of a picture.

  >>> node_grid((224, 224), 0.08), node_grid((56, 56), 0.08)
  ((11, 11), (11, 11))
  """
  spacing = _SPACING_OF_SIGMA * sigma * min(size)
  height, width = (math.ceil(round(side / spacing, 6)) + 3 for side in size)
  return height, width


def smooth_field(nodes: jax.Array, size: tuple[int, int], *, sigma: float) -> jax.Array:
  r"""Displacements of all pixels from those of a coarse grid of nodes.

  Simard et al. draw a displacement for every pixel and convolve with a Gaussian. The smooth result
  does not need so many numbers: with cubic B-splines :math:`B` of the same standard deviation,

  .. math:: U = B_H\, D\, B_W^T

  has nodes :math:`\sqrt 3 \sigma` apart, and each axis is one small matrix product. The weights
  are not negative and sum to one, so no pixel moves farther than the farthest node; of nodes that
  are uniform in +-a, a pixel moves by about 0.28 a along each axis (root mean square).

  Args:
    nodes: [..., h, w] displacements, of :func:`node_grid`'s size.
    size: (H, W) in pixels.
    sigma: smoothness, as a fraction of the shorter side.

  Returns:
    [..., H, W] in the unit of the nodes, float32 at least, with two continuous derivatives.

  Reference: Simard, Steinkraus, Platt 2003, section 2.

  >>> smooth_field(jnp.ones((1, 5, 5)), (4, 4), sigma=0.4)[0, 0].round(3).tolist()
  [1.0, 1.0, 1.0, 1.0]
  """
  nodes = jnp.asarray(nodes)
  nodes = nodes.astype(jnp.promote_types(nodes.dtype, jnp.float32))
  chex.assert_shape(nodes, (..., *node_grid(size, sigma)))
  rows, columns = (
    jnp.asarray(spline_matrix(side, _SPACING_OF_SIGMA * sigma * min(size), count), nodes.dtype)
    for side, count in zip(size, nodes.shape[-2:])
  )
  # HIGHEST: places must not depend on how a GPU rounds the inputs of a product.
  field = jnp.einsum('Hh,...hw->...Hw', rows, nodes, precision=lax.Precision.HIGHEST)
  return jnp.einsum('...Hw,Ww->...HW', field, columns, precision=lax.Precision.HIGHEST)


@functools.lru_cache(maxsize=64)
def spline_matrix(side: int, spacing: float, count: int) -> np.ndarray:
  """The matrix [side, count] float64 of one axis: four weights per row, which sum to one.

  Args:
    side: pixels.
    spacing: pixels between two nodes.
    count: nodes, of which the middle lies in the middle of the side.

  Returns:
    The weight of every node at every pixel's centre.
  """
  middle = (side - 1) / 2
  place = (np.arange(side) - middle) / spacing + (count - 1) / 2
  distance = np.abs(place[:, None] - np.arange(count))
  near = 2 / 3 - distance**2 + distance**3 / 2
  far = np.maximum(2 - distance, 0.0) ** 3 / 6
  return np.where(distance < 1, near, far)
