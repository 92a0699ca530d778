"""A bank on two devices gives what the whole bank gives on one."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxdefect import ops

DEVICES = 2
KEY = jax.random.key(3)


def vectors(size, *, features=12, seed=0):
  # Far from the origin, as features after a ReLU are: there rounding hurts.
  return (np.random.default_rng(seed).normal(size=(size, features)) + 3).astype(np.float32)


def filled_up(bank, valid=None):
  """The bank with what must not count in the places of the last share that are left."""
  missing = -len(bank) % DEVICES
  valid = np.ones(len(bank), bool) if valid is None else valid
  return np.pad(bank, ((0, missing), (0, 0)), constant_values=np.nan), np.pad(valid, (0, missing))


def mapped(function):
  share, mesh = PartitionSpec('bank'), ops.device_mesh(DEVICES, 'bank')
  function = functools.partial(function, axis_name='bank')
  specs = {'in_specs': (share, share), 'out_specs': PartitionSpec()}
  return jax.jit(jax.shard_map(function, mesh=mesh, check_vma=False, **specs))


def on_devices(function, bank, valid=None):
  """What ``function(share, valid)`` returns, on each of the devices."""
  found = mapped(function)(*filled_up(bank, valid))
  first, second = (
    jax.tree.map(lambda leaf, at=at: np.asarray(leaf.addressable_shards[at].data), found)
    for at in range(DEVICES)
  )
  jax.tree.map(np.testing.assert_array_equal, first, second)
  return first


def search(queries, **settings):
  def run(share, valid, *, axis_name):
    return ops.sharded_nearest_neighbors(
      queries, share, valid=valid, axis_name=axis_name, **settings
    )

  return run


def choose(num, *, key=KEY, **settings):
  def run(share, valid, *, axis_name):
    return ops.sharded_k_center_greedy(
      share, num, key=key, valid=valid, axis_name=axis_name, **settings
    )

  return run


@pytest.mark.parametrize('size', [8, 9])
def test_rows_lie_in_order_and_zeros_fill_the_last_share(size):
  rows = vectors(size)
  spread = ops.spread_rows(rows, ops.device_mesh(DEVICES, 'bank'))
  parts = [np.asarray(part.data) for part in spread.addressable_shards]
  assert [part.shape for part in parts] == [((size + 1) // 2, 12)] * 2
  assert len(spread.devices()) == 2
  np.testing.assert_array_equal(np.concatenate(parts)[:size], rows)
  np.testing.assert_array_equal(np.concatenate(parts)[size:], 0)


def test_take_finds_rows_wherever_they_lie():
  rows, indices = vectors(9), np.array([[0, 8, 4], [5, 4, 8]])

  def take(share, _, *, axis_name):
    return ops.sharded_take(share, indices, axis_name=axis_name)

  np.testing.assert_array_equal(on_devices(take, rows), rows[indices])
  np.testing.assert_array_equal(ops.sharded_take(rows, indices, axis_name=None), rows[indices])


@pytest.mark.parametrize(('size', 'k', 'chunk'), [(33, 1, 5), (33, 4, 100), (32, 20, 7)])
def test_neighbours_are_those_of_the_whole_bank(size, k, chunk):
  queries, bank = vectors(7), vectors(size, seed=1)
  bank[[size - 1, 20]] = bank[3]  # equally far, in both shares
  queries[0] = bank[3]
  valid = np.arange(size) % 5 != 1
  got = on_devices(search(queries, k=k, chunk=chunk), bank, valid)
  expected = ops.nearest_neighbors(queries, bank, k=k, chunk=chunk, valid=valid)
  for one, other in zip(got, expected):
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)
  assert got[1][0, 0] == 3


def test_without_an_axis_the_whole_bank_is_here():
  queries, bank = vectors(4), vectors(11, seed=1)
  for one, other in zip(
    ops.sharded_nearest_neighbors(queries, bank, k=2, axis_name=None),
    ops.nearest_neighbors(queries, bank, k=2),
  ):
    np.testing.assert_array_equal(one, other)


def test_fewer_valid_than_asked_for_are_infinitely_far():
  bank, valid = vectors(6), np.arange(6) >= 4  # none in the first share
  distances, indices = on_devices(search(vectors(3, seed=1), k=4), bank, valid)
  assert np.isfinite(distances[:, :2]).all()
  assert (np.sort(indices[:, :2]) == [4, 5]).all()
  assert np.isinf(distances[:, 2:]).all()
  assert (indices[:, 2:] == 0).all()


@pytest.mark.parametrize(
  ('size', 'num', 'candidates', 'centers'),
  [(150, 60, 8, 0), (151, 151, 32, 3), (40, 40, 128, 0), (61, 20, 1, 2)],
)
def test_coreset_is_the_sequence_of_one_device(size, num, candidates, centers):
  features = vectors(size)
  settings = {
    'candidates': candidates,
    'centers': vectors(centers, seed=1) if centers else None,
  }
  got = on_devices(choose(num, **settings), features)
  assert got.dtype == np.int32
  expected = ops.k_center_greedy(features, num, key=KEY, **settings)
  np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize('candidates', [1, 8, 64])
def test_ties_go_to_the_lower_index_over_devices(candidates):
  features = np.random.default_rng(0).integers(0, 4, (60, 2)).astype(np.float32)  # 16 points
  got = on_devices(choose(60, candidates=candidates), features)
  expected = ops.k_center_greedy(features, 60, key=KEY, candidates=candidates)
  np.testing.assert_array_equal(got, expected)
  assert sorted(got) == list(range(60))


def test_a_candidate_waits_for_one_that_is_as_far_and_lower():
  features = np.random.default_rng(1).integers(0, 6, (20, 2)).astype(np.float32)
  settings = {'centers': np.zeros((1, 2), np.float32), 'candidates': 4}
  expected = ops.k_center_greedy(features, 20, key=KEY, **settings)
  np.testing.assert_array_equal(on_devices(choose(20, **settings), features), expected)


@pytest.mark.parametrize('kept', [0, 1, 17])
def test_padding_is_never_chosen(kept):
  features, valid = vectors(31), np.arange(31) >= 31 - kept  # mostly in the last share
  padded = np.where(valid[:, None], features, np.nan)
  got = on_devices(choose(30, candidates=4), padded, valid)
  expected = ops.k_center_greedy(padded, 30, key=KEY, valid=valid, candidates=4)
  np.testing.assert_array_equal(got, expected)
  assert (got[kept:] == -1).all()
  assert (got[:kept] >= 31 - kept).all()


def test_the_first_choice_is_drawn_as_on_one_device():
  features, valid = vectors(6), np.array([0, 1, 0, 0, 1, 1], bool)
  keys = jax.random.split(KEY, 12)

  def first(share, valid, *, axis_name):
    def draw(key):
      return choose(1, key=key)(share, valid, axis_name=axis_name)[0]

    return jax.lax.map(draw, keys)

  got = on_devices(first, features, valid).tolist()
  draw = jax.jit(lambda key: ops.k_center_greedy(features, 1, key=key, valid=valid)[0])
  assert got == [int(draw(key)) for key in keys]
  assert set(got) == {1, 4, 5}


@pytest.mark.parametrize('run', [search(vectors(5, seed=1), k=2), choose(9, candidates=4)])
def test_pmap_finds_the_same(run):
  bank, valid = filled_up(vectors(15))
  shares = bank.reshape(DEVICES, -1, 12), valid.reshape(DEVICES, -1)
  found = jax.pmap(functools.partial(run, axis_name='bank'), axis_name='bank')(*shares)
  for got, expected in zip(jax.tree.leaves(found), jax.tree.leaves(on_devices(run, vectors(15)))):
    np.testing.assert_array_equal(got, np.stack([expected] * DEVICES))


def exchanged(run):
  """Numbers in the largest array that the devices exchange, of banks of 1,000 and 50,000."""
  found = []
  for size in (1_000, 50_000):
    shapes = jax.ShapeDtypeStruct((size, 12), jnp.float32), jax.ShapeDtypeStruct((size,), bool)
    text = mapped(run).lower(*shapes).compile().as_text()
    results = re.findall(r' = (.*?) (?:all-gather|all-reduce)(?:-start)?\(', text)
    assert results
    sizes = re.findall(r'\w+\[([\d,]*)\]', ' '.join(results))
    found.append(max(math.prod(int(n) for n in dims.split(',') if n) for dims in sizes))
  return found


def test_what_devices_exchange_does_not_grow_with_the_bank():
  assert exchanged(search(vectors(5), k=3)) == [DEVICES * 5 * 3] * 2
  assert exchanged(choose(20, candidates=16)) == [16 * 12] * 2


def test_rejects_bad_numbers():
  bank = vectors(4)
  with pytest.raises(ValueError, match='k must be 1 to 4'):
    on_devices(search(bank, k=5), bank)
  with pytest.raises(ValueError, match='num must be 0 to 4'):
    on_devices(choose(5), bank)
  with pytest.raises(ValueError, match='candidates must be 1 or more'):
    on_devices(choose(2, candidates=0), bank)
  assert on_devices(choose(0), bank).shape == (0,)
  there = jax.local_device_count()
  with pytest.raises(ValueError, match=f'devices is {there + 1}; this process has {there} of kind'):
    ops.device_mesh(there + 1, 'bank')
