"""Vision transformers have the published sizes, and treat patches alike but for their places."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models
from jaxdefect.ops import resize_bicubic

# DINOv2's own modules without ``mask_token`` (D numbers), timm's without ``head`` (1000 (D + 1)).
PARAMETERS = {
  'dinov2_vits14': 22_056_576 - 384,
  'dinov2_vitb14': 86_580_480 - 768,
  'dinov2_vitl14': 304_368_640 - 1024,
  'dinov2_vits14_reg': 22_056_576 - 384 + 4 * 384,
  'dinov2_vitb14_reg': 86_580_480 - 768 + 4 * 768,
  'dinov2_vitl14_reg': 304_368_640 - 1024 + 4 * 1024,
  'vit_s16': 22_050_664 - 385_000,
  'vit_b16': 86_567_656 - 769_000,
}


def shapes(module, size=(112, 112)):
  return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *size, 3)))


@functools.cache
def small(name, **settings):
  """A narrow network, its variables, and images of 3 x 4 patches."""
  module = models.vision_transformer(name, width=4, **settings)
  x = jax.random.normal(jax.random.key(1), (2, 3 * module.patch, 4 * module.patch, 3))
  variables = jax.jit(module.init)(jax.random.key(0), x)
  return module, variables, x


@pytest.mark.parametrize('name', PARAMETERS)
def test_number_of_parameters(name):
  variables = shapes(models.vision_transformer(name))
  assert set(variables) == {'params'}
  assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == PARAMETERS[name]


def test_every_name_is_counted():
  assert set(PARAMETERS) == set(models.VISION_TRANSFORMERS)


def test_stages_are_quarters_and_nest():
  whole = shapes(models.vision_transformer('dinov2_vitl14'))['params']
  for stages in (1, 2, 3, 4):
    module = models.vision_transformer('dinov2_vitl14', stages=stages)
    own = shapes(module)['params']
    assert {f'blocks.{i}' for i in range(6 * stages)} == {k for k in own if k.startswith('block')}
    assert set(own) <= set(whole)
    maps = jax.eval_shape(module.apply, {'params': own}, jnp.zeros((2, 28, 42, 3)))
    assert (
      [m.shape for m in maps]
      == [(2, 2, 3, 1024)] * stages
      == [(2, 2, 3, f) for f in module.stage_features]
    )


def test_a_part_gives_the_first_maps_of_the_whole():
  module, variables, x = small('dinov2_vits14')
  part = models.vision_transformer('dinov2_vits14', width=4, stages=2)
  kept = shapes(part)['params']
  maps = jax.jit(module.apply)(variables, x)
  first = jax.jit(part.apply)({'params': {k: variables['params'][k] for k in kept}}, x)
  for one, other in zip(first, maps):
    np.testing.assert_allclose(one, other, atol=1e-6)
  # Every map is behind the LayerNorm, whose scale is 1 and bias 0 here.
  for one in maps:
    np.testing.assert_allclose(np.asarray(one).mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(np.asarray(one).std(-1), 1, atol=1e-2)


@pytest.mark.parametrize('name', ['dinov2_vits14', 'dinov2_vits14_reg'])
def test_patches_without_a_place_are_a_set(name):
  module, variables, x = small(name, stages=1)
  params = {**variables['params'], 'pos_embed': jnp.zeros_like(variables['params']['pos_embed'])}
  run = jax.jit(lambda x: module.apply({'params': params}, x)[0])
  size = module.patch
  flipped = x.reshape(2, 3, size, 4, size, 3)[:, ::-1].reshape(x.shape)  # rows of patches
  np.testing.assert_allclose(run(flipped), run(x)[:, ::-1], atol=2e-5)
  placed = jax.jit(lambda x: module.apply(variables, x)[0])
  assert np.abs(placed(flipped) - placed(x)[:, ::-1]).max() > 1e-3


def test_places_are_resampled_to_the_grid_of_the_image():
  module, variables, _ = small('dinov2_vits14', stages=1)
  params = variables['params']
  own = params['pos_embed'][0, 1:].reshape(37, 37, -1)
  fitted = models.vision_transformer('dinov2_vits14', width=4, stages=1).clone(grid=7)
  small_own = resize_bicubic(own, (7, 7), offset=0.1)
  embedding = jnp.concatenate([params['pos_embed'][:, :1], small_own.reshape(1, 49, -1)], axis=1)
  square = jax.random.normal(jax.random.key(2), (1, 98, 98, 3))
  expected = jax.jit(fitted.apply)({'params': {**params, 'pos_embed': embedding}}, square)[0]
  np.testing.assert_allclose(jax.jit(module.apply)(variables, square)[0], expected, atol=1e-5)


def test_half_precision_keeps_parameters_in_float32():
  module, variables, x = small('vit_s16', stages=1, dtype=jnp.bfloat16)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  half = jax.jit(module.apply)(variables, x)[0]
  full = jax.jit(module.clone(dtype=jnp.float32).apply)(variables, x)[0]
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(half.astype(jnp.float32), full, atol=0.1)


def test_patch_features_takes_a_transformer_or_a_convolutional_network():
  image = jnp.zeros((1, 28, 28, 3))
  for name, sides in (('dinov2_vits14', 2), ('resnet18', 7)):
    trunk = models.frozen_backbone(name, stages=1, width=4)
    network = models.PatchFeatures(trunk, layers=(1,), neighbourhood=1)
    variables = jax.eval_shape(network.init, jax.random.key(0), image)
    assert jax.eval_shape(network.apply, variables, image).shape == (
      *(1, sides, sides),
      network.features,
    )
    assert network.frozen(('backbone', 'norm', 'scale')) == (name == 'dinov2_vits14')


def test_rejects_bad_arguments():
  with pytest.raises(ValueError, match=r'images are 30 x 28 pixels; .* multiples of 14'):
    shapes(models.vision_transformer('dinov2_vits14', stages=1), (30, 28))
  with pytest.raises(ValueError, match=r"one of dinov2_vits14, .*vit_b16, got 'vit_h14'"):
    models.vision_transformer('vit_h14')
  with pytest.raises(ValueError, match='stages must be 1, 2, 3, 4 or None'):
    models.vision_transformer('vit_s16', stages=5)
  with pytest.raises(ValueError, match=r"one of resnet10, .*vit_b16, got 'vgg'"):
    models.frozen_backbone('vgg')
