"""Exact nearest neighbours in bounded memory.

Shape legend: Q queries, M vectors of the bank, D features, k neighbours, B vectors of a chunk.
"""

import functools

import chex
import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.ops import kernels

# Distances that are held at once. On a CPU they should stay in its cache: 6,272 queries among 9,809
# vectors of 384 take 171 ms so, 187 with half as many or twice as many (Intel Xeon, two cores; the
# product alone in PyTorch 203).
_HELD = {'cpu': 2**22}
_HELD_ELSEWHERE = 2**24
_FAN = 16  # blocks of rows, see ``lowest``


def nearest_neighbors(
  queries: jax.Array,
  bank: jax.Array,
  *,
  k: int = 1,
  chunk: int = 2**14,
  valid: jax.Array | None = None,
  implementation: str | None = None,
) -> tuple[jax.Array, jax.Array]:
  r"""The k vectors of a bank that are nearest to each query, and how far they are.

  The bank is visited in chunks, and each is compared with a block of queries after the other; a
  few million distances are held, never Q x M:

  .. math:: \|q - b\|^2 = \|q\|^2 - 2\,q^T b + \|b\|^2

  by one matrix product in full precision. The distances of those that are found are then
  computed again as differences: a query that is in the bank is at distance 0, not at the rounding
  of :math:`\|q\|^2`. Two neighbours whose squared distances differ by less than that rounding (a
  few 1e-7 of the squared norms in float32) may be taken for one another.

  Args:
    queries: [Q, D] vectors.
    bank: [M, D] vectors.
    k: neighbours, 1 to M.
    chunk: vectors of the bank that are compared at once, at most; with as many queries as make
      2**22 distances (16 MB) on a CPU and 2**24 elsewhere.
    valid: [M] bool, False marks padding of the bank; by default all count.
    implementation: 'xla', or 'pallas' for a fused kernel where k is 1, the vectors are float32 or
      a half type, and the program is compiled for CUDA; it needs no ``chunk``. 'pallas_interpret'
      runs it slowly anywhere, for tests. None is 'xla', see ``ops.kernels``.

  Returns:
    ``(distances, indices)``: [Q, k] Euclidean distances, rising, and [Q, k] int32 into ``bank``,
    of equal ones the lower first. Where fewer than k are valid, the distance is infinite and
    the index 0. The type is float32 at least.

  Raises:
    ValueError: if ``k`` or ``chunk`` is out of range or ``implementation`` unknown.

  >>> bank = jnp.array([[0.0, 0], [3, 4], [6, 8]])
  >>> distances, indices = nearest_neighbors(jnp.array([[3.0, 4]]), bank, k=2)
  >>> distances.tolist(), indices.tolist()
  ([[0.0, 5.0]], [[1, 0]])
  """
  implementation = kernels.implementation_or_default(implementation)
  chex.assert_rank([queries, bank], 2)
  chex.assert_equal_shape_suffix([queries, bank], 1)
  if not 1 <= k <= bank.shape[0]:
    raise ValueError(f'k must be 1 to {bank.shape[0]} (the vectors of the bank), got {k}.')
  if chunk < 1:
    raise ValueError(f'chunk must be 1 or more vectors, got {chunk}.')
  if valid is not None:
    chex.assert_shape(valid, bank.shape[:1])
  chunk = max(k, min(chunk, bank.shape[0]))
  held = _HELD.get(jax.default_backend(), _HELD_ELSEWHERE)
  block = max(1, held // chunk)
  return _search(queries, bank, valid, k=k, chunk=chunk, block=block, implementation=implementation)


@functools.partial(jax.jit, static_argnames=('k', 'chunk', 'block', 'implementation'))
def _search(
  queries: jax.Array,
  bank: jax.Array,
  valid: jax.Array | None,
  *,
  k: int,
  chunk: int,
  block: int,
  implementation: str,
) -> tuple[jax.Array, jax.Array]:
  find = functools.partial(_find, k=k, chunk=chunk, block=block)
  if implementation != 'xla' and k == 1:
    from jaxdefect.ops.kernels import nearest_neighbors as fused

    if fused.fits(queries, bank):
      find = functools.partial(kernels.run, implementation, _find_fused, find)
  values, indices = find(queries, bank, valid)

  dtype = values.dtype
  queries = queries.astype(dtype)

  def distance(index: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.square(queries - bank[index].astype(dtype)).sum(-1))

  exact = lax.map(distance, indices.T).T if k > 1 else distance(indices[:, 0])[:, None]
  exact = jnp.where(values < jnp.inf, exact, jnp.inf)
  indices = jnp.where(values < jnp.inf, indices, 0)
  if k > 1:
    exact, indices = lax.sort((exact, indices), num_keys=2)
  return exact, indices


def _find_fused(
  queries: jax.Array, bank: jax.Array, valid: jax.Array | None, *, interpret: bool = False
) -> tuple[jax.Array, jax.Array]:
  """As ``_find`` with k = 1, by the kernel."""
  from jaxdefect.ops.kernels import nearest_neighbors as fused

  norm = jnp.square(bank.astype(jnp.float32)).sum(1)
  if valid is not None:
    norm = jnp.where(valid, norm, jnp.inf)
  values, indices = fused.nearest(queries, bank, norm, interpret=interpret)
  return values[:, None], indices[:, None]


def _find(
  queries: jax.Array, bank: jax.Array, valid: jax.Array | None, *, k: int, chunk: int, block: int
) -> tuple[jax.Array, jax.Array]:
  r"""The k smallest :math:`\|b\|^2 - 2\,q^T b` of each query and their places, [Q, k] each."""
  dtype = jnp.promote_types(jnp.promote_types(queries.dtype, bank.dtype), jnp.float32)
  queries, (size, features) = queries.astype(dtype), bank.shape
  number = max(1, -(-queries.shape[0] // block))
  block = -(-queries.shape[0] // number)  # as even as can be
  missing = number * block - queries.shape[0]
  blocks = jnp.pad(queries, ((0, missing), (0, 0))).reshape(number, block, features)

  def visit(number: jax.Array, best: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    # The last chunk reaches back into the one before it: nothing is padded or copied.
    start = jnp.minimum(number * chunk, size - chunk)
    place = start + jnp.arange(chunk, dtype=jnp.int32)
    part = bank if chunk == size else lax.dynamic_slice_in_dim(bank, start, chunk)
    part = part.astype(dtype)
    counts = place >= number * chunk
    if valid is not None:
      counts &= lax.dynamic_slice_in_dim(valid, start, chunk)
      part = jnp.where(counts[:, None], part, 0)  # whatever padding holds
    norm = jnp.where(counts, jnp.square(part).sum(1), jnp.inf)[:, None]  # [B, 1]

    def compare(one: tuple) -> tuple[jax.Array, jax.Array]:
      own, values, places = one
      product = jnp.matmul(part, own.T, precision=lax.Precision.HIGHEST)  # [B, block]
      apart = norm - 2 * product  # ||q||^2 is the same for all of a column
      if k == 1:
        low, row = (found[:, None] for found in lowest(apart))
        nearer = low < values
        return jnp.where(nearer, low, values), jnp.where(nearer, place[row], places)
      found, row = smallest(apart.T, k)
      # Those found before have lower indices and stand first.
      values, places = (
        jnp.concatenate(pair, axis=1) for pair in ((values, found), (places, place[row]))
      )
      values, at = smallest(values, k)
      return values, jnp.take_along_axis(places, at, axis=1)

    return lax.map(compare, (blocks, *best))

  best = (
    jnp.full((number, block, k), jnp.inf, dtype),
    jnp.zeros((number, block, k), jnp.int32),
  )
  best = lax.fori_loop(0, -(-size // chunk), visit, best)
  values, indices = (found.reshape(-1, k)[: queries.shape[0]] for found in best)
  return values, indices


def lowest(values: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The smallest value of each column and its row; of equal ones the first.

  XLA's argmin runs as scalar loops on a CPU. Here ``_FAN`` blocks of rows are compared place by
  place, which is vector code over the columns, and two minima over what is left are cheap.

  Args:
    values: [B, Q] numbers or infinity.

  Returns:
    [Q] values and [Q] int32 rows.
  """
  rows = values.shape[0]
  height = -(-rows // _FAN)
  best, row = values[:height], jnp.zeros((), jnp.int32)
  for number in range(1, _FAN):
    start = min(number * height, rows - height)  # the last ones may reach back
    block = values[start : start + height]
    nearer = block < best
    best, row = jnp.where(nearer, block, best), jnp.where(nearer, start, row)
  row += jnp.arange(height, dtype=jnp.int32)[:, None]
  low = best.min(0)
  return low, jnp.where(best <= low, row, rows - 1).min(0)


def smallest(values: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
  """The k smallest of each row, rising, and where they are; of equal ones the first.

  Args:
    values: [Q, B] numbers or infinity.
    k: how many, up to B.

  Returns:
    [Q, k] values and [Q, k] int32 columns.
  """
  negative, columns = lax.top_k(-values, k)
  return -negative, columns
