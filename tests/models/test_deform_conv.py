"""A deformable layer starts as the plain one, and looks where its offsets say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models, ops


def draw(size=(6, 7), channels=4):
  return jax.random.normal(jax.random.key(1), (2, *size, channels))


@functools.cache
def made(**settings):
  module = models.DeformConv(5, 3, padding=1, **settings)
  return module, jax.jit(module.init)(jax.random.key(0), draw())


def with_bias(variables, bias):
  """The layer whose offsets (and masks) are the same everywhere."""
  params = dict(variables['params'])
  params['offset'] = {**params['offset'], 'bias': jnp.asarray(bias, jnp.float32)}
  return {'params': params}


@pytest.mark.parametrize('version', ['v1', 'v2'])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('offset_groups', [1, 2])
def test_starts_as_the_plain_layer(version, stride, offset_groups):
  module, variables = made(version=version, stride=stride, offset_groups=offset_groups)
  plain = models.Conv(5, 3, stride=stride, padding=1)
  plain_variables = jax.jit(plain.init)(jax.random.key(0), draw())
  kernel = variables['params']['kernel']
  # The same key makes the same kernel at the same place, so weights of one load into the other.
  np.testing.assert_array_equal(kernel, plain_variables['params']['kernel'])
  np.testing.assert_allclose(
    jax.jit(module.apply)(variables, draw()),
    jax.jit(plain.apply)(plain_variables, draw()),
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.parametrize(('version', 'channels'), [('v1', 2 * 9), ('v2', 3 * 9)])
def test_number_of_offset_parameters(version, channels):
  _, variables = made(version=version)
  assert set(variables) == {'params'}
  shapes = jax.tree.map(jnp.shape, variables['params'])
  assert shapes == {
    'kernel': (3, 3, 4, 5),
    'offset': {'kernel': (3, 3, 4, channels), 'bias': (channels,)},
  }
  assert not any(bool(jnp.any(leaf)) for leaf in jax.tree.leaves(variables['params']['offset']))


def test_whole_offsets_read_a_moved_image():
  module, variables = made(version='v1')
  # All points one pixel down and two to the right: channels are (tap, (y, x)).
  moved = with_bias(variables, np.tile([1.0, 2.0], 9))
  actual = jax.jit(module.apply)(moved, draw())
  x = jnp.pad(draw(), ((0, 0), (1, 2), (1, 3), (0, 0)))[:, 1:, 2:]
  expected = models.conv2d(x, variables['params']['kernel'])
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_masks_of_v2_scale_each_tap():
  module, variables = made(version='v2')
  # Logits of the taps: the first tap is closed, the second counts twice, the others once.
  logits = np.array([-1e4, 1e4, *[0.0] * 7])
  actual = jax.jit(module.apply)(with_bias(variables, np.append(np.zeros(18), logits)), draw())
  kernel = variables['params']['kernel'] * jnp.array([0, 2.0, *[1.0] * 7]).reshape(3, 3, 1, 1)
  expected = models.conv2d(draw(), kernel, padding=1)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_is_the_operator_on_its_sown_offsets(version):
  module, variables = made(version=version, stride=2)
  keys = iter(jax.random.split(jax.random.key(3), 3))
  params = jax.tree.map(
    lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), variables['params']
  )
  y, sown = jax.jit(functools.partial(module.apply, mutable='intermediates'))(
    {'params': params}, draw()
  )
  sown = sown['intermediates']
  (offsets,) = sown['offsets']
  masks = sown['masks'][0] if version == 'v2' else None
  assert offsets.shape == (2, 3, 4, 18)
  assert bool(jnp.any(jnp.abs(offsets) > 0.1))
  assert ('masks' in sown) == (version == 'v2')
  expected = ops.deform_conv2d(draw(), offsets, params['kernel'], masks, stride=2, padding=1)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
  # Nothing is kept unless somebody asks.
  assert isinstance(jax.eval_shape(module.apply, {'params': params}, draw()), jax.ShapeDtypeStruct)


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_offsets_learn_from_the_first_step(version):
  module, variables = made(version=version)
  gradient = jax.jit(jax.grad(lambda v: jnp.sum(jnp.sin(module.apply(v, draw())))))(variables)
  for leaf in jax.tree.leaves(gradient):
    assert bool(jnp.all(jnp.isfinite(leaf)))
    assert bool(jnp.any(leaf != 0))


def test_bfloat16_maps_and_float32_sampling_points():
  module = models.DeformConv(8, 3, padding=1, dtype=jnp.bfloat16)
  x = jnp.zeros((1, 4, 4, 3))
  (y, sown), variables = jax.eval_shape(
    lambda x: (
      module.apply(module.init(jax.random.key(0), x), x, mutable='intermediates'),
      module.init(jax.random.key(0), x),
    ),
    x,
  )
  assert y.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves((sown, variables))} == {jnp.dtype('float32')}


def test_rejects_unknown_version():
  with pytest.raises(ValueError, match="version must be 'v1' or 'v2', got 'v3'"):
    models.DeformConv(4, 3, version='v3').init(jax.random.key(0), draw())
