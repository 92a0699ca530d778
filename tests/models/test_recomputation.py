"""What is computed again has the same numbers and variables, and is not kept."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models
from jaxdefect.models.recomputation import recomputed
from jaxdefect.models.resnet import Bottleneck


def slopes(module, axis):
  """The gradient of a loss on the maps, the maps, and what the call has updated and sown."""

  def loss(params, rest, x, valid):
    maps, updated = module.apply(
      {**rest, 'params': params},
      x,
      train=True,
      valid=valid,
      mutable=['batch_stats', 'intermediates'],
    )
    return sum(jnp.sum(jnp.sin(m)) for m in maps), (maps, updated)

  gradient = jax.grad(loss, (0, 2), has_aux=True)
  if axis is None:
    return jax.jit(gradient)
  return jax.pmap(gradient, axis_name=axis, in_axes=(None, None, 0, 0))


@pytest.mark.parametrize(
  ('name', 'settings'),
  [
    ('resnet10', {'stages': 2, 'width': 4, 'deformable': 'v2', 'frozen_stages': 1}),
    ('resnet10', {'stages': 1, 'width': 4, 'axis_name': 'd'}),
    ('mobilenet_v2', {'stages': 1}),
    ('efficientnet_b0', {'stages': 1}),
    ('resnet50_v2', {'stages': 1}),
  ],
)
def test_recomputed_backbone_is_the_same_network(name, settings):
  with jax.enable_x64(True):
    plain = models.backbone(name, dtype=jnp.float64, **settings)
    again = models.backbone(name, dtype=jnp.float64, remat=True, **settings)
    x = jax.random.normal(jax.random.key(1), (4, 16, 16, 3), jnp.float64)
    valid = jnp.array([True, True, True, False])
    variables = jax.jit(plain.init)(jax.random.key(0), x)
    assert jax.eval_shape(again.init, jax.random.key(0), x) == jax.eval_shape(lambda: variables)
    variables = jax.tree.map(lambda a: a.astype(jnp.float64), variables)
    params = variables.pop('params')
    if 'axis_name' in settings:
      x, valid = x.reshape(2, 2, *x.shape[1:]), valid.reshape(2, 2)
    expected, found = (
      slopes(module, settings.get('axis_name'))(params, variables, x, valid)
      for module in (plain, again)
    )
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), found, expected
    )
    (slope, _), (maps, updated) = found
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slope)) > 0
    assert len(maps) == settings['stages']
    assert ('intermediates' in updated) == ('deformable' in settings)


class Chain(nn.Module):
  """The middle of a ResNet-50: blocks that keep the size."""

  again: bool
  depth: int = 5

  @nn.compact
  def __call__(self, x):
    for index in range(self.depth):
      width = x.shape[-1] // 4
      block = Bottleneck(channels=width, stride=1, dtype=x.dtype, name=f'layer3.{index}')
      x = recomputed(block, x, when=self.again, running=False)
    return x


def chain_loss(again):
  """``(variables, x) -> scalar``, and the shapes of both."""
  module, x = Chain(again), jnp.zeros((4, 16, 16, 32))
  variables = jax.eval_shape(module.init, jax.random.key(0), x)

  def loss(variables, x):
    y, _ = module.apply(variables, x, mutable='batch_stats')
    return jnp.sum(y**2)

  return loss, (variables, jax.eval_shape(lambda: x))


def test_what_is_computed_again_takes_less_memory():
  def megabytes(again):
    loss, shapes = chain_loss(again)
    compiled = jax.jit(jax.grad(loss)).lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 1e6

  assert megabytes(True) < 0.6 * megabytes(False)


def test_only_what_enters_a_block_is_kept():
  """Whatever the compiler makes of it: counted in what the backward pass closes over."""

  def kept(again):
    loss, shapes = chain_loss(again)
    pull = jax.eval_shape(lambda *arguments: jax.vjp(loss, *arguments)[1], *shapes)
    return [leaf.shape for leaf in jax.tree.leaves(pull) if leaf.shape[:1] == (4,)]

  # Five inputs of blocks and the chain's result.
  assert kept(True) == [(4, 16, 16, 32)] * 6
  assert len(kept(False)) > 5 * 6


def test_blocks_can_be_differentiated_twice():
  with jax.enable_x64(True):
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 8), jnp.float64)
    variables = Chain(False, depth=1).init(jax.random.key(0), x)

    def curvature(again):
      def loss(x):
        return jnp.sum(Chain(again, depth=1).apply(variables, x, mutable='batch_stats')[0] ** 3)

      return jax.jit(jax.grad(lambda x: jnp.sum(jax.grad(loss)(x) ** 2)))(x)

    expected = curvature(False)
    assert float(jnp.abs(expected).max()) > 0
    np.testing.assert_allclose(curvature(True), expected, rtol=1e-9, atol=1e-9)
