"""The recogniser wires features, logits and projection; pretrained variables merge strictly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models

RECOGNISER = models.Recogniser(
  backbone=models.backbone('resnet18', stages=1), num_classes=3, projection=(8, 4)
)
X = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))


@pytest.fixture(scope='module')
def variables():
  return jax.jit(RECOGNISER.init)(jax.random.key(0), X)


def test_heads_by_hand(variables):
  result = RECOGNISER.apply(variables, X)
  params = variables['params']
  features = result.feature_map.mean((1, 2))
  np.testing.assert_allclose(result.features, features, rtol=1e-5)
  logits = features @ params['fc']['kernel'] + params['fc']['bias']
  np.testing.assert_allclose(result.logits, logits, rtol=1e-4, atol=1e-5)
  hidden, last = params['projection']['0'], params['projection']['2']
  projected = jnp.maximum(features @ hidden['kernel'] + hidden['bias'], 0)
  projected = projected @ last['kernel'] + last['bias']
  np.testing.assert_allclose(result.projection, projected, rtol=1e-4, atol=1e-5)


def test_heads_are_optional():
  module = models.Recogniser(backbone=models.backbone('resnet18', stages=1))
  shapes = jax.eval_shape(module.init, jax.random.key(0), X)
  assert set(shapes['params']) == {'backbone'}
  result = jax.eval_shape(module.apply, shapes, X)
  assert result.logits is None
  assert result.projection is None
  assert result.features.shape == (2, 64)


def test_only_the_backbone_freezes():
  module = models.Recogniser(backbone=models.backbone('resnet18', frozen_stages=1), num_classes=2)
  assert module.frozen(('backbone', 'layer1.0', 'conv1', 'kernel'))
  assert not module.frozen(('backbone', 'layer2.0', 'conv1', 'kernel'))
  assert not module.frozen(('fc', 'kernel'))


def test_pretrained_is_laid_over(variables):
  part = jax.tree.map(
    lambda a: np.full(a.shape, 7.0, np.float64),
    {
      'params': variables['params']['backbone'],
      'batch_stats': variables['batch_stats']['backbone'],
    },
  )
  merged = models.merge_pretrained(variables, part, under=('backbone',))
  assert {float(a.min()) for a in jax.tree.leaves(merged['params']['backbone'])} == {7.0}
  assert {a.dtype for a in jax.tree.leaves(merged)} == {jnp.dtype('float32')}
  kept = merged['params']['projection'], variables['params']['projection']
  jax.tree.map(np.testing.assert_array_equal, *kept)


@pytest.mark.parametrize(
  ('part', 'sentence'),
  [
    ({'params': {'fc': {'kernel': np.zeros((64, 4))}}}, r"'params/fc/kernel' has shape \(64, 4\)"),
    ({'params': {'head': {'kernel': np.zeros(3)}}}, "'params/head', which the model does not have"),
    ({'params': {'fc': np.zeros(3)}}, "an array at 'params/fc', the model a tree"),
    ({'params': {'fc': {'bias': {'x': np.zeros(3)}}}}, "a tree at 'params/fc/bias', the model an"),
  ],
)
def test_rejects_pretrained_that_does_not_fit(variables, part, sentence):
  with pytest.raises(ValueError, match=sentence):
    models.merge_pretrained(variables, part)
