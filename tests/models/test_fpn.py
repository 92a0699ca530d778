"""Pyramids have torchvision's names and arithmetic; the light one has the same maps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models
from jaxdefect.models import fpn

# Sides that no stride divides, as a 45x35 image leaves them.
SIZES = ((12, 9), (6, 5), (3, 3))
WIDTHS = (3, 4, 5)


def draw(num=2, dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(1), len(SIZES))
  return [
    jax.random.normal(key, (num, *size, width), dtype)
    for key, size, width in zip(keys, SIZES, WIDTHS)
  ]


@functools.cache
def made(kind, **settings):
  module = kind(channels=8, **settings)
  variables = jax.jit(module.init)(jax.random.key(0), draw())
  # Biases of their own, so that they are seen.
  leaves, tree = jax.tree.flatten(variables['params'])
  keys = jax.random.split(jax.random.key(2), len(leaves))
  leaves = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys)]
  return module, {**variables, 'params': jax.tree.unflatten(tree, leaves)}


def shapes(maps):
  return [m.shape for m in maps]


@pytest.mark.parametrize(
  ('size', 'target'), [((3, 3), (6, 5)), ((2, 3), (5, 7)), ((4, 5), (3, 5)), ((1, 2), (4, 2))]
)
def test_resize_nearest_matches_its_formula(size, target):
  x = np.random.default_rng(0).normal(size=(2, *size, 3))
  expected = np.empty((2, *target, 3))
  for i in range(target[0]):
    for j in range(target[1]):
      expected[:, i, j] = x[:, i * size[0] // target[0], j * size[1] // target[1]]
  with jax.enable_x64(True):
    np.testing.assert_array_equal(fpn.resize_nearest(jnp.array(x), target), expected)


def test_fpn_by_hand():
  module, variables = made(models.FPN)

  @jax.jit
  def by_hand(maps, params):
    def layer(x, name, padding):
      return models.conv2d(x, params[name]['kernel'], padding=padding) + params[name]['bias']

    inner = [layer(x, f'inner_blocks.{k}.0', 0) for k, x in enumerate(maps)]
    rows, columns = np.arange(6) // 2, np.arange(5) // 2
    inner[1] = inner[1] + inner[2][:, rows][:, :, columns]
    rows, columns = np.arange(12) // 2, np.arange(9) * 5 // 9
    inner[0] = inner[0] + inner[1][:, rows][:, :, columns]
    outer = [layer(x, f'layer_blocks.{k}.0', 1) for k, x in enumerate(inner)]
    return [*outer, outer[-1][:, ::2, ::2]]

  actual = jax.jit(module.apply)(variables, draw())
  for a, b in zip(actual, by_hand(draw(), variables['params']), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_names_are_torchvisions():
  _, variables = made(models.FPN)
  names = {f'{path}.{leaf}' for path, layer in variables['params'].items() for leaf in layer}
  assert names == {
    f'{kind}_blocks.{level}.0.{leaf}'
    for kind in ('inner', 'layer')
    for level in range(3)
    for leaf in ('kernel', 'bias')
  }


@pytest.mark.parametrize('kind', [models.FPN, models.GSFPN])
@pytest.mark.parametrize(('first_stage', 'extra_levels'), [(1, 1), (2, 2), (3, 0)])
def test_maps_and_strides(kind, first_stage, extra_levels):
  module = kind(channels=8, first_stage=first_stage, extra_levels=extra_levels)
  maps = jax.eval_shape(lambda maps: module.init_with_output(jax.random.key(0), maps)[0], draw())
  assert isinstance(maps, tuple)
  strides = fpn.pyramid_strides(3, first_stage=first_stage, extra_levels=extra_levels)
  assert shapes(maps) == [(2, -(-48 // s), -(-36 // s), 8) for s in strides]


def test_gs_fpn_aggregates_on_the_way_down():
  module, variables = made(models.GSFPN)
  assert set(variables['params']) == {
    *(f'inner_blocks.{k}.0' for k in range(3)),
    *(f'layer_blocks.{k}' for k in range(3)),
    *(f'fuse_blocks.{k}' for k in range(2)),
  }

  @jax.jit
  def by_hand(maps, variables):
    def part(layer, name, x):
      own = {collection: tree[name] for collection, tree in variables.items()}
      return layer.apply(own, x, running=True)

    inner = []
    for k, x in enumerate(maps):
      layer = variables['params'][f'inner_blocks.{k}.0']
      inner.append(models.conv2d(x, layer['kernel']) + layer['bias'])
    for k in (1, 0):
      coarser = fpn.resize_nearest(inner[k + 1], SIZES[k])
      inner[k] = part(models.VoVGSCSP(8), f'fuse_blocks.{k}', inner[k] + coarser)
    return [part(models.GSConv(8), f'layer_blocks.{k}', x) for k, x in enumerate(inner)]

  actual = jax.jit(module.apply)(variables, draw())
  for a, b in zip(actual, by_hand(draw(), variables)):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_coarse_maps_reach_fine_levels_and_not_the_reverse():
  module, variables = made(models.FPN)

  def level(maps, index):
    return jnp.sum(module.apply(variables, maps)[index] ** 2)

  finest, coarsest = (jax.jit(jax.grad(level), static_argnums=1)(draw(), k) for k in (0, 2))
  assert all(bool(jnp.any(g != 0)) for g in finest)
  assert [bool(jnp.any(g != 0)) for g in coarsest] == [False, False, True]


def test_padding_is_invisible():
  module, variables = made(models.GSFPN)
  apply = jax.jit(functools.partial(module.apply, train=True, mutable='batch_stats'))
  maps = draw()
  padded = [jnp.concatenate([x, jnp.full_like(x[:1], 50.0)]) for x in maps]
  expected = apply(variables, maps)
  actual = apply(variables, padded, valid=jnp.array([True, True, False]))
  for a, b in zip(actual[0], expected[0]):
    np.testing.assert_allclose(a[:2], b, rtol=1e-3, atol=1e-4)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), actual[1], expected[1]
  )


def test_two_devices_match_one():
  with jax.enable_x64(True):
    settings = {'channels': 8, 'first_stage': 2, 'dtype': jnp.float64}
    one = models.GSFPN(**settings)
    two = models.GSFPN(norm=functools.partial(models.BatchNorm, axis_name='devices'), **settings)
    maps = draw(4, jnp.float64)
    variables = jax.tree.map(
      lambda a: a.astype(jnp.float64), jax.jit(one.init)(jax.random.key(0), maps)
    )
    valid = jnp.array([True, True, True, False])
    expected, _ = jax.jit(functools.partial(one.apply, train=True, mutable='batch_stats'))(
      variables, maps, valid=valid
    )

    def device(maps, valid):
      return two.apply(variables, maps, train=True, valid=valid, mutable='batch_stats')[0]

    actual = jax.pmap(device, axis_name='devices', devices=jax.devices()[:2])(
      [x.reshape(2, 2, *x.shape[1:]) for x in maps], valid.reshape(2, 2)
    )
    for a, b in zip(actual, expected):
      np.testing.assert_allclose(a.reshape(b.shape)[:3], b[:3], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('kind', [models.FPN, models.GSFPN])
def test_bfloat16_maps_and_float32_variables(kind):
  module = kind(channels=8, dtype=jnp.bfloat16)
  maps, variables = jax.eval_shape(
    lambda maps: module.init_with_output(jax.random.key(0), maps), draw()
  )
  assert {m.dtype for m in maps} == {jnp.dtype('bfloat16')}
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


@pytest.mark.parametrize('first_stage', [0, 4])
def test_rejects_bad_arguments(first_stage):
  module = models.FPN(8, first_stage=first_stage)
  with pytest.raises(ValueError, match=f'first_stage is {first_stage}; .* stages 1 to 3'):
    jax.eval_shape(lambda maps: module.init(jax.random.key(0), maps), draw())


def test_group_norm_predicts_what_it_trains():
  module, variables = made(models.GSFPN, norm=models.GroupNorm)
  assert 'batch_stats' not in variables
  trained, predicted = (module.apply(variables, draw(), train=train) for train in (True, False))
  for a, b in zip(trained, predicted):
    np.testing.assert_array_equal(a, b)
