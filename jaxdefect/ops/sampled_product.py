r"""Bilinear samples times a kernel: the linear part of deformable convolution.

Shape legend: P output pixels, T taps, G offset groups, C input and O output channels, R rows of the
image (R = N H W G, each C/G wide), 4 corners of a pixel cell.

The four neighbours of every sample are fetched as whole rows and mixed into the columns [P, T C],
and one product takes those to the output. The output is linear in the rows r, in the shares s of
the corners and in the kernel k. With a cotangent g of it, the number

.. math:: \Phi(r, s, k, g) = \sum_{p,o} g_{po}
          \sum_{t,c} \Big(\sum_q s_{ptq}\, r_{i(p,t,q),c}\Big)\, k_{tco}

is linear in all four, and ``sampled_product`` and ``_gradients`` are its four derivatives. To
differentiate ``_gradients`` with cotangents (a, b, c) is to differentiate
:math:`\Phi(a, s, k, g) + \Phi(r, b, k, g) + \Phi(r, s, c, g)`, which the same two functions do: the
pair is closed, so reverse mode works to any order. No order keeps columns for later; making them
again takes a tenth of the time of the products.

Both have a twin in ``kernels.sampled_product`` that no column leaves; since it stands inside of
them, ``implementation`` changes no derivative of any order, only who computes it.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.ops import kernels

# Columns made at a time, in bytes. On a CPU a piece, which is multiplied, stays in the shared cache
# and a tile, which is sampled, in that of a core. Elsewhere one piece keeps the device busy.
PIECE_BYTES, TILE_BYTES = 2**22, 2**19
PIECE_BYTES_ELSEWHERE = 2**28


def _sampled_product(
  rows: jax.Array, share: jax.Array, kernel: jax.Array, index: jax.Array, implementation: str
) -> jax.Array:
  r"""Mixes four rows into each sample and multiplies the samples of a pixel with the kernel.

  .. math:: y_{po} = \sum_{t,c} \Big(\sum_q s_{ptq}\, r_{i(p,t,q),c}\Big)\, k_{tco}

  Args:
    rows: [R, C/G].
    share: [P, T, G, 4] float32 or float64, s.
    kernel: [T, C/groups, O] in the type of ``rows``.
    index: [P, T, G, 4] int32, i, inside of 0 .. R-1.
    implementation: one of ``kernels.choice.IMPLEMENTATIONS``.

  Returns:
    [P, O] in the type of ``rows``.
  """
  arrays = rows, share, kernel, index
  fused = _fused(implementation, *arrays[:3])
  return (
    kernels.run(implementation, fused.product, _product, *arrays) if fused else _product(*arrays)
  )


def _sampled_product_gradients(
  rows: jax.Array,
  share: jax.Array,
  kernel: jax.Array,
  g: jax.Array,
  index: jax.Array,
  implementation: str,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The derivatives of Phi by rows, share and kernel; g is [P, O], the others as above."""
  arrays = rows, share, kernel, g, index
  fused, twin = _fused(implementation, *arrays[:3]), _product_gradients
  return kernels.run(implementation, fused.gradients, twin, *arrays) if fused else twin(*arrays)


def _fused(implementation: str, *arrays: jax.Array):
  """The module of the kernels, where they are asked for and take these rows, share and kernel."""
  if implementation == 'xla':
    return None
  from jaxdefect.ops.kernels import sampled_product as fused

  return fused if fused.fits(*arrays) else None


def _product(rows: jax.Array, share: jax.Array, kernel: jax.Array, index: jax.Array) -> jax.Array:
  piece_size, tile_size = _block_sizes(rows, share)

  def tile(_, at):
    return None, _mix(rows, *at)

  def piece(_, at):
    _, column = _in_blocks(tile, None, at, tile_size)
    return None, _multiply(column, kernel)

  return _in_blocks(piece, None, (share, index), piece_size)[1]


