"""The losses of a two-stage detector."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdefect import losses
from jaxdefect.ops import AnchorTargets, RegionTargets


def test_proposal_loss_by_hand():
  targets = AnchorTargets(
    indices=jnp.array([2, 0, 0]),
    positive=jnp.array([True, False, False]),
    deltas=jnp.array([[1.0, 0, 0, 0], [9, 9, 9, 9], [9, 9, 9, 9]]),
    valid=jnp.array([True, True, False]),
  )
  objectness, deltas = jnp.array([0.0, 5.0, 0.0]), jnp.zeros((3, 4))
  score, box = losses.proposal_loss(objectness, deltas, targets)
  np.testing.assert_allclose(score, np.log(2), rtol=1e-6)
  np.testing.assert_allclose(box, (1 - 0.5 / 9) / 2, rtol=1e-6)  # smooth L1 of 1, over two anchors


def regions(labels, positive, valid):
  n = len(labels)
  return RegionTargets(
    boxes=jnp.zeros((n, 4)),
    label=jnp.array(labels),
    deltas=jnp.ones((n, 4)),
    positive=jnp.array(positive),
    valid=jnp.array(valid),
  )


def test_region_loss_takes_the_box_of_the_class():
  targets = regions([2, 0], [True, False], [True, True])
  deltas = jnp.zeros((2, 12)).at[0, 8:].set(1.0)  # class 2 is right, the others are not
  classes, box = losses.region_loss(jnp.zeros((2, 3)), deltas, targets)
  np.testing.assert_allclose(classes, np.log(3), rtol=1e-6)
  assert box == 0
  _, shared = losses.region_loss(jnp.zeros((2, 3)), jnp.zeros((2, 4)), targets)
  np.testing.assert_allclose(shared, 4 * (1 - 0.5 / 9) / 2, rtol=1e-6)


def test_weights_act_by_class():
  targets = regions([2, 0], [True, False], [True, True])
  classes, _ = losses.region_loss(
    jnp.zeros((2, 3)), jnp.zeros((2, 4)), targets, class_weights=jnp.array([1.0, 1.0, 4.0])
  )
  np.testing.assert_allclose(classes, np.log(3) * 5 / 2, rtol=1e-6)


def test_padding_is_invisible():
  logits = jnp.array([[0.3, 1.0, -2.0], [0.1, 0.2, 0.3]])
  short = losses.region_loss(
    logits, jnp.zeros((2, 4)), regions([2, 0], [True, False], [True, True])
  )
  long = losses.region_loss(
    jnp.concatenate([logits, jnp.full((1, 3), 7.0)]),
    jnp.full((3, 4), 5.0).at[:2].set(0.0),
    regions([2, 0, 0], [True, False, False], [True, True, False]),
  )
  np.testing.assert_allclose(long, short, rtol=1e-6)


def test_an_empty_sample_costs_nothing_and_has_a_finite_gradient():
  targets = regions([0, 0], [False, False], [False, False])

  def total(logits):
    return sum(losses.region_loss(logits, jnp.zeros((2, 4)), targets))

  value, gradient = jax.value_and_grad(total)(jnp.zeros((2, 3)))
  assert value == 0
  np.testing.assert_array_equal(gradient, 0)
