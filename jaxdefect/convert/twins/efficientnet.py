"""EfficientNet-B0 and B3 in plain PyTorch.

Shape legend: N images, C channels, H x W pixels.

Keys are torchvision's, so whole networks load torchvision's files strictly and the other way round.
Stage k ends at stride ``2**(k + 1)``: with ``features.2``, ``features.3``, ``features.5`` and
``features.8``.
"""

import math

from torch import Tensor, nn

from jaxdefect.convert.twins.backbone import NETWORKS, Backbone

# Factors on channels and blocks, and the dropout before the classifier.
_EFFICIENTNETS = {'b0': (1.0, 1.0, 0.2), 'b3': (1.2, 1.4, 0.3)}

# (expansion, window, stride, channels, blocks) of features.1 to features.7 in B0.
_EFFICIENTNET_ROWS = (
  (1, 3, 1, 16, 1),
  (6, 3, 2, 24, 2),
  (6, 5, 2, 40, 2),
  (6, 3, 2, 80, 3),
  (6, 5, 1, 112, 3),
  (6, 5, 2, 192, 4),
  (6, 3, 1, 320, 1),
)
_EFFICIENTNET_ENDS = (2, 3, 5, 7)


def _scaled(channels: int, width: float) -> int:
  """The nearest multiple of 8, but at least 90 % of ``channels * width``."""
  rounded = max(8, math.floor(channels * width / 8 + 0.5) * 8)
  return rounded if rounded >= 0.9 * channels * width else rounded + 8


def _conv_norm_silu(
  inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1, *, silu: bool = True
) -> nn.Sequential:
  convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
  layers = nn.Sequential(convolution, nn.BatchNorm2d(outputs))
  return layers.append(nn.SiLU()) if silu else layers


class SqueezeExcitation(nn.Module):
  """Channels weighed by what the whole image holds."""

  def __init__(self, channels: int, squeezed: int):
    super().__init__()
    self.fc1 = nn.Conv2d(channels, squeezed, 1)
    self.fc2 = nn.Conv2d(squeezed, channels, 1)

  def forward(self, x: Tensor) -> Tensor:
    y = nn.functional.silu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))
    return x * self.fc2(y).sigmoid()


class MBConv(nn.Module):
  """1x1 expansion (unless it is 1), depthwise, squeeze-excitation, linear 1x1, and a skip."""

  def __init__(self, inputs: int, outputs: int, size: int, stride: int, expansion: int):
    super().__init__()
    width = inputs * expansion
    self.skips = stride == 1 and inputs == outputs
    self.block = nn.Sequential()
    if expansion != 1:
      self.block.append(_conv_norm_silu(inputs, width, 1))
    self.block.append(_conv_norm_silu(width, width, size, stride, groups=width))
    self.block.append(SqueezeExcitation(width, max(1, inputs // 4)))
    self.block.append(_conv_norm_silu(width, outputs, 1, silu=False))

  def forward(self, x: Tensor) -> Tensor:
    return x + self.block(x) if self.skips else self.block(x)


class EfficientNet(Backbone):
  """An EfficientNet up to a stage, without stochastic depth.

  Args:
    version: ``'b0'`` or ``'b3'``.
    stages: 1 to 4.
    num_classes: size of ``classifier.1``; None makes none.
  """

  def __init__(self, version: str, stages: int = 4, num_classes: int | None = None):
    super().__init__()
    width, depth, dropout = _EFFICIENTNETS[version]
    self.stages = stages
    inputs = _scaled(32, width)
    self.features = nn.Sequential(_conv_norm_silu(3, inputs, 3, 2))
    for expansion, size, stride, channels, blocks in _EFFICIENTNET_ROWS[
      : _EFFICIENTNET_ENDS[stages - 1]
    ]:
      outputs = _scaled(channels, width)
      row = nn.Sequential()
      for index in range(math.ceil(blocks * depth)):
        row.append(MBConv(inputs, outputs, size, 1 if index else stride, expansion))
        inputs = outputs
      self.features.append(row)
    if stages == 4:
      self.features.append(_conv_norm_silu(inputs, 4 * inputs, 1))
      inputs *= 4
    self.num_features = inputs
    self.classifier = None
    if num_classes is not None:
      self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(inputs, num_classes))

  def head(self) -> nn.Module | None:
    return self.classifier

  def maps(self, x: Tensor) -> tuple[Tensor, ...]:
    maps = []
    for place, layer in enumerate(self.features):
      x = layer(x)
      if place in (2, 3, 5, 8):
        maps.append(x)
    return tuple(maps)


NETWORKS['efficientnet_b0'] = lambda stages, width: EfficientNet('b0', stages)
NETWORKS['efficientnet_b3'] = lambda stages, width: EfficientNet('b3', stages)
