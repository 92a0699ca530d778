r"""Bilinear samples times a kernel without a column matrix: ``ops.sampled_product`` on a GPU.

Shape legend: P output pixels, T taps, G offset groups, C input and O output channels, R rows of the
image, each C/G wide, 4 corners of a pixel cell; p, c, o of a block.

A program holds one tile of the columns at a time in registers, made of the four rows of each of
its pixels, and a matrix unit takes it at once:

* the product: p x o outputs, over all taps and channels;
* the gradients of rows and shares: the slopes of p x c columns are a product of the cotangent and
  the kernel; they are multiplied with the rows for the shares, and added to the rows in memory, by
  atomic additions in float32, so the order of the sum differs from run to run;
* the gradient of the kernel: c x o of it, over a part of the pixels; the parts are summed after.

The arithmetic is the twin's: samples are mixed in float32 and rounded to the type of the rows,
products follow ``jax.default_matmul_precision`` and are summed in float32. The slopes of columns
alone are not rounded to half types, as the twin's are.

No higher derivative is here: ``ops.sampled_product`` differentiates, for both alike.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, ref
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton

_PARTS = 512  # programs that keep a large GPU busy


class Blocks(NamedTuple):
  """Tile of a program: pixels, and at most so many channels and features; and how it runs."""

  pixels: int = 64
  channels: int = 32
  features: int = 128
  num_warps: int = 4
  num_stages: int = 2


def fits(rows: jax.Array, share: jax.Array, kernel: jax.Array) -> bool:
  """Whether the kernels take these: one group, whole tiles of 16 channels, float32 or half types.

  Args:
    rows: [R, C/G].
    share: [P, T, G, 4].
    kernel: [T, C/groups, O].
  """
  _, parts, _ = share.shape[1:]
  width, features = rows.shape[1], kernel.shape[2]
  return (
    rows.dtype in (jnp.float32, jnp.bfloat16, jnp.float16)
    and kernel.dtype == rows.dtype
    and share.dtype == jnp.float32
    and kernel.shape[1] == parts * width
    and width % 16 == 0
    and features % 16 == 0
    and share.shape[0] > 0
  )


def product(
  rows: jax.Array,
  share: jax.Array,
  kernel: jax.Array,
  index: jax.Array,
  *,
  blocks: Blocks | None = None,
  interpret: bool = False,
) -> jax.Array:
  """The samples of each pixel times the kernel.

  Args:
    rows: [R, C/G].
    share: [P, T, G, 4] float32.
    kernel: [T, C, O] in the type of ``rows``.
    index: [P, T, G, 4] int32, inside of 0 .. R-1.
    blocks: tile; by default ``Blocks()``.
    interpret: runs on any device, step by step.

  Returns:
    [P, O] in the type of ``rows``.
  """
  blocks = _divided(blocks or Blocks(), rows, kernel)
  pixels, features = share.shape[0], kernel.shape[2]
  return pl.pallas_call(
    functools.partial(_product_program, blocks=blocks),
    out_shape=jax.ShapeDtypeStruct((pixels, features), rows.dtype),
    grid=(pl.cdiv(pixels, blocks.pixels), features // blocks.features),
    **_settings(blocks, interpret),
  )(rows, _pixels_last(share), kernel.reshape(-1, features), _pixels_last(index))


def gradients(
  rows: jax.Array,
  share: jax.Array,
  kernel: jax.Array,
  g: jax.Array,
  index: jax.Array,
  *,
  blocks: Blocks | None = None,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The gradients of ``product`` to rows, share and kernel.

  Args:
    rows: [R, C/G].
    share: [P, T, G, 4] float32.
    kernel: [T, C, O] in the type of ``rows``.
    g: [P, O], the cotangent, in the type of ``rows``.
    index: [P, T, G, 4] int32, inside of 0 .. R-1.
    blocks: tile; by default ``Blocks()``.
    interpret: runs on any device, step by step.

  Returns:
    Three arrays as ``rows``, ``share`` and ``kernel``.
  """
  blocks = _divided(blocks or Blocks(), rows, kernel)
  settings = _settings(blocks, interpret)
  pixels, features = g.shape
  width, samples = rows.shape[1], share.shape[1] * share.shape[2]  # T G
  tiles = pl.cdiv(pixels, blocks.pixels)
  flat = kernel.reshape(-1, features)
  shares, places = _pixels_last(share), _pixels_last(index)

  to_rows, to_shares = pl.pallas_call(
    functools.partial(_data_program, blocks=blocks),
    out_shape=(
      jax.ShapeDtypeStruct(rows.shape, jnp.float32),
      jax.ShapeDtypeStruct(shares.shape, jnp.float32),
    ),
    grid=(tiles, samples),
    input_output_aliases={5: 0},
    **settings,
  )(rows, shares, flat, g, places, jnp.zeros(rows.shape, jnp.float32))

  columns, wide = samples * width // blocks.channels, features // blocks.features
  parts = min(tiles, max(1, _PARTS // (columns * wide)))
  to_kernel = pl.pallas_call(
    functools.partial(_kernel_program, blocks=blocks),
    out_shape=jax.ShapeDtypeStruct((parts, *flat.shape), jnp.float32),
    grid=(columns * wide, parts),
    **settings,
  )(rows, shares, g, places)
  return (
    to_rows.astype(rows.dtype),
    to_shares.T.reshape(share.shape),
    to_kernel.sum(0).reshape(kernel.shape).astype(kernel.dtype),
  )


def _product_program(rows, shares, kernel, places, output, *, blocks: Blocks):
  """rows [R, C/G], shares and places [T G 4, P], kernel [T C, O] -> output [P, O]."""
  start, here = _block_of_pixels(pl.program_id(0), shares.shape[1], blocks)
  outputs = pl.ds(pl.program_id(1) * blocks.features, blocks.features)
  width = rows.shape[1]

  def add_sample(sample, total):
    corners = _corners(shares, places, sample, start, here)

    def add_channels(number, total):
      channels = pl.ds(number * blocks.channels, blocks.channels)
      column = _column(rows, corners, channels)
      taken = pl.ds(sample * width + number * blocks.channels, blocks.channels)
      return total + jnp.dot(column, kernel[taken, outputs], preferred_element_type=jnp.float32)

    return lax.fori_loop(0, width // blocks.channels, add_channels, total)

  total = jnp.zeros((blocks.pixels, blocks.features), jnp.float32)
  total = lax.fori_loop(0, shares.shape[0] // 4, add_sample, total)
  pltriton.store(
    output.at[pl.ds(start, blocks.pixels), outputs], total.astype(output.dtype), mask=here[:, None]
  )


def _data_program(rows, shares, kernel, g, places, _, to_rows, to_shares, *, blocks: Blocks):
  """As ``_product_program`` and g [P, O] -> to_rows [R, C/G], of zeros before, and to_shares."""
  start, here = _block_of_pixels(pl.program_id(0), shares.shape[1], blocks)
  sample, width = pl.program_id(1), rows.shape[1]
  corners = _corners(shares, places, sample, start, here)

  def add_channels(number, dots):
    channels = pl.ds(number * blocks.channels, blocks.channels)
    taken = pl.ds(sample * width + number * blocks.channels, blocks.channels)

    def add_features(number, slope):
      outputs = pl.ds(number * blocks.features, blocks.features)
      cotangent = pltriton.load(
        g.at[pl.ds(start, blocks.pixels), outputs], mask=here[:, None], other=0
      )
      return slope + lax.dot_general(
        cotangent,
        kernel[taken, outputs],
        (((1,), (1,)), ((), ())),
        preferred_element_type=jnp.float32,
      )

    slope = jnp.zeros((blocks.pixels, blocks.channels), jnp.float32)
    slope = lax.fori_loop(0, kernel.shape[1] // blocks.features, add_features, slope)
    sums = []
    for dot, (place, share) in zip(dots, corners):
      sums.append(dot + (rows[place, channels].astype(jnp.float32) * slope).sum(1))
      # Pixels beyond the last have shares of zero.
      at: Any = (place, channels)  # its type leaves slices out
      ref.addupdate(to_rows, at, share[:, None] * slope)
    return tuple(sums)

  dots = (jnp.zeros(blocks.pixels, jnp.float32),) * 4
  dots = lax.fori_loop(0, width // blocks.channels, add_channels, dots)
  for corner, dot in enumerate(dots):
    pltriton.store(to_shares.at[4 * sample + corner, pl.ds(start, blocks.pixels)], dot, mask=here)


def _kernel_program(rows, shares, g, places, to_kernel, *, blocks: Blocks):
  """As ``_data_program`` -> to_kernel [parts, T C, O]: one tile of it over a part of the pixels."""
  width, features = rows.shape[1], to_kernel.shape[2]
  wide = features // blocks.features
  taken = (pl.program_id(0) // wide) * blocks.channels  # of T C
  outputs = pl.ds((pl.program_id(0) % wide) * blocks.features, blocks.features)
  sample, channels = taken // width, pl.ds(taken % width, blocks.channels)
  tiles = pl.cdiv(shares.shape[1], blocks.pixels)
  part, parts = pl.program_id(1), to_kernel.shape[0]

  def add_pixels(number, total):
    # Every so many tiles: what lies together is worked on together.
    start, here = _block_of_pixels(number * parts + part, shares.shape[1], blocks)
    column = _column(rows, _corners(shares, places, sample, start, here), channels)
    cotangent = pltriton.load(
      g.at[pl.ds(start, blocks.pixels), outputs], mask=here[:, None], other=0
    )
    return total + lax.dot_general(
      column, cotangent, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
    )

  total = jnp.zeros((blocks.channels, blocks.features), jnp.float32)
  total = lax.fori_loop(0, pl.cdiv(tiles, parts), add_pixels, total)
  to_kernel[part, pl.ds(taken, blocks.channels), outputs] = total


def _block_of_pixels(number, pixels: int, blocks: Blocks):
  """The first pixel of a block, and [p] which of them there are."""
  start = number * blocks.pixels
  return start, start + jnp.arange(blocks.pixels, dtype=jnp.int32) < pixels


def _corners(shares, places, sample, start, here):
  """Place and share of the four corners of one sample of each pixel, [p] each."""
  found = []
  for corner in range(4):
    at = 4 * sample + corner, pl.ds(start, here.shape[0])
    place = pltriton.load(places.at[at], mask=here, other=0)
    found.append((place, pltriton.load(shares.at[at], mask=here, other=0)))
  return found


def _column(rows, corners, channels):
  """A tile of the columns, [p, c]: the four rows of each pixel, mixed in float32."""
  mixed = sum(
    (share[:, None] * rows[place, channels].astype(jnp.float32) for place, share in corners),
    start=jnp.zeros((), jnp.float32),
  )
  return mixed.astype(rows.dtype)


def _pixels_last(array: jax.Array) -> jax.Array:
  """[P, T, G, 4] -> [T G 4, P], which neighbouring threads read side by side."""
  return array.reshape(array.shape[0], -1).T


def _divided(blocks: Blocks, rows: jax.Array, kernel: jax.Array) -> Blocks:
  """Blocks that divide the channels of an offset group and the features."""
  width, features = rows.shape[1], kernel.shape[2]
  # x & -x is the largest power of two in x.
  return blocks._replace(
    channels=min(blocks.channels, width & -width),
    features=min(blocks.features, features & -features),
  )


def _settings(blocks: Blocks, interpret: bool) -> dict:
  params = pltriton.CompilerParams(num_warps=blocks.num_warps, num_stages=blocks.num_stages)
  return {'compiler_params': params, 'interpret': interpret}
