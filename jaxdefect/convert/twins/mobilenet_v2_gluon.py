"""MXNet Gluon's MobileNetV2 in plain PyTorch, with dots in the place of Gluon's underscores.

Shape legend: N images, 3 or C channels, H x W pixels.
"""

from torch import Tensor, nn

from jaxdefect.convert.twins.backbone import NETWORKS, Backbone, convolution
from jaxdefect.convert.twins.mobilenet_v2 import INVERTED_RESIDUALS, LAST_CHANNELS, LAST_OF_STAGE


class GluonBottleneck(nn.Module):
  """Gluon's inverted residual, which has its 1x1 expansion in the first block too."""

  def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
    super().__init__()
    width = inputs * expansion
    self.skips = stride == 1 and inputs == outputs
    self.conv0 = convolution(inputs, width, 1)
    self.batchnorm0 = nn.BatchNorm2d(width)
    self.conv1 = convolution(width, width, 3, stride, groups=width)
    self.batchnorm1 = nn.BatchNorm2d(width)
    self.conv2 = convolution(width, outputs, 1)
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
    self.conv0 = convolution(3, 32, 3, 2)
    self.batchnorm0 = nn.BatchNorm2d(32)
    inputs = 32
    for index, (outputs, stride) in enumerate(INVERTED_RESIDUALS[: LAST_OF_STAGE[stages - 1]]):
      block = GluonBottleneck(inputs, outputs, stride, 6 if index else 1)
      self.add_module(f'linearbottleneck{index}', block)
      inputs = outputs
    if stages == 4:
      self.conv1 = convolution(inputs, LAST_CHANNELS, 1)
      self.batchnorm1 = nn.BatchNorm2d(LAST_CHANNELS)
      inputs = LAST_CHANNELS
    self.num_features = inputs

  def maps(self, x: Tensor) -> tuple[Tensor, ...]:
    x = nn.functional.relu6(self.batchnorm0(self.conv0(x)))
    maps = []
    for index in range(LAST_OF_STAGE[self.stages - 1]):
      x = self.get_submodule(f'linearbottleneck{index}')(x)
      if index + 1 in LAST_OF_STAGE[:3]:
        maps.append(x)
    if self.stages == 4:
      maps.append(nn.functional.relu6(self.batchnorm1(self.conv1(x))))
    return tuple(maps)


NETWORKS['mobilenet_v2_gluon'] = lambda stages, width: MobileNetV2Gluon(stages)
