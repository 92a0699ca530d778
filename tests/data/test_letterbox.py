"""A letterboxed picture keeps its proportions, and one scale maps all its coordinates exactly."""

import numpy as np
import pytest

from jaxdefect.data import decode
from jaxdefect.data.letterbox import GRAY, letterbox


def _noise(height, width, channels=1):
  return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_a_picture_of_the_canvas_shape_is_resized_alone():
  image = _noise(20, 20, 3)
  fit = letterbox(image, (32, 32))
  np.testing.assert_array_equal(fit.image, decode.resize(image, (32, 32)))
  assert fit.size.tolist() == [32, 32]
  assert fit.scale == np.float32(1.6)
  assert fit.image.dtype == np.uint8
  assert fit.size.dtype == fit.scale.dtype == np.float32
  same = letterbox(image, (20, 20))
  np.testing.assert_array_equal(same.image, image)
  assert same.scale == 1


@pytest.mark.parametrize(
  ('shape', 'canvas', 'size', 'scale'),
  [
    ((10, 20), (40, 40), (20, 40), 2.0),
    ((20, 10), (40, 40), (40, 20), 2.0),
    ((20, 20), (40, 60), (40, 40), 2.0),
    ((30, 40), (15, 30), (15, 20), 0.5),
    ((3, 7), (14, 14), (6, 14), 2.0),
  ],
)
def test_value_by_hand(shape, canvas, size, scale):
  image = _noise(*shape) // 2  # darker than the gray around it, so the two can be told apart
  image = np.where(image == GRAY, GRAY - 1, image).astype(np.uint8)
  fit = letterbox(image, canvas)
  assert fit.image.shape == (*canvas, 3)
  assert tuple(fit.size.tolist()) == size
  assert fit.scale == scale
  np.testing.assert_array_equal(fit.image[: size[0], : size[1]], decode.resize(image, size))
  assert (fit.image[size[0] :] == GRAY).all()
  assert (fit.image[:, size[1] :] == GRAY).all()


@pytest.mark.parametrize(
  ('shape', 'canvas'), [((37, 53), (64, 64)), ((53, 37), (64, 96)), ((61, 50), (23, 40))]
)
def test_both_axes_have_the_same_scale(shape, canvas):
  """A ramp shows where each pixel of the canvas looks; a plain resize would be off by up to half
  a pixel at the far end."""
  ramp = np.stack(np.broadcast_arrays(
    np.arange(shape[0])[:, None] * 4, np.arange(shape[1])[None, :] * 4, 0
  ), axis=-1).astype(np.uint8)  # fmt: skip
  fit = letterbox(ramp, canvas)
  inner = [int(np.floor(side)) for side in fit.size]
  margin = int(np.ceil(max(1, fit.scale))) + 1
  for axis in range(2):
    edge = np.arange(inner[axis]) + 0.5
    native = 4 * (edge / fit.scale - 0.5)
    line = fit.image[:, 0, 0] if axis == 0 else fit.image[0, :, 1]
    inside = slice(margin, inner[axis] - margin)
    # Rounding to bytes alone.
    assert np.abs(line[: inner[axis]] - native)[inside].max() < 0.6


def test_size_is_the_scaled_picture_and_bounds_what_is_painted():
  fit = letterbox(np.full((37, 53, 1), 7, np.uint8), (64, 64))
  np.testing.assert_array_equal(fit.size, np.float32([37, 53]) * fit.scale)
  painted = (fit.image[..., 0] == 7).sum(axis=0).max(), (fit.image[..., 0] == 7).sum(axis=1).max()
  assert painted == tuple(int(np.ceil(side)) for side in fit.size)


def test_a_sliver_keeps_one_pixel():
  fit = letterbox(np.full((1000, 1, 1), 7, np.uint8), (32, 32))
  assert (fit.image[..., 0] == 7).sum(axis=1).tolist() == [1] * 32
  assert fit.size == pytest.approx([32, 0.032])


def test_nearest_keeps_levels():
  fit = letterbox(_noise(9, 14) // 128 * 255, (40, 40), interpolation='nearest')
  assert set(np.unique(fit.image)) == {0, GRAY, 255}


def test_rejects_what_is_no_image():
  with pytest.raises(ValueError, match='uint8'):
    letterbox(np.zeros((4, 4, 1), np.float32), (8, 8))
  with pytest.raises(ValueError, match='must have pixels'):
    letterbox(np.zeros((0, 4, 1), np.uint8), (8, 8))
  with pytest.raises(ValueError, match='interpolation must be one of'):
    letterbox(_noise(4, 4), (8, 8), interpolation='cubic')
