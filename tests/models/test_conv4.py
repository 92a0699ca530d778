"""4Conv block by block, the places of its attention, and the pool between blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models
from jaxdefect.models.conv4 import halve


@functools.cache
def made(**settings):
  """A small network, its variables with statistics of their own, and an input."""
  module = models.Conv4(**{'width': 6, 'blocks': 2, **settings})
  x = jax.random.normal(jax.random.key(1), (3, 9, 8, 3))
  variables = jax.jit(functools.partial(module.init, running=True))(jax.random.key(0), x)
  if 'batch_stats' in variables:
    random = np.random.default_rng(0)
    statistics = jax.tree_util.tree_map_with_path(
      lambda path, leaf: jnp.asarray(
        random.uniform(0.5, 1.5, leaf.shape)
        if path[-1].key == 'var'
        else 0.05 * random.normal(size=leaf.shape),
        leaf.dtype,
      ),
      variables['batch_stats'],
    )
    variables = {**variables, 'batch_stats': statistics}
  return module, variables, x


def evaluate(module, variables, x):
  return jax.jit(functools.partial(module.apply, running=True))(variables, x)


def block(variables, k, x):
  """One block in numpy."""
  params, statistics = variables['params'], variables['batch_stats'][f'norm.{k}']
  y = np.asarray(models.conv2d(x, params[f'conv.{k}']['kernel'], padding=1))
  y = (y - statistics['mean']) / np.sqrt(np.asarray(statistics['var']) + 1e-5)
  y = np.maximum(y * params[f'norm.{k}']['scale'] + params[f'norm.{k}']['bias'], 0)
  height, width = y.shape[1] // 2 * 2, y.shape[2] // 2 * 2
  views = [y[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]
  return np.max(views, axis=0)


def test_halve_by_hand():
  x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
  expected = np.empty((2, 2, 3, 3), np.float32)
  for i in range(2):
    for j in range(3):
      expected[:, i, j] = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((1, 2))
  np.testing.assert_array_equal(halve(jnp.asarray(x)), expected)
  gradient = jax.grad(lambda x: jnp.sum(halve(x) ** 2))(jnp.asarray(x))
  # Only the largest value of a window has a gradient, and the odd row and column none.
  assert np.count_nonzero(gradient) == expected.size
  np.testing.assert_allclose(
    np.sort(gradient[gradient != 0]), np.sort(2 * expected.ravel()), rtol=1e-6
  )


def test_equal_values_share_the_gradient():
  x = jnp.array([[1.0, 3.0], [3.0, 3.0]]).reshape(1, 2, 2, 1)
  gradient = jax.grad(lambda x: halve(x).sum())(x)
  np.testing.assert_allclose(gradient.ravel(), [0, 1 / 3, 1 / 3, 1 / 3], rtol=1e-6)


def test_value_by_hand():
  module, variables, x = made()
  assert set(variables['params']) == {'conv.0', 'norm.0', 'conv.1', 'norm.1'}
  expected = block(variables, 1, block(variables, 0, x))
  assert expected.shape == (3, 2, 2, 6)
  np.testing.assert_allclose(evaluate(module, variables, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ('place', 'after'), [('low', (0,)), ('high', (1,)), ('multiple', (0, 1)), (None, ())]
)
def test_places_of_the_attention(place, after):
  module, variables, x = made(attention=place)
  names = {name for name in variables['params'] if name.startswith('attention')}
  assert names == {f'attention.{k}' for k in after}
  # Without kernels both weights are sigmoid(0): the map is a quarter of itself behind each.
  params = dict(variables['params'])
  for name in names:
    for layer in ('conv_h', 'conv_w'):
      blank = jax.tree.map(jnp.zeros_like, params[name][layer])
      params[name] = {**params[name], layer: blank}
  variables = {**variables, 'params': params}
  expected = x
  for k in range(2):
    expected = block(variables, k, expected) * (0.25 if k in after else 1.0)
  assert np.abs(expected).max() > 0.01
  np.testing.assert_allclose(evaluate(module, variables, x), expected, rtol=1e-4, atol=1e-5)


def test_one_block_has_one_attention():
  _, variables, _ = made(attention='multiple', blocks=1)
  assert set(variables['params']) == {'conv.0', 'norm.0', 'attention.0'}


def test_padding_is_invisible():
  module, variables, x = made(attention='multiple')
  apply = jax.jit(functools.partial(module.apply, running=False, mutable=['batch_stats']))
  expected, expected_update = apply(variables, x[:2])
  actual, update = apply(variables, x.at[2].set(50.0), valid=jnp.array([True, True, False]))
  np.testing.assert_allclose(actual[:2], expected, rtol=1e-4, atol=1e-4)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), update, expected_update
  )


def test_normalisation_is_a_choice():
  module, variables, x = made(norm=functools.partial(models.GroupNorm, 2), attention='low')
  assert set(variables) == {'params'}
  alone = evaluate(module, variables, x[:1])
  batch = jax.jit(functools.partial(module.apply, running=False))(variables, x)
  np.testing.assert_allclose(batch[:1], alone, rtol=1e-4, atol=1e-5)


def test_every_parameter_has_a_gradient_and_jit_matches_eager():
  module, variables, x = made(attention='low')

  def loss(params):
    return jnp.sum(jnp.sin(module.apply({**variables, 'params': params}, x, running=True)))

  gradient = jax.jit(jax.grad(loss))(variables['params'])
  assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(gradient))
  eager = module.apply(variables, x, running=True)
  np.testing.assert_allclose(evaluate(module, variables, x), eager, rtol=1e-4, atol=1e-5)


def test_published_size():
  module = models.Conv4(attention='low')
  x = jax.ShapeDtypeStruct((2, 256, 256, 256), jnp.float32)
  y, variables = jax.eval_shape(
    lambda x: module.init_with_output(jax.random.key(0), x, running=True), x
  )
  assert y.shape == (2, 16, 16, 32)
  kernels = 9 * 32 * (256 + 3 * 32)
  attention = 32 * 8 + 2 * 8 + 2 * (8 * 32 + 32)
  count = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  assert count == kernels + 4 * 2 * 32 + attention


def test_bfloat16_maps_and_float32_variables():
  module = models.Conv4(4, 2, 'low', dtype=jnp.bfloat16)
  y, variables = jax.eval_shape(
    lambda x: module.init_with_output(jax.random.key(0), x, running=False), jnp.zeros((1, 8, 8, 3))
  )
  assert y.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


@pytest.mark.parametrize(
  ('settings', 'sentence'),
  [
    ({'blocks': 0}, 'blocks is 0; 4Conv needs at least one'),
    ({'attention': 'middle'}, "attention is 'middle'; it can be None, low, high, multiple"),
    ({'blocks': 4}, 'a map of 1x1 pixels cannot be halved; use larger images or fewer blocks'),
  ],
)
def test_rejects_bad_arguments(settings, sentence):
  module = models.Conv4(**settings)
  x = jnp.zeros((1, 8, 9, 3))
  with pytest.raises(ValueError, match=sentence):
    jax.eval_shape(lambda x: module.init(jax.random.key(0), x, running=True), x)
