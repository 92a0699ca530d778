"""Nearest good image: distances by hand, and features that learn from good parts alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdefect import losses, methods, models, ops
from jaxdefect.contracts import DataSpec, Fitted, Method, References, State, to_fitted
from jaxdefect.data import augment

SIZE = 16
CLASSES = ('good', 'defect')
SMALL = {'backbone': 'resnet18', 'stages': 1, 'width': 8, 'projection': (8, 4)}
VIEWS = {'crop_scale': (0.5, 1.0)}


def batch(n: int, first: int = 0) -> dict[str, np.ndarray]:
  image = np.random.default_rng(first).integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)
  index = np.arange(first, first + n, dtype=np.int32)
  return {'image': image, 'label': np.zeros(n, np.int32), 'valid': np.ones(n, bool), 'index': index}


@functools.cache
def method(neighbours: int = 1) -> Method:
  made = methods.load('nearest_neighbor')(**SMALL, neighbours=neighbours)
  return made._replace(predict=jax.jit(made.predict))


@functools.cache
def start() -> State:
  """Of 'sgd', whose state is empty: any optimiser without moments can go on from it."""
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch(6))
  made = methods.load('nearest_neighbor')(optimizer=optax.sgd(0.1), **SMALL)
  return jax.jit(lambda key: made.init(key, DataSpec(shapes, CLASSES, (6, 0))))(jax.random.key(0))


def fit(*batches: dict, fitted: Fitted | None = None) -> Fitted:
  fitted = to_fitted(start(), CLASSES) if fitted is None else fitted
  return method().adapt(jax.random.key(1), fitted, References(CLASSES, batches))


def features(fitted: Fitted, image: np.ndarray) -> np.ndarray:
  """[N, F] float64 of length one."""
  trunk = models.backbone('resnet18', stages=1, width=8)
  variables = {k: v['backbone'] for k, v in {'params': fitted.params, **fitted.model_state}.items()}
  x = ops.normalize_pixels(image, mean=ops.IMAGENET_MEAN, std=ops.IMAGENET_STD)
  pooled = np.asarray(jax.jit(trunk.apply)(variables, x)[-1], np.float64).mean((1, 2))
  return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


@pytest.mark.parametrize('k', [1, 3, 99])
def test_score_is_the_mean_distance_by_hand(k):
  fitted, test = fit(batch(8)), batch(4, 50)
  known, seen = (features(fitted, b['image']) for b in (batch(8), test))
  distances = np.sort(np.linalg.norm(seen[:, None] - known[None], axis=-1), axis=1)
  predictions = method(k).predict(fitted, test)
  np.testing.assert_allclose(predictions.scores, distances[:, :k].mean(1), rtol=1e-4)
  np.testing.assert_array_equal(predictions.maps[:, 0, 0], predictions.scores)


def test_extension_appends():
  halves, at_once = fit(batch(5, 20), fitted=fit(batch(6))), fit(batch(6), batch(5, 20))
  for name, value in at_once.memory.items():
    np.testing.assert_array_equal(halves.memory[name], value)
  np.testing.assert_array_equal(halves.memory['index'], [*range(6), *range(20, 25)])


def test_loss_is_nt_xent_of_two_views():
  views = {'crop_scale': (0.5, 1.0), 'brightness': 0.2}
  settings = {'augmentation': views, 'temperature': 0.2}
  trained = methods.load('nearest_neighbor')(optimizer=optax.sgd(0.1), **SMALL, **settings)
  state, seen = start(), batch(6)
  _, scalars = jax.jit(trained.step)(jax.random.key(3), state, seen)

  keys = jax.random.split(jax.random.fold_in(jax.random.key(3), 0))
  images = [augment.random_views(key, seen['image'], seen['index'], **views) for key in keys]
  network = models.Recogniser(models.backbone('resnet18', stages=1, width=8), projection=(8, 4))
  outputs, _ = jax.jit(network.apply, static_argnames=('train', 'mutable'))(
    {'params': state.params, **state.model_state},
    ops.normalize_pixels(jnp.concatenate(images), mean=ops.IMAGENET_MEAN, std=ops.IMAGENET_STD),
    train=True,
    mutable=('batch_stats',),
  )
  values = losses.nt_xent(*jnp.split(outputs.projection, 2), temperature=0.2)
  np.testing.assert_allclose(scalars['loss'][0] / scalars['loss'][1], values.mean(), rtol=1e-4)


def test_training_makes_views_of_a_part_alike():
  trained = methods.load('nearest_neighbor')(
    optimizer=optax.sgd(0.1), augmentation={'crop_scale': (0.8, 1.0)}, **SMALL
  )
  state, step = start(), jax.jit(trained.step)
  found = []
  for _ in range(25):
    state, scalars = step(jax.random.key(0), state, batch(8))
    found.append(float(scalars['loss'][0] / scalars['loss'][1]))
  assert np.mean(found[-5:]) < np.mean(found[:5]) - 0.1
  before, after = (s.model_state['batch_stats']['backbone'] for s in (start(), state))
  moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), before, after)
  assert min(jax.tree.leaves(moved)) > 0


def test_folded_statistics_stay():
  trained = methods.load('nearest_neighbor')(
    optimizer=optax.sgd(0.1), update_statistics=False, **SMALL
  )
  state, _ = jax.jit(trained.step)(jax.random.key(0), start(), batch(6))
  before = start().model_state['batch_stats']
  for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state.model_state['batch_stats'])):
    np.testing.assert_array_equal(a, b)


def test_its_backbone_starts_another_method():
  state = start()
  pretrained = {
    'params': {'backbone': state.params['backbone']},
    'batch_stats': {'backbone': state.model_state['batch_stats']['backbone']},
  }
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch(6))
  pytest.importorskip('jaxdefect.methods.padim')
  other = methods.load('padim')(backbone='resnet18', layers=(1,), width=8)
  spec = DataSpec(shapes, CLASSES, (6, 0))
  begun = jax.jit(lambda key: other.init(key, spec, pretrained))(jax.random.key(7))
  np.testing.assert_array_equal(
    begun.params['backbone']['conv1']['kernel'], state.params['backbone']['conv1']['kernel']
  )


def test_rejects_what_is_not_fitted_and_bad_arguments():
  with pytest.raises(ValueError, match='call adapt before predict'):
    method().predict(to_fitted(start(), CLASSES), batch(1))
  with pytest.raises(ValueError, match='neighbours must be 1 or more, got 0'):
    methods.load('nearest_neighbor')(neighbours=0)
  with pytest.raises(ValueError, match='temperature must be larger than 0, got -1'):
    methods.load('nearest_neighbor')(temperature=-1.0)
