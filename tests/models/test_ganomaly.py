"""GANomaly's networks: their published sizes, the decoder by hand, and what they refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models


@functools.cache
def made():
  """A small generator, its variables and images."""
  module = models.Generator(latent=5, width=3)
  x = jax.random.uniform(jax.random.key(1), (3, 16, 16, 2), minval=-1.0)
  variables = jax.jit(functools.partial(module.init, running=True))(jax.random.key(0), x)
  return module, variables, x


def normalised(x):
  """BatchNorm at its start, with the running statistics."""
  return x / np.sqrt(1 + 1e-5)


def encoded(params, x):
  """Two halvings in numpy."""
  y = models.conv2d(x, params['conv.0']['kernel'], stride=2, padding=1)
  y = jnp.where(y > 0, y, 0.2 * y)
  y = normalised(models.conv2d(y, params['conv.1']['kernel'], stride=2, padding=1))
  y = jnp.where(y > 0, y, 0.2 * y)
  # A convolution whose window is the whole map.
  kernel = params['latent']['kernel'].reshape(4, 4, y.shape[-1], -1)
  return models.conv2d(y, kernel)[:, 0, 0]


def test_value_by_hand():
  module, variables, x = made()
  params = variables['params']
  z = encoded(params['encoder'], x)
  decoder = params['decoder']
  # A transposed convolution from one pixel to a map of its window's size.
  kernel = decoder['map']['kernel'].reshape(5, 4, 4, -1).transpose(1, 2, 3, 0)
  y = models.conv_transpose2d(z[:, None, None], kernel)
  for k in range(2):
    y = jnp.maximum(normalised(y), 0)
    y = models.conv_transpose2d(y, decoder[f'up.{k}']['kernel'], stride=2, padding=1)
  image = jnp.tanh(y)
  actual = jax.jit(functools.partial(module.apply, running=True))(variables, x)
  np.testing.assert_allclose(actual.latent, z, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(actual.image, image, rtol=1e-4, atol=1e-6)
  again = encoded(params['encoder_again'], image)
  np.testing.assert_allclose(actual.latent_again, again, rtol=1e-4, atol=1e-8)
  assert float(jnp.abs(again).max()) > 0


def test_published_sizes():
  x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)

  def count(module):
    _, variables = jax.eval_shape(
      lambda x: module.init_with_output(jax.random.key(0), x, running=True), x
    )
    return sum(leaf.size for leaf in jax.tree.leaves(variables['params']))

  down = 16 * (3 * 64 + 64 * 128 + 128 * 256) + 2 * (128 + 256)
  up = 16 * (100 * 256 + 256 * 128 + 128 * 64 + 64 * 3) + 2 * (256 + 128 + 64)
  assert count(models.Generator()) == 2 * (down + 16 * 256 * 100) + up
  assert count(models.Discriminator()) == down + 16 * 256


def test_judges_images_one_by_one():
  x = jax.random.normal(jax.random.key(0), (3, 8, 8, 3))
  module = models.Discriminator(width=4)
  judgement, variables = module.init_with_output(jax.random.key(1), x, running=True)
  assert judgement.logit.shape == (3,)
  assert judgement.features.shape == (3, 4, 4, 4)
  alone = module.apply(variables, x[1:2], running=True)
  np.testing.assert_allclose(alone.logit, judgement.logit[1:2], rtol=1e-5, atol=1e-7)


def test_padding_is_invisible():
  module, variables, x = made()
  run = jax.jit(functools.partial(module.apply, running=False, mutable=['batch_stats']))
  expected, expected_update = run(variables, x[:2])
  actual, update = run(variables, x.at[2].set(9.0), valid=jnp.array([True, True, False]))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(lambda a, b: close(a[:2], b), actual, expected)
  jax.tree.map(close, update, expected_update)


@pytest.mark.parametrize('size', [(16, 8), (4, 4), (24, 24)])
def test_rejects_sizes(size):
  with pytest.raises(ValueError, match=f'the images are {size[0]}x{size[1]}; GANomaly takes'):
    jax.eval_shape(
      lambda x: models.Generator().init(jax.random.key(0), x, running=True),
      jnp.zeros((1, *size, 3)),
    )
