"""EfficientNet scales by its rules, weighs channels, freezes, and does not see padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models
from jaxdefect.models import efficientnet


def shapes(module, size=(64, 64)):
  return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *size, 3)))


def paths(tree):
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {tuple(entry.key for entry in path): leaf for path, leaf in leaves}


@functools.cache
def small(**settings):
  """A B0, random variables (drawing them in JAX takes a long compilation), and images."""
  module = models.backbone('efficientnet_b0', **settings)
  generator = np.random.default_rng(0)

  def fill(path, leaf):
    value = generator.standard_normal(leaf.shape).astype(np.float32)
    if path[-1].key == 'kernel':
      return value * np.sqrt(2 / np.prod(leaf.shape[:3]), dtype=np.float32)
    return 0.2 * value + (path[-1].key in ('scale', 'var'))

  variables = jax.tree_util.tree_map_with_path(fill, shapes(module))
  variables['batch_stats'] = jax.tree.map(np.abs, variables['batch_stats'])
  return module, variables, generator.standard_normal((2, 32, 32, 3)).astype(np.float32)


@pytest.mark.parametrize(
  ('width', 'channels'),
  [
    (1.0, [32, 16, 24, 40, 80, 112, 192, 320]),
    (1.2, [40, 24, 32, 48, 96, 136, 232, 384]),
    # Rounding to the nearest would take 16 and 24 down to 8: less than 90 % of 9.6 and 14.4 are.
    (0.6, [24, 16, 16, 24, 48, 64, 112, 192]),
  ],
)
def test_channels_are_multiples_of_eight(width, channels):
  before = [efficientnet.STEM_CHANNELS, *(row[3] for row in efficientnet.ROWS)]
  assert [efficientnet.scaled_channels(c, width) for c in before] == channels


@pytest.mark.parametrize(
  ('name', 'blocks', 'features'),
  [
    ('efficientnet_b0', [1, 2, 2, 3, 3, 4, 1], (24, 40, 112, 1280)),
    ('efficientnet_b3', [2, 3, 3, 5, 5, 6, 2], (32, 48, 136, 1536)),
  ],
)
def test_blocks_and_maps_of_the_published_networks(name, blocks, features):
  module = models.backbone(name)
  variables = shapes(module)
  rows = [tuple(map(int, block.split('.')[1:])) for block in variables['params']]
  # The stem and the last convolution are two layers each.
  assert [sum(row == k for row, _ in rows) for k in range(9)] == [2, *blocks, 2]
  maps = jax.eval_shape(module.apply, variables, jnp.zeros((1, 33, 95, 3)))
  assert module.stage_features == features
  sides = [(9, 24), (5, 12), (3, 6), (2, 3)]  # a row or column that is left over counts
  assert [m.shape for m in maps] == [(1, *side, c) for side, c in zip(sides, features)]


def test_first_row_does_not_expand():
  params = shapes(models.backbone('efficientnet_b3', stages=1))['params']
  for block, inputs in (('features.1.0', 40), ('features.1.1', 24)):
    assert set(params[block]) == {'block.0.0', 'block.0.1', 'block.1', 'block.2.0', 'block.2.1'}
    assert params[block]['block.0.0']['kernel'].shape == (3, 3, 1, inputs)
    assert params[block]['block.1']['fc1']['kernel'].shape == (1, 1, inputs, inputs // 4)
  block = params['features.2.0']
  assert set(block) - set(params['features.1.0']) == {'block.1.0', 'block.1.1', 'block.2'} | {
    'block.3.0',
    'block.3.1',
  }
  # A quarter of the 24 channels that come in, not of the 144 that they are expanded to.
  assert block['block.2']['fc1']['kernel'].shape == (1, 1, 144, 6)


def test_squeeze_excitation_value_by_hand():
  module = efficientnet.SqueezeExcitation(1)
  x = jnp.array([[[[1.0, 2.0]], [[3.0, 6.0]]]])  # mean 2 and 4
  fc1 = {'kernel': jnp.array([0.5, 0.25]).reshape(1, 1, 2, 1), 'bias': jnp.array([1.0])}
  fc2 = {'kernel': jnp.array([1.0, 0.0]).reshape(1, 1, 1, 2), 'bias': jnp.array([0.0, -1.0])}
  y = module.apply({'params': {'fc1': fc1, 'fc2': fc2}}, x)
  sigmoid = [1 / (1 + np.exp(-3 / (1 + np.exp(-3)))), 1 / (1 + np.e)]
  np.testing.assert_allclose(y, x * np.array(sigmoid), rtol=1e-6)


def test_frozen_stages_get_no_gradient_and_keep_statistics():
  module, variables, x = small(stages=2, frozen_stages=1)

  def loss(params):
    maps, state = module.apply(
      {**variables, 'params': params}, x, train=True, mutable='batch_stats'
    )
    return sum(jnp.sum(m**2) for m in maps), state['batch_stats']

  gradient, statistics = jax.jit(jax.grad(loss, has_aux=True))(variables['params'])
  trained = set()
  for path, leaf in paths(gradient).items():
    assert bool(jnp.any(leaf != 0)) != models.is_frozen(module, path), path
    trained |= set() if models.is_frozen(module, path) else {path[0]}
  assert trained == {'features.3.0', 'features.3.1'}
  before = paths(variables['batch_stats'])
  for path, leaf in paths(statistics).items():
    assert bool(jnp.all(leaf == before[path])) == models.is_frozen(module, path), path


def test_padding_is_invisible():
  module, variables, x = small(stages=1)
  padded = np.concatenate([x, np.full((1, *x.shape[1:]), 9.0, np.float32)])
  run = jax.jit(functools.partial(module.apply, train=True, mutable='batch_stats'))
  maps, state = run(variables, x)
  padded_maps, padded_state = run(variables, padded, valid=jnp.array([True, True, False]))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
  jax.tree.map(lambda a, b: close(a[:2], b), padded_maps, maps)
  jax.tree.map(close, padded_state, state)
  _, counted = run(variables, padded, valid=jnp.array([True, True, True]))
  differs = jax.tree.map(lambda a, b: not np.allclose(a, b, rtol=1e-2), counted, state)
  assert np.mean(jax.tree.leaves(differs)) > 0.8


def test_update_statistics_false_is_evaluation():
  module, variables, x = small(stages=1)
  fixed = models.backbone('efficientnet_b0', stages=1, update_statistics=False)
  run = jax.jit(functools.partial(fixed.apply, train=True, mutable='batch_stats'))
  maps, state = run(variables, x)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
  jax.tree.map(close, maps, jax.jit(module.apply)(variables, x))
  jax.tree.map(np.testing.assert_array_equal, state['batch_stats'], variables['batch_stats'])


def test_bfloat16_maps_and_float32_variables():
  module = models.backbone('efficientnet_b0', stages=4, dtype=jnp.bfloat16)
  variables = shapes(module)
  maps = jax.eval_shape(module.apply, variables, jnp.zeros((1, 64, 64, 3)))
  assert {m.dtype for m in maps} == {jnp.dtype('bfloat16')}
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
