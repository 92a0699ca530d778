"""Feature pyramids and the head that looks for objects on them, in plain PyTorch.

Shape legend: N images, h x w pixels of a map, C channels, r anchors per pixel, A anchors.

Keys of ``FPN`` and ``RPNHead`` are torchvision's behind ``backbone.fpn.`` and ``rpn.head.``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.gsconv import GSConv, VoVGSCSP


class FPN(nn.Module):
  """1x1 convolutions to one width, added from coarse to fine, 3x3 convolutions on the sums.

  Args:
    inputs: channels of the maps that it gets, finest first.
    channels: C, of every map that it gives.
    extra_levels: coarser maps behind them, every second pixel of the one before.
  """

  def __init__(self, inputs: Sequence[int], channels: int, *, extra_levels: int):
    super().__init__()
    self.extra_levels = extra_levels
    self.inner_blocks = nn.ModuleList(
      nn.Sequential(nn.Conv2d(size, channels, 1)) for size in inputs
    )
    self.layer_blocks = nn.ModuleList(self.output(channels) for _ in inputs)

  def output(self, channels: int) -> nn.Module:
    """What makes a map from a sum."""
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1))

  def fused(self, x: Tensor, level: int) -> Tensor:
    """A sum [N, C, h, w] as it goes on down from ``level``."""
    del level
    return x

  def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
    """[N, ., h, w] per level, finest first -> [N, C, h, w] per level, finest first."""
    laterals = [block(x) for block, x in zip(self.inner_blocks, maps)]
    summed = [laterals[-1]]
    for level in reversed(range(len(laterals) - 1)):
      size = laterals[level].shape[2:]
      coarser = nn.functional.interpolate(summed[0], size=size, mode='nearest')
      summed.insert(0, self.fused(laterals[level] + coarser, level))
    outputs = [block(x) for block, x in zip(self.layer_blocks, summed)]
    for _ in range(self.extra_levels):
      outputs.append(outputs[-1][:, :, ::2, ::2])
    return outputs


class GSFPN(FPN):
  """``FPN`` with GSConv in place of the 3x3 convolutions, and VoV-GSCSP where maps are added.

  Args:
    inputs: as of ``FPN``.
    channels: as of ``FPN``, a multiple of 8.
    extra_levels: as of ``FPN``.
    norm: of ``GS_NORMS``.
  """

  def __init__(self, inputs: Sequence[int], channels: int, *, extra_levels: int, norm: str):
    self.norm = norm
    super().__init__(inputs, channels, extra_levels=extra_levels)
    self.fuse_blocks = nn.ModuleList(VoVGSCSP(channels, norm=norm) for _ in inputs[1:])

  def output(self, channels: int) -> nn.Module:
    return GSConv(channels, channels, 3, norm=self.norm)

  def fused(self, x: Tensor, level: int) -> Tensor:
    return self.fuse_blocks[level](x)


class RPNHead(nn.Module):
  """Says for every anchor whether it holds an object, and how to move it there.

  Args:
    channels: C.
    anchors: r.
  """

  def __init__(self, channels: int, anchors: int):
    super().__init__()
    self.conv = nn.Sequential(nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1)))
    self.cls_logits = nn.Conv2d(channels, anchors, 1)
    self.bbox_pred = nn.Conv2d(channels, 4 * anchors, 1)

  def forward(self, maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """[N, C, h, w] per level -> logits [N, A] and deltas [N, A, 4] per level: row, column, r."""
    found = []
    for x in maps:
      x = torch.relu(self.conv(x))
      logits = self.cls_logits(x).permute(0, 2, 3, 1).flatten(1)
      deltas = self.bbox_pred(x).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4))
      found.append((logits, deltas))
    return found
