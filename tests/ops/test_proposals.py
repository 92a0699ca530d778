"""Region proposals and final detections of one image."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import ops

ANCHORS = jnp.array(
  [[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [0, 0, 20, 20], [40, 40, 60, 60.0]]
)
SETTINGS = {'level_sizes': (3, 2), 'num_before': 3, 'num_after': 4}


def propose(objectness, *, deltas=None, size=(50.0, 50.0), **settings):
  zeros = jnp.zeros((5, 4)) if deltas is None else deltas
  return ops.select_proposals(
    jnp.array(objectness), zeros, ANCHORS, jnp.array(size), **{**SETTINGS, **settings}
  )


def test_value_by_hand():
  boxes, valid = propose([1.0, 3.0, 0.0, 2.0, -1.0], iou_threshold=0.5)
  # Of the first two (IoU 81/119) the better one stays; the other level is not asked; the last one
  # is clipped to the picture.
  expected = [[1, 1, 11, 11], [0, 0, 20, 20], [20, 20, 30, 30], [40, 40, 50, 50]]
  np.testing.assert_allclose(boxes, expected)
  assert valid.all()


def test_boxes_that_leave_the_picture_fall_out():
  boxes, valid = propose([1.0, 3.0, 0.0, 2.0, 9.0], size=(35.0, 35.0), iou_threshold=0.5)
  assert valid.tolist() == [True, True, True, False]
  assert (boxes[:3] <= 35).all()


def test_more_proposals_than_anchors_are_padding():
  _, valid = propose([1.0, 3.0, 0.0, 2.0, -1.0], num_after=9, iou_threshold=0.9)
  assert valid.tolist() == [True] * 5 + [False] * 4


def test_no_gradient_passes():
  def total(deltas):
    return propose([1.0, 3.0, 0.0, 2.0, -1.0], deltas=deltas)[0].sum()

  np.testing.assert_array_equal(jax.grad(total)(jnp.zeros((5, 4))), 0)


def test_detections_by_hand():
  scores = jnp.array([[0.9, 0.04], [0.8, 0.6], [0.3, 0.2]])
  boxes = jnp.array([[0, 0, 10, 10], [0, 0, 10, 9], [30, 30, 40, 40.0]])[:, None]
  valid = jnp.array([True, True, False])
  found = ops.select_detections(scores, boxes, valid, num_after=3)
  # Region 1 is class 0 again (suppressed) and class 1 (kept); region 2 is padding.
  np.testing.assert_allclose(found[1], [0.9, 0.6, 0.0], rtol=1e-6)
  assert found[2].tolist() == [0, 1, 0]
  assert found[3].tolist() == [True, True, False]
  np.testing.assert_allclose(found[0], [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 0, 0]])


def test_a_box_per_class_is_the_box_of_its_class():
  scores = jnp.array([[0.2, 0.7]])
  boxes = jnp.array([[[0, 0, 10, 10], [5, 5, 9, 9.0]]])
  found = ops.select_detections(scores, boxes, jnp.array([True]), num_after=2)
  np.testing.assert_allclose(found[0], [[5, 5, 9, 9], [0, 0, 10, 10]])


def test_permuting_and_padding_regions_change_nothing():
  generator = np.random.default_rng(0)
  corner = generator.uniform(0, 40, (12, 1, 2))
  boxes = jnp.asarray(np.concatenate([corner, corner + generator.uniform(5, 20, (12, 1, 2))], -1))
  scores = jnp.asarray(generator.uniform(0, 1, (12, 3)))
  valid = jnp.ones(12, bool)
  select = jax.jit(ops.select_detections, static_argnames='num_after')
  found = select(scores, boxes, valid, num_after=8)
  order = generator.permutation(12)
  chex.assert_trees_all_close(select(scores[order], boxes[order], valid, num_after=8), found)
  padded = select(
    jnp.concatenate([scores, jnp.ones((3, 3))]),
    jnp.concatenate([boxes, jnp.zeros((3, 1, 4))]),
    jnp.arange(15) < 12,
    num_after=8,
  )
  chex.assert_trees_all_close(padded, found)


def test_rejects_levels_that_do_not_add_up():
  with pytest.raises(AssertionError):
    propose([1.0, 3.0, 0.0, 2.0, -1.0], level_sizes=(3, 3))
