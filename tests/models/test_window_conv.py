"""The product with gathered windows is the convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models
from jaxdefect.models.window_conv import WindowConv, windows

X = jax.random.normal(jax.random.key(1), (2, 7, 6, 3))


def test_windows_by_hand():
  seen = windows(X, 3, stride=2, padding=1)
  assert seen.shape == (2, 4, 3, 27)
  padded = np.pad(X, ((0, 0), (1, 1), (1, 1), (0, 0)))
  for i in range(4):
    for j in range(3):
      expected = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].reshape(2, 27)
      np.testing.assert_array_equal(seen[:, i, j], expected)


@pytest.mark.parametrize(
  ('size', 'stride', 'padding'), [(3, 1, 1), (3, 2, 1), (5, 2, 2), (2, 1, 0), (1, 1, 0)]
)
def test_equals_conv(size, stride, padding):
  layer = WindowConv(4, size, stride, padding)
  plain = models.Conv(4, size, stride, padding)
  variables = layer.init(jax.random.key(0), X)
  same = plain.init(jax.random.key(0), X)
  jax.tree.map(np.testing.assert_array_equal, variables, same)

  def derivatives(module):
    def loss(kernel, x):
      return jnp.sum(jnp.sin(module.apply({'params': {'kernel': kernel}}, x)))

    first = jax.grad(loss, (0, 1))

    def length(kernel, x):
      return sum(jnp.sum(jnp.square(g)) for g in first(kernel, x))

    kernel = variables['params']['kernel']
    return jax.jit(lambda k, x: (module.apply(variables, x), first(k, x), jax.grad(length)(k, x)))(
      kernel, X
    )

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
    derivatives(layer),
    derivatives(plain),
  )


def test_windows_are_gathered_once_for_all_steps():
  layer = WindowConv(4, 3, padding=1)
  x = jax.random.normal(jax.random.key(2), (4, 32, 32, 3))
  kernel = layer.init(jax.random.key(0), x)['params']['kernel']

  def loss(kernel, x):
    return jnp.sum(jnp.sin(layer.apply({'params': {'kernel': kernel}}, x)))

  def two_steps(kernel, x):
    for _ in range(2):
      kernel = kernel - 0.1 * jax.grad(loss)(kernel, x)
    return loss(kernel, x)

  text = jax.jit(jax.grad(two_steps)).lower(kernel, x).compile().as_text()
  assert text.count(' concatenate(') == 1


def test_many_channels_are_convolved():
  layer = WindowConv(4, 3, padding=1)
  x = jnp.zeros((1, 5, 5, 8))
  variables = layer.init(jax.random.key(0), x)
  jaxpr = str(jax.make_jaxpr(layer.apply)(variables, x))
  assert 'conv_general_dilated' in jaxpr
  assert 'concatenate' not in jaxpr


def test_bfloat16_maps_and_float32_kernel():
  y, variables = jax.eval_shape(
    lambda x: WindowConv(4, 3, dtype=jnp.bfloat16).init_with_output(jax.random.key(0), x), X
  )
  assert y.dtype == jnp.bfloat16
  assert variables['params']['kernel'].dtype == jnp.float32
