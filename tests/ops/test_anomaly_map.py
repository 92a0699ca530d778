"""Smooth anomaly maps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxdefect import ops


def maps(*shape):
  return np.random.default_rng(0).uniform(0, 5, shape).astype(np.float32)


def test_enlargement_by_hand():
  # Centres at one half: pixels 1 and 2 of 4 lie a quarter from the two places' centres.
  got = ops.smooth_map(np.array([[[0, 4]]], np.float32), size=(1, 4), sigma=0.0)
  np.testing.assert_allclose(got, [[[0, 1, 3, 4]]], atol=1e-6)


@pytest.mark.parametrize('sigma', [1.0, 4.0])
def test_smoothing_matches_scipy(sigma):
  values = maps(2, 20, 13)
  got = ops.smooth_map(values, size=(20, 13), sigma=sigma)
  expected = [ndimage.gaussian_filter(m.astype(np.float64), sigma) for m in values]
  np.testing.assert_allclose(got, expected, atol=1e-5)


def test_enlargement_matches_jax_image():
  values = maps(2, 5, 6)
  got = ops.smooth_map(values, size=(17, 24), sigma=0.0)
  expected = jax.image.resize(values, (2, 17, 24), 'bilinear')
  np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_constant_map_stays_and_the_mean_is_kept():
  np.testing.assert_allclose(ops.smooth_map(np.full((1, 3, 4), 2.5), size=(12, 16)), 2.5, rtol=1e-6)
  values = maps(1, 4, 4)
  got = ops.smooth_map(values, size=(16, 16), sigma=3.0)  # wider than the image: mirrored twice
  np.testing.assert_allclose(got.mean(), values.mean(), rtol=1e-5)


def test_jit_matches_eager_and_dtype():
  smooth = functools.partial(ops.smooth_map, size=(12, 8), sigma=2.0)
  with jax.numpy_rank_promotion('raise'):
    values = maps(2, 3, 4)
    np.testing.assert_allclose(jax.jit(smooth)(values), smooth(values), atol=1e-5)
  assert smooth(jnp.asarray(values, jnp.bfloat16)).dtype == jnp.float32


def test_rejects_bad_numbers():
  with pytest.raises(ValueError, match='sigma must be 0 or more'):
    ops.smooth_map(maps(1, 2, 2), size=(4, 4), sigma=-1.0)
  with pytest.raises(ValueError, match='size must be at least the 2 x 3 places'):
    ops.smooth_map(maps(1, 2, 3), size=(4, 2))
