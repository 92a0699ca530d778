"""Coresets: a few vectors such that every vector has one of them near by (Roth et al. 2022, 3.2).

Shape legend: N vectors, D features, M centres that are there already, C candidates.
"""

import functools

import chex
import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.ops.nearest_neighbors import nearest_neighbors


def k_center_greedy(
  features: jax.Array,
  num: int,
  *,
  key: jax.Array,
  centers: jax.Array | None = None,
  valid: jax.Array | None = None,
  candidates: int = 128,
) -> jax.Array:
  r"""Chooses vectors one by one, each the farthest from all that were chosen before.

  .. math:: c_{t+1} = \arg\max_x \min_{s \le t} \|x - c_s\|, \qquad c_1 \text{ at random}

  The largest distance of any vector to its nearest chosen one is at most twice what the best
  choice of that many would give (Gonzalez 1985).

  The sequence is that of the plain algorithm, found with fewer passes over the vectors: distances
  only fall, so among the ``candidates`` vectors that are farthest now the next choices are known
  from their own distances alone, for as long as the best is farther than the farthest of all
  others was. One matrix product then tells all vectors of the choices that were made.

  Args:
    features: [N, D] vectors.
    num: how many to choose, at most N.
    key: of the first choice; not used where there are ``centers``.
    centers: [M, D] vectors that are chosen already.
    valid: [N] bool, False marks padding, which is never chosen; by default all count.
    candidates: C, choices that one pass over the vectors makes at most. Changes the time alone.

  Returns:
    [num] int32 into ``features`` in the order of choice; of equally far vectors the lower comes
    first. Where fewer than ``num`` are valid, the rest is -1.

  Raises:
    ValueError: if ``num`` is out of range or ``candidates`` not positive.

  >>> points = jnp.array([[0.0], [1.0], [5.0], [9.0]])
  >>> k_center_greedy(points, 2, key=jax.random.key(0), centers=points[:1]).tolist()
  [3, 2]
  """
  chex.assert_rank(features, 2)
  if not 0 <= num <= features.shape[0]:
    raise ValueError(f'num must be 0 to {features.shape[0]} (the vectors there are), got {num}.')
  if candidates < 1:
    raise ValueError(f'candidates must be 1 or more, got {candidates}.')
  if centers is not None:
    chex.assert_rank(centers, 2)
    chex.assert_equal_shape_suffix([features, centers], 1)
    if not centers.shape[0]:
      centers = None
  if valid is not None:
    chex.assert_shape(valid, features.shape[:1])
  if not num:
    return jnp.zeros(0, jnp.int32)
  count = min(candidates, features.shape[0])
  return _choose(key, features, centers, valid, num=num, candidates=count)


@functools.partial(jax.jit, static_argnames=('num', 'candidates'))
def _choose(
  key: jax.Array,
  features: jax.Array,
  centers: jax.Array | None,
  valid: jax.Array | None,
  *,
  num: int,
  candidates: int,
) -> jax.Array:
  features = features.astype(jnp.promote_types(features.dtype, jnp.float32))
  size, dtype = features.shape[0], features.dtype
  if valid is None:
    valid = jnp.ones(size, bool)
  else:
    features = jnp.where(valid[:, None], features, 0)
  norms = jnp.square(features).sum(1)

  def update(left: jax.Array, at: jax.Array, accepted: jax.Array) -> jax.Array:
    """Squared distances [N] to the nearest chosen one, after more were chosen.

    Those that can no more be chosen stay at -1.
    """
    product = jnp.matmul(features, features[at].T, precision=lax.Precision.HIGHEST)  # [N, C]
    nearest = (jnp.where(accepted, norms[at], jnp.inf)[None] - 2 * product).min(1)
    left = jnp.minimum(left, jnp.maximum(nearest + norms, 0))
    return left.at[at].set(jnp.where(accepted, -1, left[at]))

  left = jnp.where(valid, jnp.asarray(jnp.inf, dtype), -1)
  chosen = jnp.full(num, -1, jnp.int32)
  if centers is None:
    order = jnp.cumsum(valid)
    drawn = jax.random.randint(key, (), 0, jnp.maximum(order[-1], 1))
    start = jnp.searchsorted(order, drawn + 1).astype(jnp.int32)
    start = jnp.minimum(start, size - 1)  # nothing is valid
    left = update(left, start[None], valid[start][None])
    chosen = chosen.at[0].set(jnp.where(valid[start], start, -1))
    made = jnp.int32(1)
  else:
    distances, _ = nearest_neighbors(features, centers)
    left = jnp.where(valid, jnp.square(distances[:, 0]).astype(dtype), -1)
    made = jnp.int32(0)

  def more(carry: tuple) -> jax.Array:
    left, _, made = carry
    return (made < num) & (left.max() >= 0)

  def visit(carry: tuple) -> tuple:
    left, chosen, made = carry
    # One place more than there are, which can never be chosen: then there is always another.
    farthest, at = lax.top_k(jnp.append(left, jnp.asarray(-1, dtype)), candidates + 1)
    limit, limit_at = farthest[-1], at[-1].astype(jnp.int32)
    at = jnp.sort(at[:-1]).astype(jnp.int32)  # then argmax takes the lower of equal ones
    accepted, chosen, made = choose_among(
      left[at], features[at], norms[at], at, limit, limit_at, chosen, made
    )
    return update(left, at, accepted), chosen, made

  return lax.while_loop(more, visit, (left, chosen, made))[1]


