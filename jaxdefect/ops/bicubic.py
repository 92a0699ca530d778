"""Bicubic interpolation of a grid of vectors, as PyTorch does it.

Shape legend: h x w places of the grid, H x W places wanted, C channels.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def resize_bicubic(
  grid: jax.Array, size: tuple[int, int], *, antialias: bool = False, offset: float = 0.0
) -> jax.Array:
  r"""Resamples a grid with Keys' cubic kernel.

  .. math:: Y = R\, X\, S^T, \qquad
            R_{ij} \propto k\Bigl(\frac{j - (i + \tfrac12)\,s + \tfrac12}{\max(1, r)}\Bigr)

  with :math:`s` the step between two places that are wanted, in places of the grid, and the cubic
  kernel k of parameter a. There are two conventions, and the same vectors differ under them:

  - plain, a = -3/4 and r = 1: four places are looked at however far the grid shrinks, and what lies
    outside is the outermost place (``torch.nn.functional.interpolate(mode='bicubic')``).
  - ``antialias``, a = -1/2 and r = s: the kernel widens as the grid shrinks, and what lies outside
    does not count (the same with ``antialias=True``; Pillow).

  Args:
    grid: [h, w, C].
    size: (H, W).
    antialias: which convention.
    offset: added to H and W where the step is computed, s = h / (H + offset). DINOv2's first models
      add 0.1, and their vectors are right with it alone.

  Returns:
    [H, W, C], float32 at least.

  Raises:
    ValueError: ``size`` has a side without places.

  Reference:
    Keys, Cubic Convolution Interpolation for Digital Image Processing, IEEE TASSP 29 (1981), eq. 4.

  >>> resize_bicubic(jnp.arange(4.0).reshape(1, 4, 1), (1, 2)).ravel().tolist()
  [0.40625, 2.59375]
  """
  chex.assert_rank(grid, 3)
  if min(size) < 1:
    raise ValueError(f'size must have 1 or more places per side, got {size[0]} x {size[1]}.')
  grid = jnp.asarray(grid)
  grid = grid.astype(jnp.promote_types(grid.dtype, jnp.float32))
  rows, columns = (
    jnp.asarray(bicubic_matrix(have, want, antialias, float(offset)), grid.dtype)
    for have, want in zip(grid.shape[:2], size)
  )
  resized = jnp.einsum('Hh,hwc->Hwc', rows, grid, precision=lax.Precision.HIGHEST)
  return jnp.einsum('Hwc,Ww->HWc', resized, columns, precision=lax.Precision.HIGHEST)


@functools.lru_cache(maxsize=64)
def bicubic_matrix(have: int, want: int, antialias: bool, offset: float) -> np.ndarray:
  """The matrix [want, have] float64 of one axis of :func:`resize_bicubic`; rows sum to one."""
  step = have / (want + offset)
  place = (np.arange(want) + 0.5) * step - 0.5
  stretch = max(1.0, step) if antialias else 1.0
  reach = int(np.ceil(2 * stretch)) + 1
  near = np.floor(place).astype(int)[:, None] + np.arange(-reach, reach + 1)  # [want, taps]
  weight = _cubic((near - place[:, None]) / stretch, a=-0.5 if antialias else -0.75)
  if antialias:
    weight = np.where((near >= 0) & (near < have), weight, 0.0)
  matrix = np.zeros((want, have))
  np.add.at(matrix, (np.arange(want)[:, None], np.clip(near, 0, have - 1)), weight)
  return matrix / matrix.sum(1, keepdims=True)


def _cubic(x: np.ndarray, *, a: float) -> np.ndarray:
  """Keys' kernel: 1 at 0, 0 at all other whole numbers and beyond 2."""
  x = np.abs(x)
  inner = ((a + 2) * x - (a + 3)) * x * x + 1
  outer = a * (((x - 5) * x + 8) * x - 4)
  return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))
