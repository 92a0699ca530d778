"""Coordinate attention against numpy and against a PyTorch module written from its paper."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models
from jaxdefect.convert import torch_params


@functools.cache
def made(**settings):
  """A layer with random parameters and statistics, and an input whose sides differ."""
  layer = models.CoordinateAttention(**{'reduction': 3, 'least': 2, **settings})
  x = jax.random.normal(jax.random.key(1), (3, 4, 5, 6))
  shapes = jax.eval_shape(lambda x: layer.init(jax.random.key(0), x, running=True), x)
  random = np.random.default_rng(0)
  variables = jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.asarray(
      random.uniform(0.5, 1.5, leaf.shape)
      if path[-1].key in ('var', 'scale')
      else random.normal(size=leaf.shape),
      leaf.dtype,
    ),
    shapes,
  )
  return layer, variables, x


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def by_hand(variables, x, moments=None):
  """The equations with loops over rows and columns; ``moments`` None takes the running ones."""
  params = jax.tree.map(np.asarray, variables['params'])
  statistics = variables['batch_stats']['bn1']
  x = np.asarray(x, np.float64)
  n, height, width, channels = x.shape
  z = np.zeros((n, height + width, channels))
  for i in range(height):
    z[:, i] = sum(x[:, i, j] for j in range(width)) / width
  for j in range(width):
    z[:, height + j] = sum(x[:, i, j] for i in range(height)) / height
  f = z @ params['conv1']['kernel'][0, 0]
  mean, var = moments(f) if moments else (statistics['mean'], statistics['var'])
  f = (f - mean) / np.sqrt(np.asarray(var) + 1e-5)
  f = f * params['bn1']['scale'] + params['bn1']['bias']
  f = f * np.clip(f + 3, 0, 6) / 6
  y = np.zeros_like(x)
  for i in range(height):
    for j in range(width):
      row, column = (
        sigmoid(f[:, place] @ params[name]['kernel'][0, 0] + params[name]['bias'])
        for place, name in ((i, 'conv_h'), (height + j, 'conv_w'))
      )
      y[:, i, j] = x[:, i, j] * row * column
  return y


def test_value_by_hand():
  layer, variables, x = made()
  y = jax.jit(functools.partial(layer.apply, running=True))(variables, x)
  np.testing.assert_allclose(y, by_hand(variables, x), rtol=1e-4, atol=1e-5)
  assert np.abs(y - x).max() > 0.1


def test_batch_statistics_by_hand_and_padding_is_invisible():
  layer, variables, x = made()
  apply = jax.jit(functools.partial(layer.apply, running=False, mutable=['batch_stats']))
  expected = by_hand(variables, x[:2], lambda f: (f.mean((0, 1)), f.var((0, 1))))
  y, updated = apply(variables, x[:2])
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
  padded, padded_update = apply(variables, x.at[2].set(100.0), valid=jnp.array([True, True, False]))
  np.testing.assert_allclose(padded[:2], expected, rtol=1e-4, atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), padded_update, updated)


def test_matches_torch():
  torch = pytest.importorskip('torch')
  layer, variables, x = made()

  class Attention(torch.nn.Module):
    """Hou et al., figure 2c, in PyTorch's own layers."""

    def __init__(self):
      super().__init__()
      self.conv1 = torch.nn.Conv2d(6, 2, 1, bias=False)
      self.bn1 = torch.nn.BatchNorm2d(2)
      self.conv_h = torch.nn.Conv2d(2, 6, 1)
      self.conv_w = torch.nn.Conv2d(2, 6, 1)

    def forward(self, x):
      height, width = x.shape[2:]
      rows = torch.nn.functional.adaptive_avg_pool2d(x, (height, 1))
      columns = torch.nn.functional.adaptive_avg_pool2d(x, (1, width)).permute(0, 1, 3, 2)
      y = self.bn1(self.conv1(torch.cat([rows, columns], dim=2)))
      rows, columns = torch.split(torch.nn.functional.hardswish(y), [height, width], dim=2)
      columns = self.conv_w(columns.permute(0, 1, 3, 2)).sigmoid()
      return x * self.conv_h(rows).sigmoid() * columns

  module = Attention()
  state = torch_params.to_state_dict(variables)
  module.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
  for train in (False, True):
    module.train(train)
    theirs_in = torch.tensor(np.array(x)).permute(0, 3, 1, 2).requires_grad_()
    theirs = module(theirs_in)
    theirs.pow(3).sum().backward()

    def loss(x, train=train):
      y, _ = layer.apply(variables, x, running=not train, mutable=['batch_stats'])
      return jnp.sum(y**3), y

    gradient, ours = jax.jit(jax.grad(loss, has_aux=True))(x)
    for mine, other in ((ours, theirs), (gradient, theirs_in.grad)):
      other = other.detach().permute(0, 2, 3, 1).numpy()
      np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


