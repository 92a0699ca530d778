"""Random views with boxes: boxes go where the pixels go, and randomness belongs to the example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect.data.augment_boxes import random_box_views
from jaxdefect.data.letterbox import GRAY

KEY = jax.random.key(5)
OFF = {'flips': False}
ALL = {
  'flips': True,
  'quarter_turns': True,
  'scale': (0.6, 1.7),
  'translate': 0.2,
  'brightness': 0.2,
  'contrast': 0.2,
}

# One compilation per setting, shared by the tests.
views = jax.jit(
  random_box_views,
  static_argnames=(
    'flips', 'quarter_turns', 'scale', 'translate', 'brightness', 'contrast', 'min_visible'
  ),
)  # fmt: skip


def _batch(num=8, height=12, width=12):
  random = np.random.default_rng(0)
  image = random.integers(0, 256, (num, height, width, 3), dtype=np.uint8)
  low = random.uniform(0, 0.6, (num, 3, 2))
  high = low + random.uniform(0.1, 0.4, (num, 3, 2))
  boxes = np.concatenate([low, high], -1) * [width, height, width, height]
  valid = np.arange(3) < random.integers(0, 4, (num, 1))
  boxes = np.where(valid[..., None], boxes, 0).astype(np.float32)
  return image, boxes, valid, np.arange(num, dtype=np.int32) * 7 + 5


def _painted(num, height, width):
  """One white rectangle on black per image, at whole pixels, and its box."""
  random = np.random.default_rng(1)
  image = np.zeros((num, height, width, 1), np.uint8)
  boxes = np.zeros((num, 1, 4), np.float32)
  for i in range(num):
    x0, y0 = random.integers(0, width - 6), random.integers(0, height - 6)
    x1, y1 = random.integers(x0 + 4, width + 1), random.integers(y0 + 4, height + 1)
    image[i, y0:y1, x0:x1] = 255
    boxes[i, 0] = x0, y0, x1, y1
  return image, boxes, np.ones((num, 1), bool), np.arange(num, dtype=np.int32)


def _extent(mask):
  rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
  return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize('shape', [(12, 12), (6, 11)])
def test_everything_off_changes_nothing(shape):
  image, boxes, valid, index = _batch(8, *shape)
  view, moved, kept = views(KEY, image, boxes, valid, index, **OFF)
  assert view.dtype == moved.dtype == jnp.float32
  np.testing.assert_array_equal(view, image)
  np.testing.assert_array_equal(moved, boxes)
  np.testing.assert_array_equal(kept, valid)


def test_flips_by_hand():
  image, boxes, valid, _ = _batch(1, 6, 11)
  boxes, valid = np.float32([[[1, 2, 4, 3.5]]]), np.ones((1, 1), bool)
  num = 40
  view, moved, kept = views(
    KEY, np.tile(image, (num, 1, 1, 1)), np.tile(boxes, (num, 1, 1)), np.tile(valid, (num, 1)),
    np.arange(num),
  )  # fmt: skip
  assert np.asarray(kept).all()
  wanted = [
    (image[0], [1, 2, 4, 3.5]),
    (image[0, :, ::-1], [7, 2, 10, 3.5]),
    (image[0, ::-1], [1, 2.5, 4, 4]),
    (image[0, ::-1, ::-1], [7, 2.5, 10, 4]),
  ]
  found = np.zeros(4, int)
  for one, box in zip(np.asarray(view), np.asarray(moved)[:, 0]):
    (which,) = [k for k, (pixels, _) in enumerate(wanted) if np.array_equal(one, pixels)]
    np.testing.assert_array_equal(box, wanted[which][1])
    found[which] += 1
  assert found.min() > 2


@pytest.mark.parametrize('side', [12, 7])
def test_turns_move_pixels_and_boxes_exactly(side):
  image, boxes, valid, index = _painted(80, side, side)
  view, moved, kept = views(KEY, image, boxes, valid, index, quarter_turns=True)
  assert set(np.unique(view)) == {0.0, 255.0}
  assert np.asarray(kept).all()
  for one, box in zip(np.asarray(view), np.asarray(moved)):
    np.testing.assert_array_equal(_extent(one[..., 0] > 0), box[0])
  turned = (np.asarray(moved)[:, 0, 2:] - np.asarray(moved)[:, 0, :2]) != (
    boxes[:, 0, 2:] - boxes[:, 0, :2]
  )
  assert turned.any()


@pytest.mark.parametrize(
  ('shape', 'settings'),
  [
    ((40, 40), {'quarter_turns': True, 'scale': (0.6, 1.7), 'translate': 0.2}),
    ((30, 50), {'scale': (0.5, 2.0)}),
    ((50, 30), {'flips': False, 'translate': 0.3}),
  ],
)
def test_a_painted_box_stays_under_its_box(shape, settings):
  image, boxes, valid, index = _painted(200, *shape)
  view, moved, kept = (np.asarray(x) for x in views(KEY, image, boxes, valid, index, **settings))
  assert 150 < kept.sum() <= 200
  sides = []
  for one, box in zip(view[kept[:, 0]], moved[kept[:, 0], 0]):
    # Half way from the fill, or from black, to white.
    distance = np.abs(_extent(one[..., 0] > 184) - box)
    assert distance.max() < 1.5
    assert (box >= 0).all()
    assert (box <= [shape[1], shape[0], shape[1], shape[0]]).all()
    sides.append(distance.max())
  # Most edges agree to well under a pixel: no half-pixel shift hides in the tolerance.
  assert np.mean(sides) < 0.6


def test_moved_box_has_no_offset():
  """The centre of mass of a painted box is the centre of its moved box, for boxes not cut."""
  image, boxes, valid, index = _painted(200, 40, 40)
  view, moved, kept = views(
    KEY, image, boxes, valid, index, scale=(0.7, 1.5), translate=0.1, min_visible=1.0
  )
  inside = np.asarray(kept)[:, 0]
  assert 20 < inside.sum() < 200
  # The fill outside the canvas is not part of the box.
  y, x = np.mgrid[:40, :40] + 0.5
  offsets = []
  for one, box in zip(np.asarray(view)[inside, ..., 0], np.asarray(moved)[inside, 0]):
    weight = np.where((x > box[0] - 1) & (x < box[2] + 1), one, 0)
    weight = np.where((y > box[1] - 1) & (y < box[3] + 1), weight, 0)
    if (box < 1).any() or (box > 39).any() or (weight == GRAY).any():
      continue
    centre = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
    offsets.append(centre - (box[:2] + box[2:]) / 2)
  assert len(offsets) > 15
  assert np.abs(np.mean(offsets, axis=0)).max() < 0.05


def test_a_hidden_box_is_dropped():
  num = 300
  image = np.zeros((num, 20, 20, 1), np.uint8)
  boxes = np.tile(np.float32([[[0, 0, 8, 20], [5, 5, 15, 15]]]), (num, 1, 1))
  valid = np.ones((num, 2), bool)
  settings = {'flips': False, 'translate': 0.5}
  _, loose, seen = views(KEY, image, boxes, valid, np.arange(num), **settings, min_visible=0.0)
  _, strict, kept = views(KEY, image, boxes, valid, np.arange(num), **settings, min_visible=0.6)
  loose, strict, seen, kept = (np.asarray(one) for one in (loose, strict, seen, kept))
  area = (loose[..., 2:] - loose[..., :2]).prod(axis=-1) / [160, 100]
  np.testing.assert_array_equal(kept, area >= 0.6)
  assert 0 < kept.sum() < seen.sum() <= 2 * num
  np.testing.assert_array_equal(strict[kept], loose[kept])
  assert not strict[~kept].any()


def test_what_comes_from_outside_is_gray():
  image, boxes, valid, index = _painted(50, 20, 20)
  image[:] = 255
  view, *_ = views(KEY, image, boxes, valid, index, flips=False, scale=(0.5, 0.6))
  view = np.asarray(view)[..., 0]
  assert view.min() > GRAY - 0.01
  # A picture is a rectangle of s^2 of the canvas, wholly inside it.
  white = (view - GRAY).mean(axis=(1, 2)) / (255 - GRAY)
  assert white.min() > 0.5**2 - 0.001
  assert white.max() < 0.6**2 + 0.001
  corners = view[:, [0, 0, -1, -1], [0, -1, 0, -1]]
  assert (np.abs(corners - GRAY) < 0.01).sum(axis=1).min() >= 3


def test_enlarged_pictures_cover_the_canvas_and_show_any_part():
  ramp = np.stack(np.meshgrid(np.arange(20), np.arange(30), indexing='ij'), axis=-1)
  image = np.tile(ramp[None].astype(np.float32), (200, 1, 1, 1))
  boxes, valid = np.zeros((200, 1, 4), np.float32), np.zeros((200, 1), bool)
  view, *_ = views(KEY, image, boxes, valid, np.arange(200), flips=False, scale=(1.0, 2.0))
  view = np.asarray(view)[:, 1:-1, 1:-1]
  assert view.max() < GRAY - 50
  zoom = 1 / (view[:, 9, 10, 1] - view[:, 9, 9, 1])
  assert zoom.min() > 0.999
  assert zoom.max() < 2.001
  assert abs(np.log(zoom).mean() - np.log(2) / 2) < 0.06  # log-uniform
  # Enlarged by nearly two, the upper left corner of the view comes from anywhere above the middle.
  corner = view[zoom > 1.8, 0, 0]
  assert len(corner) > 15
  assert (corner.min(axis=0) < [3, 4]).all()
  assert (corner.max(axis=0) > [7, 11]).all()


def test_same_key_same_view_and_other_key_other_view():
  arguments = _batch()
  first = views(KEY, *arguments, **ALL)
  for one, other in zip(first, views(KEY, *arguments, **ALL)):
    np.testing.assert_array_equal(one, other)
  other, *_ = views(jax.random.key(6), *arguments, **ALL)
  assert np.abs(first[0] - other).max(axis=(1, 2, 3)).min() > 1


def test_index_decides_and_not_the_place_in_the_batch():
  arguments = _batch()
  order = np.random.default_rng(1).permutation(8)
  shuffled = views(KEY, *(one[order] for one in arguments), **ALL)
  for one, other in zip(views(KEY, *arguments, **ALL), shuffled):
    np.testing.assert_array_equal(np.asarray(one)[order], other)


def test_padding_is_invisible():
  image, boxes, valid, index = _batch()
  view, moved, kept = views(KEY, image, boxes, valid, index, **ALL)
  # More boxes, rubbish in the padding, and a padded image among them.
  wide = np.full((8, 5, 4), 3.0, np.float32)
  wide[:, :3] = np.where(valid[..., None], boxes, 99.0)
  wide_valid = np.zeros((8, 5), bool)
  wide_valid[:, :3] = valid
  wide_valid[7] = False
  image = np.where(np.arange(8)[:, None, None, None] < 7, image, 0)
  padded, wide_moved, wide_kept = views(KEY, image, wide, wide_valid, index, **ALL)
  np.testing.assert_array_equal(wide_kept[:7, :3], kept[:7])
  np.testing.assert_array_equal(wide_moved[:7, :3], moved[:7])
  assert not np.asarray(wide_kept)[:, 3:].any()
  assert not np.asarray(wide_moved)[~np.asarray(wide_kept)].any()
  np.testing.assert_allclose(padded[:7], view[:7], atol=1e-3)


def test_devices_do_not_change_what_is_drawn():
  arguments = _batch()
  whole = views(KEY, *arguments, **ALL)
  halves = jax.pmap(lambda *args: random_box_views(KEY, *args, **ALL))(
    *(one.reshape(2, 4, *one.shape[1:]) for one in arguments)
  )
  for one, other in zip(whole, halves):
    np.testing.assert_allclose(
      np.asarray(other, np.float32).reshape(one.shape), np.asarray(one, np.float32), atol=1e-3
    )


def test_brightness_and_contrast_by_hand():
  image = np.tile(np.array([90.0, 110.0], np.float32).reshape(1, 1, 2, 1), (50, 2, 1, 1))
  rest = np.zeros((50, 1, 4), np.float32), np.zeros((50, 1), bool), np.arange(50)
  bright, *_ = views(KEY, image, *rest, **OFF, brightness=0.5)
  factor = np.asarray(bright)[:, 0, 0, 0] / 90
  np.testing.assert_allclose(bright, image * factor[:, None, None, None], rtol=1e-5)
  assert 0.5 <= factor.min() < 0.7
  assert 1.3 < factor.max() <= 1.5
  flat, *_ = views(KEY, image, *rest, **OFF, contrast=0.5)
  np.testing.assert_allclose(flat.mean(axis=(1, 2, 3)), 100.0, rtol=1e-5)
  spread = np.asarray(flat)[:, 0, 1, 0] - np.asarray(flat)[:, 0, 0, 0]
  assert 10 <= spread.min() < 14
  assert 26 < spread.max() <= 30.001


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'scale': (0.0, 1.0)}, 'scale must be'),
    ({'scale': (1.5, 1.0)}, 'scale must be'),
    ({'translate': 1.5}, r'translate must lie in 0\.\.1'),
    ({'brightness': -0.1}, r'brightness must lie in 0\.\.1'),
    ({'contrast': 2.0}, r'contrast must lie in 0\.\.1'),
    ({'min_visible': -1.0}, r'min_visible must lie in 0\.\.1'),
  ],
)
def test_rejects_bad_ranges(settings, message):
  with pytest.raises(ValueError, match=message):
    random_box_views(KEY, *_batch(), **settings)


def test_rejects_quarter_turns_of_an_oblong_image():
  with pytest.raises(ValueError, match='quarter_turns needs square images, got 6 x 11'):
    random_box_views(KEY, *_batch(8, 6, 11), quarter_turns=True)


def test_rejects_bad_shape():
  image, boxes, valid, index = _batch()
  for arguments in (
    (image[0], boxes, valid, index),
    (image, boxes[:3], valid, index),
    (image, boxes, valid[:, :2], index),
    (image, boxes, valid, index[:3]),
  ):
    with pytest.raises(AssertionError):
      random_box_views(KEY, *arguments)
