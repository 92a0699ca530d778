"""The CPU forms of the convolution equal XLA's, in value and in both orders of gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect.models import conv2d, cpu_convolution, ynnpack

# (side, window, stride, padding, channels in, channels out, groups): all that the networks use.
CASES = [
  (9, 7, 2, 3, 3, 4, 1),
  (8, 7, 2, 3, 3, 4, 1),
  (5, 3, 1, 1, 3, 4, 1),
  (6, 3, 2, 1, 3, 4, 1),
  (7, 3, 2, 1, 3, 4, 1),
  (6, 3, 2, 1, 8, 9, 1),
  (7, 3, 2, 1, 9, 8, 1),
  (4, 1, 1, 0, 3, 5, 1),
  (4, 1, 1, 0, 5, 3, 1),
  (6, 1, 2, 0, 3, 5, 1),
  (7, 1, 2, 0, 5, 3, 1),
  (5, 3, 1, 1, 4, 4, 4),
  (6, 3, 2, 1, 4, 4, 4),
  (7, 3, 2, 1, 4, 4, 4),
  (5, 3, 2, 1, 4, 6, 2),
  # Maps smaller than the window.
  (2, 3, 1, 1, 3, 4, 1),
  (1, 3, 1, 1, 9, 8, 1),
  (3, 3, 2, 1, 8, 9, 1),
]


def draw(case, dtype: Any = np.float64):
  side, window, _, _, channels, features, groups = case
  random = np.random.default_rng(side + 10 * window)
  x = random.normal(size=(2, side, side + 2, channels))
  kernel = random.normal(size=(window, window, channels // groups, features))
  return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


def convolution(case, implementation):
  _, _, stride, padding, _, _, groups = case

  def function(x, kernel):
    return conv2d(
      x, kernel, stride=stride, padding=padding, groups=groups, implementation=implementation
    )

  return function


def values_and_gradients(function):
  """The output, its gradients, and the gradients of a function of its gradients."""

  def loss(x, kernel):
    return jnp.sum(jnp.sin(function(x, kernel)))

  def second(x, kernel):
    return sum(jnp.sum(jnp.cos(g)) for g in jax.grad(loss, (0, 1))(x, kernel))

  def everything(x, kernel):
    first = jax.grad(loss, (0, 1))(x, kernel)
    return function(x, kernel), first, jax.grad(second, (0, 1))(x, kernel)

  return jax.jit(everything)


@pytest.fixture(params=[True, False], ids=['YNNPACK', 'Eigen'])
def _library(request, monkeypatch):
  """Whose convolutions XLA is said to use; the forms differ, the numbers may not."""
  monkeypatch.setattr(ynnpack, 'convolves', lambda: request.param)


@pytest.mark.usefixtures('_library')
@pytest.mark.parametrize('case', CASES)
def test_products_match_direct_to_second_order(case):
  with jax.enable_x64(True):
    arguments = draw(case)
    expected = values_and_gradients(convolution(case, 'direct'))(*arguments)
    actual = values_and_gradients(convolution(case, 'products'))(*arguments)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), actual, expected
    )


@pytest.mark.parametrize(('window', 'padding', 'features'), [(3, 1, 4), (3, 0, 2), (5, 2, 3)])
def test_weight_by_taps_matches_direct(window, padding, features):
  with jax.enable_x64(True):
    x, kernel = draw((7, window, 1, padding, 3, features, 1))
    y, pullback = jax.vjp(
      lambda kernel: cpu_convolution.direct(x, kernel, stride=1, padding=padding), kernel
    )
    at = cpu_convolution.Geometry((7, 9), window, 1, padding)
    found = cpu_convolution.weight_by_taps(x, y, at)
    np.testing.assert_allclose(found, pullback(y)[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('features', [128, 3])
def test_large_maps_have_the_gradient_of_direct(features):
  case = (90, 3, 1, 1, 128, features, 1)  # deep and large enough for a product per tap
  x, kernel = draw(case, np.float32)
  both = [
    jax.grad(lambda kernel, how=how: jnp.sum(jnp.sin(convolution(case, how)(x, kernel))))(kernel)
    for how in ('products', 'direct')
  ]
  np.testing.assert_allclose(*both, rtol=1e-3, atol=1e-2)


def test_value_by_hand():
  # A 3x3 window of ones at stride 2 counts the pixels that it covers.
  x = jnp.ones((1, 4, 4, 1))
  y = conv2d(x, jnp.ones((3, 3, 1, 1)), stride=2, padding=1)
  np.testing.assert_array_equal(y[0, :, :, 0], [[4, 6], [6, 9]])


@pytest.mark.parametrize('case', [CASES[3], CASES[8]])
def test_bfloat16_stays_bfloat16(case):
  x, kernel = draw(case, jnp.bfloat16)

  def loss(x, kernel):
    return jnp.sum(convolution(case, 'products')(x, kernel).astype(jnp.float32))

  y = convolution(case, 'products')(x, kernel)
  gradients = jax.grad(loss, (0, 1))(x, kernel)
  assert [y.dtype, *(g.dtype for g in gradients)] == [jnp.bfloat16] * 3
  wide = convolution(case, 'direct')(x.astype(jnp.float32), kernel.astype(jnp.float32))
  np.testing.assert_allclose(y.astype(jnp.float32), wide, rtol=2e-2, atol=5e-2)


@pytest.mark.parametrize('case', [CASES[3], CASES[6], CASES[8]])
def test_vmap_over_kernels_matches_a_loop(case):
  x, kernel = draw(case, np.float32)
  kernels = jnp.stack([kernel, -2 * kernel])
  gradient = jax.grad(lambda k: jnp.sum(convolution(case, 'products')(x, k) ** 2))
  loop = jnp.stack([gradient(k) for k in kernels])
  np.testing.assert_allclose(jax.vmap(gradient)(kernels), loop, rtol=1e-4, atol=1e-4)


def test_rejects_unknown_implementation():
  with pytest.raises(ValueError, match="'direct', 'products' or None, got 'fast'"):
    conv2d(jnp.ones((1, 4, 4, 1)), jnp.ones((1, 1, 1, 1)), implementation='fast')
