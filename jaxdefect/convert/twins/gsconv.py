"""GSConv and what slim necks build from it, in plain PyTorch (``models.gsconv``).

Shape legend: N images (or regions), H x W pixels, C channels.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.backbone import convolution

_GS_GROUP = 16  # channels of a group

# Name -> channels -> the layer.
GS_NORMS: dict[str, Callable[[int], nn.Module]] = {
  'batch': nn.BatchNorm2d,
  'group': lambda channels: nn.GroupNorm(channels // min(_GS_GROUP, channels), channels),
}


def gs_conv_norm(
  inputs: int,
  outputs: int,
  size: int = 1,
  stride: int = 1,
  groups: int = 1,
  *,
  norm: str,
  active: bool = True,
) -> nn.Sequential:
  """Convolution (``'0'``), normalisation (``'1'``) and, where it is active, SiLU."""
  layers = nn.Sequential(
    convolution(inputs, outputs, size, stride, groups), GS_NORMS[norm](outputs)
  )
  if active:
    layers.append(nn.SiLU())
  return layers


class GSConv(nn.Module):
  """Dense to half of the channels, depthwise on that half, both in turn.

  Args:
    inputs: channels that come in.
    outputs: channels that go out, even.
    size: side of the dense window; the depthwise one is 5x5.
    stride: of the dense window.
    norm: of ``GS_NORMS``.
    active: False leaves the SiLU out.
  """

  def __init__(
    self,
    inputs: int,
    outputs: int,
    size: int = 3,
    stride: int = 1,
    *,
    norm: str,
    active: bool = True,
  ):
    super().__init__()
    half = outputs // 2
    self.dense = gs_conv_norm(inputs, half, size, stride, norm=norm, active=active)
    self.depthwise = gs_conv_norm(half, half, 5, groups=half, norm=norm, active=active)

  def forward(self, x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, outputs, ceil(H / stride), ceil(W / stride)]."""
    x = self.dense(x)
    return torch.stack([x, self.depthwise(x)], dim=2).flatten(1, 2)


class GSBottleneck(nn.Module):
  """GSConv 1x1 to half the channels, GSConv 3x3 back, and a 1x1 shortcut; [N, C, H, W] stays."""

  def __init__(self, channels: int, *, norm: str):
    super().__init__()
    self.conv1 = GSConv(channels, channels // 2, 1, norm=norm)
    self.conv2 = GSConv(channels // 2, channels, 3, norm=norm, active=False)
    self.shortcut = gs_conv_norm(channels, channels, norm=norm, active=False)

  def forward(self, x: Tensor) -> Tensor:
    return self.conv2(self.conv1(x)) + self.shortcut(x)


class VoVGSCSP(nn.Module):
  """Half of the channels pass a GS bottleneck, the other half goes straight; 1x1 mixes them.

  ``channels`` is a multiple of 8; [N, C, H, W] keeps its shape.
  """

  def __init__(self, channels: int, *, norm: str):
    super().__init__()
    half = channels // 2
    self.reduce = gs_conv_norm(channels, half, norm=norm)
    self.blocks = nn.Sequential(GSBottleneck(half, norm=norm))
    self.skip = gs_conv_norm(channels, half, norm=norm)
    self.fuse = gs_conv_norm(channels, channels, norm=norm)

  def forward(self, x: Tensor) -> Tensor:
    return self.fuse(torch.cat([self.skip(x), self.blocks(self.reduce(x))], dim=1))
