"""The warp: against values by hand and against scipy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from jaxdefect import ops
from jaxdefect.ops.warp import nearest_pixels, warp_nearest

# Compiled as users run it; the eager path is compared in one test.
warp = jax.jit(ops.warp, static_argnames=('output_size', 'border'))

SCIPY_MODE = {'reflect': 'mirror', 'edge': 'nearest', 'constant': 'grid-constant'}


def _image(shape=(2, 7, 5, 3), dtype=np.float32):
  return np.random.default_rng(0).uniform(0, 255, shape).astype(dtype)


def _grid(shape=(2, 6, 4, 2), low=-9.0, high=14.0):
  return np.random.default_rng(1).uniform(low, high, shape).astype(np.float32)


def test_value_by_hand():
  image = jnp.array([[0.0, 10.0], [20.0, 30.0]]).reshape(1, 2, 2, 1)
  grid = jnp.array([[[[0.0, 0.0], [0.5, 0.5], [0.25, 0.0], [1.0, 0.75]]]])
  np.testing.assert_allclose(warp(image, grid).ravel(), [0.0, 15.0, 5.0, 27.5])


@pytest.mark.parametrize(
  ('border', 'expected'),
  [
    ('reflect', [20.0, 10.0, 0.0, 10.0, 20.0, 10.0, 0.0]),
    ('edge', [0.0, 0.0, 0.0, 10.0, 20.0, 20.0, 20.0]),
    ('constant', [-1.0, -1.0, 0.0, 10.0, 20.0, -1.0, -1.0]),
  ],
)
def test_border_by_hand(border, expected):
  image = jnp.array([0.0, 10.0, 20.0]).reshape(1, 1, 3, 1)
  x = jnp.arange(-2.0, 5.0)
  grid = jnp.stack([jnp.zeros_like(x), x], axis=-1)[None, None]
  np.testing.assert_array_equal(warp(image, grid, border=border, fill=-1.0).ravel(), expected)


@pytest.mark.parametrize('border', ['reflect', 'edge', 'constant'])
def test_matches_scipy(border):
  image, grid = _image(), _grid()
  ours = warp(image, grid, border=border, fill=7.0)
  for n in range(2):
    for c in range(3):
      expected = map_coordinates(
        image[n, ..., c], grid[n].transpose(2, 0, 1), order=1, mode=SCIPY_MODE[border], cval=7.0
      )
      np.testing.assert_allclose(ours[n, ..., c], expected, atol=2e-3)


def test_affine_matches_grid_and_output_size():
  image = _image()
  matrix = np.random.default_rng(2).normal(size=(2, 2, 3)).astype(np.float32)
  grid = ops.affine_grid(matrix, (3, 8))
  expected = matrix[1, :, :2] @ np.array([2.0, 5.0]) + matrix[1, :, 2]
  np.testing.assert_allclose(grid[1, 2, 5], expected, rtol=1e-5)
  view = warp(image, matrix, output_size=(3, 8))
  assert view.shape == (2, 3, 8, 3)
  np.testing.assert_allclose(view, warp(image, grid), atol=1e-4)


def test_identity_is_exact():
  image = _image(dtype=np.uint8)
  identity = np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1))
  view = warp(image, identity)
  assert view.dtype == jnp.float32
  np.testing.assert_array_equal(view, image)


def test_jit_matches_eager():
  image, grid = _image(), _grid()
  np.testing.assert_allclose(warp(image, grid), ops.warp(image, grid), atol=1e-3)


def test_gradient_matches_numeric():
  image, grid = _image((1, 4, 3, 2)) / 255, _grid((1, 3, 3, 2), -3.0, 5.0)
  with jax.enable_x64(True):
    weight = np.random.default_rng(3).normal(size=(1, 3, 3, 2))
    jax.test_util.check_grads(
      lambda image, grid: (weight * warp(image, grid)).sum(),
      (image.astype(np.float64), grid.astype(np.float64)),
      order=1,
      modes=('rev',),
      eps=1e-6,
    )


def test_half_types_are_raised_and_float64_stays():
  grid = _grid()
  assert warp(jnp.asarray(_image(), jnp.bfloat16), grid).dtype == jnp.float32
  with jax.enable_x64(True):
    assert warp(_image(dtype=np.float64), grid).dtype == jnp.float64


def test_images_do_not_mix():
  image, grid = _image(), _grid()
  alone = warp(image[1:], grid[1:])
  np.testing.assert_array_equal(warp(image, grid)[1:], alone)


def test_one_pixel_and_empty_batch():
  one = jnp.full((1, 1, 1, 2), 5.0)
  np.testing.assert_allclose(warp(one, _grid()[:1]), np.full((1, 6, 4, 2), 5.0), rtol=1e-6)
  assert warp(_image()[:0], _grid()[:0]).shape == (0, 6, 4, 3)


def test_rejects_bad_input():
  image, grid = _image(), _grid()
  with pytest.raises(ValueError, match='border must be one of'):
    warp(image, grid, border='wrap')
  with pytest.raises(ValueError, match='output_size must agree'):
    warp(image, grid, output_size=(3, 3))
  with pytest.raises(AssertionError):
    warp(image, grid[:1])
  with pytest.raises(AssertionError):
    warp(image, grid[..., :1])
  chex.assert_shape(warp(image, grid), (2, 6, 4, 3))


def test_nearest_by_hand():
  image = jnp.array([1, 2, 3, 4], jnp.uint8).reshape(1, 2, 2, 1)
  grid = jnp.array([[[[0.0, 0.0], [0.4, 0.6], [0.5, 0.0], [1.0, 0.75], [1.7, 0.0]]]])
  view = warp_nearest(image, grid)
  assert view.dtype == jnp.uint8
  # Half way goes down; 1.7 is mirrored at the last row to 0.3.
  np.testing.assert_array_equal(view.ravel(), [1, 2, 3, 4, 1])


@pytest.mark.parametrize(
  ('border', 'expected'),
  [
    ('reflect', [3, 2, 1, 2, 3, 2, 1]),
    ('edge', [1, 1, 1, 2, 3, 3, 3]),
    ('constant', [9, 9, 1, 2, 3, 9, 9]),
  ],
)
def test_nearest_border_by_hand(border, expected):
  image = jnp.array([1, 2, 3]).reshape(1, 1, 3, 1)
  x = jnp.array([-2.2, -0.6, 0.4, 0.6, 2.4, 2.6, 4.2])
  grid = jnp.stack([jnp.zeros_like(x), x], axis=-1)[None, None]
  view = warp_nearest(image, grid, border=border, fill=9).ravel()
  np.testing.assert_array_equal(view, expected)
  row, column, inside = nearest_pixels(grid, (1, 3), border=border)
  assert not row.any()
  kept = np.asarray(inside).ravel()
  np.testing.assert_array_equal(image.ravel()[column.ravel()][kept], np.asarray(expected)[kept])
  assert kept.all() == (border != 'constant')


@pytest.mark.parametrize('border', ['reflect', 'edge', 'constant'])
def test_nearest_matches_scipy(border):
  image, grid = _image(dtype=np.int32), _grid()
  ours = warp_nearest(image, grid, border=border, fill=-7)
  for n in range(2):
    for c in range(3):
      expected = map_coordinates(
        image[n, ..., c], grid[n].transpose(2, 0, 1), order=0, mode=SCIPY_MODE[border], cval=-7
      )
      np.testing.assert_array_equal(ours[n, ..., c], expected)


def test_nearest_of_a_matrix_never_mixes():
  image = np.random.default_rng(4).random((2, 7, 5, 3)) < 0.5
  matrix = np.random.default_rng(2).normal(size=(2, 2, 3)).astype(np.float32)
  view = warp_nearest(image, matrix, output_size=(3, 8))
  assert view.dtype == bool
  np.testing.assert_array_equal(view, warp_nearest(image, ops.affine_grid(matrix, (3, 8))))
  identity = np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1))
  np.testing.assert_array_equal(warp_nearest(image, identity), image)


def test_nearest_rejects_bad_input():
  with pytest.raises(ValueError, match='border must be one of'):
    warp_nearest(_image(), _grid(), border='wrap')
  with pytest.raises(ValueError, match='border must be one of'):
    nearest_pixels(_grid(), (3, 3), border='wrap')
  with pytest.raises(AssertionError):
    nearest_pixels(_grid()[..., :1], (3, 3))
