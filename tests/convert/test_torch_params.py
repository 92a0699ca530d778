"""Parameter trees to state dicts and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models
from jaxdefect.convert import torch_params, twins

_BACKBONES = (
  'resnet10',
  'resnet18',
  'resnet34',
  'resnet50',
  'resnet101',
  'mobilenet_v2',
  'resnet50_v2',
  'mobilenet_v2_gluon',
  'efficientnet_b0',
  'efficientnet_b3',
)


def _template(name, stages=None, **settings):
  module = models.backbone(name, stages=stages, **settings)
  blank = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  return jax.eval_shape(module.init, jax.random.key(0), blank)


def _randomly_filled(template):
  generator = np.random.default_rng(0)
  return jax.tree.map(lambda s: generator.standard_normal(s.shape).astype(np.float32), template)


def test_value_by_hand():
  kernel = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
  dense = np.arange(6, dtype=np.float32).reshape(2, 3)
  variables = {
    'params': {
      'layer1.0': {'conv1': {'kernel': kernel}, 'bn1': {'scale': np.ones(5), 'bias': np.zeros(5)}},
      'fc': {'kernel': dense},
    },
    'batch_stats': {'layer1.0': {'bn1': {'mean': np.full(5, 2.0), 'var': np.full(5, 3.0)}}},
  }
  state = torch_params.to_state_dict(variables)
  assert set(state) == {
    'layer1.0.conv1.weight',
    'layer1.0.bn1.weight',
    'layer1.0.bn1.bias',
    'layer1.0.bn1.running_mean',
    'layer1.0.bn1.running_var',
    'fc.weight',
  }
  assert state['layer1.0.conv1.weight'].shape == (5, 4, 2, 3)
  assert state['layer1.0.conv1.weight'][1, 2, 0, 1] == kernel[0, 1, 2, 1]
  np.testing.assert_array_equal(state['fc.weight'], [[0, 3], [1, 4], [2, 5]])
  assert state['layer1.0.bn1.running_var'][0] == 3


@pytest.mark.parametrize('stages', [1, None])
@pytest.mark.parametrize('name', _BACKBONES)
def test_there_and_back_is_bit_exact(name, stages):
  variables = _randomly_filled(_template(name, stages))
  state = torch_params.to_state_dict(variables)
  back = torch_params.from_state_dict(_template(name, stages), state)
  assert jax.tree.structure(back) == jax.tree.structure(variables)
  jax.tree.map(np.testing.assert_array_equal, back, variables)
  again = torch_params.to_state_dict(back)
  assert all(np.array_equal(again[key], state[key]) for key in state)


@pytest.mark.parametrize('stages', [1, 2, 3, None])
@pytest.mark.parametrize('name', _BACKBONES)
def test_twin_has_the_same_keys_and_shapes(name, stages):
  state = torch_params.to_state_dict(_randomly_filled(_template(name, stages)))
  twin = twins.backbone(name, stages=stages).state_dict()
  shapes = {k: tuple(v.shape) for k, v in twin.items() if not k.endswith('num_batches_tracked')}
  assert {key: value.shape for key, value in state.items()} == shapes


@pytest.mark.parametrize(
  ('change', 'sentence'),
  [
    (lambda s: s.pop('fc.bias'), "holds no 'fc.bias'"),
    (lambda s: s.update({'fc.extra': np.zeros(1)}), "holds 'fc.extra', which has no place"),
    (
      lambda s: s.update({'fc.weight': np.zeros((2, 3))}),
      r"'fc.weight' with shape \(2, 3\), not \(3, 2\)",
    ),
  ],
)
def test_rejects_state_that_does_not_fit(change, sentence):
  template = {'params': {'fc': {'kernel': np.zeros((2, 3)), 'bias': np.zeros(3)}}}
  state = torch_params.to_state_dict(template)
  torch_params.from_state_dict(template, {**state, 'bn.num_batches_tracked': np.array(3)})
  change(state)
  with pytest.raises(ValueError, match=sentence):
    torch_params.from_state_dict(template, state)


@pytest.mark.parametrize(
  ('variables', 'sentence'),
  [
    ({'params': {'class_weights': np.zeros((2, 3))}}, 'class_weights has no name in PyTorch'),
    ({'opt_state': {}}, "holds the collection 'opt_state'"),
    ({'params': {'fc': {'kernel': np.zeros((1, 2, 3))}}}, 'kernel fc/kernel must have 2 axes'),
    ({'params': {'x': {'scale': 0, 'kernel': np.zeros((1, 1))}}}, "the key 'x.weight'"),
  ],
)
def test_rejects_what_pytorch_cannot_name(variables, sentence):
  with pytest.raises(ValueError, match=sentence):
    torch_params.to_state_dict(variables)


def test_slim_network_has_the_same_keys_and_shapes():
  template = _template('resnet10', width=16)
  state = torch_params.to_state_dict(_randomly_filled(template))
  twin = twins.backbone('resnet10', width=16).state_dict()
  shapes = {k: tuple(v.shape) for k, v in twin.items() if not k.endswith('num_batches_tracked')}
  assert shapes == {k: v.shape for k, v in state.items()}
