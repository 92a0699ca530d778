"""The N-pair loss against loops, and in its corners."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import losses


def drawn(n=7, dimensions=3):
  z = np.random.default_rng(0).normal(size=(n, dimensions)).astype(np.float32)
  return z, np.array([0, 1, 0, 2, 1, 0, 3])[:n]


def brute_force(z, labels, temperature):
  z = z / np.linalg.norm(z, axis=1, keepdims=True)
  values = []
  for anchor, label in zip(z, labels):
    terms = np.exp(z @ anchor / temperature)
    alike = [np.log(t / terms.sum()) for t, other in zip(terms, labels) if other == label]
    values.append(-np.mean(alike))
  return np.array(values)


@pytest.mark.parametrize('temperature', [0.05, 1.0])
def test_value_by_hand(temperature):
  z, labels = drawn()
  got = jax.jit(functools.partial(losses.n_pair, temperature=temperature))(z, labels)
  np.testing.assert_allclose(got, brute_force(z, labels, temperature), rtol=1e-5, atol=1e-5)


def test_an_image_alone_in_its_class_is_pushed_away():
  z, labels = drawn(2)
  step = jax.grad(lambda z: losses.n_pair(z, labels, temperature=0.5).sum())(jnp.asarray(z))

  def cosine(z):
    return float((z[0] @ z[1]) / jnp.linalg.norm(z[0]) / jnp.linalg.norm(z[1]))

  assert cosine(jnp.asarray(z) - 0.1 * step) < cosine(jnp.asarray(z))


def test_padding_is_invisible():
  z, labels = drawn()
  long = np.concatenate([z, np.full((2, 3), np.nan, np.float32)])
  long_labels, valid = np.concatenate([labels, [0, 1]]), np.arange(9) < 7

  @jax.jit
  @jax.value_and_grad
  def total(z):
    return losses.n_pair(z, long_labels, temperature=0.5, valid=valid).sum()

  value, slope = total(long)
  expected, expected_slope = jax.value_and_grad(
    lambda z: losses.n_pair(z, labels, temperature=0.5).sum()
  )(jnp.asarray(z))
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  np.testing.assert_allclose(slope[:7], expected_slope, atol=1e-5)
  np.testing.assert_array_equal(slope[7:], 0)


def test_devices_share_their_images():
  z, labels = drawn(6)
  here = functools.partial(losses.n_pair, temperature=0.5)
  expected, expected_slope = jax.value_and_grad(lambda z: here(z, labels).sum())(jnp.asarray(z))

  def total(z, labels):
    return jax.lax.psum(here(z, labels, axis_name='devices').sum(), 'devices')

  spread = jax.vmap(jax.value_and_grad(total), axis_name='devices')
  values, slope = jax.jit(spread)(z.reshape(2, 3, 3), labels.reshape(2, 3))
  np.testing.assert_allclose(values, expected, rtol=1e-5)
  # psum's transpose is a psum, so each of the two devices counts the sum of both.
  np.testing.assert_allclose(slope.reshape(6, 3), 2 * expected_slope, atol=1e-5)


@pytest.mark.parametrize('temperature', [0.0, -1.0])
def test_rejects_temperature(temperature):
  with pytest.raises(ValueError, match='temperature is'):
    losses.n_pair(*drawn(), temperature=temperature)
