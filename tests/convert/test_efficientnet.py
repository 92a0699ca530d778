"""EfficientNet-B0 and B3 from torchvision's and timm's files, and out to PyTorch again.

Shape legend: N images, C channels, H x W pixels.
"""

import functools

import jax
import numpy as np
import pytest
import torch
from torch import nn

from jaxdefect import models
from jaxdefect.contracts import ClassScores
from jaxdefect.convert import export, twins, weights_from_torch
from jaxdefect.ops import normalize_pixels

# Stem, then (expansion, window, stride, channels, blocks) of features.1 to features.7, by hand.
_ROWS = {
  'efficientnet_b0': (
    32,
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
  ),
  'efficientnet_b3': (
    40,
    (1, 3, 1, 24, 2),
    (6, 3, 2, 32, 3),
    (6, 5, 2, 48, 3),
    (6, 3, 2, 96, 5),
    (6, 5, 1, 136, 5),
    (6, 5, 2, 232, 6),
    (6, 3, 1, 384, 2),
  ),
}
_ENDS = (2, 3, 5, 8)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _unit(inputs, outputs, window, stride=1, groups=1):
  padding = {1: 0, 3: 1, 5: 2}[window]
  conv = nn.Conv2d(inputs, outputs, window, stride, padding, groups=groups, bias=False)
  return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=1e-5))


class _Weigh(nn.Module):
  def __init__(self, channels, squeezed):
    super().__init__()
    self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

  def forward(self, x):
    mean = nn.functional.adaptive_avg_pool2d(x, 1)
    return torch.sigmoid(self.fc2(nn.functional.silu(self.fc1(mean)))) * x


class _Block(nn.Module):
  def __init__(self, inputs, outputs, expansion, window, stride):
    super().__init__()
    width = expansion * inputs
    units = [_unit(inputs, width, 1)] if expansion > 1 else []
    units += [_unit(width, width, window, stride, width), _Weigh(width, inputs // 4)]
    self.block = nn.Sequential(*units, _unit(width, outputs, 1))
    self.keeps_shape = (inputs, stride) == (outputs, 1)

  def forward(self, x):
    y = x
    for unit in self.block[:-1]:
      y = unit(y)
      y = y if isinstance(unit, _Weigh) else nn.functional.silu(y)
    y = self.block[-1](y)
    return y + x if self.keeps_shape else y


class _Network(nn.Module):
  """The network from its table, apart from the twin; keys are torchvision's."""

  def __init__(self, name, num_classes):
    super().__init__()
    channels, *rows = _ROWS[name]
    self.features = nn.Sequential(_unit(3, channels, 3, 2))
    for expansion, window, stride, outputs, count in rows:
      blocks = [_Block(channels, outputs, expansion, window, stride)]
      blocks += [_Block(outputs, outputs, expansion, window, 1) for _ in range(count - 1)]
      self.features.append(nn.Sequential(*blocks))
      channels = outputs
    self.features.append(_unit(channels, 4 * channels, 1))
    self.classifier = nn.Sequential(nn.Identity(), nn.Linear(4 * channels, num_classes))

  def forward(self, x):
    maps = []
    for index, layer in enumerate(self.features):
      x = layer(x)
      x = nn.functional.silu(x) if index in (0, 8) else x
      maps += [x] if index in _ENDS else []
    return maps, self.classifier(x.mean((2, 3)))


@pytest.fixture(scope='module')
def network():
  """Name -> the network with random weights and the statistics that images give it."""

  @functools.cache
  def network(name):
    generator = torch.Generator().manual_seed(0)
    made = _Network(name, num_classes=7)
    for module in made.modules():
      if isinstance(module, nn.BatchNorm2d):
        nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
        nn.init.normal_(module.bias, 0.0, 0.2, generator=generator)
        module.momentum = None  # the mean over all batches, which is one
      elif isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, generator=generator)
        if module.bias is not None:
          nn.init.normal_(module.bias, generator=generator)
    with torch.no_grad():
      made.train()(torch.randn(16, 3, 96, 96, generator=generator))
    return made.eval()

  return network


def _timm_state(network):
  """The state dict under timm's names: the same layers, named in the order in which they stand."""
  inside = ['conv_dw', 'bn1', 'se.conv_reduce', 'se.conv_expand', 'conv_pw', 'bn2']
  expanding = ['conv_pw', 'bn1', 'conv_dw', 'bn2', *inside[2:4], 'conv_pwl', 'bn3']
  names = ['conv_stem', 'bn1']
  for row, blocks in enumerate(network.features[1:8]):
    for index in range(len(blocks)):
      names += [f'blocks.{row}.{index}.{name}' for name in (expanding if row else inside)]
  names += ['conv_head', 'bn2', 'classifier']
  layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.Linear)]
  return {
    f'{name}.{word}': value
    for name, layer in zip(names, layers, strict=True)
    for word, value in layer.state_dict().items()
  }