def _product_gradients(
  rows: jax.Array, share: jax.Array, kernel: jax.Array, g: jax.Array, index: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  piece_size, tile_size = _block_sizes(rows, share)

  def tile(to_rows, at):
    share, index, slope = at
    to_rows = _spread(to_rows, slope, share, index)
    return to_rows, (_mix(rows, share, index), _dots(rows, slope, index).astype(share.dtype))

  def piece(totals, at):
    share, index, g = at
    to_rows, to_kernel = totals
    slope = _slope(g, kernel, (*share.shape[:3], rows.shape[1]))  # of the columns
    to_rows, (column, to_share) = _in_blocks(tile, to_rows, (share, index, slope), tile_size)
    return (to_rows, to_kernel + _kernel_slope(column, g, kernel.shape)), to_share

  # Sums of half types would lose small contributions.
  wide = jnp.promote_types(rows.dtype, jnp.float32)
  totals = jnp.zeros(rows.shape, wide), jnp.zeros(kernel.shape, wide)
  (to_rows, to_kernel), to_share = _in_blocks(piece, totals, (share, index, g), piece_size)
  return to_rows.astype(rows.dtype), to_share, to_kernel.astype(kernel.dtype)


def _product_backward(implementation, saved, g):
  rows, share, kernel, index = saved
  return *_gradients(rows, share, kernel, g, index, implementation), None


def _gradients_backward(implementation, saved, cotangents):
  *arrays, g, index = saved
  to_g = jnp.zeros_like(g)
  totals = [jnp.zeros_like(array) for array in arrays]
  for place, cotangent in enumerate(cotangents):
    here = [cotangent if i == place else array for i, array in enumerate(arrays)]
    to_g += sampled_product(*here, index, implementation)
    for i, gradient in enumerate(_gradients(*here, g, index, implementation)):
      if i != place:
        totals[i] += gradient
  return *totals, to_g, None


sampled_product = jax.custom_vjp(_sampled_product, nondiff_argnums=(4,))
_gradients = jax.custom_vjp(_sampled_product_gradients, nondiff_argnums=(5,))
sampled_product.defvjp(lambda *args: (sampled_product(*args), args[:-1]), _product_backward)
_gradients.defvjp(lambda *args: (_gradients(*args), args[:-1]), _gradients_backward)


def _block_sizes(rows: jax.Array, share: jax.Array) -> tuple[int, int]:
  """Output pixels of a piece and of a tile."""
  cpu = jax.default_backend() == 'cpu'
  sizes = (PIECE_BYTES, TILE_BYTES) if cpu else (PIECE_BYTES_ELSEWHERE, PIECE_BYTES_ELSEWHERE)
  pixel = math.prod(share.shape[1:3]) * rows.shape[1] * rows.dtype.itemsize
  return max(1, sizes[0] // pixel), max(1, sizes[1] // pixel)


def _in_blocks(function, carry, arrays: tuple[jax.Array, ...], most: int):
  """``lax.scan`` over the first axis of ``arrays`` in equal blocks of at most so many.

  What a loop returns, XLA on a CPU writes in the shape it was made in. Without one, the columns
  would be written as the matrix that the product wants, with a division for every number.
  """
  length = arrays[0].shape[0]
  blocks = next(n for n in range(-(-length // most), length + 1) if length % n == 0)
  if blocks == 1:
    return function(carry, arrays)
  split = tuple(array.reshape(blocks, -1, *array.shape[1:]) for array in arrays)
  carry, results = lax.scan(function, carry, split)
  return carry, jax.tree.map(lambda array: array.reshape(length, *array.shape[2:]), results)


def _fetch(rows: jax.Array, index: jax.Array) -> jax.Array:
  # Indices are in bounds by construction; saying so spares a comparison for each number.
  return rows.at[index].get(mode='promise_in_bounds', wrap_negative_indices=False)


def _mix(rows: jax.Array, share: jax.Array, index: jax.Array) -> jax.Array:
  """Bilinear samples: [..., 4] shares and places of rows -> [..., C/G]."""
  column = sum(
    (_fetch(rows, index[..., corner]) * share[..., corner, None] for corner in range(4)),
    start=jnp.zeros((), share.dtype),
  )
  return column.astype(rows.dtype)


def _spread(total: jax.Array, slope: jax.Array, share: jax.Array, index: jax.Array) -> jax.Array:
  """Adds every sample's slope [..., C/G] to its four rows of ``total``: ``_mix`` transposed."""
  # All four in one scatter: half the time of four.
  update = (slope[..., None, :] * share[..., None]).astype(total.dtype)
  return total.at[index].add(update, mode='promise_in_bounds', wrap_negative_indices=False)


def _dots(rows: jax.Array, slope: jax.Array, index: jax.Array) -> jax.Array:
  """The product of each sample's slope [..., C/G] with each of its four rows: [..., 4]."""
  wide = jnp.promote_types(rows.dtype, jnp.float32)
  products = _fetch(rows, index).astype(wide) * slope[..., None, :].astype(wide)
  if jax.default_backend() == 'cpu':
    # XLA on a CPU sums the last axis one by one; as a product it is five times faster.
    ones = jnp.ones((products.shape[-1], 1), wide)
    return (products.reshape(-1, products.shape[-1]) @ ones).reshape(index.shape)
  return products.sum(axis=-1)


def _multiply(column: jax.Array, kernel: jax.Array) -> jax.Array:
  """The columns [P, T, G, C/G] times the kernel [T, C/groups, O]: [P, O]."""
  pixels, (taps, width, features) = column.shape[0], kernel.shape
  groups = math.prod(column.shape[2:]) // width
  if groups == 1:
    return column.reshape(pixels, -1) @ kernel.reshape(-1, features)
  column = column.reshape(pixels, taps, groups, width)
  kernel = kernel.reshape(taps, width, groups, -1)
  return jnp.einsum('ptgc,tcgo->pgo', column, kernel).reshape(pixels, features)


def _slope(g: jax.Array, kernel: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """The gradient of ``_multiply`` to the columns, which have that shape."""
  pixels, (taps, width, features) = g.shape[0], kernel.shape
  groups = math.prod(shape[2:]) // width
  if groups == 1:
    return (g @ kernel.reshape(-1, features).T).reshape(shape)
  g = g.reshape(pixels, groups, -1)
  kernel = kernel.reshape(taps, width, groups, -1)
  return jnp.einsum('pgo,tcgo->ptgc', g, kernel).reshape(shape)


def _kernel_slope(column: jax.Array, g: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """The gradient of ``_multiply`` to the kernel, which has that shape."""
  pixels, (taps, width, _) = g.shape[0], shape
  groups = math.prod(column.shape[2:]) // width
  if groups == 1:
    # The smaller side first is faster on a CPU; the barrier keeps XLA from swapping back.
    return lax.optimization_barrier(g.T @ column.reshape(pixels, -1)).T.reshape(shape)
  column = column.reshape(pixels, taps, groups, width)
  g = g.reshape(pixels, groups, -1)
  return jnp.einsum('ptgc,pgo->tcgo', column, g).reshape(shape)
