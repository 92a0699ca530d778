"""Nearest neighbours against brute force."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import ops
from jaxdefect.ops.nearest_neighbors import _HELD, lowest, smallest


def brute_force(queries, bank, k):
  """Distances [Q, k] and indices in float64, of equal ones the lower index first."""
  queries, bank = np.asarray(queries, np.float64), np.asarray(bank, np.float64)
  distances = np.sqrt(((queries[:, None] - bank[None]) ** 2).sum(-1))
  order = np.argsort(distances, axis=1, kind='stable')[:, :k]
  return np.take_along_axis(distances, order, axis=1), order


def vectors(size, *, features=24, seed=0, dtype=np.float32):
  # Far from the origin, as features after a ReLU are: there rounding hurts.
  return (np.random.default_rng(seed).normal(size=(size, features)) + 3).astype(dtype)


def test_value_by_hand():
  bank = np.array([[0, 0], [3, 4], [0, 1]], np.float32)
  distances, indices = ops.nearest_neighbors(np.zeros((1, 2), np.float32), bank, k=3)
  np.testing.assert_allclose(distances, [[0, 1, 5]])
  np.testing.assert_array_equal(indices, [[0, 2, 1]])


@pytest.mark.parametrize('k', [1, 4])
@pytest.mark.parametrize('chunk', [5, 16, 32, 100])  # ends inside a chunk, at its end, in the first
def test_matches_brute_force_in_float64(k, chunk):
  queries, bank = vectors(9), vectors(32, seed=1)
  distances, indices = ops.nearest_neighbors(queries, bank, k=k, chunk=chunk)
  expected, places = brute_force(queries, bank, k)
  assert distances.dtype == jnp.float32
  assert indices.dtype == jnp.int32
  np.testing.assert_allclose(distances, expected, atol=1e-5)
  np.testing.assert_array_equal(indices, places)


@pytest.mark.parametrize('k', [1, 3])
def test_float64_stays_float64(k):
  with jax.enable_x64(True):
    queries, bank = vectors(6, dtype=np.float64), vectors(21, seed=1, dtype=np.float64)
    distances, indices = ops.nearest_neighbors(queries, bank, k=k, chunk=8)
    assert distances.dtype == jnp.float64
  expected, places = brute_force(queries, bank, k)
  np.testing.assert_allclose(distances, expected, atol=1e-9)
  np.testing.assert_array_equal(indices, places)


def test_half_precision_is_raised():
  queries, bank = jnp.asarray(vectors(4), jnp.bfloat16), jnp.asarray(vectors(9), jnp.bfloat16)
  distances, _ = ops.nearest_neighbors(queries, bank)
  assert distances.dtype == jnp.float32
  expected, _ = brute_force(queries.astype(jnp.float32), bank.astype(jnp.float32), 1)
  np.testing.assert_allclose(distances, expected, atol=1e-5)


def test_a_query_in_the_bank_is_at_distance_zero():
  bank = 100 * vectors(40)
  distances, indices = ops.nearest_neighbors(bank, bank, chunk=16)
  np.testing.assert_array_equal(distances[:, 0], 0)
  np.testing.assert_array_equal(indices[:, 0], np.arange(40))


@pytest.mark.parametrize('k', [1, 3])
def test_ties_go_to_the_lower_index(k):
  bank = np.array([[5, 5], [1, 0], [0, 1], [1, 0], [0, -1], [9, 9], [1, 0]], np.float32)
  distances, indices = ops.nearest_neighbors(np.zeros((1, 2), np.float32), bank, k=k, chunk=3)
  np.testing.assert_array_equal(indices[0], [1, 2, 3][:k])
  np.testing.assert_array_equal(distances[0], [1] * k)


@pytest.mark.parametrize('k', [1, 3])
def test_padding_is_invisible(k):
  queries, bank = vectors(5), vectors(20, seed=1)
  valid = np.arange(20) % 3 != 0
  padded = np.where(valid[:, None], bank, np.nan)  # whatever stands there
  distances, indices = ops.nearest_neighbors(queries, padded, k=k, chunk=6, valid=valid)
  expected, places = brute_force(queries, bank[valid], k)
  np.testing.assert_allclose(distances, expected, atol=1e-5)
  np.testing.assert_array_equal(indices, np.flatnonzero(valid)[places])


@pytest.mark.parametrize('k', [1, 3])
def test_fewer_valid_than_asked_for_are_infinitely_far(k):
  valid = np.arange(5) == k - 2
  distances, indices = ops.nearest_neighbors(vectors(2), vectors(5), k=k, chunk=2, valid=valid)
  np.testing.assert_array_equal(np.isinf(distances), [[i >= valid.sum() for i in range(k)]] * 2)
  assert (np.asarray(indices)[np.isinf(distances)] == 0).all()


def test_jit_and_rank_promotion():
  queries, bank = vectors(5), vectors(20, seed=1)
  search = functools.partial(ops.nearest_neighbors, k=2, chunk=8)
  with jax.numpy_rank_promotion('raise'):
    for got, expected in zip(jax.jit(search)(queries, bank), search(queries, bank)):
      np.testing.assert_allclose(got, expected)


def test_memory_does_not_grow_with_the_bank():
  def held(size):
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((64, 8), (size, 8))]
    search = functools.partial(ops.nearest_neighbors, chunk=128)
    return jax.jit(search).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

  assert held(50_000) <= held(1_000) + 1024
  assert held(1_000) < 64 * 1_000 * 4  # the whole matrix


def test_smallest_of_a_row_with_ties():
  values, columns = smallest(jnp.array([[2.0, 1, 1, 3]]), 1)
  assert (values.tolist(), columns.tolist()) == ([[1.0]], [[1]])


def test_rejects_bad_numbers():
  with pytest.raises(ValueError, match='k must be 1 to 4'):
    ops.nearest_neighbors(vectors(2), vectors(4), k=5)
  with pytest.raises(ValueError, match='chunk must be 1 or more'):
    ops.nearest_neighbors(vectors(2), vectors(4), chunk=0)


@pytest.mark.parametrize('rows', [1, 2, 15, 16, 17, 100])
def test_lowest_is_the_first_minimum_of_each_column(rows):
  values = np.random.default_rng(rows).integers(0, 4, (rows, 7)).astype(np.float32)
  low, row = lowest(jnp.asarray(values))
  np.testing.assert_array_equal(low, values.min(0))
  np.testing.assert_array_equal(row, values.argmin(0))


def test_lowest_row_exists_where_nothing_is_finite():
  low, row = lowest(jnp.full((20, 2), jnp.inf))
  assert np.isinf(low).all()
  assert (np.asarray(row) < 20).all()


def test_queries_in_blocks_are_queries_at_once(monkeypatch):
  queries, bank = vectors(37, seed=1), vectors(50)
  together = ops.nearest_neighbors(queries, bank, k=2)
  monkeypatch.setitem(_HELD, 'cpu', 100)  # chunks of 20 and blocks of 5
  apart = ops.nearest_neighbors(queries, bank, k=2, chunk=20)
  np.testing.assert_allclose(together[0], apart[0], rtol=1e-6)
  np.testing.assert_array_equal(together[1], apart[1])
