"""The encoder of patches: quarters first; over an image it slides, patch by patch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect.models.convolution import conv2d
from jaxdefect.models.patch_encoder import PatchEncoder, PositionClassifier, tapered_widths


@functools.cache
def made(size: int = 16):
  module = PatchEncoder(size, features=5, width=8)
  patch = jnp.zeros((1, size, size, 3))
  variables = jax.jit(module.init)(jax.random.key(0), patch)
  # Biases of their own, so that every layer shows.
  variables = jax.tree.map(
    lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), variables
  )
  return module, variables


@pytest.mark.parametrize('shape', [(16, 16), (21, 26), (22, 23)])
def test_dense_is_patch_by_patch(shape):
  module, variables = made()
  image = jax.random.normal(jax.random.key(1), (2, *shape, 3))
  dense = jax.jit(functools.partial(module.apply, method='dense'))(variables, image)
  embed = jax.jit(module.apply)
  for maps, size in zip(dense, (16, 8)):
    rows, columns = ((side - size) // 2 + 1 for side in shape)
    assert maps.shape == (2, rows, columns, 5)
    corners = [(i, j) for i in range(rows) for j in range(columns)]
    patches = [image[1, 2 * i : 2 * i + size, 2 * j : 2 * j + size] for i, j in corners]
    expected = embed(variables, jnp.stack(patches)).reshape(rows, columns, 5)
    np.testing.assert_allclose(maps[1], expected, atol=1e-5)


def test_large_patch_by_hand():
  module, variables = made()
  patch = np.asarray(jax.random.normal(jax.random.key(1), (1, 16, 16, 3)))
  quarters = [patch[:, i : i + 8, j : j + 8] for i in (0, 8) for j in (0, 8)]
  params = variables['params']
  joined = []
  for quarter in quarters:
    layer = params['small']['conv1']
    y = conv2d(quarter, layer['kernel'], stride=2) + layer['bias']
    y = jnp.where(y > 0, y, 0.1 * y)
    layer = params['small']['conv2']
    joined.append(jnp.tanh(conv2d(y, layer['kernel']) + layer['bias'])[:, 0, 0])
  assert joined[0].shape == (1, 5)
  y = jnp.concatenate(joined, -1) @ params['conv1']['kernel'][0, 0] + params['conv1']['bias']
  y = jnp.where(y > 0, y, 0.1 * y) @ params['conv2']['kernel'][0, 0] + params['conv2']['bias']
  np.testing.assert_allclose(module.apply(variables, patch), jnp.tanh(y), atol=1e-5)
  small = module.apply(variables, patch[:, :8, 8:])
  np.testing.assert_allclose(small, joined[1], atol=1e-5)


def test_published_size():
  """K = 64, D = 64: eight layers of 3x3 on 32 pixels, then 2x2 and 1x1."""
  module = PatchEncoder()
  shape = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  y, variables = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x), shape)
  assert y.shape == (1, 64)
  params = variables['params']
  assert len(params['small']) == 8
  assert params['conv1']['kernel'].shape == (1, 1, 4 * 64, 128)
  widths = [params['small'][f'conv{k}']['kernel'].shape[-1] for k in range(1, 9)]
  assert widths == [32, 64, 128, 128, 128, 64, 32, 64]


def test_tapered_widths():
  assert tapered_widths(0, 128) == ()
  assert tapered_widths(3, 128) == (32, 64, 32)


def test_position_classifier_sees_the_difference_alone():
  module = PositionClassifier(hidden=6)
  a, b = jax.random.normal(jax.random.key(0), (2, 4, 5))
  variables = module.init(jax.random.key(1), a, b)
  logits = module.apply(variables, a, b)
  assert logits.shape == (4, 8)
  np.testing.assert_allclose(module.apply(variables, a + 1, b + 1), logits, atol=1e-5)
  assert np.abs(module.apply(variables, b, a) - logits).max() > 1e-3


def test_rejects_bad_sizes():
  with pytest.raises(ValueError, match='must be a multiple of 8, got 12'):
    PatchEncoder(12)
  module, variables = made()
  with pytest.raises(ValueError, match='must have 8 or 16 pixels a side, got 12'):
    module.apply(variables, jnp.zeros((1, 12, 12, 3)))
