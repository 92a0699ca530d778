"""Patch SVDD: the pairs it draws, its loss, its bank and its map."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdefect import methods
from jaxdefect.contracts import DataSpec, References, to_fitted
from jaxdefect.methods import patch_svdd
from jaxdefect.models.patch_encoder import PatchEncoder
from jaxdefect.ops import IMAGENET_MEAN, IMAGENET_STD, normalize_pixels

CLASSES = ('good', 'defect')
SMALL = {'patch_size': 8, 'strides': (4, 2), 'features': 4, 'width': 8, 'pairs': 2}
UNCOUPLED = {}
SHAPE = (17, 18)


def batch(n: int, *, first: int = 0, padding: int = 0) -> dict[str, np.ndarray]:
  image = np.random.default_rng(first).integers(0, 256, (n + padding, *SHAPE, 3), np.uint8)
  valid = np.arange(n + padding) < n
  index = np.where(valid, first + np.arange(n + padding), -1).astype(np.int32)
  return {'image': image, 'label': np.zeros(n + padding, np.int32), 'valid': valid, 'index': index}


def spec(shape: tuple[int, int] = SHAPE) -> DataSpec:
  shapes = {'image': jax.ShapeDtypeStruct((4, *shape, 3), np.uint8)}
  return DataSpec(shapes, CLASSES, (4, 0))


@functools.cache
def fitted():
  method = methods.load('patch_svdd')(**SMALL)
  state = jax.jit(lambda key: method.init(key, spec()))(jax.random.key(0))
  empty = to_fitted(state, CLASSES)
  known = References(CLASSES, [batch(3), batch(2, first=3, padding=1)])
  return method, empty, method.adapt(jax.random.key(0), empty, known)


@pytest.mark.parametrize('size', [8, 64])
def test_pairs_lie_within_the_jitter_and_in_the_image(size):
  sides = (2 * size - 1, 2 * size + 9)
  keys = jax.random.split(jax.random.key(0), 2000)
  near = np.asarray(jax.jit(jax.vmap(lambda k: patch_svdd.jittered_pair(k, sides, size)))(keys))
  offset = near[:, 1] - near[:, 0]
  most = max(1, size // 32)
  assert (np.abs(offset) <= most).all()
  assert np.abs(offset).max(1).min() >= 1
  assert len({tuple(one) for one in offset}) == (2 * most + 1) ** 2 - 1

  apart, side = jax.jit(jax.vmap(lambda k: patch_svdd.neighbour_pair(k, sides, size)))(keys)
  offset = np.asarray(apart[:, 1] - apart[:, 0])
  away = np.array([(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)])[side]
  np.testing.assert_array_equal(np.sign(offset), away)
  assert (np.abs(offset)[away != 0] >= 3 * size // 4).all()
  assert np.abs(offset).max() == size - 1
  assert set(np.asarray(side).tolist()) == set(range(8))
  for corners in (near, np.asarray(apart)):
    assert corners.min() == 0
    assert (corners <= np.array(sides) - size).all()
    assert (corners.reshape(-1, 2).max(0) == np.array(sides) - size).all()


def test_loss_of_a_blank_image_by_hand():
  """All patches are equal: no distance, a judge that guesses, and a finite gradient."""
  method = methods.load('patch_svdd')(optimizer=optax.sgd(0.1), **{**SMALL, 'noise': 0.0})
  state = jax.jit(lambda key: method.init(key, spec()))(jax.random.key(0))
  blank = batch(3, padding=1)
  blank['image'][:3] = 77
  after, scalars = jax.jit(method.step)(jax.random.key(0), state, blank)
  np.testing.assert_allclose(scalars['loss'][0], 3 * 2 * np.log(8), rtol=1e-5)
  assert scalars['distance_large'][0] == scalars['distance_small'][0] == 0
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))


def test_distance_is_weighed_by_lambda():
  found = {}
  for weight in (0.0, 2.0):
    method = methods.load('patch_svdd')(optimizer=optax.sgd(0.1), svdd_weight=weight, **SMALL)
    state = jax.jit(lambda key, m=method: m.init(key, spec()))(jax.random.key(0))
    _, found[weight] = jax.jit(method.step)(jax.random.key(0), state, batch(4))
  away = found[0.0]['distance_large'][0] + found[0.0]['distance_small'][0]
  assert away > 0.01
  difference = found[2.0]['loss'][0] - found[0.0]['loss'][0]
  np.testing.assert_allclose(difference, 2 * away, rtol=1e-4)


def test_distance_is_not_squared():
  a, b = jnp.array([[3.0, 4.0], [1.0, 1.0]]), jnp.array([[0.0, 0.0], [1.0, 1.0]])
  np.testing.assert_allclose(patch_svdd.distance(a, b), [5, 0])
  slope = jax.grad(lambda a: patch_svdd.distance(a, b).sum())(a)
  np.testing.assert_allclose(slope, [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_map_is_the_brute_force_nearest_neighbour():
  method, _, ready = fitted()
  test = batch(2, first=50)
  predictions = jax.jit(method.predict)(ready, test)
  encoder = PatchEncoder(8, features=4, width=8)
  embed = jax.jit(lambda x: encoder.apply({'params': ready.params['encoder']}, x))
  image = normalize_pixels(test['image'][0], mean=IMAGENET_MEAN, std=IMAGENET_STD)
  product = np.ones(SHAPE)
  for scale, size, stride in (('large', 8, 4), ('small', 4, 2)):
    bank = np.asarray(ready.memory[scale], np.float64)
    total, count = np.zeros(SHAPE), np.zeros(SHAPE)
    rows, columns = ([*range(0, side - size + 1, stride)] for side in SHAPE)
    for side, starts in zip(SHAPE, (rows, columns)):
      if starts[-1] < side - size - 1:
        starts.append((side - size) // 2 * 2)
    corners = [(i, j) for i in rows for j in columns]
    vectors = embed(jnp.stack([image[i : i + size, j : j + size] for i, j in corners]))
    for (i, j), vector in zip(corners, np.asarray(vectors, np.float64)):
      nearest = np.sqrt(np.square(bank - vector).sum(1)).min()
      # The patches at the lower right border also stand for a last odd row and column.
      down = SHAPE[0] if i == rows[-1] else i + size
      right = SHAPE[1] if j == columns[-1] else j + size
      total[i:down, j:right] += nearest
      count[i:down, j:right] += 1
    assert count.min() >= 1
    product *= total / count
  np.testing.assert_allclose(predictions.maps[0], product, rtol=1e-4)
  np.testing.assert_allclose(predictions.scores, predictions.maps.max((1, 2)))


def test_a_good_part_that_is_in_the_bank_is_calm():
  method, _, ready = fitted()
  maps = jax.jit(method.predict)(ready, batch(3)).maps
  np.testing.assert_allclose(maps, 0, atol=1e-6)
  assert jax.jit(method.predict)(ready, batch(3, first=70)).scores.min() > 1e-3


def test_bank_extends_by_appending_and_ignores_padding():
  method, empty, ready = fitted()
  grown = empty
  for part in (batch(3), batch(2, first=3)):
    grown = method.adapt(jax.random.key(1), grown, References(CLASSES, [part]))
  assert ready.memory['large'].shape == (5 * 3 * 4, 4)
  assert ready.memory['small'].shape == (5 * 7 * 8, 4)
  for scale in ('large', 'small'):
    np.testing.assert_allclose(grown.memory[scale], ready.memory[scale], atol=1e-6)


def test_refuses_defects_and_an_empty_bank():
  method, empty, _ = fitted()
  defect = {**batch(2), 'label': np.ones(2, np.int32)}
  with pytest.raises(ValueError, match="hold a picture of 'defect'"):
    method.adapt(jax.random.key(0), empty, References(CLASSES, [defect]))
  with pytest.raises(ValueError, match='call adapt before predict'):
    method.predict(empty, batch(1))


@pytest.mark.parametrize(
  ('settings', 'sentence'),
  [
    ({'strides': (4, 3)}, 'strides must be two even numbers'),
    ({'strides': (4, 6)}, r'patches of \(8, 4\) pixels would leave gaps'),
    ({'pairs': 0}, 'pairs must be 1 or more'),
    ({'patch_size': 20}, 'must be a multiple of 8, got 20'),
  ],
)
def test_rejects_bad_arguments(settings, sentence):
  with pytest.raises(ValueError, match=sentence):
    methods.load('patch_svdd')(**{**SMALL, **settings})


def test_rejects_images_without_room_for_a_neighbour():
  method = methods.load('patch_svdd')(**SMALL)
  with pytest.raises(ValueError, match='patch_size=8 needs at least 15 x 15'):
    method.init(jax.random.key(0), spec((14, 20)))
