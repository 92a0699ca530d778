"""The geometry of views: free turns, the limits of directional classes, elastic bending."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from jaxdefect.data.augment import random_views
from jaxdefect.data.view_geometry import class_limits, view_keys

KEY = jax.random.key(3)
WHOLE = {'crop_scale': (1.0, 1.0), 'crop_ratio': (1.0, 1.0)}
OFF = {**WHOLE, 'quarter_turns': False, 'flips': False}
EVERYTHING = {
  **{'crop_scale': (0.4, 1.0), 'angle': 180.0, 'angle_limits': (180.0, 10.0)},
  **{'elastic': 0.05, 'elastic_sigma': 0.1, 'brightness': 0.2, 'contrast': 0.2},
}


@functools.cache
def _compiled(settings):
  return jax.jit(functools.partial(random_views, **dict(settings)))


def views(key, image, index, *, label=None, **settings):
  """Compiled once per setting."""
  return np.asarray(_compiled(tuple(settings.items()))(key, image, index, label=label))


def _ramp(num, height, width):
  """Pixels that hold their own place: channel 0 the row, channel 1 the column."""
  ramp = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing='ij'), axis=-1)
  return np.tile(ramp[None].astype(np.float32), (num, 1, 1, 1))


def _turns(num, label=None, side=25, **settings):
  """Degrees [N] by which each view is turned, and whether it is mirrored, read from a ramp."""
  view = views(KEY, _ramp(num, side, side), np.arange(num), label=label, **settings)
  middle = side // 2
  step_x = view[:, middle, middle + 1] - view[:, middle, middle]
  step_y = view[:, middle + 1, middle] - view[:, middle, middle]
  degrees = np.rad2deg(np.arctan2(step_x[:, 0], step_x[:, 1]))
  mirrored = step_y[:, 0] * step_x[:, 1] - step_y[:, 1] * step_x[:, 0] < 0
  return degrees, mirrored


def test_every_draw_of_every_example_has_a_key_of_its_own():
  keys = [np.asarray(jax.random.key_data(one)) for one in view_keys(KEY, np.arange(-1, 20))]
  assert len(np.unique(np.concatenate(keys), axis=0)) == 7 * 21


def test_free_turn_reaches_every_direction():
  degrees, mirrored = _turns(400, **OFF, angle=180.0)
  counts, _ = np.histogram(degrees, bins=8, range=(-180, 180))
  assert counts.min() > 25  # 50 expected; 3.8 standard deviations
  assert not mirrored.any()


def test_turn_matches_scipy_up_to_the_corners():
  side = 24
  image = np.random.default_rng(0).integers(0, 256, (20, side, side, 1)).astype(np.float32)
  view = views(KEY, image, np.arange(20), **OFF, angle=180.0)[..., 0]
  degrees, _ = _turns(20, side=side, **OFF, angle=180.0)
  y, x = np.indices((side, side)) - (side - 1) / 2
  for one, turned, angle in zip(image[..., 0], view, np.deg2rad(degrees)):
    where = np.stack([y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)])
    expected = map_coordinates(one, where + (side - 1) / 2, order=1, mode='mirror')
    np.testing.assert_allclose(turned, expected, atol=0.05)
  assert np.abs(degrees).max() > 135


def test_eighth_turn_by_hand():
  """A 3 x 3 picture turned by 45 degrees: corners look sqrt(2) from the middle, mirrored there."""
  image = np.array([[0, 10, 20], [30, 40, 50], [60, 70, 80]], np.float32).reshape(1, 3, 3, 1)
  num = 3000
  view = views(KEY, np.tile(image, (num, 1, 1, 1)), np.arange(num), **OFF, angle=180.0)[..., 0]
  degrees, _ = _turns(num, side=3, **OFF, angle=180.0)
  nearest = np.argmin(np.abs(degrees - 45))
  assert abs(degrees[nearest] - 45) < 0.3
  # The right edge's middle looks half way to the lower right corner: 40 + 0.7071 (30 + 10).
  np.testing.assert_allclose(view[nearest, 1, 2], 40 + 0.7071 * 40, atol=0.5)
  # The lower right corner looks at y = 1 + 1.4142, mirrored at 2 to 1.5858: 40 + 0.5858 * 30.
  np.testing.assert_allclose(view[nearest, 2, 2], 40 + 0.5858 * 30, atol=0.5)


def test_limit_bounds_the_turn_of_its_class_alone():
  num = 400
  label = np.arange(num) % 3
  degrees, mirrored = _turns(num, label, **WHOLE, angle=180.0, angle_limits=(180.0, 10.0, 0.0))
  line = (degrees + 90) % 180 - 90  # a line has no ends
  directional = label == 1
  assert np.abs(line[directional]).max() < 10.01
  assert line[directional].max() > 8
  assert line[directional].min() < -8
  assert (np.abs(degrees[directional]) > 90).any()  # half a turn is left
  np.testing.assert_allclose(line[label == 2], 0.0, atol=0.01)
  assert not mirrored[label > 0].any()
  # Nothing is taken from the class without a limit.
  assert np.abs(line[label == 0]).max() > 80
  assert mirrored[label == 0].any()
  assert not mirrored[label == 0].all()


@pytest.mark.parametrize('switch', ['quarter_turns', 'flips'])
def test_no_back_door_turns_a_directional_class(switch):
  settings = {**OFF, switch: True}
  free, free_mirrored = _turns(200, np.zeros(200, int), **settings, angle_limits=(90.0,))
  held, held_mirrored = _turns(200, np.zeros(200, int), **settings, angle_limits=(89.0,))
  assert set(np.round(held) % 360) == {0, 180}
  assert not held_mirrored.any()
  assert len(set(np.round(free) % 360)) == (4 if switch == 'quarter_turns' else 2)
  assert free_mirrored.any() == (switch == 'flips')


def test_switched_off_leaves_a_directional_class_its_ends():
  degrees, _ = _turns(100, np.zeros(100, int), **OFF, angle=180.0, angle_limits=(10.0,))
  assert np.abs(degrees).max() < 10.01


def test_limit_never_gives_what_the_angle_does_not():
  degrees, _ = _turns(100, np.zeros(100, int), **OFF, angle=5.0, angle_limits=(45.0,))
  assert 4 < np.abs(degrees).max() < 5.01
  degrees, _ = _turns(100, np.zeros(100, int), **OFF, angle_limits=(45.0,))
  np.testing.assert_allclose(degrees, 0.0, atol=1e-3)


def test_classes_without_a_limit_see_what_they_saw():
  image = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), dtype=np.uint8)
  label = np.array([0, 1] * 4)
  settings = {'angle': 60.0, 'crop_scale': (0.5, 1.0), 'elastic': 0.03}
  limited = views(KEY, image, np.arange(8), label=label, angle_limits=(180.0, 20.0), **settings)
  free = views(KEY, image, np.arange(8), **settings)
  np.testing.assert_allclose(limited[::2], free[::2], atol=1e-2)
  assert np.abs(limited[1::2] - free[1::2]).max(axis=(1, 2, 3)).min() > 1


def test_elastic_displacement_is_bounded_and_there():
  num, side, reach = 100, 40, 0.05 * 40
  moved = views(KEY, _ramp(num, side, side), np.arange(num), **OFF, elastic=0.05)
  moved = moved - _ramp(num, side, side)
  # A place beyond the border is mirrored back, which brings it nearer and not farther.
  assert np.abs(moved).max() < reach + 1e-3
  assert np.abs(moved[:, 3:-3, 3:-3]).max(axis=(1, 2, 3)).min() > reach / 4
  assert 0.24 < np.sqrt((moved[:, 3:-3, 3:-3] ** 2).mean()) / reach < 0.32
  # Not one shift: the picture is bent.
  assert np.ptp(moved[:, 3:-3, 3:-3], axis=(1, 2)).min() > reach / 4


def test_elastic_displacement_is_smooth():
  num, side = 50, 80
  ramp = _ramp(num, side, side)
  roughness = []
  for sigma in (0.05, 0.2):
    view = views(KEY, ramp, np.arange(num), **OFF, elastic=0.03, elastic_sigma=sigma)
    bent = (view - ramp)[:, 4:-4, 4:-4]
    roughness.append(np.abs(np.diff(bent, n=2, axis=1)).mean() / np.abs(bent).mean())
  # A second difference falls with the square of the smoothness.
  np.testing.assert_allclose(roughness[0] / roughness[1], 16, rtol=0.35)


def test_elastic_bends_along_the_view_whatever_its_turn():
  """The same displacement after half a turn is the opposite one of the image."""
  num, side = 200, 30
  settings = {**WHOLE, 'flips': False, 'elastic': 0.05}
  label = np.zeros(num, int)
  view = views(
    KEY, _ramp(num, side, side), np.arange(num), label=label, angle_limits=(0.0,), **settings
  )
  straight = views(KEY, _ramp(num, side, side), np.arange(num), **OFF, elastic=0.05)
  turned = view[:, 15, 16, 1] < view[:, 15, 14, 1]
  assert 50 < turned.sum() < 150
  np.testing.assert_allclose(view[~turned], straight[~turned], atol=1e-3)
  inner = np.s_[:, 4:-4, 4:-4]
  np.testing.assert_allclose(side - 1 - view[turned][inner], straight[turned][inner], atol=1e-3)


def test_switching_elastic_on_moves_no_other_draw():
  num, side = 60, 40
  settings = {'angle': 180.0, 'crop_scale': (0.3, 1.0)}
  without = views(KEY, _ramp(num, side, side), np.arange(num), **settings)
  bent = views(KEY, _ramp(num, side, side), np.arange(num), **settings, elastic=0.02)
  assert (
    0.1 < np.abs(bent - without).max() < 0.02 * side * 1.5
  )  # along both axes, crops are smaller
  lit = views(KEY, _ramp(num, side, side), np.arange(num), **settings, brightness=0.3)
  lit_bent = views(
    KEY, _ramp(num, side, side), np.arange(num), **settings, brightness=0.3, elastic=0.02
  )
  ratio = lit_bent.mean(axis=(1, 2, 3)) / bent.mean(axis=(1, 2, 3))
  np.testing.assert_allclose(
    ratio, lit.mean(axis=(1, 2, 3)) / without.mean(axis=(1, 2, 3)), rtol=1e-4
  )


def _batch(num=8):
  image = np.random.default_rng(0).integers(0, 256, (num, 12, 16, 3), dtype=np.uint8)
  return image, np.arange(num, dtype=np.int32) * 7 + 5, np.arange(num) % 2


def test_jit_matches_eager():
  image, index, label = _batch(4)
  eager = random_views(KEY, image, index, label=label, **EVERYTHING)
  np.testing.assert_allclose(views(KEY, image, index, label=label, **EVERYTHING), eager, atol=0.02)


def test_index_decides_and_not_the_place_in_the_batch():
  image, index, label = _batch()
  order = np.random.default_rng(1).permutation(8)
  shuffled = views(KEY, image[order], index[order], label=label[order], **EVERYTHING)
  np.testing.assert_array_equal(
    shuffled, views(KEY, image, index, label=label, **EVERYTHING)[order]
  )


def test_padding_is_invisible():
  image, index, label = _batch()
  valid = np.arange(8) < 5
  padded = views(
    KEY,
    np.where(valid[:, None, None, None], image, 0),
    np.where(valid, index, -1),
    label=np.where(valid, label, 0),
    **EVERYTHING,
  )
  alone = views(KEY, image[:5], index[:5], label=label[:5], **EVERYTHING)
  np.testing.assert_allclose(padded[:5], alone, atol=0.02)


def test_devices_do_not_change_what_is_drawn():
  image, index, label = _batch()
  halves = jax.pmap(lambda *args: random_views(KEY, *args[:2], label=args[2], **EVERYTHING))(
    *(one.reshape(2, 4, *one.shape[1:]) for one in (image, index, label))
  )
  whole = views(KEY, image, index, label=label, **EVERYTHING)
  np.testing.assert_allclose(np.asarray(halves).reshape(whole.shape), whole, atol=0.02)


def test_limits_by_name():
  limits = class_limits({'scratch': 10, 'score': 2.5}, ('pit', 'score', 'scratch'))
  np.testing.assert_array_equal(limits, [180, 2.5, 10])
  np.testing.assert_array_equal(class_limits({}, ('pit',)), [180])


@pytest.mark.parametrize(
  ('limits', 'message'),
  [
    (
      {'scrach': 10},
      "the class 'scrach', but the classes are pit, scratch; did you mean 'scratch'",
    ),
    ({'dent': 10}, "names the class 'dent', but the classes are pit, scratch"),
    ({'pit': 200}, r"of 'pit' must be degrees in 0\.\.180, came as 200"),
    ({'pit': 'ten'}, r"of 'pit' must be degrees in 0\.\.180, came as 'ten'"),
  ],
)
def test_limits_by_name_reject(limits, message):
  with pytest.raises(ValueError, match=message):
    class_limits(limits, ('pit', 'scratch'))


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'elastic': -0.1}, r'elastic must lie in 0\.\.0\.064'),
    ({'elastic': 0.07}, 'could fold over itself; came as 0.07'),
    ({'elastic_sigma': 0.0}, 'elastic_sigma must lie above 0'),
    ({'angle_limits': (10.0,)}, 'angle_limits needs label'),
    ({'angle_limits': (190.0,), 'label': np.zeros(8, int)}, r'angle_limits must lie in 0\.\.180'),
    ({'angle_limits': {'pit': 9.0}, 'label': np.zeros(8, int)}, 'a number of degrees for every'),
  ],
)
def test_rejects_bad_settings(settings, message):
  image, index, _ = _batch()
  with pytest.raises(ValueError, match=message):
    random_views(KEY, image, index, **settings)


def test_rejects_bad_shape():
  image, index, label = _batch()
  with pytest.raises(AssertionError):
    random_views(KEY, image, index, label=label[:3], angle_limits=(10.0, 20.0))
  with pytest.raises(AssertionError):
    random_views(KEY, image, index, label=label, angle_limits=jnp.ones((2, 2)))