def test_rows_and_columns_are_told_apart():
  layer, variables, _ = made()
  x = jax.random.normal(jax.random.key(2), (1, 5, 5, 6))
  y = layer.apply(variables, x, running=True)
  turned = layer.apply(variables, x.swapaxes(1, 2), running=True).swapaxes(1, 2)
  assert np.abs(y - turned).max() > 0.01
  # A layer that treats both alike does not care which is which.
  params = {**variables['params'], 'conv_w': variables['params']['conv_h']}
  alike = {**variables, 'params': params}
  y = layer.apply(alike, x, running=True)
  turned = layer.apply(alike, x.swapaxes(1, 2), running=True).swapaxes(1, 2)
  np.testing.assert_allclose(y, turned, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(('channels', 'bottleneck'), [(16, 8), (512, 16)])
def test_published_bottleneck(channels, bottleneck):
  layer = models.CoordinateAttention()
  x = jax.ShapeDtypeStruct((1, 4, 4, channels), jnp.float32)
  variables = jax.eval_shape(lambda x: layer.init(jax.random.key(0), x, running=True), x)
  assert variables['params']['conv1']['kernel'].shape == (1, 1, channels, bottleneck)
  assert set(variables['params']) == {'conv1', 'bn1', 'conv_h', 'conv_w'}
  assert 'bias' not in variables['params']['conv1']


def test_normalisation_is_a_choice():
  layer = models.CoordinateAttention(norm=models.GroupNorm)
  x = jax.random.normal(jax.random.key(1), (2, 4, 5, 6))
  variables = layer.init(jax.random.key(0), x, running=True)
  assert set(variables) == {'params'}
  y = layer.apply(variables, x, running=False)
  np.testing.assert_allclose(layer.apply(variables, x[:1], running=True), y[:1], rtol=1e-5)


def test_bfloat16_maps_and_float32_variables():
  layer = models.CoordinateAttention(dtype=jnp.bfloat16)
  y, variables = jax.eval_shape(
    lambda x: layer.init_with_output(jax.random.key(0), x, running=False), jnp.zeros((1, 4, 4, 6))
  )
  assert y.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


def test_second_derivative_matches_numeric():
  layer, variables, x = made()
  with jax.enable_x64(True):
    wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (variables, x[:2, :2, :3]))
    variables, x = wide
    layer = models.CoordinateAttention(reduction=3, least=2, dtype=jnp.float64)

    def loss(x):
      y, _ = layer.apply(variables, x, running=False, mutable=['batch_stats'])
      return jnp.sum(jnp.sin(y))

    along = jax.random.normal(jax.random.key(3), x.shape, jnp.float64)
    gradient = jax.jit(jax.grad(loss))
    second = jax.jit(jax.grad(lambda x: jnp.vdot(gradient(x), along)))(x)
    step = 1e-5
    numeric = (gradient(x + step * along) - gradient(x - step * along)) / (2 * step)
    np.testing.assert_allclose(second, numeric, rtol=1e-5, atol=1e-7)
