"""Greedy k-centre against the plain algorithm, and what it promises."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import ops

KEY = jax.random.key(3)


def plain_greedy(features, num, *, start=None, centers=()):
  """The algorithm as it is written: one choice, one pass over everything."""
  nearest = np.full(len(features), np.inf)
  for center in centers:
    nearest = np.minimum(nearest, ((features - center) ** 2).sum(1))
  chosen = []
  for _ in range(num):
    free = np.where(np.isin(np.arange(len(features)), chosen), -1, nearest)
    at = start if start is not None and not chosen else int(free.argmax())
    chosen.append(at)
    nearest = np.minimum(nearest, ((features - features[at]) ** 2).sum(1))
  return np.array(chosen)


def vectors(size, *, features=6, seed=0, clusters=4):
  random = np.random.default_rng(seed)
  middle = random.normal(size=(clusters, features))[random.integers(0, clusters, size)]
  return middle + random.normal(size=(size, features), scale=0.5)


@pytest.fixture(autouse=True)
def double_precision():
  with jax.enable_x64(True):
    yield


@pytest.mark.parametrize(
  ('size', 'num', 'candidates'), [(1, 1, 4), (7, 3, 100), (150, 40, 8), (150, 150, 32), (60, 20, 1)]
)
def test_matches_the_plain_algorithm(size, num, candidates):
  features = vectors(size)
  got = np.asarray(ops.k_center_greedy(features, num, key=KEY, candidates=candidates))
  assert got.dtype == np.int32
  np.testing.assert_array_equal(got, plain_greedy(features, num, start=got[0]))


@pytest.mark.parametrize('candidates', [1, 8, 64])
def test_ties_go_to_the_lower_index_and_duplicates_come_last(candidates):
  features = np.random.default_rng(0).integers(0, 4, (60, 2)).astype(float)  # 16 distinct points
  got = np.asarray(ops.k_center_greedy(features, 60, key=KEY, candidates=candidates))
  np.testing.assert_array_equal(got, plain_greedy(features, 60, start=got[0]))
  assert len(np.unique(features[got[:16]], axis=0)) == 16
  assert sorted(got) == list(range(60))


def test_centers_are_covered_already():
  features, centers = vectors(80), vectors(5, seed=1)
  got = ops.k_center_greedy(features, 20, key=KEY, centers=centers, candidates=8)
  np.testing.assert_array_equal(got, plain_greedy(features, 20, centers=centers))
  other = ops.k_center_greedy(features, 20, key=jax.random.key(9), centers=centers, candidates=8)
  np.testing.assert_array_equal(got, other)  # nothing is left to chance
  without = ops.k_center_greedy(features, 5, key=KEY, centers=centers[:0])
  np.testing.assert_array_equal(without, ops.k_center_greedy(features, 5, key=KEY))


@pytest.mark.parametrize('with_centers', [False, True])
def test_padding_is_invisible(with_centers):
  features, valid = vectors(50), np.arange(50) % 4 != 0
  padded = np.where(valid[:, None], features, np.nan)
  centers = vectors(3, seed=1) if with_centers else None
  got = np.asarray(
    ops.k_center_greedy(padded, 50, key=KEY, centers=centers, valid=valid, candidates=8)
  )
  kept = np.flatnonzero(valid)
  start = None if with_centers else int(np.searchsorted(kept, got[0]))
  given = () if centers is None else centers
  expected = plain_greedy(features[valid], kept.size, start=start, centers=given)
  np.testing.assert_array_equal(got[: kept.size], kept[expected])
  assert (got[kept.size :] == -1).all()


def test_the_start_is_drawn_from_the_valid_ones():
  features, valid = vectors(6), np.array([0, 1, 0, 0, 1, 1], bool)
  choose = jax.jit(lambda key: ops.k_center_greedy(features, 1, key=key, valid=valid)[0])
  assert {int(choose(jax.random.key(seed))) for seed in range(40)} == {1, 4, 5}


def test_radius_is_at_most_twice_the_best():
  features = vectors(9, features=2)
  best = min(
    float(ops.covering_radius(features, features[list(three)]))
    for three in itertools.combinations(range(9), 3)
  )
  for seed in range(5):
    chosen = ops.k_center_greedy(features, 3, key=jax.random.key(seed))
    assert float(ops.covering_radius(features, features[chosen])) <= 2 * best


def test_covering_radius_by_hand():
  features, centers = np.array([[0.0, 0], [3, 4], [6, 8]]), np.array([[0.0, 0], [6, 8.0]])
  assert float(ops.covering_radius(features, centers)) == pytest.approx(5)


def test_single_precision_covers_as_well():
  features = vectors(400, features=16)
  chosen = ops.k_center_greedy(features.astype(np.float32), 60, key=KEY)
  expected = plain_greedy(features, 60, start=int(chosen[0]))
  radius = [float(ops.covering_radius(features, features[c])) for c in (chosen, expected)]
  assert radius[0] == pytest.approx(radius[1], rel=1e-4)


def test_jit_matches_eager():
  features = jnp.asarray(vectors(30))
  choose = functools.partial(ops.k_center_greedy, num=8, key=KEY, candidates=8)
  with jax.numpy_rank_promotion('raise'):
    np.testing.assert_array_equal(jax.jit(choose)(features), choose(features))


def test_projection_keeps_distances():
  features = vectors(20, features=300)
  projected = ops.random_projection(KEY, features, dim=128)
  assert projected.shape == (20, 128)
  square = np.square(features[:, None] - features[None]).sum(-1)
  got = np.square(projected[:, None] - projected[None]).sum(-1)
  off = got[square > 0] / square[square > 0] - 1
  assert abs(off).max() < 5 * np.sqrt(2 / 128)
  assert abs(off.mean()) < 0.1


def test_rejects_bad_numbers():
  with pytest.raises(ValueError, match='num must be 0 to 4'):
    ops.k_center_greedy(vectors(4), 5, key=KEY)
  with pytest.raises(ValueError, match='candidates must be 1 or more'):
    ops.k_center_greedy(vectors(4), 2, key=KEY, candidates=0)
  assert ops.k_center_greedy(vectors(4), 0, key=KEY).shape == (0,)
