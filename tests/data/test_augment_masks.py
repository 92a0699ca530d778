"""Masks and boxes under random views: where the pixels go, unmixed, nothing of a box lost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect.data import augment, augment_masks

KEY = jax.random.key(3)
WHOLE = {'crop_scale': (1.0, 1.0), 'crop_ratio': (1.0, 1.0)}
OFF = {**WHOLE, 'quarter_turns': False, 'flips': False}
EVERYTHING = {
  **{'crop_scale': (0.4, 1.0), 'angle': 180.0, 'angle_limits': (180.0, 10.0)},
  **{'elastic': 0.05, 'elastic_sigma': 0.1},
}
SIZE = (30, 36)


def _labels(num):
  return np.arange(num) % 2


def _ramp(num, height, width):
  ramp = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing='ij'), axis=-1)
  return np.tile(ramp[None].astype(np.float32), (num, 1, 1, 1))


def _boxes(num, many=3):
  random = np.random.default_rng(1)
  low = random.uniform(0, 0.7, (num, many, 2))
  high = np.minimum(low + random.uniform(0.05, 0.4, low.shape), 1)
  boxes = np.concatenate([low, high], axis=-1) * [SIZE[1], SIZE[0], SIZE[1], SIZE[0]]
  return boxes.astype(np.float32), np.arange(many) < random.integers(0, many + 1, (num, 1))


def _hull(mask):
  rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
  return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@functools.cache
def _compiled(function, settings):
  return jax.jit(functools.partial(function, **dict(settings)))


def _run(function, *args, label=None, **settings):
  """Compiled once per setting."""
  return _compiled(function, tuple(settings.items()))(KEY, *args, label=label)


def views(*args, **settings):
  return np.asarray(_run(augment.random_views, *args, **settings))


def mask_views(*args, **settings):
  return np.asarray(_run(augment_masks.random_mask_views, *args, **settings))


def hulls(*args, **settings):
  found = _run(augment_masks.random_box_hulls, *args, size=SIZE, **settings)
  return tuple(np.asarray(one) for one in found)


def test_mask_takes_the_value_of_the_pixel_that_the_image_shows():
  num = 40
  mask = np.random.default_rng(0).integers(0, 9, (num, *SIZE), dtype=np.uint8)
  index, label = np.arange(num), _labels(num)
  where = views(_ramp(num, *SIZE), index, label=label, **EVERYTHING)
  view = mask_views(mask, index, label=label, **EVERYTHING, brightness=0.3)
  assert view.dtype == jnp.uint8
  nearest = np.floor(where + 0.5).astype(int)
  expected = mask[np.arange(num)[:, None, None], nearest[..., 0], nearest[..., 1]]
  clear = (np.abs(where - np.floor(where) - 0.5) > 1e-3).all(axis=-1)  # not half way
  assert clear.mean() > 0.98
  np.testing.assert_array_equal(view[clear], expected[clear])
  assert (expected != mask).mean() > 0.5


def test_turned_and_mirrored_masks_stay_on_their_pixels():
  num = 60
  mask = np.random.default_rng(0).random((num, 9, 9)) < 0.3
  image = np.where(mask, 200, 50)[..., None].astype(np.uint8)
  view = views(image, np.arange(num), **WHOLE)
  moved = mask_views(mask, np.arange(num), **WHOLE)
  assert moved.dtype == bool
  np.testing.assert_array_equal(view[..., 0] == 200, moved)
  assert (moved != mask).any()


def test_edge_of_a_mask_is_the_edge_of_its_picture():
  """A painted defect and its mask differ by less than half a pixel along the outline."""
  num, (y, x) = 40, np.indices(SIZE)
  random = np.random.default_rng(2)
  centre, radius = random.uniform(8, 22, (num, 2, 1, 1)), random.uniform(3, 8, (num, 1, 1))
  mask = (y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2 < radius**2
  index, label = np.arange(num), _labels(num)
  image = np.where(mask, 255, 0)[..., None].astype(np.uint8)
  view = views(image, index, label=label, **EVERYTHING)[..., 0]
  moved = mask_views(mask, index, label=label, **EVERYTHING)
  # Half way in brightness is half way between pixels, up to the corners of the outline.
  assert (moved[(view == 0) | (view == 255)] == (view == 255)[(view == 0) | (view == 255)]).all()
  assert ((view > 127.5) != moved).mean() < 0.02


def test_whole_boxes_without_a_view_stay():
  boxes = np.array([[[2, 3, 9, 20], [0, 0, 36, 30], [5, 5, 6, 6]]], np.float32)
  hull, seen = hulls(boxes, np.ones((1, 3), bool), np.zeros(1, int), **OFF)
  np.testing.assert_array_equal(hull, boxes)
  assert seen.all()


def test_broken_edges_are_rounded_outwards():
  boxes = np.array([[[2.3, 3.0, 8.1, 19.9]]], np.float32)
  hull, _ = hulls(boxes, np.ones((1, 1), bool), np.zeros(1, int), **OFF)
  np.testing.assert_array_equal(hull[0, 0], [2, 3, 9, 20])


def test_hull_contains_the_hull_of_the_mask():
  num = 40
  boxes, valid = _boxes(num)
  index, label = np.arange(num), _labels(num)
  hull, seen = hulls(boxes, valid, index, label=label, **EVERYTHING)
  assert not seen[~valid].any()
  assert 0.5 < seen[valid].mean() < 1
  assert not hull[~seen].any()
  y, x = np.indices(SIZE) + 0.5
  tight = []
  for m in range(boxes.shape[1]):
    x0, y0, x1, y1 = boxes[:, m].T[..., None, None]
    # A defect that fills the box up to its corners, and every pixel that the box touches.
    inside = ((x - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((y - (y0 + y1) / 2) / (y1 - y0)) ** 2 < 0.25
    touched = (x > np.floor(x0)) & (x < np.ceil(x1)) & (y > np.floor(y0)) & (y < np.ceil(y1))
    for mask, exact in ((inside, False), (touched, True)):
      view = mask_views(mask, index, label=label, **EVERYTHING)
      for i in np.flatnonzero(seen[:, m] & view.any(axis=(1, 2))):
        found, given = _hull(view[i]), hull[i, m]
        assert (given[:2] <= found[:2]).all()
        assert (given[2:] >= found[2:]).all()
        if exact:
          np.testing.assert_array_equal(found, given)
        else:
          tight.append(np.prod(given[2:] - given[:2]) / np.prod(found[2:] - found[:2]))
  # Loose it is, as a turned hull has to be.
  assert np.median(tight) > 1.1


def test_padded_boxes_change_nothing():
  num = 12
  boxes, valid = _boxes(num)
  index, label = np.arange(num), _labels(num)
  wide = np.concatenate(
    [np.where(valid[..., None], boxes, 77.0), np.full((num, 2, 4), 3.0)], axis=1
  )
  wide_valid = np.concatenate([valid, np.zeros((num, 2), bool)], axis=1)
  hull, seen = hulls(boxes, valid, index, label=label, **EVERYTHING)
  more, more_seen = hulls(wide.astype(np.float32), wide_valid, index, label=label, **EVERYTHING)
  np.testing.assert_array_equal(more[:, :3], hull)
  np.testing.assert_array_equal(more_seen[:, :3], seen)
  assert not more[:, 3:].any()


def test_no_boxes_and_no_images():
  hull, seen = hulls(np.zeros((2, 0, 4)), np.zeros((2, 0), bool), np.arange(2))
  assert hull.shape == (2, 0, 4)
  assert seen.shape == (2, 0)
  assert mask_views(np.zeros((0, 5, 5), bool), np.arange(0)).shape == (0, 5, 5)


def test_rejects_bad_input():
  mask, index = np.zeros((2, 6, 6), bool), np.arange(2)
  with pytest.raises(ValueError, match='angle must lie in'):
    augment_masks.random_mask_views(KEY, mask, index, angle=200.0)
  with pytest.raises(TypeError, match='hue'):
    augment_masks.random_mask_views(KEY, mask, index, hue=0.1)
  with pytest.raises(AssertionError):
    augment_masks.random_mask_views(KEY, mask[..., None], index)
  with pytest.raises(AssertionError):
    augment_masks.random_box_hulls(
      KEY, np.zeros((2, 3, 4)), np.ones((2, 2), bool), index, size=SIZE
    )
