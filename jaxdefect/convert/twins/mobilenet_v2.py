"""MobileNetV2 in plain PyTorch; keys are torchvision's, classifier included.

Shape legend: N images, 3 or C channels, H x W pixels.
"""

from torch import Tensor, nn

from jaxdefect.convert.twins.backbone import NETWORKS, Backbone, convolution

# (channels, stride) of the inverted residuals, and the last one of every stage.
INVERTED_RESIDUALS = (
  (16, 1),
  *((24, 2), (24, 1)),
  *((32, 2), (32, 1), (32, 1)),
  *((64, 2), (64, 1), (64, 1), (64, 1), (96, 1), (96, 1), (96, 1)),
  *((160, 2), (160, 1), (160, 1), (320, 1)),
)
LAST_OF_STAGE = (3, 6, 13, 17)
LAST_CHANNELS = 1280


def _conv_norm_relu6(
  inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
  norm = nn.BatchNorm2d(outputs)
  return nn.Sequential(convolution(inputs, outputs, size, stride, groups), norm, nn.ReLU6())


class InvertedResidual(nn.Module):
  """1x1 expansion (unless it is 1), 3x3 depthwise, linear 1x1, and a skip where shapes agree."""

  def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
    super().__init__()
    width = inputs * expansion
    self.skips = stride == 1 and inputs == outputs
    self.conv = nn.Sequential()
    if expansion != 1:
      self.conv.append(_conv_norm_relu6(inputs, width, 1))
    self.conv.append(_conv_norm_relu6(width, width, 3, stride, groups=width))
    self.conv.append(convolution(width, outputs, 1))
    self.conv.append(nn.BatchNorm2d(outputs))

  def forward(self, x: Tensor) -> Tensor:
    return x + self.conv(x) if self.skips else self.conv(x)


class MobileNetV2(Backbone):
  """MobileNetV2, width 1.0, up to a stage; arguments as of ``ResNet``."""

  def __init__(self, stages: int = 4, num_classes: int | None = None):
    super().__init__()
    self.stages = stages
    self.features = nn.Sequential(_conv_norm_relu6(3, 32, 3, 2))
    inputs = 32
    for index, (outputs, stride) in enumerate(INVERTED_RESIDUALS[: LAST_OF_STAGE[stages - 1]]):
      self.features.append(InvertedResidual(inputs, outputs, stride, 6 if index else 1))
      inputs = outputs
    if stages == 4:
      self.features.append(_conv_norm_relu6(inputs, LAST_CHANNELS, 1))
      inputs = LAST_CHANNELS
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
      if index in (*LAST_OF_STAGE[:3], 18):
        maps.append(x)
    return tuple(maps)


NETWORKS['mobilenet_v2'] = lambda stages, width: MobileNetV2(stages)
