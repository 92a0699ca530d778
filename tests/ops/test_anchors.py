"""Anchors of a pyramid."""

import numpy as np
import pytest

from jaxdefect import ops


def test_matches_golden(golden_dir):
  golden = np.load(golden_dir / 'boxes.npz')
  sides = [int(side) for side in golden['feature_sizes']]
  anchors = ops.grid_anchors(
    [(side, side) for side in sides],
    strides=[160 // side for side in sides],
    sizes=golden['anchor_sizes'],
    ratios=golden['anchor_ratios'],
  )
  assert anchors.dtype == np.float32
  np.testing.assert_array_equal(anchors, golden['anchors_160'])


def test_value_by_hand():
  anchors = ops.grid_anchors([(1, 2), (1, 1)], strides=[4, 8], sizes=[8, 32], ratios=[1.0, 4.0])
  expected = [
    *([-4, -4, 4, 4], [-2, -8, 2, 8]),  # level 0, column 0: ratio 1, then 4 (height / width)
    *([0, -4, 8, 4], [2, -8, 6, 8]),
    *([-16, -16, 16, 16], [-8, -32, 8, 32]),
  ]
  np.testing.assert_array_equal(anchors, expected)


def test_order_is_row_column_ratio_size():
  anchors = ops.grid_anchors([(3, 5)], strides=[10], sizes=[(8, 16)], ratios=[0.5, 1.0])
  grid = anchors.reshape(3, 5, 2, 2, 4)  # [row, column, ratio, size, 4]
  centre = (grid[..., :2] + grid[..., 2:]) / 2
  np.testing.assert_array_equal(centre[2, 3, 1, 0], [30, 20])
  width, height = np.moveaxis(grid[..., 2:] - grid[..., :2], -1, 0)
  assert (width[:, :, 0] > height[:, :, 0]).all()  # ratio 0.5 is flat
  np.testing.assert_array_equal(width[0, 0, 1], [8, 16])


def test_no_cells():
  assert ops.grid_anchors([(0, 3)], strides=[4], sizes=[8], ratios=[1.0]).shape == (0, 4)
  assert ops.grid_anchors([], strides=[], sizes=[], ratios=[1.0]).shape == (0, 4)


def test_rejects_bad_levels():
  with pytest.raises(ValueError, match='one entry for each of the 2 feature_sizes'):
    ops.grid_anchors([(2, 2), (1, 1)], strides=[4], sizes=[8, 16], ratios=[1.0])
  with pytest.raises(ValueError, match='ratios must be positive'):
    ops.grid_anchors([(2, 2)], strides=[4], sizes=[8], ratios=[-1.0])
  with pytest.raises(ValueError, match='sizes must be positive'):
    ops.grid_anchors([(2, 2)], strides=[4], sizes=[(8, 0)], ratios=[1.0])
