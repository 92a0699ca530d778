"""Random views: exact moves of pixels, and randomness that belongs to the example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect.data.augment import random_views

WHOLE = {'crop_scale': (1.0, 1.0), 'crop_ratio': (1.0, 1.0)}
OFF = {**WHOLE, 'quarter_turns': False, 'flips': False}
KEY = jax.random.key(3)

# One compilation per setting, shared by the tests.
views = jax.jit(
  random_views,
  static_argnames=(
    'crop_scale', 'crop_ratio', 'quarter_turns', 'flips', 'angle', 'brightness', 'contrast'
  ),
)  # fmt: skip


def _image(shape=(8, 12, 12, 3)):
  return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _index(num=8):
  return np.arange(num, dtype=np.int32) * 7 + 5


@pytest.mark.parametrize('shape', [(8, 12, 12, 3), (8, 6, 11, 1)])
def test_identity_when_everything_is_off(shape):
  image = _image(shape)
  view = views(KEY, image, _index(), **OFF)
  assert view.dtype == jnp.float32
  np.testing.assert_array_equal(view, image)


# Recorded before free turns had limits and views could bend.
RECORDED = {
  'defaults': {},
  'turns_and_flips': WHOLE,
  'crop': {'crop_scale': (0.5, 1.0)},
  'angle': {'angle': 30.0, 'quarter_turns': False},
  'everything': {'crop_scale': (0.3, 0.9), 'angle': 180.0, 'brightness': 0.2, 'contrast': 0.3},
}


@pytest.mark.parametrize('name', RECORDED)
def test_matches_golden(golden_dir, name):
  """Committed results and unfinished runs depend on what is drawn."""
  with np.load(golden_dir / 'random_views.npz') as file:
    image, index, expected = file['image'], file['index'], file[name]
  if name == 'turns_and_flips':
    image = image[:, :, :6]  # square: pixels are moved and never mixed
  view = views(KEY, image, index, **RECORDED[name])
  if name == 'turns_and_flips':
    np.testing.assert_array_equal(view, expected)
  else:  # another processor may round otherwise; another draw is far away
    np.testing.assert_allclose(view, expected, atol=1e-3)


@pytest.mark.parametrize('shape', [(8, 12, 12, 3), (8, 7, 7, 1)])
def test_turns_and_flips_move_pixels_exactly(shape):
  image = _image((1, *shape[1:]))[0]
  num = 200
  view = np.asarray(views(KEY, np.tile(image, (num, 1, 1, 1)), np.arange(num), **WHOLE))
  wanted = {
    np.ascontiguousarray(np.rot90(flipped, k)).astype(np.float32).tobytes(): 0
    for k in range(4)
    for flipped in (image, image[:, ::-1])
  }
  for one in view:
    wanted[one.tobytes()] += 1  # a KeyError here is a view that is no symmetry of the square
  # All eight symmetries appear, none far from 1 in 8 (5 standard deviations).
  assert min(wanted.values()) > 2
  assert max(wanted.values()) < 49


def test_flips_of_an_oblong_image_are_exact():
  image = _image((1, 5, 9, 2))[0]
  num = 40
  view = views(KEY, np.tile(image, (num, 1, 1, 1)), np.arange(num), **WHOLE, quarter_turns=False)
  wanted = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
  found = [sum(np.array_equal(one, w) for one in np.asarray(view)) for w in wanted]
  assert sum(found) == num
  assert min(found) > 0


def test_same_key_same_view_and_other_key_other_view():
  first = views(KEY, _image(), _index())
  np.testing.assert_array_equal(first, views(KEY, _image(), _index()))
  other = views(jax.random.key(4), _image(), _index())
  assert np.abs(first - other).max(axis=(1, 2, 3)).min() > 1


def test_index_decides_and_not_the_place_in_the_batch():
  image, index = _image(), _index()
  order = np.random.default_rng(1).permutation(8)
  settings = {'angle': 20.0, 'brightness': 0.2, 'contrast': 0.2}
  np.testing.assert_array_equal(
    views(KEY, image[order], index[order], **settings),
    np.asarray(views(KEY, image, index, **settings))[order],
  )


def test_padding_is_invisible():
  image, index = _image(), _index()
  alone = views(KEY, image[:5], index[:5], contrast=0.3)
  padded = views(
    KEY, np.where(np.arange(8)[:, None, None, None] < 5, image, 0), index, contrast=0.3
  )
  np.testing.assert_allclose(padded[:5], alone, atol=1e-3)


def _ramp(num, height, width):
  """Pixels that hold their own place: channel 0 the row, channel 1 the column."""
  ramp = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing='ij'), axis=-1)
  return np.tile(ramp[None].astype(np.float32), (num, 1, 1, 1))


def _crops(num, height, width, **settings):
  """(area, aspect) of the crop behind each view, read from the ramp; and the ramp's extremes."""
  view = np.asarray(views(KEY, _ramp(num, height, width), np.arange(num), **settings))
  step_y = view[:, height // 2 + 1, width // 2] - view[:, height // 2, width // 2]  # [N, 2]
  step_x = view[:, height // 2, width // 2 + 1] - view[:, height // 2, width // 2]
  zoom_y, zoom_x = np.linalg.norm(step_y, axis=1), np.linalg.norm(step_x, axis=1)
  return zoom_y * zoom_x, zoom_x / zoom_y, view


def test_crops_cover_the_asked_areas_and_aspects():
  area, aspect, view = _crops(400, 24, 24, flips=False, quarter_turns=False)
  assert area.min() > 0.2 - 1e-4
  assert area.max() < 1 + 1e-4
  assert aspect.min() > 3 / 4 - 1e-3
  assert aspect.max() < 4 / 3 + 1e-3
  # Uniform area (the largest fit less often, so the mean lies a little under 0.6), log-aspect
  # symmetric about zero.
  assert 0.5 < area.mean() < 0.62
  assert abs(np.log(aspect).mean()) < 0.04
  # A crop of area 0.2 can lie anywhere.
  assert view.min() < 0.5
  assert view.max() > 22.5


def test_a_crop_that_cannot_fit_is_shrunk():
  area, aspect, _ = _crops(
    50, 24, 24, crop_scale=(1.0, 1.0), crop_ratio=(2.0, 2.0), flips=False, quarter_turns=False
  )
  np.testing.assert_allclose(aspect, 2.0, rtol=1e-3)
  np.testing.assert_allclose(area, 0.5, rtol=1e-3)


def test_quarter_turns_of_an_oblong_image_keep_proportions():
  area, aspect, _ = _crops(60, 10, 20, **WHOLE, flips=False)
  np.testing.assert_allclose(aspect, 1.0, rtol=1e-3)
  turned = area < 0.9
  assert 10 < turned.sum() < 50
  np.testing.assert_allclose(area[turned], 0.25, rtol=1e-3)
  np.testing.assert_allclose(area[~turned], 1.0, rtol=1e-3)


def test_free_rotation_stays_within_its_angle():
  num = 100
  view = np.asarray(views(KEY, _ramp(num, 24, 24), np.arange(num), **OFF, angle=30.0))
  step = view[:, 12, 13] - view[:, 12, 12]
  degrees = np.rad2deg(np.arctan2(step[:, 0], step[:, 1]))
  assert degrees.min() < -20
  assert degrees.max() > 20
  assert np.abs(degrees).max() < 30.01
  np.testing.assert_allclose(np.linalg.norm(step, axis=1), 1.0, rtol=1e-3)


def test_brightness_and_contrast_by_hand():
  image = np.tile(np.array([90.0, 110.0], np.float32).reshape(1, 1, 2, 1), (50, 2, 1, 1))
  bright = np.asarray(views(KEY, image, np.arange(50), **OFF, brightness=0.5))
  factor = bright[:, 0, 0, 0] / 90
  np.testing.assert_allclose(bright, image * factor[:, None, None, None], rtol=1e-5)
  assert 0.5 <= factor.min() < 0.7
  assert 1.3 < factor.max() <= 1.5
  flat = np.asarray(views(KEY, image, np.arange(50), **OFF, contrast=0.5))
  np.testing.assert_allclose(flat.mean(axis=(1, 2, 3)), 100.0, rtol=1e-5)
  spread = flat[:, 0, 1, 0] - flat[:, 0, 0, 0]
  assert 10 <= spread.min() < 14
  assert 26 < spread.max() <= 30.001


def test_result_stays_in_range():
  view = np.asarray(views(KEY, _image(), _index(), brightness=1.0, contrast=1.0))
  assert view.min() >= 0
  assert view.max() <= 255


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'crop_scale': (0.0, 1.0)}, 'crop_scale must be'),
    ({'crop_scale': (0.2, 1.5)}, 'crop_scale must be'),
    ({'crop_ratio': (2.0, 1.0)}, 'crop_ratio must be'),
    ({'brightness': -0.1}, 'brightness must lie in 0..1'),
    ({'angle': 200.0}, 'angle must lie in 0..180'),
  ],
)
def test_rejects_bad_ranges(settings, message):
  with pytest.raises(ValueError, match=message):
    random_views(KEY, _image(), _index(), **settings)


def test_rejects_bad_shape():
  with pytest.raises(AssertionError):
    random_views(KEY, _image(), _index(3))
  with pytest.raises(AssertionError):
    random_views(KEY, _image()[0], _index())
