"""One bilinear warp, on which rotation, crops, affine and elastic deformation are built.

Shape legend: N images, H x W input pixels, h x w output pixels, C channels.

Coordinates are (y, x) in input pixels; the centre of the top left pixel is (0, 0), so an image
spans -0.5 .. H-0.5. The four neighbours of every sample are fetched as whole rows of
[N * H * W, C]: on a CPU that is 50 times faster than a gather that indexes y, x and channel.
"""

import chex
import jax
import jax.numpy as jnp

BORDERS = ('reflect', 'edge', 'constant')


def affine_grid(matrix: jax.Array, output_size: tuple[int, int]) -> jax.Array:
  r"""Where each output pixel of an affine map looks in the input.

  .. math:: \begin{pmatrix} y \\ x \end{pmatrix}_\text{in} =
            M \begin{pmatrix} y \\ x \\ 1 \end{pmatrix}_\text{out}

  Args:
    matrix: [N, 2, 3] from output pixels to input pixels, rows and columns in the order (y, x, 1).
    output_size: (h, w).

  Returns:
    [N, h, w, 2] coordinates (y, x) in input pixels.

  >>> shift = jnp.array([[[1.0, 0.0, 5.0], [0.0, 1.0, 7.0]]])
  >>> affine_grid(shift, (2, 2))[0, 1, 0].tolist()
  [6.0, 7.0]
  """
  matrix = jnp.asarray(matrix)
  chex.assert_shape(matrix, (None, 2, 3))
  matrix = matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32))
  height, width = output_size
  y = jnp.arange(height, dtype=matrix.dtype)[None, :, None, None]
  x = jnp.arange(width, dtype=matrix.dtype)[None, None, :, None]
  # Plain multiplies, not a dot: a GPU may round a dot's inputs to ten bits (TF32).
  rows = matrix[:, None, None]  # [N, 1, 1, 2, 3]
  return rows[..., 0] * y + rows[..., 1] * x + rows[..., 2]


def warp(
  image: jax.Array,
  where: jax.Array,
  *,
  output_size: tuple[int, int] | None = None,
  border: str = 'reflect',
  fill: float = 0.0,
) -> jax.Array:
  r"""Samples images bilinearly at given places.

  With :math:`y = y_0 + b,\ x = x_0 + a`, whole :math:`y_0, x_0` and :math:`0 \le a, b < 1`:

  .. math:: (1-b)(1-a) I_{y_0 x_0} + (1-b) a I_{y_0, x_0+1}
            + b (1-a) I_{y_0+1, x_0} + b a I_{y_0+1, x_0+1}

  Whole coordinates return the pixel itself, bit for bit. No smoothing is done, so shrinking by
  more than a factor of two aliases: resize first. Differentiable in the image and, away from
  whole coordinates, in the places.

  Args:
    image: [N, H, W, C]; bytes and half types are computed in float32, float64 stays.
    where: [N, 2, 3] affine matrices as in :func:`affine_grid`, or [N, h, w, 2] coordinates
      (y, x) in input pixels; finite.
    output_size: (h, w) for matrices; by default the input's. A grid brings its own.
    border: what lies outside the image. ``'reflect'`` mirrors about the centre of the outermost
      pixel (``numpy.pad``'s 'reflect', scipy's 'mirror'), so textures stay plausible;
      ``'edge'`` repeats the outermost pixel (scipy's 'nearest'); ``'constant'`` is ``fill``
      (scipy's 'grid-constant').
    fill: value outside for ``'constant'``.

  Returns:
    [N, h, w, C], float32 (float64 for float64 images).

  Raises:
    ValueError: for another ``border``, or an ``output_size`` that contradicts the grid.

  >>> image = jnp.array([[0.0, 10.0], [20.0, 30.0]]).reshape(1, 2, 2, 1)
  >>> warp(image, jnp.array([[[[0.5, 0.5]]]])).item()
  15.0
  """
  image, grid = _checked(image, where, output_size, border)
  num, height, width, channels = image.shape
  image = image.astype(jnp.promote_types(image.dtype, jnp.float32))

  # Neighbours along each axis, their weights, and whether they lie inside.
  rows = _neighbours(grid[..., 0], height, border)
  columns = _neighbours(grid[..., 1], width, border)

  # Four fetches of whole rows.
  table = image.reshape(num * height * width, channels)  # [N*H*W, C]
  first = (jnp.arange(num, dtype=jnp.int32) * (height * width))[:, None, None]
  output = jnp.zeros((*grid.shape[:3], channels), image.dtype)
  for row, row_weight, row_inside in rows:
    for column, column_weight, column_inside in columns:
      # Indices are in bounds by construction; saying so spares a comparison per pixel.
      tap = table.at[first + row * width + column].get(mode='promise_in_bounds')  # [N, h, w, C]
      if border == 'constant':
        tap = jnp.where((row_inside & column_inside)[..., None], tap, jnp.asarray(fill, tap.dtype))
      output += (row_weight * column_weight).astype(tap.dtype)[..., None] * tap
  return output