def choose_among(
  far: jax.Array,
  vectors: jax.Array,
  norms: jax.Array,
  at: jax.Array,
  limit: jax.Array,
  limit_at: jax.Array,
  chosen: jax.Array,
  made: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The next choices of k-centre greedy, as far as the candidates alone decide them.

  Args:
    far: [C] squared distances of the candidates to the nearest chosen one.
    vectors: [C, D] candidates.
    norms: [C] their squared lengths.
    at: [C] int32, their rows among all vectors, rising.
    limit: the largest such distance of all other vectors.
    limit_at: the lowest row of another vector that is as far.
    chosen: [num] int32 rows that are chosen.
    made: how many of them.

  Returns:
    ``(accepted, chosen, made)``: [C] bool, who was chosen, and the choices after it.
  """
  apart = norms[:, None] + norms[None]
  apart -= 2 * jnp.matmul(vectors, vectors.T, precision=lax.Precision.HIGHEST)
  apart = jnp.maximum(apart, 0)

  def accept(state: tuple) -> tuple:
    far, accepted, chosen, made, best, _ = state
    accepted = accepted.at[best].set(True)
    chosen = chosen.at[made].set(at[best])
    far = jnp.minimum(far, apart[best]).at[best].set(-1)
    return following(jnp.where(accepted, -1, far), accepted, chosen, made + 1)

  def following(far: jax.Array, accepted: jax.Array, chosen: jax.Array, made: jax.Array) -> tuple:
    best = jnp.argmax(far)
    beyond = (far[best] > limit) | ((far[best] == limit) & (at[best] < limit_at))
    more = beyond & (far[best] >= 0) & (made < chosen.shape[0])
    return far, accepted, chosen, made, best, more

  state = following(far, jnp.zeros(far.shape, bool), chosen, made)
  return lax.while_loop(lambda state: state[-1], accept, state)[1:4]


def covering_radius(features: jax.Array, centers: jax.Array) -> jax.Array:
  """The largest distance of a vector to its nearest centre.

  Args:
    features: [N, D] vectors.
    centers: [M, D] vectors.

  Returns:
    A scalar, float32 at least.

  >>> float(covering_radius(jnp.array([[0.0], [4.0], [5.0]]), jnp.array([[0.0], [6.0]])))
  2.0
  """
  return nearest_neighbors(features, centers)[0].max()


def random_projection(key: jax.Array, features: jax.Array, *, dim: int = 128) -> jax.Array:
  r"""Projects vectors so that distances stay about what they are (Johnson and Lindenstrauss 1984).

  .. math:: y = x\, G / \sqrt{d}, \qquad G_{ij} \sim \mathcal{N}(0, 1)

  Squared distances are right in expectation, with a relative standard deviation of
  :math:`\sqrt{2/d}`: 12.5 % at 128.

  Args:
    key: of the matrix; the same key gives the same one.
    features: [..., D] vectors.
    dim: d.

  Returns:
    [..., d], float32 at least.
  """
  features = features.astype(jnp.promote_types(features.dtype, jnp.float32))
  matrix = jax.random.normal(key, (features.shape[-1], dim), features.dtype) / dim**0.5
  return jnp.matmul(features, matrix, precision=lax.Precision.HIGHEST)
