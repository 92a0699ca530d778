"""Normalised pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import ops

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_value_by_hand():
  image = np.array([[[0, 255, 51]]], np.uint8)
  expected = [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
  np.testing.assert_allclose(
    ops.normalize_pixels(image, mean=MEAN, std=STD)[0, 0], expected, rtol=1e-5
  )


def test_one_number_serves_all_channels():
  image = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 3), dtype=np.uint8)
  np.testing.assert_array_equal(
    ops.normalize_pixels(image, mean=0.5, std=0.25),
    ops.normalize_pixels(image, mean=[0.5] * 3, std=[0.25] * 3),
  )


def test_jit_matches_eager_and_dtype():
  image = np.random.default_rng(0).uniform(0, 255, (2, 3, 3, 3)).astype(np.float32)
  normalize = functools.partial(ops.normalize_pixels, mean=MEAN, std=STD)
  np.testing.assert_allclose(jax.jit(normalize)(image), normalize(image), atol=1e-6)
  half = ops.normalize_pixels(image, mean=MEAN, std=STD, dtype=jnp.bfloat16)
  assert half.dtype == jnp.bfloat16
  np.testing.assert_array_equal(half, normalize(image).astype(jnp.bfloat16))


def test_rejects_bad_statistics():
  image = np.zeros((1, 2, 2, 3), np.uint8)
  with pytest.raises(ValueError, match='mean must be one number or 3 numbers'):
    ops.normalize_pixels(image, mean=(0.5, 0.5), std=0.5)
  with pytest.raises(ValueError, match='std must be positive'):
    ops.normalize_pixels(image, mean=0.5, std=0.0)
