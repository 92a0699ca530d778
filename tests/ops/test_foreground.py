"""The foreground by the first principal component, against NumPy and SciPy."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from jaxdefect.ops import foreground_mask
from jaxdefect.ops.foreground import first_component

EIGHT = np.ones((3, 3), bool)


def scene(object_at: np.ndarray, *, noise=0.3, sign=1.0) -> np.ndarray:
  """[h, w, 6] features: the object and its background apart by 20 along one direction."""
  drawn = np.random.default_rng(0)
  direction = np.array([0.6, 0, -0.8, 0, 0, 0]) * sign
  values = drawn.normal(0, noise, (*object_at.shape, 6)) + 20 * object_at[..., None] * direction
  return values.astype(np.float32)


def disc(height=12, width=16, radius=3.6) -> np.ndarray:
  y, x = np.mgrid[:height, :width]
  return (y - 5.5) ** 2 + (x - 7.5) ** 2 < radius**2


def component(features: np.ndarray) -> np.ndarray:
  x = features.reshape(-1, features.shape[-1]).astype(np.float64)
  x -= x.mean(0)
  return x @ np.linalg.svd(x, full_matrices=False)[2][0]


def test_first_component_is_that_of_the_singular_vectors():
  # The second singular value is 0.88 of the first.
  x = np.random.default_rng(0).normal(size=(48, 20)) * np.linspace(1, 2, 20)
  got, expected = np.asarray(first_component(x.astype(np.float32))), component(x)
  np.testing.assert_allclose(got * np.sign(got @ expected), expected, atol=1e-5)


@pytest.mark.parametrize('sign', [1.0, -1.0])
def test_rule_against_numpy(sign):
  known = disc()
  features = scene(known, sign=sign)
  c = component(features).reshape(known.shape)
  sides = [c > 5.0, -c > 5.0]
  centre = [side[2:9, 3:12].sum() for side in sides]  # int(0.2 h) : int(0.8 h)
  assert (np.array(centre) > 0.35 * 7 * 9).tolist().count(True) == 1  # the authors' rule decides
  grown = ndimage.binary_dilation(sides[int(np.argmax(centre))], EIGHT)
  closed = ndimage.binary_erosion(ndimage.binary_dilation(grown, EIGHT), EIGHT, border_value=1)
  got = np.asarray(foreground_mask(features, threshold=5.0))
  np.testing.assert_array_equal(got, closed)
  np.testing.assert_array_equal(got[1:-1], ndimage.binary_dilation(known, EIGHT)[1:-1])


def test_a_hole_is_closed_and_an_object_at_the_border_is_kept_whole():
  known = np.zeros((14, 14), bool)
  known[3:11, :9] = True
  known[5:8, 3:6] = False  # dilating leaves one place of it
  got = np.asarray(foreground_mask(scene(known), threshold=5.0))
  expected = np.zeros((14, 14), bool)
  expected[2:12, :10] = True
  np.testing.assert_array_equal(got, expected)


def test_the_sign_of_a_component_does_not_matter_where_both_sides_are_equal():
  known = np.zeros((8, 8), bool)
  known[:, 4:] = True  # half the centre each... which is 1:6, so columns 1 to 3 against 4 and 5
  assert np.asarray(foreground_mask(scene(known), threshold=5.0))[:, :5].all()
  even = np.zeros((10, 10), bool)
  even[:, 5:] = True  # the centre is 2:8
  got = [np.asarray(foreground_mask(scene(even, sign=s), threshold=5.0)) for s in (1.0, -1.0)]
  assert got[0].all()
  assert got[1].all()


def test_nothing_varies_and_nothing_is_seen():
  mask = jax.jit(foreground_mask)(np.ones((4, 4, 3), np.float32))
  assert not np.asarray(mask).any()


def test_rejects_a_negative_threshold():
  with pytest.raises(ValueError, match='threshold must be 0 or more, got -1'):
    foreground_mask(np.zeros((2, 2, 2)), threshold=-1.0)
