"""Limits by the name of a class reach the views that a method trains on."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdefect import methods
from jaxdefect.contracts import DataSpec

CLASSES = ('dent', 'good', 'scratch')
SMALL = {
  'classifier': {'backbone': 'resnet18', 'stages': 1, 'width': 8},
  'contrastive_margin': {
    **{'backbone': 'resnet18', 'stages': 1, 'width': 8, 'projection': (8, 4)},
  },
}
STILL = {
  **{'crop_scale': (1.0, 1.0), 'crop_ratio': (1.0, 1.0)},
  **{'quarter_turns': False, 'flips': False},
}


def batch(number: int) -> dict[str, np.ndarray]:
  image = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
  label, index = np.full(4, number, np.int32), np.arange(4, dtype=np.int32)
  return {'image': image, 'label': label, 'valid': np.ones(4, bool), 'index': index}


def make(name: str, augmentation: dict):
  return methods.load(name)(optimizer=optax.sgd(0.1), augmentation=augmentation, **SMALL[name])


def spec() -> DataSpec:
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch(0))
  return DataSpec(shapes, CLASSES, (2, 2, 2))


@pytest.fixture(scope='module', params=SMALL)
def losses(request):
  """Loss of a step with free turns, by the label of its pictures: limited, and without any turn."""
  key, found = jax.random.key(0), {}
  turning = {**STILL, 'angle': 180.0, 'angle_limits': {'scratch': 0}}
  for kind, augmentation in (('limited', turning), ('still', STILL)):
    method = make(request.param, augmentation)
    state = method.init(key, spec())
    step = jax.jit(method.step)
    for label in (0, 2):
      found[kind, label] = float(step(key, state, batch(label))[1]['loss'][0])
  return found


def test_limited_class_is_not_turned(losses):
  np.testing.assert_allclose(losses['limited', 2], losses['still', 2], rtol=1e-5)


def test_other_classes_are_turned(losses):
  assert abs(losses['limited', 0] - losses['still', 0]) > 1e-3


@pytest.mark.parametrize('name', SMALL)
def test_limits_lie_in_the_state_in_the_order_of_the_classes(name):
  method = make(name, {'angle': 180.0, 'angle_limits': {'scratch': 10}})
  state = jax.jit(lambda key: method.init(key, spec()))(jax.random.key(0))
  np.testing.assert_array_equal(state.model_state['angle_limits'], [180, 180, 10])
  after, _ = jax.jit(method.step)(jax.random.key(0), state, batch(2))
  chex.assert_trees_all_equal(after.model_state['angle_limits'], jnp.array([180.0, 180.0, 10.0]))


@pytest.mark.parametrize('name', SMALL)
@pytest.mark.parametrize('augmentation', [{'angle': 30.0}, {'angle_limits': {}}])
def test_without_limits_the_state_is_as_it_was(name, augmentation):
  method = make(name, augmentation)
  state = jax.eval_shape(lambda key: method.init(key, spec()), jax.random.key(0))
  assert set(state.model_state) == {'batch_stats'}


@pytest.mark.parametrize('name', SMALL)
def test_unknown_class_is_refused(name):
  method = make(name, {'angle_limits': {'scrach': 10}})
  with pytest.raises(
    ValueError, match="'scrach', but the classes are dent, good, scratch; did you"
  ):
    jax.eval_shape(lambda key: method.init(key, spec()), jax.random.key(0))
