"""Overlays: one absolute scale, calm pictures stay calm."""

import numpy as np
import pytest
from PIL import Image

from jaxdefect.explain import overlays

GRAY = np.full((8, 8), 100, np.uint8)


def test_value_by_hand():
  # At the ceiling: a quarter of the picture, three quarters of the strongest colour.
  strongest = overlays.colors(np.array(1.0))
  result = overlays.overlay(GRAY, np.full((2, 2), 3.0), ceiling=3.0, opacity=0.75)
  np.testing.assert_array_equal(result, np.broadcast_to(np.rint(25 + 0.75 * strongest), (8, 8, 3)))
  # Half way: a = 0.375.
  half = overlays.overlay(GRAY, np.full((2, 2), 1.5), ceiling=3.0, opacity=0.75)
  expected = np.rint(62.5 + 0.375 * overlays.colors(np.array(0.5)))
  np.testing.assert_allclose(half[0, 0], expected, atol=1)


def test_no_evidence_leaves_the_picture():
  image = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)
  for heat in (np.zeros((2, 2)), np.full((2, 2), -1.0)):
    np.testing.assert_array_equal(overlays.overlay(image, heat, ceiling=0.1), image)


def test_scale_is_absolute():
  # The same evidence has the same colour, whatever else is in the map.
  weak = np.zeros((4, 4))
  weak[0, 0] = 0.2
  strong = weak.copy()
  strong[3, 3] = 9.0
  alone, beside = (overlays.overlay(GRAY, heat, ceiling=1.0) for heat in (weak, strong))
  np.testing.assert_array_equal(alone[:4, :4], beside[:4, :4])
  assert (alone != beside).any()


def test_values_above_the_ceiling_are_clipped():
  at, above = (overlays.overlay(GRAY, np.full((2, 2), v), ceiling=1.0) for v in (1.0, 50.0))
  np.testing.assert_array_equal(at, above)


def test_ceiling_is_a_quantile_of_the_peaks():
  maps = np.zeros((5, 3, 3))
  maps[:, 1, 1] = [1, 2, 3, 4, 100]
  assert overlays.absolute_ceiling(maps, quantile=0.5) == 3.0
  assert overlays.absolute_ceiling(iter(maps), quantile=1.0) == 100.0
  assert overlays.absolute_ceiling(np.zeros((3, 2, 2))) == 1.0
  # The quantile of rare evidence is zero; the scale is then its peak.
  assert overlays.absolute_ceiling(maps[[0]] * np.eye(9)[0].reshape(3, 3) + maps[[0]]) == 1.0
  assert overlays.absolute_ceiling([np.zeros((2, 2))] * 9 + [np.ones((2, 2))], quantile=0.5) == 1.0


def test_map_is_resized_bilinearly():
  large = overlays.resize_map(np.array([[0.0, 1.0]]), (2, 4))
  np.testing.assert_allclose(large, [[0, 0.25, 0.75, 1]] * 2, atol=1e-6)


def test_shades_grow_with_the_value():
  weights = np.array([0.2126, 0.7152, 0.0722])
  lightness = overlays.colors(np.linspace(0, 1, 20)) @ weights
  assert (np.diff(lightness) > 0).all()


def test_accepts_gray_and_floats():
  for image in (GRAY, GRAY[..., None], GRAY.astype(np.float32), np.stack([GRAY] * 3, -1)):
    result = overlays.as_rgb(image)
    assert result.shape == (8, 8, 3)
    assert (result == 100).all()


def test_saves_the_very_pixels(tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)
  overlays.save(tmp_path / 'a.png', image)
  np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'a.png')), image)
  assert [path.name for path in tmp_path.iterdir()] == ['a.png']


@pytest.mark.parametrize('ceiling', [0.0, -1.0, np.nan, np.inf])
def test_rejects_bad_ceiling(ceiling):
  with pytest.raises(ValueError, match='ceiling'):
    overlays.overlay(GRAY, np.ones((2, 2)), ceiling=ceiling)


def test_a_small_picture_keeps_its_shape(tmp_path):
  for given, size in (((100, 50), (40, 80)), ((20, 10), (10, 20))):
    overlays.save_small(tmp_path / 'a.jpg', np.full(given, 200, np.uint8), max_side=80)
    with Image.open(tmp_path / 'a.jpg') as stored:
      assert stored.size == size
      assert abs(int(np.asarray(stored).mean()) - 200) <= 2


def test_rejects_bad_arguments():
  with pytest.raises(ValueError, match='opacity'):
    overlays.overlay(GRAY, np.ones((2, 2)), ceiling=1.0, opacity=2.0)
  with pytest.raises(ValueError, match='image'):
    overlays.as_rgb(np.zeros((2, 2, 4)))
  with pytest.raises(ValueError, match='maps'):
    overlays.absolute_ceiling([])
  with pytest.raises(ValueError, match='quantile'):
    overlays.absolute_ceiling(np.ones((1, 1, 1)), quantile=0.0)
