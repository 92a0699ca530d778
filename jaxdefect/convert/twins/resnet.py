"""ResNets in plain PyTorch; keys are torchvision's and timm's, classifier included.

Shape legend: N images, 3 or C channels, H x W pixels.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.backbone import NETWORKS, Backbone, convolution

RESNET_DEPTHS = {
  10: (1, 1, 1, 1),
  18: (2, 2, 2, 2),
  34: (3, 4, 6, 3),
  50: (3, 4, 6, 3),
  101: (3, 4, 23, 3),
}


Window = Callable[..., nn.Module]  # (inputs, outputs, size, stride) -> a layer


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a skip."""

  expansion = 1

  def __init__(self, inputs: int, channels: int, stride: int, window: Window = convolution):
    super().__init__()
    self.conv1 = window(inputs, channels, 3, stride)
    self.bn1 = nn.BatchNorm2d(channels)
    self.conv2 = window(channels, channels, 3)
    self.bn2 = nn.BatchNorm2d(channels)
    self.downsample = _downsample(inputs, channels, stride)

  def forward(self, x: Tensor) -> Tensor:
    skip = x if self.downsample is None else self.downsample(x)
    y = torch.relu(self.bn1(self.conv1(x)))
    return torch.relu(skip + self.bn2(self.conv2(y)))


class Bottleneck(nn.Module):
  """1x1, 3x3 (with the stride) and 1x1 convolutions and a skip."""

  expansion = 4

  def __init__(self, inputs: int, channels: int, stride: int, window: Window = convolution):
    super().__init__()
    outputs = channels * self.expansion
    self.conv1 = convolution(inputs, channels, 1)
    self.bn1 = nn.BatchNorm2d(channels)
    self.conv2 = window(channels, channels, 3, stride)
    self.bn2 = nn.BatchNorm2d(channels)
    self.conv3 = convolution(channels, outputs, 1)
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
  return nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class ResNet(Backbone):
  """A ResNet (v1.5, stride in the 3x3) up to a stage.

  Args:
    depth: 10, 18, 34, 50 or 101.
    stages: 1 to 4.
    num_classes: size of ``fc``; None makes none.
    width: channels of the stem and the first stage.
    window: makes the 3x3 convolutions of the blocks.
    window_from: the first stage that has them; those before have ordinary ones.
  """

  def __init__(
    self,
    depth: int,
    stages: int = 4,
    num_classes: int | None = None,
    *,
    width: int = 64,
    window: Window = convolution,
    window_from: int = 1,
  ):
    super().__init__()
    block = BasicBlock if depth < 50 else Bottleneck
    self.stages = stages
    self.conv1 = convolution(3, width, 7, 2)
    self.bn1 = nn.BatchNorm2d(width)
    inputs = width
    for stage, blocks in enumerate(RESNET_DEPTHS[depth][:stages], start=1):
      layer = nn.Sequential()
      for index in range(blocks):
        stride = 2 if stage > 1 and index == 0 else 1
        channels = width * 2 ** (stage - 1)
        made = window if stage >= window_from else convolution
        layer.append(block(inputs, channels, stride, made))
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


def _resnet(depth: int):
  def make_resnet(stages: int, width: int, **settings: Any) -> ResNet:
    return ResNet(depth, stages, width=width, **settings)

  return make_resnet


NETWORKS |= {f'resnet{depth}': _resnet(depth) for depth in RESNET_DEPTHS}
