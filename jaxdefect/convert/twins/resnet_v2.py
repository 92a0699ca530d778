"""MXNet Gluon's pre-activation ResNet-50 in plain PyTorch, dots in the place of its underscores.

Shape legend: N images, 3 or C channels, H x W pixels.
"""

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.backbone import NETWORKS, Backbone, convolution
from jaxdefect.convert.twins.resnet import RESNET_DEPTHS


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
        self.add_module(f'conv{convolutions}', convolution(*layer))
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
    self.conv0 = convolution(3, 64, 7, 2)
    self.batchnorm1 = nn.BatchNorm2d(64)
    inputs = 64
    for stage in range(1, min(stages + 1, 4) + 1):
      outputs = 256 * 2 ** (stage - 1)
      blocks = RESNET_DEPTHS[50][stage - 1] if stage <= stages else 0
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


NETWORKS['resnet50_v2'] = lambda stages, width: ResNetV2(stages)