@pytest.mark.parametrize(
  ('name', 'keys', 'parameters', 'shapes'),
  [
    (
      'efficientnet_b0',
      360,
      5_288_548,
      {
        'features.1.0.block.1.fc1.weight': (8, 32, 1, 1),
        'features.3.0.block.1.0.weight': (144, 1, 5, 5),
        'features.4.0.block.2.fc1.weight': (10, 240, 1, 1),
        'features.8.0.weight': (1280, 320, 1, 1),
        'classifier.1.weight': (1000, 1280),
      },
    ),
    (
      'efficientnet_b3',
      574,
      12_233_232,
      {
        'features.0.0.weight': (40, 3, 3, 3),
        'features.1.1.block.2.0.weight': (24, 24, 1, 1),
        'features.6.5.block.2.fc2.bias': (1392,),
        'features.7.1.block.3.1.running_var': (384,),
        'classifier.1.weight': (1000, 1536),
      },
    ),
  ],
)
def test_twin_is_torchvision_shaped(name, keys, parameters, shapes):
  with torch.device('meta'):
    twin = twins.EfficientNet(name.removeprefix('efficientnet_'), num_classes=1000)
    written_here = _Network(name, num_classes=1000).state_dict()
  state = twin.state_dict()
  assert len(state) == keys
  assert sum(p.numel() for p in twin.parameters()) == parameters
  assert {key: tuple(state[key].shape) for key in shapes} == shapes
  assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in written_here.items()}


