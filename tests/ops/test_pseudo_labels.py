"""Labels that two classifiers agree on: against plain NumPy, at the threshold, without gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import ops


@pytest.mark.parametrize('confidence', [0.0, 0.6, 1.0])
def test_against_plain_loops(confidence):
  generator = np.random.default_rng(0)
  first, second = generator.normal(0, 2, (2, 200, 3)).astype(np.float32)
  labels, agreed = ops.agreed_labels(first, second, confidence=confidence)
  count = 0
  for n in range(200):
    both = [np.exp(one[n]) / np.exp(one[n]).sum() for one in (first, second)]
    named = [int(p.argmax()) for p in both]
    expected = named[0] == named[1] and min(p.max() for p in both) >= confidence
    assert bool(agreed[n]) == expected
    assert int(labels[n]) == named[0]
    count += expected
  assert (count == 0) == (confidence == 1.0)


def test_the_order_of_the_two_does_not_matter_where_they_agree():
  generator = np.random.default_rng(1)
  first, second = generator.normal(0, 2, (2, 50, 4)).astype(np.float32)
  labels, agreed = ops.agreed_labels(first, second, confidence=0.5)
  turned, also = ops.agreed_labels(second, first, confidence=0.5)
  np.testing.assert_array_equal(agreed, also)
  np.testing.assert_array_equal(labels[agreed], turned[agreed])
  assert 0 < agreed.sum() < 50


def test_a_probability_at_the_threshold_is_enough():
  even = jnp.zeros((1, 2))  # one half each, exactly
  assert bool(ops.agreed_labels(even, even, confidence=0.5)[1][0])
  assert not bool(ops.agreed_labels(even, even, confidence=0.500001)[1][0])


def test_no_gradient_passes():
  def through(scores):
    labels, agreed = ops.agreed_labels(scores, scores)
    return jnp.where(agreed, labels.astype(jnp.float32) * scores.sum(1), 0.0).sum()

  scores = jnp.array([[0.0, 1.0]])
  np.testing.assert_array_equal(jax.grad(through)(scores), [[1.0, 1.0]])


@pytest.mark.parametrize('confidence', [-0.1, 1.1])
def test_rejects_a_confidence_that_is_no_probability(confidence):
  with pytest.raises(ValueError, match=f'confidence is {confidence}; it must be in'):
    ops.agreed_labels(jnp.zeros((1, 2)), jnp.zeros((1, 2)), confidence=confidence)
