"""Sampled anchors and regions with their targets."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdefect import ops

BOXES = jnp.array([[0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 0, 0.0]])
VALID = jnp.array([True, True, False])
KEY = jax.random.key(0)


def test_anchors_by_hand():
  anchors = jnp.array([[0, 0, 10, 10], [0, 0, 30, 30], [25, 25, 45, 45], [60, 60, 70, 70.0]])
  targets = ops.anchor_targets(KEY, anchors, BOXES, VALID, num=4)
  kinds = dict(zip(targets.indices.tolist(), targets.positive.tolist()))
  # The second box has no anchor above 0.7: its best one (IoU 225/575) is positive all the same.
  assert kinds == {0: True, 1: False, 2: True, 3: False}
  assert targets.valid.all()
  row = targets.indices.tolist().index(2)
  decoded = ops.decode_boxes(targets.deltas[row], anchors[2], (1.0, 1.0, 1.0, 1.0))
  np.testing.assert_allclose(decoded, BOXES[1], atol=1e-5)


def test_without_boxes_all_anchors_are_negative():
  anchors = jnp.array([[0, 0, 10, 10], [0, 0, 30, 30.0]])
  targets = ops.anchor_targets(KEY, anchors, BOXES, jnp.zeros(3, bool), num=4)
  assert not targets.positive.any()
  assert targets.valid.tolist() == [True, True, False, False]
  np.testing.assert_array_equal(targets.deltas, 0)


def test_regions_by_hand():
  proposals = jnp.array([[1, 1, 11, 11], [50, 50, 60, 60], [0, 0, 9, 9.0]])
  usable = jnp.array([True, True, False])
  targets = ops.region_targets(
    KEY, proposals, usable, BOXES, jnp.array([4, 2, 0]), VALID, num=8, positive_fraction=0.5
  )
  found = sorted(
    (label, tuple(box))
    for label, box, ok in zip(targets.label.tolist(), targets.boxes.tolist(), targets.valid)
    if ok
  )
  assert found == [
    (0, (50, 50, 60, 60)),
    (3, (20, 20, 40, 40)),
    (5, (0, 0, 10, 10)),
    (5, (1, 1, 11, 11)),
  ]
  decoded = ops.decode_boxes(targets.deltas, targets.boxes, (10.0, 10.0, 5.0, 5.0))
  for label, box, ok in zip(targets.label, decoded, targets.positive):
    if ok:
      np.testing.assert_allclose(box, BOXES[0 if label == 5 else 1], atol=1e-4)


def test_a_share_of_the_sample_at_most_is_positive():
  proposals = jnp.tile(BOXES[:1], (20, 1))
  targets = ops.region_targets(
    KEY, proposals, jnp.ones(20, bool), BOXES, jnp.zeros(3, int), VALID, num=8
  )
  assert int(targets.positive.sum()) == 2
  # What is left of the sample stays empty: there is no negative.
  assert int(targets.valid.sum()) == 2


def test_padding_boxes_are_invisible():
  proposals = jnp.array([[1, 1, 11, 11], [50, 50, 60, 60], [0, 0, 9, 9.0]])
  anchors = jnp.array([[0, 0, 10, 10], [0, 0, 30, 30], [25, 25, 45, 45.0]])
  junk = BOXES.at[2].set(jnp.array([0, 0, 9, 9.0]))
  for boxes in (BOXES, junk):
    regions = ops.region_targets(
      KEY, proposals, jnp.ones(3, bool), boxes, jnp.array([1, 2, 3]), VALID, num=6
    )
    sampled = ops.anchor_targets(KEY, anchors, boxes, VALID, num=3)
    if boxes is BOXES:
      first = (regions, sampled)
  assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), first, (regions, sampled)))
