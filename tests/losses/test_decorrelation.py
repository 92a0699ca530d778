"""Correlations between the entries of descriptors."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdefect.losses import mean_square_correlation


def test_matches_numpy_reference_and_ignores_padding():
  x = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
  x[:, 1] += x[:, 0]
  x[9:] = np.nan
  correlation = np.corrcoef(x[:9].T)
  expected = np.square(correlation[~np.eye(4, dtype=bool)]).mean()
  actual = jax.jit(mean_square_correlation)(x, valid=jnp.arange(12) < 9)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_constant_entries_and_empty_batches_have_a_finite_gradient():
  def value(x, valid):
    return mean_square_correlation(x, valid=valid)

  x = jnp.array([[1.0, 2.0, 0.5], [1.0, 3.0, 0.1], [1.0, 7.0, 0.2]])
  for valid in (jnp.ones(3, bool), jnp.zeros(3, bool)):
    slope = jax.grad(value)(x, valid)
    assert np.isfinite(slope).all()
  assert np.abs(jax.grad(value)(x, jnp.ones(3, bool))).max() > 0
