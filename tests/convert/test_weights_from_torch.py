"""Loading whole and declared parts, strictly.

Shape legend: N images.
"""

import numpy as np
import pytest
import safetensors.numpy
import torch

from jaxdefect.convert import twins, weights_from_torch


@pytest.fixture
def whole(tmp_path, randomise):
  """A torchvision-shaped ResNet-18 with classifier, saved; (path, module)."""
  module = randomise(twins.ResNet(18, num_classes=7))
  path = tmp_path / 'resnet18-5c106cde.pth'
  torch.save(module.state_dict(), path)
  return path, module


def test_whole_torchvision_file(whole):
  path, module = whole
  loaded = weights_from_torch.load(path, backbone='resnet18')
  state = {key: value.numpy() for key, value in module.state_dict().items()}
  params, statistics = loaded.variables['params'], loaded.variables['batch_stats']
  np.testing.assert_array_equal(
    params['layer4.0']['downsample.0']['kernel'],
    state['layer4.0.downsample.0.weight'].transpose(2, 3, 1, 0),
  )
  np.testing.assert_array_equal(
    statistics['layer2.1']['bn2']['var'], state['layer2.1.bn2.running_var']
  )
  assert loaded.head is not None
  np.testing.assert_array_equal(loaded.head['kernel'], state['fc.weight'].T)
  np.testing.assert_array_equal(loaded.head['bias'], state['fc.bias'])
  assert (loaded.folded, loaded.source, len(loaded.sha256)) == (False, path.name, 64)


def test_declared_part_of_a_whole_file(whole):
  path, _ = whole
  loaded = weights_from_torch.load(path, backbone='resnet18', stages=2)
  blocks = {name for name in loaded.variables['params'] if name.startswith('layer')}
  assert blocks == {'layer1.0', 'layer1.1', 'layer2.0', 'layer2.1'}
  assert loaded.head is None


def test_mobilenet_with_classifier(tmp_path, randomise):
  module = randomise(twins.MobileNetV2(num_classes=5))
  torch.save({'state_dict': module.state_dict()}, tmp_path / 'a.pth')
  loaded = weights_from_torch.load(tmp_path / 'a.pth', backbone='mobilenet_v2')
  assert loaded.head is not None
  np.testing.assert_array_equal(
    loaded.head['kernel'], module.state_dict()['classifier.1.weight'].numpy().T
  )


@pytest.mark.parametrize(
  ('backbone', 'prefix', 'head', 'shape'),
  [
    ('resnet50_v2', 'resnetv27_', 'resnetv27_dense0_weight', (4, 2048)),
    (
      'mobilenet_v2_gluon',
      'mobilenetv21_features_',
      'mobilenetv21_output_pred_weight',
      (4, 1280, 1, 1),
    ),
  ],
)
def test_whole_gluon_file(tmp_path, randomise, gluon_state, backbone, prefix, head, shape):
  state = gluon_state(randomise(twins.backbone(backbone)), prefix)
  state[head] = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
  safetensors.numpy.save_file(state, tmp_path / 'a.safetensors')
  loaded = weights_from_torch.load(tmp_path / 'a.safetensors', backbone=backbone)
  np.testing.assert_array_equal(
    loaded.variables['params']['conv0']['kernel'],
    state[f'{prefix}conv0_weight'].transpose(2, 3, 1, 0),
  )
  assert loaded.head is not None
  np.testing.assert_array_equal(loaded.head['kernel'], state[head].reshape(4, -1).T)
  np.testing.assert_array_equal(loaded.head['bias'], np.zeros(4))


def test_folded_is_detected(tmp_path, randomise):
  module = randomise(twins.ResNet(18, stages=1))
  for norm in module.modules():
    if isinstance(norm, torch.nn.BatchNorm2d):
      torch.nn.init.ones_(norm.weight)
      norm.running_mean.zero_()
      norm.running_var.fill_(1 - 1e-5)
  torch.save(module.state_dict(), tmp_path / 'a.pth')
  assert weights_from_torch.load(tmp_path / 'a.pth', backbone='resnet18', stages=1).folded
  module.bn1.running_mean[3] = 0.1
  torch.save(module.state_dict(), tmp_path / 'a.pth')
  assert not weights_from_torch.load(tmp_path / 'a.pth', backbone='resnet18', stages=1).folded


