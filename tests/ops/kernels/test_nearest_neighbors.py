"""The fused search against its twin, step by step on any device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdefect import ops
from jaxdefect.ops.kernels import nearest_neighbors as fused


def vectors(size, *, features=40, seed=0):
  # Far from the origin, as features after a ReLU are: there rounding hurts.
  random = np.random.default_rng(seed)
  return jnp.asarray(random.normal(size=(size, features)) + 3, jnp.float32)


def both(queries, bank, **settings):
  return (
    ops.nearest_neighbors(queries, bank, implementation=name, **settings)
    for name in ('pallas_interpret', 'xla')
  )


def agree(ours, theirs):
  for one, other in zip(ours, theirs, strict=True):
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    np.testing.assert_array_equal(one, other)


# Full blocks, several that are not full, one, and the smallest.
@pytest.mark.parametrize(('size', 'number', 'features'), [(64, 256, 32), (70, 300, 40), (1, 1, 1)])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_matches_the_twin(size, number, features, dtype):
  queries = vectors(size, features=features, seed=1).astype(dtype)
  agree(*both(queries, vectors(number, features=features).astype(dtype)))


def test_types_may_differ():
  agree(*both(vectors(3).astype(jnp.bfloat16), vectors(9)))


def test_padding_is_invisible():
  valid = jnp.arange(300) % 3 != 0
  bank = jnp.where(valid[:, None], vectors(300), jnp.nan)  # whatever stands there
  agree(*both(vectors(5, seed=1), bank, valid=valid))


def test_nothing_valid_is_infinitely_far():
  ours, theirs = both(vectors(2), vectors(3), valid=jnp.zeros(3, bool))
  assert np.isinf(ours[0]).all()
  agree(ours, theirs)


# Ties between parts, between the blocks of one part, and in one block.
@pytest.mark.parametrize(('vectors', 'parts'), [(2, 4), (2, 1), (8, 1)])
def test_ties_go_to_the_lower_index(vectors, parts, monkeypatch):
  monkeypatch.setattr(fused, '_PARTS', parts)
  bank = jnp.array([[5.0, 5], [1, 0], [0, 1], [1, 0], [0, -1], [9, 9], [1, 0]])
  blocks = fused.Blocks(queries=16, vectors=vectors, features=16)
  values, places = fused.nearest(
    jnp.zeros((1, 2)), bank, jnp.square(bank).sum(1), blocks=blocks, interpret=True
  )
  assert (values.tolist(), places.tolist()) == ([1.0], [1])


def test_parts_of_the_bank_are_the_bank_at_once(monkeypatch):
  queries, bank = vectors(20, seed=1), vectors(75)
  blocks = fused.Blocks(queries=16, vectors=16, features=16)
  search = functools.partial(fused.nearest, blocks=blocks, interpret=True)
  norm = jnp.square(bank).sum(1)
  apart = search(queries, bank, norm)  # five blocks, each a part
  monkeypatch.setattr(fused, '_PARTS', 4)  # two parts of three blocks, the last beyond the bank
  agree(search(queries, bank, norm), apart)
  monkeypatch.setattr(fused, '_PARTS', 1)
  agree(search(queries, bank, norm), apart)


def test_a_query_that_is_no_number_finds_nothing():
  queries = vectors(3).at[1, 0].set(jnp.nan)
  agree(*both(queries, vectors(9, seed=1)))


@pytest.mark.parametrize('precision', [lax.DotAlgorithmPreset.TF32_TF32_F32_X3, None])
def test_precision_reaches_the_matrix_unit(precision):
  search = functools.partial(fused.nearest, precision=precision)
  arrays = vectors(3), vectors(9), jnp.ones(9)
  text = str(jax.make_jaxpr(search)(*arrays))
  name = 'TF32_TF32_F32_X3' if precision else 'HIGHEST'
  assert (name in text) is (precision is not None)


@pytest.mark.parametrize(('dtype', 'k'), [(np.float64, 1), (np.float32, 2)])
def test_others_take_the_twin(dtype, k):
  with jax.enable_x64(dtype == np.float64):
    queries, bank = (np.asarray(vectors(n), dtype) for n in (3, 9))
    ours, theirs = both(queries, bank, k=k)
    assert ours[0].dtype == dtype
    agree(ours, theirs)
