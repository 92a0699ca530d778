"""The forward passes of a two-stage detector, by shape: nothing is compiled."""

import jax
import jax.numpy as jnp
import pytest

from jaxdefect import models

SHAPE = jax.ShapeDtypeStruct((2, 100, 128, 3), jnp.float32)


def make(**settings):
  body = models.backbone('resnet18', stages=3)
  sizes = {'anchor_sizes': (16.0, 32.0, 64.0), 'first_stage': 2, 'neck_channels': 16}
  return models.detector(6, backbone=body, **{**sizes, **settings})


@pytest.mark.parametrize('neck', ['fpn', 'gs_fpn'])
def test_pyramid_halves_and_has_an_anchor_for_every_answer(neck):
  module = make(neck=neck)
  found = {}

  def pyramid(variables, x):
    one = module.apply(variables, x, method='pyramid')
    found.update(strides=one.strides, level_sizes=one.level_sizes)
    return one.maps, one.objectness, one.deltas, one.anchors

  variables = jax.eval_shape(module.init, jax.random.key(0), SHAPE)
  maps, objectness, deltas, anchors = jax.eval_shape(pyramid, variables, SHAPE)
  assert [m.shape for m in maps] == [(2, 13, 16, 16), (2, 7, 8, 16), (2, 4, 4, 16)]
  assert found['strides'] == (8, 16, 32)
  assert found['level_sizes'] == (624, 168, 48)
  assert objectness.shape == (2, 840)
  assert deltas.shape == (2, 840, 4)
  assert anchors.shape == (840, 4)


def test_anchors_of_a_low_wide_picture_cover_it():
  """Its maps are 5, 3 and 2 rows high: rounded up, so their sides do not say the strides."""
  module, shape = make(), jax.ShapeDtypeStruct((1, 40, 640, 3), jnp.float32)
  found = {}

  def pyramid(variables, x):
    one = module.apply(variables, x, method='pyramid')
    found.update(strides=one.strides, sides=[m.shape[1:3] for m in one.maps])
    return one.anchors

  jax.eval_shape(pyramid, jax.eval_shape(module.init, jax.random.key(0), shape), shape)
  assert found == {'strides': (8, 16, 32), 'sides': [(5, 80), (3, 40), (2, 20)]}


@pytest.mark.parametrize(('embedding', 'described', 'boxes'), [(None, 7, 28), (24, 24, 4)])
@pytest.mark.parametrize('box_head', ['mlp', 'gs'])
def test_regions_have_classes_and_boxes_of_their_own_or_an_embedding(
  box_head, embedding, described, boxes
):
  module = make(box_head=box_head, head_width=32, embedding=embedding)
  variables = jax.eval_shape(module.init, jax.random.key(0), SHAPE)

  def regions(variables, x, where):
    return module.apply(
      variables, module.apply(variables, x, method='pyramid'), where, method='regions'
    )

  where = jax.ShapeDtypeStruct((2, 5, 4), jnp.float32)
  features, deltas = jax.eval_shape(regions, variables, SHAPE, where)
  assert features.shape == (2, 5, described)
  assert deltas.shape == (2, 5, boxes)


def test_frozen_follows_the_backbone():
  body = models.backbone('resnet18', stages=3, frozen_stages=2)
  module = models.detector(6, backbone=body)
  assert module.frozen(('backbone', 'layer2.0', 'conv1', 'kernel'))
  assert not module.frozen(('backbone', 'layer3.0', 'conv1', 'kernel'))
  assert not module.frozen(('neck', 'inner_blocks.0.0', 'kernel'))


def test_normalisation_of_the_backbone_can_be_frozen():
  body = models.backbone('efficientnet_b0', stages=2)
  for value in (False, True):
    module = models.detector(2, backbone=body, anchor_sizes=(16.0, 32.0), frozen_norm=value)
    assert module.frozen(('backbone', 'features.2.0', 'block.0.1', 'scale')) is value
    assert module.frozen(('backbone', 'features.2.0', 'block.0.1', 'bias')) is value
    assert not module.frozen(('backbone', 'features.2.0', 'block.0.0', 'kernel'))
    assert not module.frozen(('backbone', 'features.2.0', 'block.2', 'fc1', 'bias'))
    assert not module.frozen(('neck', 'norm', 'scale'))


def test_rejects_unknown_parts_and_a_wrong_number_of_anchor_sizes():
  with pytest.raises(ValueError, match="neck is 'bifpn'; it can be fpn, gs_fpn"):
    make(neck='bifpn')
  with pytest.raises(ValueError, match='anchor_sizes has 2 entries for 3 pyramid maps'):
    jax.eval_shape(make(anchor_sizes=(16.0, 32.0)).init, jax.random.key(0), SHAPE)
