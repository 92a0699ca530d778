"""Backbones have the published sizes, maps per stage, and stages that freeze."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models

# torchvision's figures, and the same networks as MXNet Gluon has them. Gluon's MobileNetV2 adds a
# 1x1 expansion of 32 x 32 and its BatchNorm.
PARAMETERS = {
  'resnet18': 11_689_512,
  'resnet34': 21_797_672,
  'resnet50': 25_557_032,
  'resnet101': 44_549_160,
  'mobilenet_v2': 3_504_872,
  'mobilenet_v2_gluon': 3_504_872 + 32 * 32 + 2 * 32,
  'efficientnet_b0': 5_288_548,
  'efficientnet_b3': 12_233_232,
}
NAMES = (*PARAMETERS, 'resnet50_v2')


def shapes(module):
  return jax.eval_shape(
    lambda key: module.init(key, jnp.zeros((1, 64, 64, 3)), train=True), jax.random.key(0)
  )


def paths(tree):
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {tuple(getattr(entry, 'key', '') for entry in path): leaf for path, leaf in leaves}


@functools.cache
def small(name, **settings):
  """A backbone, its variables with statistics of their own, and images."""
  module = models.backbone(name, **settings)
  x = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
  variables = jax.jit(module.init)(jax.random.key(0), x)
  statistics = jax.tree.map(lambda a: a + 0.1, variables['batch_stats'])
  return module, {**variables, 'batch_stats': statistics}, x


@pytest.mark.parametrize('name', PARAMETERS)
def test_number_of_parameters(name):
  recogniser = models.Recogniser(backbone=models.backbone(name), num_classes=1000)
  sizes = [leaf.size for leaf in jax.tree.leaves(shapes(recogniser)['params'])]
  assert sum(sizes) == PARAMETERS[name]


@pytest.mark.parametrize('name', NAMES)
def test_stages_nest(name):
  whole = paths(shapes(models.backbone(name)))
  previous: set = set()
  for stages in (1, 2, 3, 4):
    module = models.backbone(name, stages=stages)
    variables = shapes(module)
    maps = jax.eval_shape(module.apply, variables, jnp.zeros((1, 64, 96, 3)))
    strides = [4, 8, 16, 32][:stages]
    assert [m.shape for m in maps] == [
      (1, 64 // s, 96 // s, f) for s, f in zip(strides, module.stage_features)
    ]
    own = paths(variables)
    assert all(whole[path].shape == leaf.shape for path, leaf in own.items())
    assert previous < set(own)
    # A part frozen to its end has nothing left to train; a whole one freezes the same parameters.
    frozen = models.backbone(name, frozen_stages=stages)
    names = {path[1:] for path in whole if path[0] == 'params'}
    part = {path[1:] for path in own if path[0] == 'params'}
    assert {path for path in names if models.is_frozen(frozen, path)} == part
    previous = set(own)


@pytest.mark.parametrize('name', ['resnet18', 'mobilenet_v2_gluon', 'resnet50_v2'])
def test_frozen_stages_get_no_gradient_and_keep_statistics(name):
  module, variables, x = small(name, stages=2, frozen_stages=1)

  def loss(params):
    maps, state = module.apply(
      {**variables, 'params': params}, x, train=True, mutable='batch_stats'
    )
    return sum(jnp.sum(m**2) for m in maps), state['batch_stats']

  gradient, statistics = jax.jit(jax.grad(loss, has_aux=True))(variables['params'])
  for path, leaf in paths(gradient).items():
    assert bool(jnp.any(leaf != 0)) != models.is_frozen(module, path), path
  before = paths(variables['batch_stats'])
  for path, leaf in paths(statistics).items():
    kept = bool(jnp.all(leaf == before[path]))
    assert kept == (
      models.is_frozen(module, (*path[:-1], 'scale')) if path[0] != 'batchnorm0' else True
    ), path


def test_update_statistics_false_is_evaluation():
  module, variables, x = small('resnet18', stages=2)
  fixed = models.backbone('resnet18', stages=2, update_statistics=False)
  maps, state = fixed.apply(variables, x, train=True, mutable='batch_stats')
  jax.tree.map(np.testing.assert_array_equal, maps, module.apply(variables, x))
  jax.tree.map(np.testing.assert_array_equal, state['batch_stats'], variables['batch_stats'])


def test_padding_is_invisible():
  module, variables, x = small('resnet18', stages=2)
  padded = jnp.concatenate([x, jnp.full((1, *x.shape[1:]), 9.0)])
  run = jax.jit(functools.partial(module.apply, train=True, mutable='batch_stats'))
  maps, state = run(variables, x)
  padded_maps, padded_state = run(variables, padded, valid=jnp.array([True, True, False]))

  def close(a, b):
    return np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

  jax.tree.map(lambda a, b: close(a[:2], b), padded_maps, maps)
  jax.tree.map(close, padded_state, state)


def test_tap_has_the_gradient_of_the_last_map():
  module, variables, x = small('resnet18', stages=2)
  maps = module.apply(variables, x)
  tap = jnp.zeros_like(maps[-1])

  def loss(tap):
    return jnp.sum(module.apply(variables, x, tap=tap)[-1] ** 2)

  np.testing.assert_allclose(jax.grad(loss)(tap), 2 * maps[-1], rtol=1e-5)


def test_two_devices_match_one():
  with jax.enable_x64(True):
    settings = {'stages': 1, 'dtype': jnp.float64}
    one = models.backbone('resnet18', **settings)
    two = models.backbone('resnet18', axis_name='devices', **settings)
    x = jax.random.normal(jax.random.key(1), (4, 16, 16, 3), jnp.float64)
    variables = one.init(jax.random.key(0), x)
    variables = jax.tree.map(lambda a: a.astype(jnp.float64), variables)

    def loss(params, x, module):
      variables_ = {**variables, 'params': params}
      maps, state = module.apply(variables_, x, train=True, mutable='batch_stats')
      return jnp.sum(maps[-1] ** 2), state

    gradient, state = jax.jit(jax.grad(functools.partial(loss, module=one), has_aux=True))(
      variables['params'], x
    )

    def device(x):
      gradient, state = jax.grad(loss, has_aux=True)(variables['params'], x, two)
      return jax.lax.psum(gradient, 'devices'), state

    actual = jax.pmap(device, axis_name='devices', devices=jax.devices()[:2])(
      x.reshape(2, 2, *x.shape[1:])
    )
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-9, atol=1e-9),
      actual,
      (gradient, state),
    )


def test_bfloat16_maps_and_float32_variables():
  module = models.backbone('mobilenet_v2', stages=1, dtype=jnp.bfloat16)
  variables = shapes(module)
  (map_,) = jax.eval_shape(module.apply, variables, jnp.zeros((1, 64, 64, 3)))
  assert map_.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


# 3x3 convolutions of ResNet-50's last three stages: 4 on 128, 6 on 256, 3 on 512 channels.
WINDOWS, INPUTS = 13, 4 * 128 + 6 * 256 + 3 * 512


@pytest.mark.parametrize(('version', 'channels', 'millions'), [('v1', 18, 0.58), ('v2', 27, 0.87)])
def test_deformable_resnet50_adds_offsets_and_nothing_else(version, channels, millions):
  plain = paths(shapes(models.backbone('resnet50')))
  deformable = paths(shapes(models.backbone('resnet50', deformable=version)))
  extra = {path: leaf.size for path, leaf in deformable.items() if path not in plain}
  assert all(plain[path].shape == deformable[path].shape for path in plain)
  assert all(path[-2] == 'offset' and path[-3] == 'conv2' for path in extra)
  assert {path[1].split('.')[0] for path in extra} == {'layer2', 'layer3', 'layer4'}
  assert sum(extra.values()) == 9 * INPUTS * channels + WINDOWS * channels
  assert round(sum(extra.values()) / 1e6, 2) == millions


def test_deformable_basic_blocks_and_first_stage():
  module = models.backbone('resnet18', stages=3, deformable='v1', deformable_from=3)
  offsets = {path[1:3] for path in paths(shapes(module)) if 'offset' in path}
  blocks = ('layer3.0', 'layer3.1')
  assert offsets == {(block, conv) for block in blocks for conv in ('conv1', 'conv2')}


@pytest.mark.parametrize(
  ('name', 'version'), [('resnet18', 'v1'), ('resnet18', 'v2'), ('resnet50', 'v2')]
)
def test_deformable_network_starts_as_the_plain_one(name, version):
  plain, pretrained, x = small(name, stages=2, width=8)
  module = models.backbone(name, stages=2, width=8, deformable=version)
  variables = jax.jit(module.init)(jax.random.key(7), x)
  # Plain weights are a part of the tree; the offsets stay zero.
  variables = models.merge_pretrained(variables, pretrained)
  maps, sown = jax.jit(functools.partial(module.apply, mutable='intermediates'))(variables, x)
  for a, b in zip(maps, jax.jit(plain.apply)(pretrained, x)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
  # What is sown says where the network looks, layer by layer.
  assert {path[1].split('.')[0] for path in paths({'sown': sown['intermediates']})} == {'layer2'}


def test_deformable_stages_freeze():
  module, variables, x = small(
    'resnet18', stages=2, width=8, frozen_stages=1, deformable='v2', deformable_from=1
  )

  def loss(params):
    return sum(jnp.sum(m**2) for m in module.apply({**variables, 'params': params}, x, train=False))

  gradient = paths(jax.jit(jax.grad(loss))(variables['params']))
  offsets = [path for path in gradient if 'offset' in path]
  assert {path[0].split('.')[0] for path in offsets} == {'layer1', 'layer2'}
  for path in offsets:
    frozen = models.is_frozen(module, path)
    assert frozen == path[0].startswith('layer1')
    assert bool(jnp.any(gradient[path] != 0)) != frozen, path


@pytest.mark.parametrize(
  ('settings', 'sentence'),
  [
    ({'name': 'resnet20'}, 'backbone name must be one of resnet10, .* got .resnet20.'),
    ({'name': 'resnet18', 'stages': 5}, 'stages must be 1, 2, 3, 4 or None .* got 5'),
    ({'name': 'resnet18', 'stages': 2, 'frozen_stages': 3}, 'between 0 and 2 .* got 3'),
    ({'name': 'resnet18', 'deformable': 'v3'}, "must be 'v1', 'v2' or None, got 'v3'"),
    ({'name': 'mobilenet_v2', 'deformable': 'v1'}, "only resnet10, .* got 'mobilenet_v2'"),
    (
      {'name': 'resnet18', 'stages': 2, 'deformable': 'v1', 'deformable_from': 3},
      'deformable_from must be between 1 and 2 .* got 3',
    ),
  ],
)
def test_rejects_bad_arguments(settings, sentence):
  with pytest.raises(ValueError, match=sentence):
    models.backbone(**settings)
