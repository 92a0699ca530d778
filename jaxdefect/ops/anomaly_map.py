"""Anomaly maps: from one distance per place to a smooth map at the image's size.

Shape legend: N images, h x w places, H x W pixels of the image.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def smooth_map(maps: jax.Array, *, size: tuple[int, int], sigma: float = 4.0) -> jax.Array:
  r"""Enlarges maps bilinearly and smooths them with a Gaussian.

  .. math:: Y = (G_H B_H)\, X\, (G_W B_W)^T

  with the matrices :math:`B` of bilinear enlargement (pixel centres at one half, as in PyTorch
  without ``align_corners``) and :math:`G` of the Gaussian, cut off at four sigma; at the border
  the image is mirrored (``d c b a | a b c d``), as in ``scipy.ndimage.gaussian_filter``. Both
  steps are linear in rows and in columns, so each axis is one small matrix product.

  Args:
    maps: [N, h, w] values.
    size: (H, W) of the image, pixels; at least (h, w).
    sigma: of the Gaussian, pixels of the image; 0 only enlarges.

  Returns:
    [N, H, W], float32 at least.

  Raises:
    ValueError: if ``size`` is smaller than the maps or ``sigma`` is negative.

  >>> smooth_map(jnp.ones((1, 2, 2)), size=(4, 4), sigma=1.0).round(3).tolist()[0][0]
  [1.0, 1.0, 1.0, 1.0]
  """
  chex.assert_rank(maps, 3)
  if sigma < 0:
    raise ValueError(f'sigma must be 0 or more pixels, got {sigma}.')
  if size[0] < maps.shape[1] or size[1] < maps.shape[2]:
    raise ValueError(
      f'size must be at least the {maps.shape[1]} x {maps.shape[2]} places of the maps, '
      f'got {size[0]} x {size[1]}.'
    )
  maps = jnp.asarray(maps)
  maps = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
  rows, columns = (
    jnp.asarray(enlarge_and_smooth(have, want, float(sigma)), maps.dtype)
    for have, want in zip(maps.shape[1:], size)
  )
  # Rows first or columns first is the same; HIGHEST: scores are compared across machines.
  smoothed = jnp.einsum('Hh,nhw->nHw', rows, maps, precision=lax.Precision.HIGHEST)
  return jnp.einsum('nHw,Ww->nHW', smoothed, columns, precision=lax.Precision.HIGHEST)


@functools.lru_cache(maxsize=64)
def enlarge_and_smooth(have: int, want: int, sigma: float) -> np.ndarray:
  """The matrix [want, have] float64 of one axis of :func:`smooth_map`; rows sum to one."""
  place = np.clip((np.arange(want) + 0.5) * have / want - 0.5, 0, have - 1)
  low = np.floor(place).astype(int)
  high = np.minimum(low + 1, have - 1)
  enlarge = np.zeros((want, have))
  np.add.at(enlarge, (np.arange(want), low), 1 - (place - low))
  np.add.at(enlarge, (np.arange(want), high), place - low)
  if not sigma:
    return enlarge

  radius = int(4 * sigma + 0.5)
  offset = np.arange(-radius, radius + 1)
  weight = np.exp(-0.5 * (offset / sigma) ** 2)
  weight /= weight.sum()
  seen = (np.arange(want)[:, None] + offset) % (2 * want)  # mirrored as often as it takes
  seen = np.where(seen < want, seen, 2 * want - 1 - seen)
  smooth = np.zeros((want, want))
  np.add.at(smooth, (np.arange(want)[:, None], seen), weight)
  return smooth @ enlarge
