"""The backbones in plain PyTorch; runs without JAX.

Shape legend: N images, 3 or C channels, H x W pixels.

Keys of ``ResNet`` and ``MobileNetV2`` are torchvision's (timm's too for ResNets), so whole
networks load torchvision's files strictly and the other way round. ``ResNetV2`` and
``MobileNetV2Gluon`` are MXNet Gluon's networks with dots in the place of Gluon's underscores.
Every network has four stages; stage k ends at stride ``2**(k + 1)``.
"""

import torch
from torch import Tensor, nn

_DEPTHS = {
  10: (1, 1, 1, 1),
  18: (2, 2, 2, 2),
  34: (3, 4, 6, 3),
  50: (3, 4, 6, 3),
  101: (3, 4, 23, 3),
}


def _convolution(
  inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
  """A convolution without bias, padded on every side by half the window."""
  return nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a skip."""

  expansion = 1

  def __init__(self, inputs: int, channels: int, stride: int):
    super().__init__()
    self.conv1 = _convolution(inputs, channels, 3, stride)
    self.bn1 = nn.BatchNorm2d(channels)
    self.conv2 = _convolution(channels, channels, 3)
    self.bn2 = nn.BatchNorm2d(channels)
    self.downsample = _downsample(inputs, channels, stride)

  def forward(self, x: Tensor) -> Tensor:
    skip = x if self.downsample is None else self.downsample(x)
    y = torch.relu(self.bn1(self.conv1(x)))
    return torch.relu(skip + self.bn2(self.conv2(y)))


class Bottleneck(nn.Module):
  """1x1, 3x3 (with the stride) and 1x1 convolutions and a skip."""

  expansion = 4

  def __init__(self, inputs: int, channels: int, stride: int):
    super().__init__()
    outputs = channels * self.expansion
    self.conv1 = _convolution(inputs, channels, 1)
    self.bn1 = nn.BatchNorm2d(channels)
    self.conv2 = _convolution(channels, channels, 3, stride)
    self.bn2 = nn.BatchNorm2d(channels)
    self.conv3 = _convolution(channels, outputs, 1)
    self.bn3 = nn.BatchNorm2d(outputs)
    self.downsample = _downsample(inputs, outputs, stride)

  def forward(self, x: Tensor) -> Tensor:
    skip = x if self.downsample is None else self.downsample(x)
    y = torch.relu(self.bn1(self.conv1(x)))
    y = torch.relu(self.bn2(self.conv2(y)))
    return torch.relu(skip + self.bn3(self.conv3(y)))


def _downsample(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
  if stride == 1 and inputs == outputs:
    return None
  return nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class Backbone(nn.Module):
  """What all networks share: ``maps`` per stage, and ``forward`` to pooled features or logits.

  Attributes:
    num_features: channels of the last map.
    stages: how many of the four stages there are.
  """

  num_features: int
  stages: int

  def maps(self, x: Tensor) -> tuple[Tensor, ...]:
    """[N, 3, H, W] normalised images -> one [N, C, h, w] per stage, finest first."""
    raise NotImplementedError

  def head(self) -> nn.Module | None:
    """The classifier, where the network was made with ``num_classes``."""
    return None

  def forward(self, x: Tensor) -> Tensor:
    """[N, 3, H, W] -> [N, num_features], or [N, num_classes] where there are classes."""
    features = self.maps(x)[-1].mean(dim=(2, 3))
    head = self.head()
    return features if head is None else head(features)


class ResNet(Backbone):
  """A ResNet (v1.5, stride in the 3x3) up to a stage.

  Args:
    depth: 10, 18, 34, 50 or 101.
    stages: 1 to 4.
    num_classes: size of ``fc``; None makes none.
    width: channels of the stem and the first stage.
  """

  def __init__(
    self, depth: int, stages: int = 4, num_classes: int | None = None, *, width: int = 64
  ):
    super().__init__()
    block = BasicBlock if depth < 50 else Bottleneck
    self.stages = stages
    self.conv1 = _convolution(3, width, 7, 2)
    self.bn1 = nn.BatchNorm2d(width)
    inputs = width
    for stage, blocks in enumerate(_DEPTHS[depth][:stages], start=1):
      layer = nn.Sequential()
      for index in range(blocks):
        stride = 2 if stage > 1 and index == 0 else 1
        channels = width * 2 ** (stage - 1)
        layer.append(block(inputs, channels, stride))
        inputs = channels * block.expansion
      self.add_module(f'layer{stage}', layer)
    self.num_features = inputs
    self.fc = None if num_classes is None else nn.Linear(inputs, num_classes)

  def head(self) -> nn.Module | None:
    return self.fc

  def maps(self, x: Tensor) -> tuple[Tensor, ...]:
    x = torch.relu(self.bn1(self.conv1(x)))
    x = nn.functional.max_pool2d(x, 3, 2, padding=1)
    maps = []
    for stage in range(1, self.stages + 1):
      x = self.get_submodule(f'layer{stage}')(x)
      maps.append(x)
    return tuple(maps)


# (channels, stride) of the inverted residuals, and the last one of every stage.
_INVERTED = (
  (16, 1),
  *((24, 2), (24, 1)),
  *((32, 2), (32, 1), (32, 1)),
  *((64, 2), (64, 1), (64, 1), (64, 1), (96, 1), (96, 1), (96, 1)),
  *((160, 2), (160, 1), (160, 1), (320, 1)),
)
_LAST = (3, 6, 13, 17)
_LAST_CHANNELS = 1280


def _normalised(
  inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
  norm = nn.BatchNorm2d(outputs)
  return nn.Sequential(_convolution(inputs, outputs, size, stride, groups), norm, nn.ReLU6())


class InvertedResidual(nn.Module):
  """1x1 expansion (unless it is 1), 3x3 depthwise, linear 1x1, and a skip where shapes agree."""

  def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
    super().__init__()
    width = inputs * expansion
    self.skips = stride == 1 and inputs == outputs
    self.conv = nn.Sequential()
    if expansion != 1:
      self.conv.append(_normalised(inputs, width, 1))
    self.conv.append(_normalised(width, width, 3, stride, groups=width))
    self.conv.append(_convolution(width, outputs, 1))
    self.conv.append(nn.BatchNorm2d(outputs))

  def forward(self, x: Tensor) -> Tensor:
    return x + self.conv(x) if self.skips else self.conv(x)


class MobileNetV2(Backbone):
  """MobileNetV2, width 1.0, up to a stage; arguments as of ``ResNet``."""

  def __init__(self, stages: int = 4, num_classes: int | None = None):
    super().__init__()
    self.stages = stages
    self.features = nn.Sequential(_normalised(3, 32, 3, 2))
    inputs = 32
    for index, (outputs, stride) in enumerate(_INVERTED[: _LAST[stages - 1]]):
      self.features.append(InvertedResidual(inputs, outputs, stride, 6 if index else 1))
      inputs = outputs
    if stages == 4:
      self.features.append(_normalised(inputs, _LAST_CHANNELS, 1))
      inputs = _LAST_CHANNELS
    self.num_features = inputs
    self.classifier = None
    if num_classes is not None:
      self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(inputs, num_classes))

  def head(self) -> nn.Module | None:
    return self.classifier

  def maps(self, x: Tensor) -> tuple[Tensor, ...]:
    maps = []
    for index, layer in enumerate(self.features):
      x = layer(x)
      if index in (*_LAST[:3], 18):
        maps.append(x)
    return tuple(maps)


class GluonBottleneck(nn.Module):
  """Gluon's inverted residual, which has its 1x1 expansion in the first block too."""

  def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
    super().__init__()
    width = inputs * expansion
    self.skips = stride == 1 and inputs == outputs
    self.conv0 = _convolution(inputs, width, 1)
    self.batchnorm0 = nn.BatchNorm2d(width)
    self.conv1 = _convolution(width, width, 3, stride, groups=width)
    self.batchnorm1 = nn.BatchNorm2d(width)
    self.conv2 = _convolution(width, outputs, 1)
    self.batchnorm2 = nn.BatchNorm2d(outputs)

  def forward(self, x: Tensor) -> Tensor:
    y = nn.functional.relu6(self.batchnorm0(self.conv0(x)))
    y = nn.functional.relu6(self.batchnorm1(self.conv1(y)))
    y = self.batchnorm2(self.conv2(y))
    return x + y if self.skips else y


class MobileNetV2Gluon(Backbone):
  """MXNet Gluon's MobileNetV2, width 1.0, up to a stage; without classifier."""

  def __init__(self, stages: int = 4):
    super().__init__()
    self.stages = stages
    self.conv0 = _convolution(3, 32, 3, 2)
    self.batchnorm0 = nn.BatchNorm2d(32)
    inputs = 32
    for index, (outputs, stride) in enumerate(_INVERTED[: _LAST[stages - 1]]):
      block = GluonBottleneck(inputs, outputs, stride, 6 if index else 1)
      self.add_module(f'linearbottleneck{index}', block)
      inputs = outputs
    if stages == 4:
      self.conv1 = _convolution(inputs, _LAST_CHANNELS, 1)
      self.batchnorm1 = nn.BatchNorm2d(_LAST_CHANNELS)
      inputs = _LAST_CHANNELS
    self.num_features = inputs

  def maps(self, x: Tensor) -> tuple[Tensor, ...]:
    x = nn.functional.relu6(self.batchnorm0(self.conv0(x)))
    maps = []
    for index in range(_LAST[self.stages - 1]):
      x = self.get_submodule(f'linearbottleneck{index}')(x)
      if index + 1 in _LAST[:3]:
        maps.append(x)
    if self.stages == 4:
      maps.append(nn.functional.relu6(self.batchnorm1(self.conv1(x))))
    return tuple(maps)


class PreActivationStage(nn.Module):
  """One stage of ``ResNetV2``; with no blocks, only the BatchNorm that opens it."""

  def __init__(self, inputs: int, outputs: int, stride: int, blocks: int):
    super().__init__()
    self.blocks = blocks
    width = outputs // 4
    self.batchnorm0 = nn.BatchNorm2d(inputs)
    convolutions = 0
    for block in range(blocks):
      first = block == 0
      layers = [(inputs, width, 1, 1), (width, width, 3, stride if first else 1)]
      layers.append((width, outputs, 1, 1))
      if first:
        layers.append((inputs, outputs, 1, stride))
      else:
        self.add_module(f'batchnorm{3 * block}', nn.BatchNorm2d(outputs))
      self.add_module(f'batchnorm{3 * block + 1}', nn.BatchNorm2d(width))
      self.add_module(f'batchnorm{3 * block + 2}', nn.BatchNorm2d(width))
      for layer in layers:
        self.add_module(f'conv{convolutions}', _convolution(*layer))
        convolutions += 1
      inputs = outputs

  def open(self, x: Tensor) -> Tensor:
    """The activated input, which is the map of the stage before."""
    return torch.relu(self.batchnorm0(x))

  def forward(self, x: Tensor, opening: Tensor) -> Tensor:
    for block in range(self.blocks):
      y = opening if block == 0 else self._activate(x, 3 * block)
      skip = self.get_submodule('conv3')(y) if block == 0 else x
      first = 0 if block == 0 else 3 * block + 1  # behind the skip, numbers are one ahead
      y = self.get_submodule(f'conv{first}')(y)
      y = self.get_submodule(f'conv{first + 1}')(self._activate(y, 3 * block + 1))
      y = self.get_submodule(f'conv{first + 2}')(self._activate(y, 3 * block + 2))
      x = y + skip
    return x

  def _activate(self, x: Tensor, index: int) -> Tensor:
    return torch.relu(self.get_submodule(f'batchnorm{index}')(x))


class ResNetV2(Backbone):
  """MXNet Gluon's pre-activation ResNet-50 up to a stage; without classifier.

  The map of a stage is taken behind the BatchNorm and ReLU that follow it.
  """

  def __init__(self, stages: int = 4):
    super().__init__()
    self.stages = stages
    self.batchnorm0 = nn.BatchNorm2d(3)
    self.conv0 = _convolution(3, 64, 7, 2)
    self.batchnorm1 = nn.BatchNorm2d(64)
    inputs = 64
    for stage in range(1, min(stages + 1, 4) + 1):
      outputs = 256 * 2 ** (stage - 1)
      blocks = _DEPTHS[50][stage - 1] if stage <= stages else 0
      made = PreActivationStage(inputs, outputs, 1 if stage == 1 else 2, blocks)
      self.add_module(f'stage{stage}', made)
      inputs = outputs
    self.num_features = 256 * 2 ** (stages - 1)
    if stages == 4:
      self.batchnorm2 = nn.BatchNorm2d(self.num_features)

  def maps(self, x: Tensor) -> tuple[Tensor, ...]:
    x = torch.relu(self.batchnorm1(self.conv0(self.batchnorm0(x))))
    x = nn.functional.max_pool2d(x, 3, 2, padding=1)
    maps = []
    for stage in range(1, self.stages + 1):
      made = self.get_submodule(f'stage{stage}')
      opening = made.open(x)  # type: ignore[operator]
      x = made(x, opening)
      if stage > 1:
        maps.append(opening)
    if self.stages == 4:
      last = torch.relu(self.batchnorm2(x))
    else:
      last = self.get_submodule(f'stage{self.stages + 1}').open(x)  # type: ignore[operator]
    return (*maps, last)
