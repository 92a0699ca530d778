"""GSConv, the GS bottleneck and VoV-GSCSP compute what their papers draw."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models

EPSILON = 1e-5  # of BatchNorm: fresh running statistics divide by sqrt(1 + epsilon)


def evaluate(module, variables, x):
  """The layer on running statistics, compiled."""
  return jax.jit(functools.partial(module.apply, running=True))(variables, x)


@functools.cache
def made(kind, channels=3, **settings):
  """A layer, its variables and an input."""
  module = kind(**settings)
  x = jax.random.normal(jax.random.key(1), (3, 5, 6, channels))
  return module, jax.jit(functools.partial(module.init, running=True))(jax.random.key(0), x), x


def paths(tree):
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {'/'.join(entry.key for entry in path): leaf for path, leaf in leaves}


def test_shuffle_by_hand_and_inverse():
  x = jnp.arange(16).reshape(2, 8)
  mixed = models.shuffle_channels(x)
  np.testing.assert_array_equal(mixed[0], [0, 4, 1, 5, 2, 6, 3, 7])
  np.testing.assert_array_equal(models.shuffle_channels(mixed, order='split'), x)
  np.testing.assert_array_equal(
    models.shuffle_channels(models.shuffle_channels(x, order='split')), x
  )


@pytest.mark.parametrize(
  ('shuffle', 'order'), [('interleave', [0, 2, 1, 3]), ('split', [0, 2, 1, 3])]
)
def test_gsconv_by_hand(shuffle, order):
  # Four channels are reordered alike by both; six are not, see the next test.
  x = jnp.arange(12.0).reshape(1, 3, 4, 1)
  middle = jnp.zeros((5, 5, 1, 2)).at[2, 2, 0].set(jnp.array([2.0, 3.0]))
  layer = models.GSConv(4, 1, shuffle=shuffle, activation=None)
  variables = jax.jit(functools.partial(layer.init, running=True))(jax.random.key(0), x)
  params = variables['params']
  params['dense']['0']['kernel'] = jnp.array([1.0, -1.0]).reshape(1, 1, 1, 2)
  params['depthwise']['0']['kernel'] = middle
  y = evaluate(layer, variables, x)
  factor = 1 / np.sqrt(1 + EPSILON)
  parts = [x, -x, 2 * x * factor, -3 * x * factor]
  expected = factor * np.concatenate([parts[i] for i in order], axis=-1)
  np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_depthwise_half_reads_the_dense_half_and_shuffle_comes_last():
  interleave, variables, x = made(models.GSConv, features=6)
  split = models.GSConv(6, shuffle='split')
  y = models.shuffle_channels(evaluate(interleave, variables, x), order='split')
  z = models.shuffle_channels(evaluate(split, variables, x))
  np.testing.assert_array_equal(y, z)
  # Behind the dense layer nothing of x is left: silencing it silences everything.
  params = dict(variables['params'])
  params['dense'] = jax.tree.map(jnp.zeros_like, params['dense'])
  silent = evaluate(interleave, {**variables, 'params': params}, x)
  np.testing.assert_array_equal(silent, jnp.zeros_like(silent))
  # The dense half is a convolution, BatchNorm and SiLU.
  kernel = variables['params']['dense']['0']['kernel']
  dense = models.conv2d(x, kernel, padding=1) / np.sqrt(1 + EPSILON)
  np.testing.assert_allclose(y[..., :3], jax.nn.silu(dense), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('stride', [1, 2])
def test_sizes_and_number_of_parameters(stride):
  layer = models.GSConv(10, 3, stride=stride)
  x = jax.ShapeDtypeStruct((2, 7, 5, 4), jnp.float32)
  y, variables = jax.eval_shape(
    lambda x: layer.init_with_output(jax.random.key(0), x, running=True), x
  )
  assert y.shape == (2, -(-7 // stride), -(-5 // stride), 10)
  own = paths(variables['params'])
  # Bias-free: what BatchNorm adds is all.
  assert sum(leaf.size for leaf in own.values()) == 9 * 4 * 5 + 25 * 5 + 2 * (5 + 5)
  assert not any('0/bias' in path for path in own)


def test_bottleneck_is_two_gsconvs_plus_a_shortcut():
  module, variables, x = made(models.GSBottleneck, features=8)
  assert evaluate(module, variables, x).shape == (3, 5, 6, 8)
  params, statistics = variables['params'], variables['batch_stats']

  def part(layer, name, x):
    own = {'params': params[name], 'batch_stats': statistics[name]}
    return evaluate(layer, own, x)

  y = part(models.GSConv(4, 1), 'conv1', x)
  y = part(models.GSConv(8, 3, activation=None), 'conv2', y)
  kernel = params['shortcut']['0']['kernel']
  expected = y + models.conv2d(x, kernel) / np.sqrt(1 + EPSILON)
  np.testing.assert_allclose(evaluate(module, variables, x), expected, rtol=1e-4, atol=1e-5)


def test_vov_gscsp_concatenates_skip_then_processed():
  module, variables, x = made(models.VoVGSCSP, features=8, blocks=2, activation=None)
  params = jax.tree.map(lambda a: a, variables['params'])
  assert set(params) == {'reduce', 'blocks.0', 'blocks.1', 'skip', 'fuse'}
  # A mixing layer that hands through its first half shows the skip.
  first = jnp.eye(8).at[4:].set(0)
  params['fuse']['0']['kernel'] = first.reshape(1, 1, 8, 8)
  y = evaluate(module, {**variables, 'params': params}, x)
  skip = models.conv2d(x, params['skip']['0']['kernel']) / (1 + EPSILON)
  np.testing.assert_allclose(y[..., :4], skip, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(y[..., 4:], jnp.zeros_like(y[..., 4:]))


def test_padding_is_invisible():
  module, variables, x = made(models.VoVGSCSP, features=8)
  apply = jax.jit(functools.partial(module.apply, running=False, mutable='batch_stats'))
  expected = apply(variables, x[:2])
  x = x.at[2].set(1e3)
  actual = apply(variables, x, valid=jnp.array([True, True, False]))
  np.testing.assert_allclose(actual[0][:2], expected[0], rtol=1e-4, atol=1e-4)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual[1], expected[1]
  )
  before = paths(variables['batch_stats'])
  assert all(bool(jnp.any(b != before[p])) for p, b in paths(expected[1]['batch_stats']).items())


def test_every_parameter_has_a_gradient_and_jit_matches_eager():
  module, variables, x = made(models.VoVGSCSP, features=8)

  def loss(params):
    y = module.apply({**variables, 'params': params}, x, running=True)
    return jnp.sum(jnp.sin(y))

  gradient = jax.jit(jax.grad(loss))(variables['params'])
  assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(gradient))
  eager = module.apply(variables, x, running=True)
  compiled = evaluate(module, variables, x)
  np.testing.assert_allclose(compiled, eager, rtol=1e-4, atol=1e-5)


def test_bfloat16_maps_and_float32_variables():
  module = models.VoVGSCSP(8, dtype=jnp.bfloat16)
  x = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32)
  y, variables = jax.eval_shape(
    lambda x: module.init_with_output(jax.random.key(0), x, running=False), x
  )
  assert y.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


@pytest.mark.parametrize(
  ('module', 'sentence'),
  [
    (models.GSConv(5), 'features is 5; .* need an even number'),
    (models.GSConv(4, shuffle='random'), "'interleave' or 'split', got 'random'"),
    (models.VoVGSCSP(12), 'features is 12; .* needs a multiple of 8'),
  ],
)
def test_rejects_bad_arguments(module, sentence):
  with pytest.raises(ValueError, match=sentence):
    jax.eval_shape(
      lambda x: module.init(jax.random.key(0), x, running=True), jnp.zeros((1, 4, 4, 3))
    )
