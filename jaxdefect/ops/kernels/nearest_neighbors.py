r"""The nearest of a bank, no matrix of distances: ``ops.nearest_neighbors`` with k = 1 on a GPU.

Shape legend: Q queries, M vectors of the bank, D features, S parts of the bank; q, m, d of a block.

A program visits a part of the bank for a block of queries. It holds q x m products in registers,
turns them into :math:`\|b\|^2 - 2\,q^T b`, takes the smallest of each query and keeps it if it is
below what it had: ties stay with the lower index. The smallest of the parts is chosen after.

Vectors of half types are multiplied as they are: such products are exact in float32, in which they
are summed, so the twin, which raises the vectors first, computes the same.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton

_PARTS = 512  # programs that keep a large GPU busy


class Blocks(NamedTuple):
  """Tile of a program: queries, vectors of the bank and features; and how it runs."""

  queries: int = 64
  vectors: int = 128
  features: int = 32
  num_warps: int = 8
  num_stages: int = 3


def fits(queries: jax.Array, bank: jax.Array) -> bool:
  """Whether the kernel takes these: float32 or half types, at least one of each."""
  types = (jnp.float32, jnp.bfloat16, jnp.float16)
  return queries.dtype in types and bank.dtype in types and min(queries.shape) > 0


def nearest(
  queries: jax.Array,
  bank: jax.Array,
  norm: jax.Array,
  *,
  blocks: Blocks | None = None,
  precision: Any = lax.Precision.HIGHEST,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
  r"""The smallest :math:`\|b\|^2 - 2\,q^T b` of each query.

  Args:
    queries: [Q, D].
    bank: [M, D].
    norm: [M] float32, the squared length of each vector of the bank; infinite for one that does not
      count, whatever it holds.
    blocks: tile; by default ``Blocks()``.
    precision: of the products of float32. ``lax.DotAlgorithmPreset.TF32_TF32_F32_X3`` takes them to
      the matrix units in three parts, with 22 of 24 bits.
    interpret: runs on any device, step by step.

  Returns:
    ([Q] float32, [Q] int32), the value and its place in the bank, the lower of equal ones;
    infinity and 0 where no vector counts.
  """
  blocks = blocks or Blocks()
  dtype = jnp.promote_types(queries.dtype, bank.dtype)
  size, (vectors, _) = queries.shape[0], bank.shape
  tiles, chunks = pl.cdiv(size, blocks.queries), pl.cdiv(vectors, blocks.vectors)
  parts = min(chunks, max(1, _PARTS // tiles))
  values, places = pl.pallas_call(
    functools.partial(_program, blocks=blocks, precision=precision),
    out_shape=(
      jax.ShapeDtypeStruct((parts, size), jnp.float32),
      jax.ShapeDtypeStruct((parts, size), jnp.int32),
    ),
    grid=(tiles, parts),
    compiler_params=pltriton.CompilerParams(
      num_warps=blocks.num_warps, num_stages=blocks.num_stages
    ),
    interpret=interpret,
  )(queries.astype(dtype), bank.astype(dtype), norm)
  # Parts lie in the order of the bank, so the first of equal ones has the lowest place.
  part = values.argmin(0)[None]
  values, places = (jnp.take_along_axis(found, part, axis=0)[0] for found in (values, places))
  return values, places


def _program(queries, bank, norm, values, places, *, blocks: Blocks, precision):
  """queries [Q, D], bank [M, D], norm [M] -> values and places [S, Q]."""
  (size, features), vectors = queries.shape, bank.shape[0]
  part, parts = pl.program_id(1), values.shape[0]
  own = pl.ds(pl.program_id(0) * blocks.queries, blocks.queries)
  exists = own.start + jnp.arange(blocks.queries, dtype=jnp.int32) < size
  per_part = pl.cdiv(pl.cdiv(vectors, blocks.vectors), parts)  # blocks of vectors

  def compare(number, best):
    low, row = best
    start = (part * per_part + number) * blocks.vectors
    place = start + jnp.arange(blocks.vectors, dtype=jnp.int32)
    those = pl.ds(start, blocks.vectors)

    def add_features(number, total):
      start = number * blocks.features
      inside = start + jnp.arange(blocks.features, dtype=jnp.int32) < features
      some = pl.ds(start, blocks.features)
      query = pltriton.load(queries.at[own, some], mask=exists[:, None] & inside, other=0)
      vector = pltriton.load(
        bank.at[those, some], mask=(place < vectors)[:, None] & inside, other=0
      )
      return total + lax.dot_general(
        query,
        vector,
        (((1,), (1,)), ((), ())),
        precision=precision,
        preferred_element_type=jnp.float32,
      )

    product = jnp.zeros((blocks.queries, blocks.vectors), jnp.float32)
    product = lax.fori_loop(0, pl.cdiv(features, blocks.features), add_features, product)
    length = pltriton.load(norm.at[those], mask=place < vectors, other=jnp.inf)[None]
    # Not the product alone: what does not count may hold anything.
    apart = jnp.where(length < jnp.inf, length - 2 * product, jnp.inf)
    least = apart.min(1)
    first = jnp.where(apart <= least[:, None], place[None], vectors).min(1)
    nearer = least < low
    return jnp.where(nearer, least, low), jnp.where(nearer, first, row)

  best = (
    jnp.full(blocks.queries, jnp.inf, jnp.float32),
    jnp.zeros(blocks.queries, jnp.int32),
  )
  low, row = lax.fori_loop(0, per_part, compare, best)
  pltriton.store(values.at[part, own], low, mask=exists)
  pltriton.store(places.at[part, own], row, mask=exists)