@pytest.mark.parametrize(('name', 'stages'), [('efficientnet_b0', None), ('efficientnet_b3', 2)])
def test_same_file_gives_the_same_maps_and_logits(tmp_path, network, name, stages):
  path = tmp_path / f'{name}_rwightman-0123abcd.pth'
  torch.save(network(name).state_dict(), path)
  loaded = weights_from_torch.load(name, backbone=name, stages=stages, weights_dir=tmp_path)
  x = np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)
  images = torch.from_numpy(x).permute(0, 3, 1, 2)
  with torch.inference_mode():
    theirs, logits = network(name)(images)
  theirs = [m.permute(0, 2, 3, 1).numpy() for m in theirs[:stages]]
  ours = jax.jit(models.backbone(name, stages=stages).apply)(loaded.variables, x)
  for mine, other in zip(ours, theirs, strict=True):
    assert other.std() > 0.2
    print(name, mine.shape, np.abs(mine - other).max(), np.abs(other).max())
    np.testing.assert_allclose(mine, other, rtol=0, atol=1e-4)
  assert (loaded.head is None) == (stages is not None)
  if loaded.head is not None:
    pooled = np.asarray(models.global_average_pool(ours[-1]))
    assert logits.std() > 0.3
    np.testing.assert_allclose(
      pooled @ loaded.head['kernel'] + loaded.head['bias'], logits, rtol=0, atol=1e-4
    )
    twin = twins.EfficientNet(name.removeprefix('efficientnet_'), num_classes=7).eval()
    twin.load_state_dict(network(name).state_dict(), strict=True)
    with torch.inference_mode():
      torch.testing.assert_close(twin(images), logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize('stages', [None, 3])
@pytest.mark.parametrize('name', _ROWS)
def test_timm_names_load_to_the_same_variables(tmp_path, network, name, stages):
  state = _timm_state(network(name))
  assert state['conv_stem.weight'].shape[1:] == (3, 3, 3)
  assert state['blocks.6.0.conv_pwl.weight'].shape[2:] == (1, 1)
  torch.save(network(name).state_dict(), tmp_path / 'a.pth')
  torch.save(state, tmp_path / 'b.pth')
  a, b = (
    weights_from_torch.load(tmp_path / file, backbone=name, stages=stages)
    for file in ('a.pth', 'b.pth')
  )
  jax.tree.map(np.testing.assert_array_equal, a.variables, b.variables)
  jax.tree.map(np.testing.assert_array_equal, a.head, b.head)
  assert (a.head is None) == (stages == 3)
  rows = {int(block.split('.')[1]) for block in a.variables['params']}
  assert rows == set(range(6 if stages else 9))


def test_port_of_tensorflow_is_refused_by_its_name(tmp_path, network):
  path = tmp_path / 'tf_efficientnet_b0_ns-c0e6a31c.pth'
  torch.save(_timm_state(network('efficientnet_b0')), path)
  with pytest.raises(ValueError, match=r'tf_efficientnet_b0_ns-c0e6a31c\.pth is named as a port'):
    weights_from_torch.load(path, backbone='efficientnet_b0')
  weights_from_torch.load(path.rename(tmp_path / 'b0.pth'), backbone='efficientnet_b0')


@pytest.mark.parametrize(
  ('spelling', 'backbone', 'dropped', 'sentence'),
  [
    (
      'here',
      'efficientnet_b0',
      ('features.6', 'features.7', 'features.8', 'class'),
      'pass stages=3',
    ),
    ('timm', 'efficientnet_b0', ('blocks.5', 'blocks.6', 'conv_head', 'bn2', 'class'), 'stages=3'),
    (
      'here',
      'efficientnet_b0',
      ('features.2.1.block.2.fc1.bias',),
      r"no 'features.2.1.block.2.fc1",
    ),
    ('timm', 'efficientnet_b0', ('blocks.0.0.se.conv_reduce.b',), r"no 'blocks.0.0.se.conv_reduce"),
    ('here', 'efficientnet_b3', (), r"no 'features\.1\.1\.block\.0\.0\.weight'; efficientnet_b3"),
    ('here', 'mobilenet_v2', (), "which mobilenet_v2 does not have: its keys are like 'features.0"),
    ('here', 'resnet18', (), 'which resnet18 does not have'),
  ],
)
def test_rejects_file_that_does_not_fit(tmp_path, network, spelling, backbone, dropped, sentence):
  made = network('efficientnet_b0')
  state = _timm_state(made) if spelling == 'timm' else made.state_dict()
  torch.save({k: v for k, v in state.items() if not k.startswith(dropped)}, tmp_path / 'a.pth')
  with pytest.raises(ValueError, match=sentence):
    weights_from_torch.load(tmp_path / 'a.pth', backbone=backbone)


def test_rejects_files_of_other_networks(tmp_path, network):
  for made in (network('efficientnet_b3'), twins.MobileNetV2(num_classes=2)):
    torch.save(made.state_dict(), tmp_path / 'a.pth')
    sentence = (
      r"more, which efficientnet_b0 does not have: its keys are like 'features\.1\.0\.block"
    )
    with pytest.raises(ValueError, match=sentence):
      weights_from_torch.load(tmp_path / 'a.pth', backbone='efficientnet_b0')


def test_classifier_agrees_after_writing(tmp_path, network, compared):
  arguments = {
    'backbone': 'efficientnet_b0',
    'stages': 1,
    'num_classes': 3,
    'classes': ['crazing', 'patches', 'scratches'],
    'mean': list(_MEAN),
    'std': list(_STD),
  }
  torch.save(network('efficientnet_b0').state_dict(), tmp_path / 'a.pth')
  loaded = weights_from_torch.load(tmp_path / 'a.pth', backbone='efficientnet_b0', stages=1)
  arrays = {collection: {'backbone': tree} for collection, tree in loaded.variables.items()}
  generator = np.random.default_rng(1)
  kernel = generator.standard_normal((24, 3)).astype(np.float32)
  arrays['params']['fc'] = {'kernel': kernel, 'bias': np.zeros(3, np.float32)}
  trunk = models.backbone('efficientnet_b0', stages=1)

  @jax.jit
  def predict(batch):
    x = normalize_pixels(batch['image'], mean=_MEAN, std=_STD)
    logits = models.Recogniser(backbone=trunk, num_classes=3).apply(arrays, x).logits
    return ClassScores(logits, jax.nn.softmax(logits))

  images = generator.integers(0, 256, (8, 32, 32, 3), np.uint8)
  export.write(tmp_path / 'b', 'classifier', arguments, arrays)
  batch = {'image': images, 'valid': np.ones(8, bool)}
  result = compared(predict, twins.load(tmp_path / 'b'), [batch])
  assert result.largest < 1e-5
  assert (result.equal, result.n) == (8, 8)
  assert predict(batch).scores.std() > 0.1
