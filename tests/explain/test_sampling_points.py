"""Sampling points agree with the operator that uses them, and land in the picture."""

import numpy as np
import pytest

from jaxdefect.explain import sampling_points
from jaxdefect.ops.deform_conv import deform_conv2d


def test_value_by_hand():
  offsets = np.zeros((4, 5, 18))
  offsets[2, 3, 8:10] = (0.5, -0.25)  # the middle tap
  points = sampling_points.sampling_points(offsets, (2, 3), input_stride=8)
  assert points.shape == (1, 9, 2)
  np.testing.assert_allclose(points[0, 0], (8.5, 16.5))
  np.testing.assert_allclose(points[0, 4], (16.5 + 4, 24.5 - 2))
  np.testing.assert_allclose(points[0, 8], (24.5, 32.5))


@pytest.mark.parametrize(('groups', 'stride', 'padding', 'dilation'), [(1, 1, 1, 1), (2, 2, 2, 2)])
def test_points_are_those_that_the_operator_reads(groups, stride, padding, dilation):
  # Pixels that hold their own coordinates: each tap alone returns where it looked.
  rows, columns = 3, 2
  generator = np.random.default_rng(0)
  pixels = np.stack(np.mgrid[:20, :24], axis=-1).astype(np.float32)  # [H, W, 2]
  x = np.tile(pixels, groups)[None]
  height = (20 + 2 * padding - dilation * (rows - 1) - 1) // stride + 1
  width = (24 + 2 * padding - dilation * (columns - 1) - 1) // stride + 1
  offsets = generator.uniform(-0.9, 0.9, (1, height, width, 2 * groups * rows * columns))
  offsets = offsets.astype(np.float32)
  cell = (3, 4)
  points = sampling_points.sampling_points(
    offsets[0],
    cell,
    input_stride=4,
    kernel_size=(rows, columns),
    stride=stride,
    padding=padding,
    dilation=dilation,
  )
  assert points.shape == (groups, rows * columns, 2)
  for tap in (0, 1, 4, 5):
    kernel = np.zeros((rows, columns, 2 * groups, 2 * groups), np.float32)
    kernel[tap // columns, tap % columns] = np.eye(2 * groups)
    read = deform_conv2d(x, offsets, kernel, stride=stride, padding=padding, dilation=dilation)
    expected = np.asarray(read)[0][cell].reshape(groups, 2) * 4 + 0.5
    np.testing.assert_allclose(points[:, tap], expected, rtol=1e-4)


def test_cells_cover_the_box():
  cells = sampling_points.cells_in_box((16, 40, 64, 72), (12, 12), output_stride=8, limit=2)
  assert cells == [(6, 3), (6, 6), (8, 3), (8, 6)]
  tiny = sampling_points.cells_in_box((41, 41, 43, 43), (12, 12), output_stride=8)
  assert tiny == [(5, 5)]
  outside = sampling_points.cells_in_box((90, 0, 200, 8), (12, 12), output_stride=8)
  assert all(0 <= y < 12 and 0 <= x < 12 for y, x in outside)


def test_lengths_by_hand():
  offsets = np.zeros((1, 2, 4))
  offsets[0, 0] = (3, 4, 0, 0)
  offsets[0, 1] = (0, 10, 0, 10)
  lengths = sampling_points.offset_lengths(offsets)
  assert lengths['mean'] == pytest.approx(6.25)
  assert lengths['median'] == pytest.approx(7.5)
  assert lengths['max'] == pytest.approx(10)
  inside = np.array([[True, False]])
  half = sampling_points.offset_lengths(offsets, input_stride=2, inside=inside)
  assert half['mean'] == pytest.approx(5)
  assert sampling_points.offset_lengths(offsets, inside=~inside & inside) == {}


def test_drawing_marks_points_and_leaves_the_rest():
  image = np.full((60, 60), 128, np.uint8)
  centers, points = np.array([[30.0, 30.0]]), np.array([[[10.0, 50.0], [-5.0, 30.0]]])
  drawn = sampling_points.draw(image, centers, points, min_side=240)
  assert drawn.shape == (240, 240, 3)
  changed = (drawn != 128).any(axis=-1)
  assert changed[4 * 10, 4 * 50]
  assert changed[4 * 30, 4 * 30]
  assert not changed[:20].any()  # the point outside of the picture is not drawn
  assert not changed[150:].any()
  np.testing.assert_array_equal(drawn, sampling_points.draw(image, centers, points, min_side=240))
  # A larger mask is a larger disc.
  light, heavy = (
    (sampling_points.draw(image, centers, points, weights=np.full((1, 2), w)) != 128).sum()
    for w in (0.1, 2.0)
  )
  assert light < heavy


def test_box_is_drawn():
  image = np.full((60, 60, 3), 128, np.uint8)
  drawn = sampling_points.draw(image, np.zeros((0, 2)), np.zeros((0, 9, 2)), box=(10, 20, 50, 40))
  assert (drawn[8 * 20, 8 * 30] > 200).all()
  assert (drawn[8 * 30, 8 * 30] == 128).all()


def test_rejects_what_does_not_fit():
  with pytest.raises(ValueError, match='18'):
    sampling_points.sampling_points(np.zeros((4, 4, 20)), (0, 0), input_stride=1)
  with pytest.raises(ValueError, match='cell'):
    sampling_points.sampling_points(np.zeros((4, 4, 18)), (4, 0), input_stride=1)
  with pytest.raises(AssertionError):
    sampling_points.sampling_points(np.zeros((1, 4, 4, 18)), (0, 0), input_stride=1)
  image, centers, points = np.zeros((8, 8)), np.zeros((1, 2)), np.zeros((1, 9, 2))
  with pytest.raises(ValueError, match='weights has 4 entries for 9'):
    sampling_points.draw(image, centers, points, weights=np.ones((1, 4)))
