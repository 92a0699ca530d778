"""Exact nearest neighbours in bounded memory.

Shape legend: Q queries, M vectors of the bank, D features, k neighbours, B vectors of a chunk.
"""

import functools

import chex
import jax
import jax.numpy as jnp
from jax import lax

_HELD = 2**24  # distances that are held at once


def nearest_neighbors(
  queries: jax.Array,
  bank: jax.Array,
  *,
  k: int = 1,
  chunk: int = 4096,
  valid: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  r"""The k vectors of a bank that are nearest to each query, and how far they are.

  The bank is visited in chunks; Q x ``chunk`` distances are held, never Q x M:

  .. math:: \|q - b\|^2 = \|q\|^2 - 2\,q^T b + \|b\|^2

  by one matrix product in full precision. The distances of those that are found are then
  computed again as differences: a query that is in the bank is at distance 0, not at the rounding
  of :math:`\|q\|^2`. Two neighbours whose squared distances differ by less than that rounding (a
  few 1e-7 of the squared norms in float32) may be taken for one another.

  Args:
    queries: [Q, D] vectors.
    bank: [M, D] vectors.
    k: neighbours, 1 to M.
    chunk: vectors of the bank that are compared at once, at most; fewer where there are many
      queries, so that 2**24 distances (64 MB) are held.
    valid: [M] bool, False marks padding of the bank; by default all count.

  Returns:
    ``(distances, indices)``: [Q, k] Euclidean distances, rising, and [Q, k] int32 into ``bank``,
    of equal ones the lower first. Where fewer than k are valid, the distance is infinite and
    the index 0. The type is float32 at least.

  Raises:
    ValueError: if ``k`` or ``chunk`` is out of range.

  >>> bank = jnp.array([[0.0, 0], [3, 4], [6, 8]])
  >>> distances, indices = nearest_neighbors(jnp.array([[3.0, 4]]), bank, k=2)
  >>> distances.tolist(), indices.tolist()
  ([[0.0, 5.0]], [[1, 0]])
  """
  chex.assert_rank([queries, bank], 2)
  chex.assert_equal_shape_suffix([queries, bank], 1)
  if not 1 <= k <= bank.shape[0]:
    raise ValueError(f'k must be 1 to {bank.shape[0]} (the vectors of the bank), got {k}.')
  if chunk < 1:
    raise ValueError(f'chunk must be 1 or more vectors, got {chunk}.')
  if valid is not None:
    chex.assert_shape(valid, bank.shape[:1])
  chunk = min(chunk, bank.shape[0], max(64, _HELD // max(queries.shape[0], 1)))
  return _search(queries, bank, valid, k=k, chunk=max(k, chunk))


@functools.partial(jax.jit, static_argnames=('k', 'chunk'))
def _search(
  queries: jax.Array, bank: jax.Array, valid: jax.Array | None, *, k: int, chunk: int
) -> tuple[jax.Array, jax.Array]:
  dtype = jnp.promote_types(jnp.promote_types(queries.dtype, bank.dtype), jnp.float32)
  queries, (size, _) = queries.astype(dtype), bank.shape

  def visit(number: jax.Array, best: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    # The last chunk reaches back into the one before it: nothing is padded or copied.
    start = jnp.minimum(number * chunk, size - chunk)
    place = start + jnp.arange(chunk, dtype=jnp.int32)
    part = lax.dynamic_slice_in_dim(bank, start, chunk).astype(dtype)
    counts = place >= number * chunk
    if valid is not None:
      counts &= lax.dynamic_slice_in_dim(valid, start, chunk)
    norm = jnp.where(counts, jnp.square(part).sum(1), jnp.inf)  # [B]
    product = jnp.matmul(queries, part.T, precision=lax.Precision.HIGHEST)  # [Q, B]
    # ||q||^2 is the same for all of a row.
    found = smallest(jnp.where(counts[None], norm[None] - 2 * product, jnp.inf), k)
    found = found[0], place[found[1]]
    if k == 1:
      nearer = found[0] < best[0]
      return jnp.where(nearer, found[0], best[0]), jnp.where(nearer, found[1], best[1])
    # Those found before have lower indices and stand first.
    values, places = (jnp.concatenate(pair, axis=1) for pair in zip(best, found))
    values, at = smallest(values, k)
    return values, jnp.take_along_axis(places, at, axis=1)

  start = (
    jnp.full((queries.shape[0], k), jnp.inf, dtype),
    jnp.zeros((queries.shape[0], k), jnp.int32),
  )
  values, indices = lax.fori_loop(0, -(-size // chunk), visit, start)

  def distance(index: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.square(queries - bank[index].astype(dtype)).sum(-1))

  exact = lax.map(distance, indices.T).T if k > 1 else distance(indices[:, 0])[:, None]
  exact = jnp.where(values < jnp.inf, exact, jnp.inf)
  indices = jnp.where(values < jnp.inf, indices, 0)
  if k > 1:
    exact, indices = lax.sort((exact, indices), num_keys=2)
  return exact, indices


def smallest(values: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
  """The k smallest of each row, rising, and where they are; of equal ones the first.

  Args:
    values: [Q, B] numbers or infinity.
    k: how many, up to B.

  Returns:
    [Q, k] values and [Q, k] int32 columns.
  """
  if k > 1:
    negative, columns = lax.top_k(-values, k)
    return -negative, columns
  # XLA's argmin runs as scalar loops on a CPU, twice as slow as two minima.
  low = values.min(1, keepdims=True)
  column = jnp.arange(values.shape[1], dtype=jnp.int32)[None]
  return low, jnp.where(values <= low, column, values.shape[1] - 1).min(1, keepdims=True)
