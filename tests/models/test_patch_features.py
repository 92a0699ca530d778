"""Patch features against PyTorch's pooling and resizing, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxdefect import models
from jaxdefect.models.patch_features import join_maps, neighbourhood_mean

TRUNK = models.backbone('resnet18', stages=3, width=4)


def maps(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize('side', [1, 3, 5])
def test_neighbourhood_mean_matches_scipy(side):
  values = maps(2, 6, 5, 3)
  expected = ndimage.uniform_filter(values, (1, side, side, 1), mode='constant')
  np.testing.assert_allclose(neighbourhood_mean(values, side), expected, atol=1e-6)


def test_maps_and_their_order():
  network = models.PatchFeatures(TRUNK, layers=(2, 3))
  image = maps(2, 32, 48, 3)
  variables = network.init(jax.random.key(0), image)
  got = network.apply(variables, image)
  assert got.shape == (2, 4, 6, network.features) == (2, 4, 6, 8 + 16)
  assert set(variables['params']) == {'backbone'}
  alone = TRUNK.apply({k: v['backbone'] for k, v in variables.items()}, image)
  np.testing.assert_allclose(got[..., :8], neighbourhood_mean(alone[1], 3), atol=1e-5)
  coarse = jax.image.resize(neighbourhood_mean(alone[2], 3), (2, 4, 6, 16), 'bilinear')
  np.testing.assert_allclose(got[..., 8:], coarse, atol=1e-5)


def test_one_layer_without_neighbourhood_is_the_map():
  network = models.PatchFeatures(TRUNK, layers=(1,), neighbourhood=1)
  image = maps(1, 16, 16, 3)
  variables = network.init(jax.random.key(0), image)
  alone = TRUNK.apply({k: v['backbone'] for k, v in variables.items()}, image)
  np.testing.assert_array_equal(network.apply(variables, image), alone[0])


def test_features_are_float32_from_half_precision():
  network = models.PatchFeatures(
    models.backbone('resnet18', stages=2, width=4, dtype=jnp.bfloat16), layers=(1, 2)
  )
  image = maps(1, 16, 16, 3)
  assert network.apply(network.init(jax.random.key(0), image), image).dtype == jnp.float32


def test_resizing_matches_pytorch():
  torch = pytest.importorskip('torch')
  fine, coarse = maps(2, 8, 6, 3), maps(2, 4, 3, 5)
  moved = torch.from_numpy(coarse.transpose(0, 3, 1, 2).copy())
  theirs = torch.nn.functional.interpolate(moved, (8, 6), mode='bilinear', align_corners=False)
  got = join_maps([fine, coarse])
  np.testing.assert_array_equal(got[..., :3], fine)
  np.testing.assert_allclose(got[..., 3:], theirs.numpy().transpose(0, 2, 3, 1), atol=1e-6)


def test_pooled_features_are_the_mean_over_places():
  values = maps(2, 3, 4, 5)
  expected = values.mean((1, 2))
  np.testing.assert_allclose(models.pooled_features(values), expected, atol=1e-6)


@pytest.mark.parametrize('layers', [(), (3, 2), (2, 2), (4,), (0, 1)])
def test_rejects_bad_layers(layers):
  with pytest.raises(ValueError, match='layers must be rising numbers from 1 to 3'):
    models.PatchFeatures(TRUNK, layers=layers)


def test_rejects_an_even_neighbourhood():
  with pytest.raises(ValueError, match='neighbourhood must be 1, 3, 5'):
    models.PatchFeatures(TRUNK, neighbourhood=2)
