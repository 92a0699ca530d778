"""CASI-Net: its size, its self-interaction by hand, and what that sees beyond a mean."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models
from jaxdefect.models.casi_net import SelfInteraction, SeparableConv

SMALL = {'stem': 4, 'channels': (6, 8), 'blocks': 2, 'reduction': 2}


def randomised(shapes):
  random = np.random.default_rng(0)
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.asarray(
      random.uniform(0.5, 1.5, leaf.shape)
      if path[-1].key in ('var', 'scale')
      else random.normal(size=leaf.shape),
      leaf.dtype,
    ),
    shapes,
  )


@functools.cache
def made(**settings):
  module = models.CASINet(3, **{**SMALL, **settings})
  x = jax.random.normal(jax.random.key(1), (3, 17, 14, 3))
  return module, jax.jit(module.init)(jax.random.key(0), x), x


def count(**settings):
  module = models.CASINet(6, **settings)
  shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 128, 128, 3)))
  return sum(leaf.size for leaf in jax.tree.leaves(shapes['params']))


def test_is_light():
  assert count() == 80_582
  interaction = 2 * (128 * 128 + 2 * 128) + 2 * 128
  assert count() - count(interaction=False) == interaction
  # Per stage: to 8 (16) channels and their norm, and back twice with a bias.
  attention = sum(c * m + 2 * m + 2 * (m * c + c) for c, m in ((32, 8), (64, 8), (128, 16)))
  assert count() - count(attention=False) == attention


def test_shapes_and_names():
  module, variables, x = made()
  outputs = jax.jit(module.apply)(variables, x)
  assert outputs.feature_map.shape == (3, 3, 2, 8)  # 17 x 14, halved three times
  assert outputs.logits.shape == (3, 3)
  names = {'stem', 'interaction', 'fc', 'attention.0', 'attention.1'}
  assert set(variables['params']) == names | {f'stage.{k}.{b}' for k in (0, 1) for b in (0, 1)}
  np.testing.assert_allclose(
    outputs.logits,
    np.asarray(outputs.feature_map).mean((1, 2)) @ variables['params']['fc']['kernel'],
    atol=1e-5,
  )


def normalised(x, params, statistics):
  scale = params['scale'] / np.sqrt(np.asarray(statistics['var']) + 1e-5)
  return (x - statistics['mean']) * scale + params['bias']


def test_interaction_by_hand():
  layer = SelfInteraction()
  x = np.random.default_rng(1).normal(size=(2, 3, 4, 5)).astype(np.float32)
  variables = randomised(
    jax.eval_shape(functools.partial(layer.init, running=True), jax.random.key(0), x)
  )
  params, statistics = variables['params'], variables['batch_stats']
  views = [
    normalised(x @ params[eye]['0']['kernel'][0, 0], params[eye]['1'], statistics[eye]['1'])
    for eye in ('left', 'right')
  ]
  expected = x + normalised(views[0] * views[1], params['norm'], statistics['norm'])
  np.testing.assert_allclose(layer.apply(variables, x, running=True), expected, atol=1e-4)


def test_interaction_tells_maps_apart_whose_means_are_equal():
  """Two channels answer at the same places, or at different ones: a mean sees no difference."""
  together = np.zeros((1, 2, 2, 2), np.float32)
  together[0, 0, 0] = 1
  apart = np.zeros((1, 2, 2, 2), np.float32)
  apart[0, 0, 0, 0] = apart[0, 1, 1, 1] = 1
  layer = SelfInteraction()
  variables = layer.init(jax.random.key(0), together, running=True)
  pooled = [
    np.asarray(layer.apply(variables, x, running=True)).mean((1, 2)) for x in (together, apart)
  ]
  np.testing.assert_array_equal(together.mean((1, 2)), apart.mean((1, 2)))
  assert np.abs(pooled[0] - pooled[1]).max() > 0.01
  # Fresh norms are 1 / sqrt(1 + 1e-5); what is added is a quadratic form of the second moments.
  kernels = [np.asarray(variables['params'][eye]['0']['kernel'][0, 0]) for eye in ('left', 'right')]
  for x, found in zip((together, apart), pooled, strict=True):
    moments = np.einsum('nhwc,nhwd->cd', x, x) / 4
    form = np.einsum('ck,cd,dk->k', kernels[0], moments, kernels[1])
    np.testing.assert_allclose(found[0] - x.mean((1, 2))[0], form, rtol=1e-4, atol=1e-6)


def test_separable_convolution_skips_where_shapes_agree():
  x = jax.random.normal(jax.random.key(1), (2, 6, 5, 4))
  for features, stride, skips in ((4, 1, True), (6, 1, False), (4, 2, False)):
    layer = SeparableConv(features, stride)
    variables = layer.init(jax.random.key(0), x, running=True)
    # A depthwise kernel of zeros leaves the skip alone.
    variables['params']['depthwise']['0']['kernel'] *= 0
    y = layer.apply(variables, x, running=True)
    assert y.shape == (2, -(-6 // stride), -(-5 // stride), features)
    np.testing.assert_array_equal(y, x if skips else jnp.zeros_like(y))


def test_padding_is_invisible_in_training():
  module, variables, x = made()
  apply = jax.jit(functools.partial(module.apply, train=True, mutable=['batch_stats']))
  outputs, updated = apply(variables, x[:2])
  valid = jnp.array([True, True, False])
  padded, padded_update = apply(variables, x.at[2].set(100.0), valid=valid)
  np.testing.assert_allclose(padded.logits[:2], outputs.logits, atol=1e-4)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), padded_update, updated)


@pytest.mark.parametrize('settings', [{'channels': ()}, {'blocks': 0}])
def test_rejects_a_network_without_stages(settings):
  module = models.CASINet(3, **{**SMALL, **settings})
  with pytest.raises(ValueError, match='needs at least one stage of at least one block'):
    module.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
