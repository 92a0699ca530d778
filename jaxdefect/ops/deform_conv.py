"""Deformable convolution: a convolution whose taps are moved by learned offsets.

Shape legend: N images, H x W input and h x w output pixels, C input and O output channels,
kh x kw taps, T = kh kw, G offset groups, P = N h w output pixels, 4 corners of a pixel cell.

Here the offsets become four corners and their shares for every sample; what is linear in the image,
the shares and the kernel, and most of the work, is in ``sampled_product``.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxdefect.ops import kernels
from jaxdefect.ops.sampled_product import sampled_product


def deform_conv2d(
  x: jax.Array,
  offset: jax.Array,
  kernel: jax.Array,
  mask: jax.Array | None = None,
  *,
  stride: int | tuple[int, int] = 1,
  padding: int | tuple[int, int] = 0,
  dilation: int | tuple[int, int] = 1,
  implementation: str | None = None,
) -> jax.Array:
  r"""Deformable convolution, version 1 (without ``mask``) and version 2 (with).

  .. math:: y_{n,a,b,o} = \sum_{i,j,c} w_{i,j,c,o}\; m_{n,a,b,ij}\;
            x_{n,c}\!\left(s_y a - p_y + d_y i + \Delta^y_{n,a,b,ij},\;
                           s_x b - p_x + d_x j + \Delta^x_{n,a,b,ij}\right)

  where x(y, x) is bilinear between the centres of pixels, at whole coordinates, and pixels outside
  of the image are zero. So a sample is zero from one pixel outside on, gradients included.
  Offsets of zero and a mask of one make it an ordinary convolution. No sigmoid is applied.

  The columns are made in blocks, and again for the gradient instead of being kept. Reverse mode
  works to any order; there is no forward mode. Offsets must be finite: one that is NaN makes its
  outputs NaN.

  Args:
    x: [N, H, W, C]; floating, half types are sampled in float32 and multiplied as they are.
    offset: [N, h, w, 2 G kh kw] in pixels of ``x``, ordered offset group, kernel row, kernel
      column, (y, x). G divides C; channels C/G at a time share their offsets.
    kernel: [kh, kw, C/groups, O]; the number of groups follows from C and divides O.
    mask: [N, h, w, G kh kw], ordered as ``offset``; what each sample is multiplied by.
    stride: s, in pixels; one number or (y, x), like the next two.
    padding: p, zeros on every side, in pixels.
    dilation: d, distance of neighbouring taps in pixels.
    implementation: 'xla', or 'pallas' for a fused kernel where the program is compiled for CUDA,
      there is one group, and 16 divides C/G and O. 'pallas_interpret' runs it slowly anywhere, for
      tests. None is 'xla', see ``ops.kernels``.

  Returns:
    [N, h, w, O] with h = (H + 2p - d (kh - 1) - 1) // s + 1, w likewise.

  Raises:
    ValueError: for shapes or settings that do not belong together.

  Dai et al. 2017, `Deformable Convolutional Networks <https://arxiv.org/abs/1703.06211>`_,
  equation 2; Zhu et al. 2019, `Deformable ConvNets v2 <https://arxiv.org/abs/1811.11168>`_,
  equation 1. Layouts and borders are torchvision's.

  >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
  >>> half_a_pixel_right = jnp.tile(jnp.array([0.0, 0.5]), (1, 3, 3, 1))
  >>> deform_conv2d(x, half_a_pixel_right, jnp.ones((1, 1, 1, 1)))[0, 1, :, 0].tolist()
  [3.5, 4.5, 2.5]
  """
  implementation = kernels.implementation_or_default(implementation)
  x, offset, kernel = jnp.asarray(x), jnp.asarray(offset), jnp.asarray(kernel)
  chex.assert_rank([x, offset, kernel], 4)
  step = _pair('stride', stride, 1)
  pad = _pair('padding', padding, 0)
  reach = _pair('dilation', dilation, 1)
  num, height, width, channels = x.shape
  taps, features = kernel.shape[:2], kernel.shape[3]
  num_taps = taps[0] * taps[1]
  size = tuple(
    (side + 2 * p - d * (k - 1) - 1) // s + 1
    for side, p, d, k, s in zip((height, width), pad, reach, taps, step)
  )
  if min(x.shape[1:] + kernel.shape + size) < 1:
    raise ValueError(
      f'x and kernel must have elements and the kernel must fit into the padded image, came with '
      f'shapes {x.shape} and {kernel.shape}, padding {pad} and dilation {reach}.'
    )
  groups = channels // kernel.shape[2]
  if groups * kernel.shape[2] != channels or groups < 1 or features % groups:
    raise ValueError(
      f'kernel must be [kh, kw, C/groups, O] with groups dividing C and O, came with shape '
      f'{kernel.shape} for C = {channels}.'
    )
  parts = offset.shape[3] // (2 * num_taps)
  whole = (num, *size, 2 * parts * num_taps)
  if offset.shape != whole or parts < 1 or channels % parts:
    raise ValueError(
      f'offset must be [{num}, {size[0]}, {size[1]}, {2 * num_taps} G] with G dividing C = '
      f'{channels}, came with shape {offset.shape}.'
    )
  if mask is not None:
    mask = jnp.asarray(mask)
    if mask.shape != (num, *size, parts * num_taps):
      raise ValueError(
        f'mask must be {(num, *size, parts * num_taps)}, one number per sample, came with '
        f'shape {mask.shape}.'
      )

  dtype = jnp.result_type(x, kernel)
  if num == 0:
    return jnp.zeros((0, *size, features), dtype)

  # Where every sample lies, in float32 at least: whole pixels of a large map do not fit bfloat16.
  fine = jnp.promote_types(jnp.result_type(dtype, offset), jnp.float32)
  offset = jnp.swapaxes(offset.reshape(num, *size, parts, num_taps, 2), 3, 4).astype(fine)
  grid = _tap_positions(size, taps, step, pad, reach)  # [h, w, T, 2]
  index, share = _corners(offset + jnp.asarray(grid, fine)[None, :, :, :, None], (height, width))
  if mask is not None:
    mask = jnp.swapaxes(mask.reshape(num, *size, parts, num_taps), 3, 4).astype(fine)
    share = share * mask[..., None]

  # The image as rows, one for each pixel and offset group.
  image = jnp.arange(num, dtype=jnp.int32)[:, None, None, None, None, None]
  part = jnp.arange(parts, dtype=jnp.int32)[None, None, None, None, :, None]
  index = (image * (height * width) + index) * parts + part
  rows = x.astype(dtype).reshape(num * height * width * parts, channels // parts)
  index = index.reshape(-1, num_taps, parts, 4)  # [P, T, G, 4]
  share = share.reshape(-1, num_taps, parts, 4)
  weights = kernel.astype(dtype).reshape(num_taps, channels // groups, features)
  y = sampled_product(rows, share, weights, index, implementation)  # [P, O]
  return y.reshape(num, *size, features)


def _pair(name: str, value: int | tuple[int, int], least: int) -> tuple[int, int]:
  """One number for both axes, or (y, x)."""
  pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
  if len(pair) != 2 or not all(isinstance(v, int | np.integer) and v >= least for v in pair):
    raise ValueError(
      f'{name} must be a whole number >= {least} or two of them (y, x), came as {value!r}.'
    )
  return int(pair[0]), int(pair[1])


def _tap_positions(
  size: tuple[int, ...],
  taps: tuple[int, ...],
  step: tuple[int, int],
  pad: tuple[int, int],
  reach: tuple[int, int],
) -> np.ndarray:
  """[h, w, T, 2], where the taps of an ordinary convolution lie, (y, x) in input pixels."""
  axes = [
    np.arange(n)[:, None] * s - p + np.arange(k) * d
    for n, k, s, p, d in zip(size, taps, step, pad, reach)
  ]  # [h, kh] and [w, kw]
  y = axes[0][:, None, :, None]
  x = axes[1][None, :, None, :]
  return np.stack(np.broadcast_arrays(y, x), axis=-1).reshape(*size, -1, 2)


def _corners(where: jax.Array, size: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
  """The four pixels around each point, and what each contributes.

  Args:
    where: [..., 2] points (y, x) in pixels.
    size: (H, W).

  Returns:
    [..., 4] int32 places ``row * W + column`` inside of the image, and [..., 4] shares, which
    are zero for a corner outside.
  """
  axes = []
  for axis, length in enumerate(size):
    at = where[..., axis]
    low = jnp.floor(at)
    ends = []
    for corner, share in ((low, 1 - (at - low)), (low + 1, at - low)):
      # Said so that a point that is no number counts as inside and is not lost.
      outside = (corner < 0) | (corner > length - 1)
      place = jnp.clip(corner, 0, length - 1).astype(jnp.int32)
      ends.append((place, jnp.where(outside, 0, share)))
    axes.append(ends)
  rows, columns = axes
  index = jnp.stack([row * size[1] + column for row, _ in rows for column, _ in columns], -1)
  return index, jnp.stack([a * b for _, a in rows for _, b in columns], -1)
