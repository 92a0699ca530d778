"""The one-class encoder by hand, and why it cannot collapse: no biases, no bounds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models


@functools.cache
def made(**settings):
  """A small encoder, its variables and images."""
  module = models.OneClassEncoder(**{'channels': (4, 6), 'embedding': 5, **settings})
  x = jax.random.normal(jax.random.key(1), (3, 8, 12, 3))
  variables = jax.jit(functools.partial(module.init, running=True))(jax.random.key(0), x)
  return module, variables, x


def apply(module, variables, x, **settings):
  return jax.jit(functools.partial(module.apply, **settings))(variables, x)


def test_value_by_hand():
  module, variables, x = made()
  generator = np.random.default_rng(0)
  statistics = jax.tree.map(
    lambda leaf: jnp.asarray(generator.uniform(0.5, 1.5, leaf.shape), leaf.dtype),
    variables['batch_stats'],
  )
  params, y = variables['params'], x
  for k in range(2):
    y = np.asarray(models.conv2d(y, params[f'conv.{k}']['kernel'], padding=2))
    norm = statistics[f'norm.{k}']
    y = (y - norm['mean']) / np.sqrt(np.asarray(norm['var']) + 1e-4)
    y = np.where(y > 0, y, 0.01 * y)
    y = np.max([y[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0)
  expected = y.reshape(3, -1) @ params['embedding']['kernel']
  actual = apply(module, {'params': params, 'batch_stats': statistics}, x, running=True)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_has_kernels_alone():
  _, variables, _ = made()
  paths = jax.tree_util.tree_leaves_with_path(variables['params'])
  assert {jax.tree_util.keystr(path[-1:], simple=True) for path, _ in paths} == {'kernel'}


def test_normalises_without_scale_and_shift():
  module, variables, x = made(channels=(4,))
  shifted, update = module.apply(variables, x, running=False, mutable=['batch_stats'])
  kernel = variables['params']['conv.0']['kernel']
  y = np.asarray(models.conv2d(x, kernel, padding=2))
  np.testing.assert_allclose(
    update['batch_stats']['norm.0']['mean'], 0.1 * y.mean((0, 1, 2)), rtol=1e-4, atol=1e-6
  )
  # Kernels ten times as large are normalised away.
  larger = {**variables['params'], 'conv.0': {'kernel': 10 * kernel}}
  again = module.apply({**variables, 'params': larger}, x, running=False, mutable=['batch_stats'])
  np.testing.assert_allclose(again[0], shifted, rtol=1e-3, atol=1e-3)


def test_a_zero_image_and_a_network_without_kernels_embed_at_zero():
  module, variables, x = made()
  blank = apply(module, variables, jnp.zeros_like(x), running=True)
  np.testing.assert_array_equal(blank, np.zeros((3, 5)))
  assert float(jnp.abs(apply(module, variables, x, running=True)).min()) > 0
  empty = {**variables, 'params': jax.tree.map(jnp.zeros_like, variables['params'])}
  z, _ = module.apply(empty, x, running=False, mutable=['batch_stats'])
  np.testing.assert_array_equal(z, np.zeros((3, 5)))


def test_padding_is_invisible():
  module, variables, x = made()
  settings = {'running': False, 'mutable': ['batch_stats']}
  expected = module.apply(variables, x[:2], **settings)
  valid = jnp.array([True, True, False])
  actual = module.apply(variables, x.at[2].set(50.0), valid=valid, **settings)
  np.testing.assert_allclose(actual[0][:2], expected[0], rtol=1e-4, atol=1e-4)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual[1], expected[1]
  )


@pytest.mark.parametrize(
  ('settings', 'sentence'),
  [
    ({'kernel_size': 4}, 'kernel_size is 4; it must be odd'),
    ({'channels': (2,) * 4}, 'cannot be halved'),
  ],
)
def test_rejects_bad_arguments(settings, sentence):
  module = models.OneClassEncoder(**settings)
  with pytest.raises(ValueError, match=sentence):
    jax.eval_shape(
      lambda x: module.init(jax.random.key(0), x, running=True), jnp.zeros((1, 8, 8, 3))
    )