def test_names_in_a_folder(tmp_path):
  for name in (
    'resnet18-imagenet-layer3.safetensors',
    'resnet50.pth',
    'resnet50v2_gluon-imagenet.safetensors',
    'mobilenet_v2-b0353104.pth',
    'mobilenetv2_gluon-imagenet.safetensors',
    'notes.txt',
  ):
    (tmp_path / name).touch()

  def found(name):
    return weights_from_torch.find(name, weights_dir=tmp_path).name

  assert found('resnet18') == 'resnet18-imagenet-layer3.safetensors'
  assert found('resnet18-imagenet-layer3') == 'resnet18-imagenet-layer3.safetensors'
  assert found('resnet18-imagenet-layer3.safetensors') == 'resnet18-imagenet-layer3.safetensors'
  assert found('resnet50') == 'resnet50.pth'
  assert found('resnet50_v2') == 'resnet50v2_gluon-imagenet.safetensors'
  assert found('mobilenet_v2') == 'mobilenet_v2-b0353104.pth'
  assert found('mobilenet_v2_gluon') == 'mobilenetv2_gluon-imagenet.safetensors'
  with pytest.raises(ValueError, match=r"has no file for 'resnet34'; it holds mobilenet_v2-b03"):
    found('resnet34')
  (tmp_path / 'resnet18-5c106cde.pth').touch()
  with pytest.raises(ValueError, match=r"has 2 files for 'resnet18': resnet18-5c106cde\.pth, res"):
    found('resnet18')
  assert found('resnet18-5c106cde') == 'resnet18-5c106cde.pth'


@pytest.mark.parametrize(
  ('name', 'folder', 'sentence'),
  [
    ('a/resnet18.pth', None, r'weight file a/resnet18\.pth does not exist'),
    ('resnet18.pth', None, r'weight file resnet18\.pth does not exist'),
    ('resnet18', None, "weights 'resnet18' is no file, and no weights folder was given"),
    ('resnet18', 'none', "weights 'resnet18' is no file, and the folder none, .* does not exist"),
    ('resnet18.pth', 'none', r'weight file resnet18\.pth does not exist'),
  ],
)
def test_rejects_what_cannot_be_found(name, folder, sentence):
  with pytest.raises(ValueError, match=sentence):
    weights_from_torch.find(name, weights_dir=folder)


def _drop(*words):
  def change(state):
    return {k: v for k, v in state.items() if not any(word in k for word in words)}

  return change


@pytest.mark.parametrize(
  ('change', 'sentence'),
  [
    (
      _drop('layer4', 'fc'),
      r"holds no 'layer4\.0\.conv1\.weight'; the file ends after layer3: pass stages=3",
    ),
    (
      _drop('layer3.0.conv2'),
      r"holds no 'layer3\.0\.conv2\.weight'; the file ends after layer2: pass stages=2",
    ),
    (_drop('bn1.running_mean'), r"holds no 'bn1\.running_mean'; resnet18 needs it, also for its"),
    (
      lambda s: {**s, 'layer9.weight': s['bn1.weight'], 'layer9.bias': s['bn1.bias']},
      r"holds 'layer9\.weight' and 1 more, which resnet18 does not have: its keys are like 'layer1",
    ),
    (
      lambda s: {**s, 'conv1.weight': s['conv1.weight'][:, :1]},
      r"holds 'conv1\.weight' with shape \(64, 1, 7, 7\); resnet18 needs \(64, 3, 7, 7\)",
    ),
    (
      lambda s: {**s, 'fc.bias': s['fc.bias'][:3]},
      r"holds 'fc\.bias' with shape \(3,\); 'fc\.weight' needs \(7,\)",
    ),
  ],
)
def test_rejects_file_that_does_not_fit(whole, change, sentence):
  path, module = whole
  torch.save(change(module.state_dict()), path)
  with pytest.raises(ValueError, match=sentence) as error:
    weights_from_torch.load(path, backbone='resnet18')
  assert path.name in str(error.value)


def test_rejects_another_architecture(whole):
  with pytest.raises(ValueError, match='which mobilenet_v2 does not have'):
    weights_from_torch.load(whole[0], backbone='mobilenet_v2')
  with pytest.raises(ValueError, match=r"holds no 'layer1\.2\.conv1\.weight'; resnet34 needs it"):
    weights_from_torch.load(whole[0], backbone='resnet34')
