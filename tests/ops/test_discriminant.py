"""Fisher's discriminant: against numpy, and what it must not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import ops


def draw(positive=5, negative=40, size=6, dtype=np.float32):
  generator = np.random.default_rng(0)
  shape = generator.normal(size=(size, size))
  features = generator.normal(size=(positive + negative, size)) @ shape
  features[:positive] += 2.0
  return features.astype(dtype), np.arange(positive + negative) < positive


def test_matches_numpy_reference():
  features, positive = draw(dtype=np.float64)
  own, rest = features[positive], features[~positive]
  spread = sum((x - x.mean(0)).T @ (x - x.mean(0)) for x in (own, rest)) / len(features)
  spread += 0.3 * np.trace(spread) / 6 * np.eye(6)
  weights = np.linalg.inv(spread) @ (own.mean(0) - rest.mean(0))
  offset = np.log(5 / 40) - weights @ (own.mean(0) + rest.mean(0)) / 2
  with jax.enable_x64(True):
    plane = ops.linear_discriminant(jnp.array(features), positive, shrinkage=0.3)
    compiled = jax.jit(ops.linear_discriminant)(jnp.array(features), positive)
    eager = ops.linear_discriminant(jnp.array(features), positive)
  np.testing.assert_allclose(plane, np.append(weights, offset), rtol=1e-9)
  np.testing.assert_allclose(compiled, eager, rtol=1e-9)


def test_what_all_share_counts_for_nothing():
  features, positive = draw()
  plane = ops.linear_discriminant(jnp.array(features), positive)
  moved = ops.linear_discriminant(jnp.array(features + 7.0), positive)
  np.testing.assert_allclose(moved[:-1], plane[:-1], rtol=2e-3)
  np.testing.assert_allclose(
    (features + 7.0) @ moved[:-1] + moved[-1], features @ plane[:-1] + plane[-1], atol=1e-2
  )


def test_order_does_not_matter():
  features, positive = draw()
  order = np.random.default_rng(1).permutation(len(features))
  plane = ops.linear_discriminant(jnp.array(features), positive)
  again = ops.linear_discriminant(jnp.array(features[order]), positive[order])
  np.testing.assert_allclose(again, plane, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('number', [1, 3])
def test_fewer_examples_than_features_and_one_sided_ones_are_finite(number):
  features = jnp.ones((number, 8)) * jnp.arange(number)[:, None]
  for positive in (np.arange(number) < 1, np.ones(number, bool)):
    assert np.isfinite(ops.linear_discriminant(features, positive)).all()


def test_rejects_bad_arguments():
  features, positive = draw()
  with pytest.raises(ValueError, match='shrinkage is 0; it must be larger than 0'):
    ops.linear_discriminant(jnp.array(features), positive, shrinkage=0)
  with pytest.raises(AssertionError):
    ops.linear_discriminant(jnp.array(features), positive[1:])
