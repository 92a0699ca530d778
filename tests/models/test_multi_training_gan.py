"""The categorised GAN's networks: DCGAN's sizes, what the class and the padding change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models

LABEL = jnp.array([0, 2, 1])


@functools.cache
def generator():
  """A small generator of three classes, its variables and noise."""
  module = models.ClassGenerator(8, num_classes=3, channels=2, width=4)
  noise = jax.random.normal(jax.random.key(1), (3, 5))
  init = jax.jit(functools.partial(module.init, running=True))
  return module, init(jax.random.key(0), noise, LABEL), noise


@functools.cache
def discriminator():
  module = models.ClassDiscriminator(num_classes=3, width=4)
  x = jax.random.normal(jax.random.key(0), (3, 16, 16, 3))
  return module, jax.jit(functools.partial(module.init, running=True))(jax.random.key(1), x), x


def test_sizes_are_those_of_dcgan():
  """At 64 pixels and half its width: 4x4 windows, 512 channels at 4x4, and inputs for the class."""

  def count(module, *inputs):
    variables = jax.eval_shape(
      lambda *given: module.init(jax.random.key(0), *given, running=True), *inputs
    )
    return sum(leaf.size for leaf in jax.tree.leaves(variables['params']))

  noise = jax.ShapeDtypeStruct((2, 100), jnp.float32)
  label = jax.ShapeDtypeStruct((2,), jnp.int32)
  image = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
  up = 16 * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 3) + 2 * (512 + 256 + 128 + 64)
  first = 16 * 512 * (100 + 6)
  assert count(models.ClassGenerator(64, num_classes=6), noise, label) == first + up
  down = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 2 * (128 + 256 + 512)
  assert count(models.ClassDiscriminator(num_classes=6), image) == down + 16 * 512 * 6


def test_generator_by_hand():
  module, variables, noise = generator()
  decoder = variables['params']['decoder']
  told = np.eye(3)[np.asarray(LABEL)]
  y = np.concatenate([noise, told], axis=1) @ np.asarray(decoder['map']['kernel'])
  y = np.maximum(y.reshape(3, 4, 4, 4) / np.sqrt(1 + 1e-5), 0)
  y = models.conv_transpose2d(jnp.asarray(y), decoder['up.0']['kernel'], stride=2, padding=1)
  actual = module.apply(variables, noise, LABEL, running=True)
  assert actual.shape == (3, 8, 8, 2)
  np.testing.assert_allclose(actual, np.tanh(y), rtol=1e-4, atol=1e-6)


def test_the_class_changes_its_own_image_alone():
  module, variables, noise = generator()
  one = module.apply(variables, noise, LABEL, running=True)
  other = module.apply(variables, noise, LABEL.at[1].set(0), running=True)
  assert float(jnp.abs(other[1] - one[1]).max()) > 1e-4
  np.testing.assert_allclose(other[0], one[0], rtol=1e-5, atol=1e-7)


def test_discriminator_judges_images_one_by_one():
  module, variables, x = discriminator()
  scores = module.apply(variables, x, running=True)
  assert scores.shape == (3, 3)
  alone = module.apply(variables, x[1:2], running=True)
  np.testing.assert_allclose(alone, scores[1:2], rtol=1e-4, atol=1e-6)
  assert float(jnp.abs(scores).max()) > 1e-4


@pytest.mark.parametrize('name', ['generator', 'discriminator'])
def test_padding_is_invisible(name):
  if name == 'generator':
    module, variables, noise = generator()
    short, long = (noise[:2], LABEL[:2]), (noise.at[2].set(9.0), LABEL)
  else:
    module, variables, x = discriminator()
    short, long = (x[:2],), (x.at[2].set(9.0),)
  run = functools.partial(module.apply, running=False, mutable=['batch_stats'])
  expected, expected_update = run(variables, *short)
  actual, update = run(variables, *long, valid=jnp.array([True, True, False]))
  np.testing.assert_allclose(actual[:2], expected, rtol=1e-4, atol=1e-5)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), update, expected_update
  )
