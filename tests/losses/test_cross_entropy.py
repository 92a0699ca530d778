"""Label-weighted, smoothed cross-entropy by hand and in its corners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import losses


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('weights', [None, [1.0, 2.0, 0.5]])
def test_value_by_hand(weights, smoothing):
  logits = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
  labels = np.array([0, 2, 1, 1])
  log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  q = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
  expected = -(q * log_p).sum(1) * (1 if weights is None else np.array(weights)[labels])
  got = losses.softmax_cross_entropy(
    jnp.array(logits),
    jnp.array(labels),
    class_weights=None if weights is None else jnp.array(weights),
    label_smoothing=smoothing,
  )
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_gradient_matches_numeric():
  with jax.enable_x64(True):
    logits = jnp.array(np.random.default_rng(1).normal(size=(4, 3)))
    labels = jnp.array([0, 2, 1, 1])
    weights = jnp.array([1.0, 3.0, 0.2])
    loss = jax.jit(
      lambda x: losses.softmax_cross_entropy(x, labels, class_weights=weights, label_smoothing=0.1)
    )
    jax.test_util.check_grads(loss, (logits,), order=1, modes=['rev'])


def test_corners_are_finite():
  one_class = losses.softmax_cross_entropy(jnp.ones((2, 1)), jnp.array([0, 0]))
  np.testing.assert_array_equal(one_class, 0)
  huge = losses.softmax_cross_entropy(jnp.array([[1e30, -1e30]]), jnp.array([0]))
  np.testing.assert_array_equal(huge, 0)
  ruled_out = jnp.array([[0.0, -jnp.inf]])
  value, grad = jax.value_and_grad(lambda x: losses.softmax_cross_entropy(x, jnp.array([0]))[0])(
    ruled_out
  )
  assert value == 0
  assert jnp.all(jnp.isfinite(grad))
  assert losses.softmax_cross_entropy(jnp.zeros((0, 3)), jnp.zeros(0, int)).shape == (0,)


def test_half_precision_is_raised():
  values = losses.softmax_cross_entropy(jnp.ones((1, 3), jnp.float16), jnp.array([0]))
  assert values.dtype == jnp.float32


def test_rejects_bad_arguments():
  logits, labels = jnp.ones((2, 3)), jnp.array([0, 1])
  with pytest.raises(AssertionError):
    losses.softmax_cross_entropy(logits, labels[:1])
  with pytest.raises(AssertionError):
    losses.softmax_cross_entropy(logits, labels, class_weights=jnp.ones(2))
  with pytest.raises(ValueError, match='label_smoothing is 1'):
    losses.softmax_cross_entropy(logits, labels, label_smoothing=1)
