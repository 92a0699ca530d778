"""The transposed convolution equals PyTorch's, in both ways of computing it, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect.models import ConvTranspose, conv2d, conv_transpose2d

GEOMETRIES = [(4, 2, 1), (4, 1, 0), (3, 1, 1), (2, 2, 0)]


def given(window):
  generator = np.random.default_rng(0)
  x = generator.normal(size=(2, 3, 5, 4)).astype(np.float32)
  return x, generator.normal(size=(window, window, 3, 4)).astype(np.float32)


@pytest.mark.parametrize('implementation', ['direct', 'products'])
@pytest.mark.parametrize(('window', 'stride', 'padding'), GEOMETRIES)
def test_matches_torch(window, stride, padding, implementation):
  torch = pytest.importorskip('torch')
  x, kernel = given(window)
  # PyTorch has [C, O, k, k].
  theirs = torch.nn.functional.conv_transpose2d(
    torch.tensor(x).permute(0, 3, 1, 2),
    torch.tensor(kernel).permute(3, 2, 0, 1),
    stride=stride,
    padding=padding,
  )
  ours = conv_transpose2d(x, kernel, stride=stride, padding=padding, implementation=implementation)
  np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-5)


def test_both_implementations_have_the_same_gradients():
  x, kernel = given(4)

  def loss(x, kernel, implementation):
    y = conv_transpose2d(x, kernel, stride=2, padding=1, implementation=implementation)
    return jnp.sum(jnp.sin(y))

  slopes = [jax.grad(loss, (0, 1))(x, kernel, way) for way in ('direct', 'products')]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *slopes)


def test_is_the_transpose_of_a_convolution():
  x, kernel = given(4)
  other = np.random.default_rng(1).normal(size=(2, 6, 10, 3)).astype(np.float32)
  # <convT(x), other> = <x, conv(other)>
  left = jnp.sum(conv_transpose2d(x, kernel, stride=2, padding=1) * other)
  right = jnp.sum(x * conv2d(other, kernel, stride=2, padding=1))
  np.testing.assert_allclose(left, right, rtol=1e-4)


def test_layer_doubles_the_map():
  x, _ = given(4)
  layer = ConvTranspose(7, 4, stride=2, padding=1)
  y, variables = layer.init_with_output(jax.random.key(0), x)
  assert y.shape == (2, 6, 10, 7)
  assert jax.tree.map(jnp.shape, variables) == {'params': {'kernel': (4, 4, 7, 4)}}


def test_rejects_an_unknown_implementation():
  x, kernel = given(4)
  with pytest.raises(ValueError, match="implementation must be 'direct', 'products' or None"):
    conv_transpose2d(x, kernel, implementation='fast')
