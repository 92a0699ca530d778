"""Deep SVDD: its centre, its loss, and that a constant network is no solution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdefect import methods, models
from jaxdefect.contracts import DataSpec, References, to_fitted
from jaxdefect.methods import deep_svdd

CLASSES = ('good', 'defect')
SMALL = {'channels': (4, 6), 'embedding': 5, 'kernel_size': 3}


def batch(n, *, first=0, padding=0):
  image = np.random.default_rng(first).integers(0, 256, (n + padding, 16, 16, 3), np.uint8)
  valid = np.arange(n + padding) < n
  index = np.where(valid, first + np.arange(n + padding), -1).astype(np.int32)
  return {'image': image, 'label': np.zeros(n + padding, np.int32), 'valid': valid, 'index': index}


def references(*batches):
  return References(CLASSES, batches)


@functools.cache
def made(**settings):
  """The method and its state before the first step, without and with a centre."""
  method = methods.load('deep_svdd')(optimizer=optax.sgd(0.01), **{**SMALL, **settings})
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch(6))
  key = jax.random.key(0)
  fresh = jax.jit(lambda key: method.init(key, DataSpec(shapes, CLASSES, (9, 0))))(key)
  ready = method.prepare(key, fresh, references(batch(6), batch(3, first=50, padding=3)))
  return method, fresh, ready


def embedded(state, images, **settings):
  encoder = models.OneClassEncoder(**SMALL)
  variables = {
    'params': state.params['encoder'],
    'batch_stats': state.model_state['batch_stats']['encoder'],
  }
  x = deep_svdd.normalize_pixels(images, mean=deep_svdd.IMAGENET_MEAN, std=deep_svdd.IMAGENET_STD)
  return encoder.apply(variables, x, **settings)


def test_center_is_the_mean_of_the_first_pass_away_from_zero():
  _, fresh, ready = made()
  images = np.concatenate([batch(6)['image'], batch(3, first=50, padding=3)['image'][:3]])
  mean = np.asarray(embedded(fresh, images, running=True)).mean(0)
  center = np.asarray(ready.model_state['center'])
  far = np.abs(mean) >= 0.1
  np.testing.assert_allclose(center[far], mean[far], rtol=1e-4)
  np.testing.assert_allclose(center[~far], np.where(mean[~far] < 0, -0.1, 0.1), rtol=1e-6)
  assert np.abs(center).min() >= 0.1 - 1e-7
  assert far.any()


def test_push_away_from_zero_by_hand():
  given = np.array([-0.3, -0.1, -0.02, 0.0, 0.02, 0.1, 2.0])
  expected = [-0.3, -0.1, -0.1, 0.1, 0.1, 0.1, 2.0]
  np.testing.assert_array_equal(deep_svdd.away_from_zero(given), expected)


def test_loss_is_equation_4():
  weight_decay = 0.1
  method, _, ready = made(weight_decay=weight_decay)
  _, scalars = jax.jit(method.step)(jax.random.key(0), ready, batch(6, first=7))
  z, _ = embedded(ready, batch(6, first=7)['image'], running=False, mutable=['batch_stats'])
  center = np.asarray(ready.model_state['center'])
  distance = ((np.asarray(z) - center) ** 2).sum(1).mean()
  penalty = sum((np.asarray(leaf) ** 2).sum() for leaf in jax.tree.leaves(ready.params['encoder']))
  total, count = scalars['loss']
  assert count == 6
  np.testing.assert_allclose(total / count, distance + 0.5 * weight_decay * penalty, rtol=1e-4)
  np.testing.assert_allclose(scalars['distance'][0] / 6, distance, rtol=1e-4)


def test_score_is_the_squared_distance():
  method, _, ready = made()
  predictions = method.predict(to_fitted(ready, CLASSES), batch(4, first=8))
  z = np.asarray(embedded(ready, batch(4, first=8)['image'], running=True))
  expected = ((z - np.asarray(ready.model_state['center'])) ** 2).sum(1)
  np.testing.assert_allclose(predictions.scores, expected, rtol=1e-5)
  np.testing.assert_array_equal(predictions.maps[:, 0, 0], predictions.scores)


def test_a_network_without_kernels_stays_away_from_the_center():
  method, _, ready = made()
  empty = ready._replace(params=jax.tree.map(jnp.zeros_like, ready.params))
  _, scalars = jax.jit(method.step)(jax.random.key(0), empty, batch(6))
  center = np.asarray(ready.model_state['center'])
  np.testing.assert_allclose(scalars['loss'][0] / 6, (center**2).sum(), rtol=1e-5)
  assert (center**2).sum() >= SMALL['embedding'] * 0.1**2


def test_training_draws_the_good_parts_to_the_center():
  method, _, state = made()
  center, step = state.model_state['center'], jax.jit(method.step)
  before = method.predict(to_fitted(state, CLASSES), batch(6)).scores.mean()
  for _ in range(60):
    state, _ = step(jax.random.key(0), state, batch(6))
  np.testing.assert_array_equal(state.model_state['center'], center)
  after = method.predict(to_fitted(state, CLASSES), batch(6)).scores.mean()
  assert after < 0.5 * before


def test_the_backbone_is_never_trained():
  settings = {'backbone': 'resnet18', 'stages': 1, 'width': 8, 'channels': (4,)}
  method, _, ready = made(**settings)
  after, _ = jax.jit(method.step)(jax.random.key(0), ready, batch(6))
  for before, now in (
    (ready.params, after.params),
    (ready.model_state['batch_stats'], after.model_state['batch_stats']),
  ):
    jax.tree.map(np.testing.assert_array_equal, now['backbone'], before['backbone'])
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), now['encoder'], before['encoder'])
    assert min(jax.tree.leaves(moved)) > 0


def test_pretrained_weights_reach_the_backbone():
  method, fresh, _ = made(backbone='resnet18', stages=1, width=8, channels=(4,))
  given = jax.tree.map(lambda leaf: leaf + 1, fresh.params['backbone'])
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch(6))
  state = method.init(
    jax.random.key(0),
    DataSpec(shapes, CLASSES, (9, 0)),
    pretrained={'params': {'backbone': given}},
  )
  jax.tree.map(np.testing.assert_array_equal, state.params['backbone'], given)


def test_rejects_bad_input():
  method, fresh, ready = made()
  key = jax.random.key(0)
  with pytest.raises(ValueError, match='deep_svdd got no references'):
    method.prepare(key, fresh, None)
  defect = {**batch(2), 'label': np.ones(2, np.int32)}
  for call in (
    lambda: method.prepare(key, fresh, references(defect)),
    lambda: method.adapt(key, to_fitted(ready, CLASSES), references(defect)),
  ):
    with pytest.raises(ValueError, match="hold a picture of 'defect'"):
      call()
  with pytest.raises(ValueError, match='deep_svdd has no centre'):
    method.adapt(key, to_fitted(fresh, CLASSES), references(batch(2)))
  with pytest.raises(ValueError, match='weight_decay is -1'):
    methods.load('deep_svdd')(weight_decay=-1)
