"""Elastic displacement: bounded, smooth as said, without folds, the same at every resolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect.data import elastic

SIGMA = 0.1


def _field(nodes, size, sigma=SIGMA):
  return np.asarray(elastic.smooth_field(jnp.asarray(nodes, jnp.float32), size, sigma=sigma))


def _signs(num, size, sigma=SIGMA, seed=0):
  """Nodes that are all as far as they may be, either way."""
  shape = (num, 2, *elastic.node_grid(size, sigma))
  return np.random.default_rng(seed).choice([-1.0, 1.0], shape)


def test_weights_by_hand():
  matrix = elastic.spline_matrix(7, 2.0, 7)
  # The middle node lies on the middle pixel, and nodes two pixels apart.
  np.testing.assert_allclose(matrix[3], [0, 0, 1 / 6, 4 / 6, 1 / 6, 0, 0], atol=1e-12)
  np.testing.assert_allclose(matrix[4], [0, 0, 1 / 48, 23 / 48, 23 / 48, 1 / 48, 0], atol=1e-12)
  np.testing.assert_allclose(matrix[5], [0, 0, 0, 1 / 6, 4 / 6, 1 / 6, 0], atol=1e-12)


@pytest.mark.parametrize('side', [5, 16, 33, 224])
@pytest.mark.parametrize('sigma', [0.03, 0.08, 0.5, 1.0])
def test_weights_are_shares_everywhere(side, sigma):
  (count, _), spacing = elastic.node_grid((side, side), sigma), 3**0.5 * sigma * side
  matrix = elastic.spline_matrix(side, spacing, count)
  assert matrix.shape == (side, count)
  assert matrix.min() >= 0
  np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-12)  # at the border too


def test_no_pixel_moves_farther_than_the_farthest_node():
  size = (40, 60)
  assert np.abs(_field(3 * _signs(200, size), size)).max() <= 3 + 1e-5
  # All nodes the same way: every pixel as far as the nodes.
  together = np.full((1, *elastic.node_grid(size, SIGMA)), 3.0)
  np.testing.assert_allclose(_field(together, size), 3.0, rtol=1e-5)


def test_root_mean_square_is_what_is_documented():
  size = (100, 100)
  nodes = np.random.default_rng(0).uniform(-1, 1, (300, *elastic.node_grid(size, SIGMA)))
  assert 0.26 < np.sqrt((_field(nodes, size) ** 2).mean()) < 0.30


def test_smoothness_is_that_of_the_gaussian():
  side, sigma = 400, 0.05
  count = elastic.node_grid((side, side), sigma)[0]
  weight = elastic.spline_matrix(side, 3**0.5 * sigma * side, count)[:, count // 2]
  place = np.arange(side)
  mean = (weight * place).sum() / weight.sum()
  spread = np.sqrt((weight * (place - mean) ** 2).sum() / weight.sum())
  np.testing.assert_allclose(spread, sigma * side, rtol=0.01)


def test_same_deformation_at_every_resolution():
  nodes = np.random.default_rng(0).uniform(-1, 1, (4, *elastic.node_grid((30, 50), SIGMA)))
  assert elastic.node_grid((30, 50), SIGMA) == elastic.node_grid((90, 150), SIGMA)
  # The middle of three fine pixels lies where the coarse pixel does.
  coarse, fine = _field(nodes, (30, 50)), _field(nodes, (90, 150))
  np.testing.assert_allclose(fine[:, 1::3, 1::3], coarse, atol=1e-5)


def _least_area(displacement):
  """Least determinant of the deformed surface, in units of the pixel: negative where it folds."""
  y = displacement[:, 0] + np.arange(displacement.shape[2])[:, None]
  x = displacement[:, 1] + np.arange(displacement.shape[3])
  by_row = [np.diff(one, axis=1)[:, :, :-1] for one in (y, x)]
  by_column = [np.diff(one, axis=2)[:, :-1] for one in (y, x)]
  return (by_row[0] * by_column[1] - by_row[1] * by_column[0]).min()


def test_surface_never_folds():
  size, sigma = (60, 60), 0.2
  nodes = _signs(2000, size, sigma)
  # The worst patterns, too: neighbours against each other, along rows, columns and both.
  i, j = np.indices(nodes.shape[2:])
  for k, sign in enumerate(((-1) ** i, (-1) ** j, (-1) ** (i + j), (-1) ** (i // 2 + j // 2))):
    nodes[k] = sign
    nodes[4 + k] = [sign, -sign]
  greatest = elastic.FOLD_FREE * sigma * 60  # pixels
  assert _least_area(greatest * _field(nodes, size, sigma)) > 0
  # It is a limit: with three times as much the surface does fold.
  assert _least_area(3 * greatest * _field(nodes, size, sigma)) < 0


def test_jit_matches_eager():
  size, nodes = (30, 40), _signs(2, (30, 40))
  compiled = jax.jit(lambda nodes: elastic.smooth_field(nodes, size, sigma=SIGMA))
  np.testing.assert_allclose(compiled(nodes), _field(nodes, size), atol=1e-5)


def test_rejects_bad_shape():
  with pytest.raises(AssertionError):
    elastic.smooth_field(jnp.zeros((1, 3, 3)), (40, 40), sigma=SIGMA)
