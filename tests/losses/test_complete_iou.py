"""Complete IoU loss against its formula in NumPy, numeric gradients, and boxes without area."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import losses


def parts(a, b):
  """IoU, squared distance over squared diagonal, and v, in plain NumPy."""
  low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
  shared = (high - low).clip(0).prod(-1)
  size, other = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
  iou = shared / (size.prod(-1) + other.prod(-1) - shared)
  around = np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])
  apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
  angles = np.arctan(other[..., 0] / other[..., 1]) - np.arctan(size[..., 0] / size[..., 1])
  return iou, (apart**2).sum(-1) / (around**2).sum(-1), 4 / np.pi**2 * angles**2


def plain(a, b, alpha=None):
  iou, distance, v = parts(a, b)
  alpha = v / (1 - iou + v) if alpha is None else alpha
  return 1 - iou + distance + alpha * v


def drawn(num=40, seed=0):
  """Pairs of boxes, some apart, some inside of each other."""
  generator = np.random.default_rng(seed)
  corner = generator.uniform(0, 20, (2, num, 2))
  a, b = np.concatenate([corner, corner + generator.uniform(1, 25, corner.shape)], -1)
  b[:4, :2], b[:4, 2:] = a[:4, :2] + 0.2, a[:4, 2:] - 0.3
  return a, b


def test_by_hand():
  # Equal; side by side; one inside of the other about the same centre.
  a = jnp.array([[0.0, 0, 4, 2], [0.0, 0, 2, 2], [0.0, 0, 4, 4]])
  b = jnp.array([[0.0, 0, 4, 2], [2.0, 0, 4, 2], [1.0, 1, 3, 3]])
  expected = [0, 1 + 4 / 20, 1 - 4 / 16]
  np.testing.assert_allclose(losses.complete_iou(a, b), expected, atol=1e-6)
  # The same overlap and centre, another shape: arctan(1) against arctan(4).
  v = 4 / np.pi**2 * (np.arctan(1) - np.arctan(4)) ** 2
  iou = 8 / 24
  found = losses.complete_iou(jnp.array([0.0, 3, 8, 5]), jnp.array([2.0, 2, 6, 6]))
  np.testing.assert_allclose(found, 1 - iou + v**2 / (1 - iou + v), rtol=1e-5)


def test_matches_the_formula_in_numpy():
  a, b = drawn()
  np.testing.assert_allclose(losses.complete_iou(a, b), plain(a, b), rtol=1e-4, atol=1e-6)
  assert (parts(a, b)[0] == 0).any()
  assert (parts(a, b)[0] > 0.5).any()


def test_gradient_matches_numeric_where_alpha_is_a_constant():
  with jax.enable_x64(True):
    a, b = drawn(12)
    iou, _, v = parts(a, b)
    alpha = v / (1 - iou + v)
    slope = jax.grad(lambda x: losses.complete_iou(x, jnp.asarray(b)).sum())(jnp.asarray(a))
    for edge in range(4):
      step = np.zeros(4)
      step[edge] = 1e-6
      numeric = (plain(a + step, b, alpha) - plain(a - step, b, alpha)) / 2e-6
      np.testing.assert_allclose(slope[:, edge], numeric, rtol=1e-5, atol=1e-8)


def test_descent_brings_boxes_that_do_not_touch_together():
  box, goal = jnp.array([0.0, 0, 4, 4]), jnp.array([20.0, 10, 30, 14])
  before = losses.complete_iou(box, goal)
  slope = jax.grad(lambda x: losses.complete_iou(x, goal))
  box = jax.jit(lambda box: jax.lax.fori_loop(0, 4000, lambda _, x: x - slope(x), box))(box)
  assert before > 1
  assert losses.complete_iou(box, goal) < 0.1


@pytest.mark.parametrize(
  ('box', 'goal'),
  [
    ([3.0, 3, 3, 3], [3.0, 3, 3, 3]),  # padding against itself
    ([0.0, 0, 0, 0], [1.0, 2, 9, 5]),
    ([1.0, 2, 9, 5], [0.0, 0, 0, 0]),
    ([1.0, 2, 9, 2], [1.0, 2, 1, 5]),
    ([1.0, 2, 9, 5], [1.0, 2, 9, 5]),
  ],
)
def test_boxes_without_area_are_finite(box, goal):
  value, slope = jax.value_and_grad(losses.complete_iou)(jnp.array(box), jnp.array(goal))
  assert np.isfinite(value)
  assert np.isfinite(slope).all()


def test_types_and_shapes():
  half = losses.complete_iou(jnp.ones((2, 3, 4), jnp.bfloat16), jnp.ones((2, 3, 4)))
  assert (half.dtype, half.shape) == (jnp.float32, (2, 3))
  with pytest.raises(AssertionError):
    losses.complete_iou(jnp.zeros((2, 4)), jnp.zeros(4))
