"""DC-Net: its size, its start as a plain network, and that every unit looks elsewhere."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxdefect import models


@functools.cache
def made():
  module = models.DCNet(3, width=2)
  x = jax.random.normal(jax.random.key(1), (3, 20, 13, 3))
  return module, jax.jit(module.init)(jax.random.key(0), x), x


def test_published_size():
  module = models.DCNet(8)
  images = jax.ShapeDtypeStruct((2, 52, 52, 3), jnp.float32)
  said, variables = jax.eval_shape(
    functools.partial(module.init_with_output, jax.random.key(0)), images
  )
  assert said.logits.shape == (2, 8)
  assert said.feature_map.shape == (2, 4, 4, 128)
  widths = (3, 32, 64, 128, 256, 128)
  count = 8 * (128 + 1)
  for inputs, outputs in itertools.pairwise(widths):
    count += 9 * inputs * outputs + 2 * outputs  # kernel, and BatchNorm
    count += 9 * inputs * 18 + 18  # two offsets for each of nine taps
  assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == count == 763_432


def test_starts_as_plain_convolutions():
  module, variables, x = made()
  y = x
  for k, stride in enumerate((2, 2, 2, 1, 2)):
    y = models.conv2d(y, variables['params'][f'conv.{k}']['kernel'], stride=stride, padding=1)
    y = jnp.maximum(y / np.sqrt(1 + 1e-5), 0)
  fc = variables['params']['fc']
  said = jax.jit(module.apply)(variables, x)
  np.testing.assert_allclose(said.feature_map, y, rtol=1e-4, atol=1e-6)
  logits = y.mean((1, 2)) @ fc['kernel'] + fc['bias']
  np.testing.assert_allclose(said.logits, logits, rtol=1e-4, atol=1e-6)
  assert float(jnp.abs(logits).max()) > 1e-3


def test_every_unit_moves_what_it_looks_at():
  module, variables, x = made()
  plain = jax.jit(module.apply)(variables, x)
  for k in range(5):
    params = dict(variables['params'])
    layer = params[f'conv.{k}']
    offset = {**layer['offset'], 'bias': layer['offset']['bias'] + 0.5}
    params[f'conv.{k}'] = {**layer, 'offset': offset}
    moved = jax.jit(module.apply)({**variables, 'params': params}, x)
    assert float(jnp.abs(moved.logits - plain.logits).max()) > 1e-4, k


def test_padding_is_invisible():
  module, variables, x = made()
  run = jax.jit(functools.partial(module.apply, train=True, mutable=['batch_stats']))
  expected, statistics = run(variables, x[:2])
  valid = jnp.array([True, True, False])
  actual, others = run(variables, x.at[2].set(9.0), valid=valid)
  np.testing.assert_allclose(actual.logits[:2], expected.logits, rtol=1e-4, atol=1e-5)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), others, statistics
  )
