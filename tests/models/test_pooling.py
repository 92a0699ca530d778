"""The max pooling of the stem equals XLA's, ties and odd sides included."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect.models import global_average_pool, max_pool


def reference(x):
  return nn.max_pool(x, (3, 3), strides=(2, 2), padding=[(1, 1), (1, 1)])


@pytest.mark.parametrize('size', [(6, 8), (7, 5), (1, 2)])
def test_matches_reduce_window_with_ties(size):
  random = np.random.default_rng(0)
  # Few distinct values: most windows have ties.
  x = jnp.asarray(random.integers(0, 3, (2, *size, 3)), jnp.float32)
  actual, pull_actual = jax.vjp(max_pool, x)
  expected, pull_expected = jax.vjp(reference, x)
  np.testing.assert_array_equal(actual, expected)
  g = jnp.asarray(random.normal(size=actual.shape), jnp.float32)
  np.testing.assert_allclose(pull_actual(g)[0], pull_expected(g)[0], rtol=1e-6, atol=1e-6)


def test_second_order_matches_reduce_window():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, 6, 2)), jnp.float32)

  def second(pool):
    first = jax.grad(lambda x: jnp.sum(jnp.sin(pool(x))))
    return jax.grad(lambda x: jnp.sum(first(x) ** 2))(x)

  np.testing.assert_allclose(second(max_pool), second(reference), rtol=1e-5, atol=1e-6)


def test_not_a_number_wins():
  x = jnp.zeros((1, 4, 4, 1)).at[0, 0, 0, 0].set(jnp.nan)
  np.testing.assert_array_equal(jnp.isnan(max_pool(x))[0, :, :, 0], [[True, False], [False, False]])


def test_average_is_float32():
  x = jnp.full((1, 40, 40, 1), 1.0078125, jnp.bfloat16)
  features = global_average_pool(x)
  assert features.dtype == jnp.float32
  np.testing.assert_allclose(features, [[1.0078125]], rtol=1e-6)
