"""CASI-Net in plain PyTorch (``models.casi_net``).

Shape legend: N images, H x W pixels, h x w pixels of the last map, C channels, K classes.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from jaxdefect.convert.twins.backbone import convolution
from jaxdefect.convert.twins.coordinate_attention import CoordinateAttention
from jaxdefect.convert.twins.deployed import Deployed
from jaxdefect.convert.twins.recognition import lead_of_named


def _conv_norm(inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1):
  """Convolution (``'0'``) and normalisation (``'1'``)."""
  return nn.Sequential(convolution(inputs, outputs, size, stride, groups), nn.BatchNorm2d(outputs))


class SeparableConv(nn.Module):
  """3x3 depthwise, then 1x1, each with normalisation and ReLU; a skip where shapes agree."""

  def __init__(self, inputs: int, outputs: int, stride: int):
    super().__init__()
    self.depthwise = _conv_norm(inputs, inputs, 3, stride, inputs)
    self.pointwise = _conv_norm(inputs, outputs)
    self.skips = stride == 1 and inputs == outputs

  def forward(self, x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, outputs, ceil(H / stride), ceil(W / stride)]."""
    y = self.pointwise(self.depthwise(x).relu()).relu()
    return x + y if self.skips else y


class SelfInteraction(nn.Module):
  """Adds the product of two linear views of a map to it; [N, C, H, W] stays."""

  def __init__(self, channels: int):
    super().__init__()
    self.left, self.right = _conv_norm(channels, channels), _conv_norm(channels, channels)
    self.norm = nn.BatchNorm2d(channels)

  def forward(self, x: Tensor) -> Tensor:
    return x + self.norm(self.left(x) * self.right(x))


class CASINet(Deployed, family='casi_net'):
  """A light extractor with coordinate attention, self-interaction, a mean and one linear layer.

  Args:
    num_classes: K.
    stem: channels of the stem.
    channels: of every stage.
    blocks: separable convolutions of a stage.
    attention: whether stages end with coordinate attention.
    interaction: whether the last map interacts with itself.
    reduction: of the attention.
    settings: of ``Deployed``.
  """

  outputs = ('scores', 'probabilities', 'evidence')

  def __init__(
    self,
    *,
    num_classes: int,
    stem: int,
    channels: Sequence[int],
    blocks: int,
    attention: bool,
    interaction: bool,
    reduction: int,
    **settings: Any,
  ):
    super().__init__(**settings)
    self.stem = _conv_norm(3, stem, 3, 2)
    self.stage, self.attention = nn.ModuleList(), nn.ModuleList()
    for inputs, outputs in zip((stem, *channels), channels):
      first = SeparableConv(inputs, outputs, 2)
      rest = (SeparableConv(outputs, outputs, 1) for _ in range(blocks - 1))
      self.stage.append(nn.Sequential(first, *rest))
      self.attention.append(
        CoordinateAttention(outputs, reduction, nn.BatchNorm2d) if attention else nn.Identity()
      )
    self.interaction = SelfInteraction(channels[-1]) if interaction else nn.Identity()
    self.fc = nn.Linear(channels[-1], num_classes)

  def inspect(self, pixels: Tensor) -> tuple[Tensor, ...]:
    """[N, H, W, 3] -> logits and their softmax, [N, K] each, and the evidence [N, h, w].

    The evidence is Grad-CAM of the named class's lead over the others, see ``recognition``.
    """
    x = self.stem(self.normalised(pixels)).relu()
    for stage, attention in zip(self.stage, self.attention):
      x = attention(stage(x))
    x = self.interaction(x)
    logits = self.fc(x.mean((2, 3)))
    slope = lead_of_named(logits) @ self.fc.weight / (x.shape[2] * x.shape[3])  # [N, C]
    return logits, logits.softmax(-1), (x * slope[:, :, None, None]).sum(1).relu()
