"""Moments that come batch by batch are those of everything at once."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdefect.ops.moments import Moments, deviation, merged, moments_of


def maps(n: int, first: int = 0) -> np.ndarray:
  values = np.random.default_rng(first).normal(size=(n, 2, 3, 4)) + 50.0 * first
  return values.astype(np.float32)


def test_padding_is_invisible():
  values = maps(5)
  values[3:] = np.nan
  found = jax.jit(moments_of)(values, jnp.arange(5) < 3)
  assert found.count == 3 * 6
  np.testing.assert_allclose(found.mean, values[:3].mean((0, 1, 2)), atol=1e-6)
  np.testing.assert_allclose(deviation(found), values[:3].std((0, 1, 2)), rtol=1e-5)


def test_merged_is_all_at_once():
  parts = [maps(2), maps(1, 1), maps(3, 2)]
  known = None
  for part in parts:
    known = merged(known, moments_of(jnp.asarray(part), jnp.ones(len(part), bool)))
  everything = np.concatenate(parts).astype(np.float64)
  assert known is not None
  assert known.count == 36
  np.testing.assert_allclose(known.mean, everything.mean((0, 1, 2)), rtol=1e-6)
  np.testing.assert_allclose(deviation(known), everything.std((0, 1, 2)), rtol=1e-6)
  nothing = moments_of(jnp.zeros((2, 2, 3, 4)), jnp.zeros(2, bool))
  assert merged(known, nothing) is known


def test_deviation_broadcasts_counts_and_is_one_where_nothing_deviates():
  moments = Moments(jnp.array([4, 9]), None, jnp.array([[16.0, 0.0], [9.0, 36.0]]))
  np.testing.assert_allclose(deviation(moments), [[2, 1], [1, 2]])