def nearest_pixels(
  grid: jax.Array, size: tuple[int, int], *, border: str = 'reflect'
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The pixel nearest to each place; half way between two, the one below or to the right.

  Args:
    grid: [N, h, w, 2] coordinates (y, x) in input pixels; finite.
    size: (H, W) of the input.
    border: as in :func:`warp`.

  Returns:
    row [N, h, w] int32 in 0..H-1, column [N, h, w] int32 in 0..W-1, and [N, h, w] bool, False where
    the place is outside (never for 'reflect' and 'edge').

  Raises:
    ValueError: for another ``border``.
  """
  chex.assert_shape(grid, (None, None, None, 2))
  _check_border(border)
  found = []
  for axis, length in enumerate(size):
    (lower, _, in_lower), (upper, share, in_upper) = _neighbours(grid[..., axis], length, border)
    found.append((jnp.where(share < 0.5, lower, upper), jnp.where(share < 0.5, in_lower, in_upper)))
  (row, row_inside), (column, column_inside) = found
  return row, column, row_inside & column_inside


def warp_nearest(
  image: jax.Array,
  where: jax.Array,
  *,
  output_size: tuple[int, int] | None = None,
  border: str = 'reflect',
  fill: float = 0,
) -> jax.Array:
  """Samples images at given places without mixing values: for masks and labels.

  Args:
    image: [N, H, W, C] of any type.
    where: as in :func:`warp`.
    output_size: as in :func:`warp`.
    border: as in :func:`warp`.
    fill: value outside for ``'constant'``.

  Returns:
    [N, h, w, C], the type of the image: the pixel nearest to each place.

  Raises:
    ValueError: as :func:`warp` does.

  >>> mask = jnp.array([[False, True]]).reshape(1, 1, 2, 1)
  >>> warp_nearest(mask, jnp.array([[[[0.0, 0.4], [0.0, 0.6]]]])).ravel().tolist()
  [False, True]
  """
  image, grid = _checked(image, where, output_size, border)
  num, height, width, channels = image.shape
  row, column, inside = nearest_pixels(grid, (height, width), border=border)
  table = image.reshape(num * height * width, channels)
  first = (jnp.arange(num, dtype=jnp.int32) * (height * width))[:, None, None]
  output = table.at[first + row * width + column].get(mode='promise_in_bounds')
  if border == 'constant':
    output = jnp.where(inside[..., None], output, jnp.asarray(fill, output.dtype))
  return output


def _checked(image, where, output_size, border: str) -> tuple[jax.Array, jax.Array]:
  """The image and the grid [N, h, w, 2] of coordinates, checked."""
  image, where = jnp.asarray(image), jnp.asarray(where)
  chex.assert_rank(image, 4)
  chex.assert_rank(where, {3, 4})
  chex.assert_equal(image.shape[0], where.shape[0])
  _check_border(border)
  if not (image.shape[1] and image.shape[2]):
    raise ValueError(f'image must have pixels, came with shape {image.shape}.')
  if where.ndim == 3:
    return image, affine_grid(where, output_size or (image.shape[1], image.shape[2]))
  chex.assert_shape(where, (None, None, None, 2))
  if output_size is not None and tuple(output_size) != where.shape[1:3]:
    raise ValueError(
      f'output_size must agree with the grid {where.shape[1:3]}, came as {tuple(output_size)}.'
    )
  return image, where.astype(jnp.promote_types(where.dtype, jnp.float32))


def _check_border(border: str) -> None:
  if border not in BORDERS:
    raise ValueError(f'border must be one of {", ".join(BORDERS)}, came as {border!r}.')


def _neighbours(coordinate: jax.Array, size: int, border: str) -> tuple:
  """The two whole neighbours of each coordinate: (index in 0..size-1, weight, inside) twice."""
  if border == 'reflect':
    # A triangle wave of period 2 (size - 1), even and the identity on 0..size-1.
    period = 2 * max(size - 1, 1)
    coordinate = jnp.abs(coordinate)
    coordinate = coordinate - period * jnp.floor(coordinate / period)
    coordinate = jnp.minimum(coordinate, period - coordinate)
  elif border == 'edge':
    coordinate = jnp.clip(coordinate, 0, size - 1)
  lower = jnp.floor(coordinate)
  weight = coordinate - lower
  neighbours = []
  for index, share in ((lower, 1 - weight), (lower + 1, weight)):
    inside = (index >= 0) & (index <= size - 1)
    neighbours.append((jnp.clip(index, 0, size - 1).astype(jnp.int32), share, inside))
  return tuple(neighbours)
