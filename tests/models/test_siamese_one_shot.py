"""The Siamese encoder: its published size, its layers in numpy, and its tap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models

SMALL = {'channels': (2, 3), 'widths': (5, 4)}


@functools.cache
def made(**settings):
  module = models.SiameseEncoder(**{**SMALL, **settings})
  x = jax.random.normal(jax.random.key(1), (2, 7, 6, 3))
  return module, jax.jit(module.init)(jax.random.key(0), x), x


def count(**settings):
  module = models.SiameseEncoder(**settings)
  shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 100, 100, 1)))
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_has_the_published_number_of_parameters():
  # 3x3 convolutions to 4, 8 and 8 channels, then 80,000 numbers to 500, 500 and 5.
  assert count() == 40 + 296 + 584 + 80_000 * 500 + 500 + 500 * 500 + 500 + 500 * 5 + 5
  assert count(pool=True) == count() - (80_000 - 12 * 12 * 8) * 500


@pytest.mark.parametrize('pool', [False, True])
def test_layers_in_numpy(pool):
  module, variables, x = made(pool=pool)
  params = jax.tree.map(np.asarray, variables['params'])
  y = np.asarray(x)
  for name in ('conv.0', 'conv.1'):
    kernel, padded = params[name]['kernel'], np.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = y.shape[1:3]
    taps = [
      padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
    ]
    y = np.maximum(np.sum(taps, axis=0) + params[name]['bias'], 0)
    if pool:
      height, width = height // 2 * 2, width // 2 * 2
      y = np.max([y[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)], axis=0)
  expected = np.maximum(y.reshape(2, -1) @ params['fc.0']['kernel'] + params['fc.0']['bias'], 0)
  expected = expected @ params['fc.1']['kernel'] + params['fc.1']['bias']
  maps, vectors = jax.jit(module.apply)(variables, x)
  np.testing.assert_allclose(maps, y, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)
  assert np.abs(expected).max() > 0.1


def test_tap_is_added_to_the_last_map():
  module, variables, x = made()
  maps, vectors = module.apply(variables, x)
  tapped, moved = module.apply(variables, x, tap=jnp.ones_like(maps))
  np.testing.assert_allclose(tapped, maps + 1, rtol=1e-6)
  assert np.abs(moved - vectors).max() > 1e-3


def test_half_precision_is_inside_alone():
  module, _, x = made()
  half = models.SiameseEncoder(**SMALL, dtype=jnp.bfloat16)
  (maps, vectors), variables = half.init_with_output(jax.random.key(0), x)
  assert (maps.dtype, vectors.dtype) == (jnp.bfloat16, jnp.float32)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  np.testing.assert_allclose(vectors, module.apply(variables, x)[1], atol=0.1)


@pytest.mark.parametrize('settings', [{'channels': ()}, {'widths': ()}])
def test_rejects_an_encoder_without_layers(settings):
  module = models.SiameseEncoder(**{**SMALL, **settings})
  with pytest.raises(ValueError, match='needs at least one of each'):
    module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
