"""Stems by hand, and the difference of their features."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models
from jaxdefect.models.siamese import difference, enlarge

RANDOM = np.random.default_rng(0)
F_X = RANDOM.normal(size=(3, 2, 4, 5)).astype(np.float32)
F_REF = RANDOM.normal(size=(3, 4, 2, 4, 5)).astype(np.float32)


def test_difference_by_hand():
  expected = np.zeros_like(F_X)
  for n in range(3):
    for r in range(4):
      expected[n] += np.abs(F_REF[n, r] - F_X[n]) / 4
  np.testing.assert_allclose(difference(F_X, F_REF), expected, rtol=1e-5, atol=1e-6)


def test_shared_references_equal_repeated_ones():
  shared = F_REF[0]
  repeated = np.broadcast_to(shared, F_REF.shape)
  for nearest in (None, 1, 3):
    np.testing.assert_allclose(
      difference(F_X, shared, nearest=nearest),
      difference(F_X, repeated, nearest=nearest),
      rtol=1e-5,
      atol=1e-6,
    )


def test_difference_to_itself_is_zero():
  reference = np.stack([F_X, F_X], axis=1)
  np.testing.assert_array_equal(difference(F_X, reference), 0)


@pytest.mark.parametrize('nearest', [1, 2, 4, 9])
def test_nearest_references_by_hand(nearest):
  apart = np.abs(F_REF - F_X[:, None])
  expected = np.empty_like(F_X)
  for n in range(3):
    order = np.argsort(apart[n].mean((1, 2, 3)))
    expected[n] = apart[n, order[:nearest]].mean(0)
  actual = jax.jit(functools.partial(difference, nearest=nearest))(F_X, F_REF)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_nearest_finds_the_one_in_the_same_position():
  # The second reference is the image itself, the others are moved copies of it.
  reference = np.stack([np.roll(F_X, s, axis=2) for s in (1, 0, 2)], axis=1)
  np.testing.assert_array_equal(difference(F_X, reference, nearest=1), 0)
  assert np.abs(difference(F_X, reference)).max() > 0.1


def test_gradient_matches_numeric():
  with jax.enable_x64(True):
    f_x, f_ref = (jnp.asarray(a[:, ..., :1, :2, :2], jnp.float64) for a in (F_X, F_REF))
    for nearest in (None, 2):

      def loss(*features, nearest=nearest):
        return jnp.sum(jnp.sin(difference(*features, nearest=nearest)))

      jax.test_util.check_grads(loss, (f_x, f_ref), order=2, modes=['rev'], rtol=1e-4, atol=1e-5)


@functools.cache
def made(stem):
  x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
  return stem, jax.jit(functools.partial(stem.init, running=True))(jax.random.key(0), x), x


def test_light_stem_by_hand():
  stem, variables, x = made(models.SiameseStem((4, 6), (2, 1)))
  assert set(variables['params']) == {'conv.0', 'norm.0', 'conv.1', 'norm.1'}
  y = x
  for k, stride in enumerate((2, 1)):
    kernel = variables['params'][f'conv.{k}']['kernel']
    y = jax.nn.relu(models.conv2d(y, kernel, stride=stride, padding=1) / np.sqrt(1 + 1e-5))
  assert y.shape == (2, 4, 4, 6)
  actual = jax.jit(functools.partial(stem.apply, running=True))(variables, x)
  np.testing.assert_allclose(actual, y, rtol=1e-4, atol=1e-5)


def test_vgg_stem_by_hand():
  stem, variables, x = made(models.VGGStem(stages=((4,), (5, 6))))
  assert set(variables) == {'params'}
  params = jax.tree.map(np.asarray, variables['params'])
  assert set(params) == {'conv.0', 'conv.1', 'conv.2'}
  bias = {name: RANDOM.normal(size=leaf['bias'].shape) for name, leaf in params.items()}
  params = {name: {**leaf, 'bias': bias[name]} for name, leaf in params.items()}
  y = np.asarray(x)
  for k, pooled in enumerate((True, False, True)):
    y = np.asarray(models.conv2d(y, params[f'conv.{k}']['kernel'], padding=1)) + bias[f'conv.{k}']
    if pooled:
      y = y.reshape(y.shape[0], y.shape[1] // 2, 2, y.shape[2] // 2, 2, -1).max((2, 4))
    y = y.astype(np.float32)
  actual = jax.jit(functools.partial(stem.apply, running=False))({'params': params}, x)
  np.testing.assert_allclose(actual, y, rtol=1e-4, atol=1e-4)
  assert stem.enlargement == 4


def test_enlarging_commutes_with_the_difference():
  late = enlarge(difference(F_X, F_REF), 8)
  early = difference(
    enlarge(F_X, 8), enlarge(F_REF.reshape(12, 2, 4, 5), 8).reshape(3, 4, 16, 32, 5)
  )
  np.testing.assert_array_equal(late, early)
  rows, columns = np.arange(16) // 8, np.arange(32) // 8
  np.testing.assert_array_equal(enlarge(F_X, 8), F_X[:, rows][:, :, columns])


def test_activations_keep_their_size_at_the_start():
  # Without activations a gain of 2 per layer would give 128 times the variance.
  stem = models.VGGStem(stages=((16,) * 7,))
  x = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
  variables = jax.jit(functools.partial(stem.init, running=True))(jax.random.key(0), x)
  assert 0.3 < float(stem.apply(variables, x, running=True).std()) < 1.5


def test_published_stack():
  stem = models.VGGStem()
  x = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
  y, variables = jax.eval_shape(
    lambda x: stem.init_with_output(jax.random.key(0), x, running=True), x
  )
  assert y.shape == (1, 32, 32, 256)
  assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 1_735_488


@pytest.mark.parametrize(
  ('stem', 'sentence'),
  [
    (models.SiameseStem((4, 4), (1,)), 'channels has 2 entries and strides 1'),
    (models.SiameseStem((), ()), 'at least one convolution'),
    (models.VGGStem(stages=((4,), (4,))), 'images are 6x8 pixels; .* needs multiples of 4'),
  ],
)
def test_rejects_bad_stem(stem, sentence):
  with pytest.raises(ValueError, match=sentence):
    jax.eval_shape(lambda x: stem.init(jax.random.key(0), x, running=True), jnp.zeros((1, 6, 8, 3)))


@pytest.mark.parametrize(
  ('shape', 'nearest', 'sentence'),
  [
    ((2, 4, 2, 4, 5), None, r'references of shape \(2, 4, 2, 4, 5\) do not fit images of shape'),
    ((4, 2, 5, 5), None, 'do not fit'),
    ((2, 4, 5), None, 'do not fit'),
    ((0, 2, 4, 5), None, 'there is no reference'),
    ((4, 2, 4, 5), 0, 'nearest is 0; it must be at least 1'),
  ],
)
def test_rejects_bad_references(shape, nearest, sentence):
  with pytest.raises(ValueError, match=sentence):
    difference(jnp.asarray(F_X), jnp.zeros(shape), nearest=nearest)
