"""Distribution focal loss by hand, its minimum, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import losses


def test_value_by_hand():
  logits = np.log([[0.1, 0.2, 0.3, 0.4]] * 4) + 5  # a constant changes nothing
  values = losses.distribution_focal(jnp.array(logits), jnp.array([1.25, 2.0, 3.0, 0.0]))
  expected = [-0.75 * np.log(0.2) - 0.25 * np.log(0.3), -np.log(0.3), -np.log(0.4), -np.log(0.1)]
  np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_what_lies_outside_counts_as_the_edge():
  logits = jnp.array([[0.3, -0.2, 1.0]] * 2)
  far = losses.distribution_focal(logits, jnp.array([-3.0, 40.0]))
  np.testing.assert_allclose(far, losses.distribution_focal(logits, jnp.array([0.0, 2.0])))


def test_the_best_distribution_has_its_mean_at_the_target():
  target = jnp.array([0.3, 4.0, 6.9])

  def step(logits, _):
    slope = jax.grad(lambda x: losses.distribution_focal(x, target).sum())(logits)
    return logits - 2.0 * slope, None

  logits, _ = jax.lax.scan(step, jnp.zeros((3, 8)), None, length=3000)
  probability = jax.nn.softmax(logits)
  np.testing.assert_allclose(probability @ jnp.arange(8.0), target, atol=0.02)
  np.testing.assert_allclose(probability[0, :2], [0.7, 0.3], atol=0.01)


def test_gradient_matches_numeric_and_is_finite_for_sure_answers():
  with jax.enable_x64(True):
    x = jnp.array(np.random.default_rng(0).normal(size=(3, 2, 5)))
    y = jnp.array([[0.2, 1.7], [3.9, 2.4], [0.0, 4.0]])
    loss = lambda x: losses.distribution_focal(x, y)  # noqa: E731
    jax.test_util.check_grads(loss, (x,), order=1, modes=['rev'])
  slope = jax.grad(lambda x: losses.distribution_focal(x, jnp.array(1.5)))(
    jnp.array([1e4, 0.0, -1e4])
  )
  assert np.isfinite(slope).all()


def test_types_and_shapes():
  half = losses.distribution_focal(jnp.zeros((2, 4, 8), jnp.bfloat16), jnp.zeros((2, 4)))
  assert (half.dtype, half.shape) == (jnp.float32, (2, 4))
  with pytest.raises(AssertionError):
    losses.distribution_focal(jnp.zeros((2, 8)), jnp.zeros((3,)))
  with pytest.raises(AssertionError):
    losses.distribution_focal(jnp.zeros(8), jnp.zeros(8))
