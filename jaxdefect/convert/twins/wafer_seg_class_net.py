"""WaferSegClassNet in plain PyTorch (``methods.wafer_seg_class_net``).

Shape legend: N images, H x W pixels, u x v places of the encoder's last map, C channels, K classes.
"""

from typing import Any

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.deployed import Deployed
from jaxdefect.convert.twins.recognition import lead_of_named

# Factors on the width, of the encoder's blocks and of the decoder's; size of the hidden layer.
_WAFER_DOWN, _WAFER_UP, _WAFER_HIDDEN = (1, 2, 2, 4, 8), (4, 2, 2, 1), 64


class SeparableBlock(nn.Module):
  """Convolution and separable convolution, each with ReLU and, behind it, BatchNorm.

  Args:
    inputs: channels that come in.
    outputs: channels that go out.
  """

  def __init__(self, inputs: int, outputs: int):
    super().__init__()
    self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    self.norm1 = nn.BatchNorm2d(outputs, eps=1e-3)
    self.depthwise = nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs, bias=False)
    self.pointwise = nn.Conv2d(outputs, outputs, 1)
    self.norm2 = nn.BatchNorm2d(outputs, eps=1e-3)

  def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
    """[N, C, H, W] -> the rectified first convolution and the block, [N, outputs, H, W] each."""
    first = self.conv(x).relu()
    y = self.pointwise(self.depthwise(self.norm1(first))).relu()
    return first, self.norm2(y)


class WaferSegClassNet(Deployed, family='wafer_seg_class_net'):
  """Class and mask of a wafer map.

  ``maps`` are the probabilities that a pixel belongs to a failed die.

  Args:
    width: channels of the first block.
    settings: of ``Deployed``.
  """

  outputs = ('scores', 'probabilities', 'evidence', 'maps')

  def __init__(self, *, width: int, **settings: Any):
    super().__init__(**settings)
    self.encoder, self.up, self.decoder = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
    inputs = 3
    for factor in _WAFER_DOWN:
      self.encoder.append(SeparableBlock(inputs, factor * width))
      inputs = factor * width
    self.classifier = nn.Sequential(
      nn.Linear(inputs, _WAFER_HIDDEN), nn.ReLU(), nn.Linear(_WAFER_HIDDEN, len(self.classes))
    )
    for factor, beside in zip(_WAFER_UP, _WAFER_DOWN[-2::-1]):
      outputs = factor * width
      self.up.append(nn.ConvTranspose2d(inputs, outputs, 2, 2, bias=False))
      self.decoder.append(SeparableBlock(outputs + beside * width, outputs))
      inputs = outputs
    self.mask = nn.Conv2d(inputs, 1, 1)

  def inspect(self, pixels: Tensor) -> tuple[Tensor, ...]:
    """[N, H, W, 3] -> logits, their softmax (both [N, K]), evidence [N, u, v], mask [N, H, W]."""
    x = self.normalised(pixels)
    height, width = x.shape[2:]
    multiple = 2 ** len(_WAFER_UP)
    x = nn.functional.pad(x, (0, -width % multiple, 0, -height % multiple))
    skips, last = [], len(self.encoder) - 1
    for k, block in enumerate(self.encoder):
      if k:
        pool = nn.functional.avg_pool2d if k == last else nn.functional.max_pool2d
        x = pool(x, 2)
      first, x = block(x)
      skips.append(first)
    hidden = self.classifier[0](x.mean((2, 3)))
    logits = self.classifier[2](hidden.relu())
    # Back through the two layers: only what is above zero passes the ReLU.
    inner, outer = (self.classifier.get_parameter(f'{k}.weight') for k in (0, 2))
    slope = ((lead_of_named(logits) @ outer) * (hidden > 0)) @ inner
    share = slope / (x.shape[2] * x.shape[3])
    evidence = (x * share[:, :, None, None]).sum(1).relu()
    for up, block, skip in zip(self.up, self.decoder, skips[-2::-1]):
      _, x = block(torch.cat([up(x), skip], dim=1))
    maps = self.mask(x)[:, 0, :height, :width].sigmoid()
    return logits, logits.softmax(-1), evidence, maps
