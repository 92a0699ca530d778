"""Losses of boxes and objectness by hand, in their corners, and class weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import losses


def test_smooth_l1_by_hand():
  difference = np.array([0.0, 0.05, -0.1, 0.2, -5.0])
  values = losses.smooth_l1(jnp.array(difference + 3), jnp.full(5, 3.0))
  expected = [0, 4.5 * 0.05**2, 4.5 * 0.1**2, 0.2 - 1 / 18, 5 - 1 / 18]
  np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-7)
  plain = losses.smooth_l1(jnp.array(difference), jnp.zeros(5), beta=0)
  np.testing.assert_allclose(plain, np.abs(difference), rtol=1e-6)


def test_smooth_l1_slope_is_bounded_and_continuous():
  slope = jax.vmap(jax.grad(lambda d: losses.smooth_l1(d, jnp.zeros_like(d))))
  distance = jnp.array([0.0, 1 / 18, 1 / 9 - 1e-6, 1 / 9 + 1e-6, 1e30, -1e30])
  np.testing.assert_allclose(slope(distance), [0, 0.5, 1, 1, 1, -1], atol=1e-4)


def test_sigmoid_cross_entropy_by_hand():
  logits = np.array([-3.0, 0.0, 2.0, 2.0])
  targets = np.array([0.0, 1.0, 1.0, 0.3])
  p = 1 / (1 + np.exp(-logits))
  expected = -targets * np.log(p) - (1 - targets) * np.log(1 - p)
  values = losses.sigmoid_cross_entropy(jnp.array(logits), jnp.array(targets))
  np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_sigmoid_cross_entropy_of_large_logits_is_finite():
  logits = jnp.array([1e4, -1e4, 1e4, -1e4])
  targets = jnp.array([True, True, False, False])
  value_and_slope = jax.vmap(jax.value_and_grad(losses.sigmoid_cross_entropy))
  values, slopes = value_and_slope(logits, targets)
  np.testing.assert_allclose(values, [0, 1e4, 1e4, 0])
  np.testing.assert_allclose(slopes, [0, -1, 1, 0])


def test_gradient_matches_numeric():
  with jax.enable_x64(True):
    x = jnp.array([[0.03, -0.07, 0.5], [-2.0, 0.01, 0.3]])
    t = jnp.array([[0.0, 0.0, 1.0], [0.0, 0.5, 1.0]])
    for loss in (losses.smooth_l1, losses.sigmoid_cross_entropy):
      jax.test_util.check_grads(loss, (x, t), order=1, modes=['rev'])


@pytest.mark.parametrize('loss', [losses.smooth_l1, losses.sigmoid_cross_entropy])
def test_types_and_jit_matches_eager(loss):
  x = jnp.linspace(-1, 1, 6).reshape(2, 3)
  np.testing.assert_allclose(jax.jit(loss)(x, x**2), loss(x, x**2), rtol=1e-5)
  assert loss(x.astype(jnp.bfloat16), x.astype(jnp.bfloat16)).dtype == jnp.float32
  with jax.enable_x64(True):
    assert loss(jnp.ones(2, jnp.float64), jnp.ones(2, jnp.float32)).dtype == jnp.float64
  assert loss(jnp.zeros((0, 4)), jnp.zeros((0, 4))).shape == (0, 4)


def test_balance_weights_by_hand():
  np.testing.assert_allclose(losses.balance_weights([300, 80, 150]), [1, 3.75, 2])
  np.testing.assert_allclose(losses.balance_weights(jnp.array([0, 4, 1])), [1, 1, 4])
  np.testing.assert_allclose(losses.balance_weights(np.zeros(2, int)), [1, 1])
  assert losses.balance_weights(()).shape == (0,)


def test_balanced_classes_count_the_same():
  counts = np.array([10, 3, 7])
  labels = np.repeat(np.arange(3), counts)
  weights = losses.balance_weights(counts)
  values = losses.softmax_cross_entropy(
    jnp.zeros((labels.size, 3)), jnp.array(labels), class_weights=weights
  )
  total = [values[labels == c].sum() for c in range(3)]
  np.testing.assert_allclose(total, np.full(3, total[0]), rtol=1e-5)


def test_rejects_bad_arguments():
  with pytest.raises(AssertionError):
    losses.smooth_l1(jnp.zeros((2, 4)), jnp.zeros(4))
  with pytest.raises(AssertionError):
    losses.sigmoid_cross_entropy(jnp.zeros((2, 4)), jnp.zeros(4))
  with pytest.raises(AssertionError):
    losses.balance_weights(jnp.zeros((2, 2)))
  with pytest.raises(ValueError, match='beta is -1; it must be 0 or more'):
    losses.smooth_l1(jnp.zeros(2), jnp.zeros(2), beta=-1)
