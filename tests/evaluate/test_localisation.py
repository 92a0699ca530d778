"""Maps are scored by where they are largest, image by image."""

import numpy as np
import pytest

from jaxdefect.evaluate import localisation


def corner(size=4):
  mask = np.zeros((size, size), bool)
  mask[:2, :2] = True
  return mask


def test_value_by_hand():
  heat = np.zeros((4, 4))
  heat[1, 1] = 3.0  # a hit
  away = np.zeros((4, 4))
  away[3, 3] = 3.0
  report = localisation.evaluate([heat, away], [corner(), corner()])
  assert report['metrics']['pointing_game'] == 0.5
  assert report['metrics']['chance'] == 0.25
  # One of 4 defect pixels beats 12 others, three tie; and the other way round for one of 12.
  first = (1 * 12 + 3 * 12 * 0.5) / 48
  second = (4 * 11 * 0.5 + 0) / 48
  assert report['metrics']['pixel_auroc'] == pytest.approx((first + second) / 2)
  assert report['n'] == 2
  low, high = report['intervals']['pixel_auroc']
  assert low <= report['metrics']['pixel_auroc'] <= high


def test_tolerance_widens_the_defect():
  heat = np.zeros((10, 10))
  heat[0, 3] = 1.0
  assert localisation.evaluate([heat], [corner(10)])['metrics']['pointing_game'] == 0
  near = localisation.evaluate([heat], [corner(10)], tolerance=0.2)
  assert near['metrics']['pointing_game'] == 1
  # The corner, 8 pixels beside it and the nearest across.
  assert near['metrics']['chance'] == pytest.approx(0.13)


def test_a_map_that_says_nothing_points_nowhere():
  report = localisation.evaluate([np.zeros((4, 4))], [corner()])
  assert report['metrics']['pointing_game'] == 0
  assert report['metrics']['pixel_auroc'] == 0.5


def test_scale_of_a_map_does_not_matter():
  heat = np.random.default_rng(0).normal(size=(4, 4))
  assert localisation.evaluate([heat], [corner()])['metrics'] == pytest.approx(
    localisation.evaluate([5 * heat - 3], [corner()])['metrics']
  )


def test_images_without_a_defect_are_counted_and_left_out():
  report = localisation.evaluate([np.eye(4)] * 3, [corner(), corner() & False, corner() | True])
  assert (report['n'], report['left_out']) == (1, 2)
  assert localisation.evaluate([], [])['metrics'] == {}


@pytest.mark.parametrize(
  ('maps', 'masks', 'settings', 'message'),
  [
    ([np.eye(4)], [], {}, '1 maps, but 0 masks'),
    ([np.eye(4)], [corner(5)], {}, 'its mask'),
    ([np.eye(4)], [corner()], {'tolerance': -1}, 'tolerance is -1'),
  ],
)
def test_rejects_bad_input(maps, masks, settings, message):
  with pytest.raises(ValueError, match=message):
    localisation.evaluate(maps, masks, **settings)
