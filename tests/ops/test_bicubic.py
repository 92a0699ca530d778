"""Bicubic interpolation against PyTorch's two conventions, and by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect.ops import resize_bicubic

SIZES = [(3, 4), (1, 1), (7, 7), (7, 5), (12, 20), (16, 3)]


def grid(dtype=np.float32):
  return np.random.default_rng(0).normal(size=(7, 7, 5)).astype(dtype)


@pytest.mark.parametrize('convention', ['plain', 'offset', 'antialias'])
@pytest.mark.parametrize('size', SIZES)
def test_matches_pytorch(size, convention):
  torch = pytest.importorskip('torch')
  image = torch.from_numpy(grid()).permute(2, 0, 1)[None]
  asked = {'size': size, 'antialias': convention == 'antialias'}
  if convention == 'offset':  # as DINOv2 asks for it
    asked = {'scale_factor': tuple((side + 0.1) / 7 for side in size)}
  theirs = torch.nn.functional.interpolate(image, mode='bicubic', **asked)[0].permute(1, 2, 0)
  ours = resize_bicubic(
    grid(), size, antialias=convention == 'antialias', offset=0.1 * (convention == 'offset')
  )
  assert ours.shape == (*size, 5)
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-6)


def test_the_conventions_differ_where_a_grid_shrinks():
  plain, moved, smooth = (
    np.asarray(resize_bicubic(grid(), (3, 3), **convention))
    for convention in ({}, {'offset': 0.1}, {'antialias': True})
  )
  assert np.abs(plain - moved).max() > 0.05
  assert np.abs(plain - smooth).max() > 0.5


def test_half_way_by_hand():
  # At 1/2 between two places the plain kernel is -3/32, 19/32, 19/32, -3/32.
  row = jnp.asarray([2.0, 1.0, 4.0, 8.0]).reshape(1, 4, 1)
  expected = (-3 * 2 + 19 * 2 + 19 * 1 - 3 * 4) / 32  # what lies before the first is the first
  np.testing.assert_allclose(resize_bicubic(row, (1, 2))[0, 0, 0], expected, atol=1e-6)


@pytest.mark.parametrize('antialias', [False, True])
def test_a_constant_stays(antialias):
  got = resize_bicubic(jnp.full((5, 6, 1), 3.0), (2, 11), antialias=antialias)
  np.testing.assert_allclose(got, 3.0, atol=1e-6)


def test_rejects_a_side_without_places():
  with pytest.raises(ValueError, match='1 or more places per side, got 0 x 3'):
    resize_bicubic(grid(), (0, 3))
