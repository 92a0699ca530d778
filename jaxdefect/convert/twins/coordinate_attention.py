"""Coordinate attention in plain PyTorch (``models.coordinate_attention``).

Shape legend: N images, C channels, M of the bottleneck, H x W cells of a map.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class CoordinateAttention(nn.Module):
  """A weight for every row and every column, out of the means along them."""

  def __init__(self, channels: int, reduction: int, norm: Callable[[int], nn.Module]):
    super().__init__()
    bottleneck = max(8, channels // reduction)
    self.conv1 = nn.Conv2d(channels, bottleneck, 1, bias=False)
    self.bn1 = norm(bottleneck)
    self.conv_h = nn.Conv2d(bottleneck, channels, 1)
    self.conv_w = nn.Conv2d(bottleneck, channels, 1)

  def forward(self, x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, H, W]."""
    rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
    y = self.bn1(self.conv1(torch.cat([rows, columns], dim=2)))  # [N, M, H + W, 1]
    rows, columns = nn.functional.hardswish(y).split([x.shape[2], x.shape[3]], dim=2)
    return x * self.conv_h(rows).sigmoid() * self.conv_w(columns.transpose(2, 3)).sigmoid()
