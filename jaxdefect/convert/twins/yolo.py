"""The single-stage detector of the YOLOv8 class in plain PyTorch (``models.Yolo``).

Shape legend: N images, H x W native pixels, h x w pixels of a map or the canvas, C channels,
A cells, K classes, B bins, D detections.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.backbone import convolution
from jaxdefect.convert.twins.deployed import Deployed
from jaxdefect.convert.twins.regions import best_detections, clipped_boxes
from jaxdefect.convert.twins.resampling import letterboxed

_YOLO_CHANNELS, _YOLO_BLOCKS = (64, 128, 256, 512, 1024), (3, 6, 6, 3)
_YOLO_STRIDES = (8, 16, 32)
_YOLO_EPSILON = 1e-3


def conv_norm_silu(inputs: int, outputs: int, size: int = 1, stride: int = 1) -> nn.Sequential:
  """Convolution (``'0'``), normalisation (``'1'``) and SiLU."""
  norm = nn.BatchNorm2d(outputs, eps=_YOLO_EPSILON)
  return nn.Sequential(convolution(inputs, outputs, size, stride), norm, nn.SiLU())


class CSPBottleneck(nn.Module):
  """Two 3x3 convolutions, and the input added where there is a shortcut; [N, C, h, w] stays."""

  def __init__(self, channels: int, *, shortcut: bool):
    super().__init__()
    self.shortcut = shortcut
    self.conv1 = conv_norm_silu(channels, channels, 3)
    self.conv2 = conv_norm_silu(channels, channels, 3)

  def forward(self, x: Tensor) -> Tensor:
    y = self.conv2(self.conv1(x))
    return x + y if self.shortcut else y


class CSPBlock(nn.Module):
  """Cross-stage partial bottleneck with two convolutions: what every bottleneck says is kept.

  Args:
    inputs: channels that come in.
    outputs: channels that go out, even.
    blocks: bottlenecks, each on half of the channels that go out.
    shortcut: of the bottlenecks.
  """

  def __init__(self, inputs: int, outputs: int, blocks: int, *, shortcut: bool = True):
    super().__init__()
    half = outputs // 2
    self.enter = conv_norm_silu(inputs, outputs)
    self.blocks = nn.ModuleList(CSPBottleneck(half, shortcut=shortcut) for _ in range(blocks))
    self.leave = conv_norm_silu((2 + blocks) * half, outputs)

  def forward(self, x: Tensor) -> Tensor:
    """[N, inputs, h, w] -> [N, outputs, h, w]."""
    kept = list(self.enter(x).chunk(2, dim=1))
    for block in self.blocks:
      kept.append(block(kept[-1]))
    return self.leave(torch.cat(kept, dim=1))


class PyramidPool(nn.Module):
  """Maxima of 5x5, 9x9 and 13x13 pixels about every pixel, each of the one before."""

  def __init__(self, channels: int):
    super().__init__()
    self.enter = conv_norm_silu(channels, channels // 2)
    self.leave = conv_norm_silu(4 * (channels // 2), channels)

  def forward(self, x: Tensor) -> Tensor:
    """[N, C, h, w] -> [N, C, h, w]."""
    maps = [self.enter(x)]
    for _ in range(3):
      maps.append(nn.functional.max_pool2d(maps[-1], 5, stride=1, padding=2))
    return self.leave(torch.cat(maps, dim=1))


class CSPBackbone(nn.Module):
  """A stem and four stages of a stride-2 convolution and a CSP block.

  Args:
    channels: of the stem and the four stages.
    blocks: bottlenecks of the four stages.
  """

  def __init__(self, channels: Sequence[int], blocks: Sequence[int]):
    super().__init__()
    self.stem = conv_norm_silu(3, channels[0], 3, 2)
    for stage, count in enumerate(blocks, 1):
      features = channels[stage]
      self.add_module(f'down{stage}', conv_norm_silu(channels[stage - 1], features, 3, 2))
      self.add_module(f'stage{stage}', CSPBlock(features, features, count))
    self.pool = PyramidPool(channels[-1])
    self.stages = len(blocks)

  def forward(self, x: Tensor) -> list[Tensor]:
    """[N, 3, H, W] -> maps of strides 8, 16 and 32."""
    x, maps = self.stem(x), []
    for stage in range(1, self.stages + 1):
      x = self.get_submodule(f'stage{stage}')(self.get_submodule(f'down{stage}')(x))
      maps.append(x)
    return [*maps[1:-1], self.pool(maps[-1])]


class PANNeck(nn.Module):
  """Maps are concatenated from coarse to fine, then from fine to coarse, and mixed by CSP blocks.

  Args:
    channels: of every map, finest first; they stay.
    blocks: bottlenecks of every CSP block.
  """

  def __init__(self, channels: Sequence[int], blocks: int):
    super().__init__()
    pairs = list(itertools.pairwise(channels))
    self.top_down = nn.ModuleList(
      CSPBlock(fine + coarse, fine, blocks, shortcut=False) for fine, coarse in pairs
    )
    self.reduce = nn.ModuleList(conv_norm_silu(fine, fine, 3, 2) for fine, _ in pairs)
    self.bottom_up = nn.ModuleList(
      CSPBlock(fine + coarse, coarse, blocks, shortcut=False) for fine, coarse in pairs
    )

  def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
    """[N, C, h, w] per level, finest first -> maps of the same shapes."""
    down = [maps[-1]]
    for level in reversed(range(len(maps) - 1)):
      coarse = nn.functional.interpolate(down[0], size=maps[level].shape[2:], mode='nearest')
      down.insert(0, self.top_down[level](torch.cat([coarse, maps[level]], dim=1)))
    up = [down[0]]
    for level, (shrink, mix) in enumerate(zip(self.reduce, self.bottom_up), 1):
      up.append(mix(torch.cat([shrink(up[-1]), down[level]], dim=1)))
    return up


class YoloHead(nn.Module):
  """Classes and distances of every cell, by ways of their own.

  Args:
    channels: of every map, finest first.
    classes: K.
    bins: B.
  """

  def __init__(self, channels: Sequence[int], classes: int, bins: int):
    super().__init__()
    self.bins = bins
    widths = (max(channels[0], min(classes, 100)), max(channels[0] // 4, 4 * bins, 16))
    self.cls = nn.ModuleList(self.way(size, widths[0], classes) for size in channels)
    self.box = nn.ModuleList(self.way(size, widths[1], 4 * bins) for size in channels)

  def way(self, inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions and a 1x1 one with bias."""
    first = conv_norm_silu(inputs, width, 3)
    return nn.Sequential(first, conv_norm_silu(width, width, 3), nn.Conv2d(width, outputs, 1))

  def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """[N, C, h, w] per level -> logits [N, A, K], and the logits of the bins [N, A, 4, B]."""
    said = []
    for way in (self.cls, self.box):
      levels = [one(x).flatten(2).transpose(1, 2) for one, x in zip(way, maps)]
      said.append(torch.cat(levels, dim=1))
    return said[0], said[1].unflatten(2, (4, self.bins))


class Yolo(Deployed, family='yolo'):
  """Boxes with a class and a score each, a fixed number per picture (``methods.yolo``).

  Pictures keep their proportions: each lies at the upper left of the network's canvas.

  Args:
    width: factor on the channels.
    depth: factor on the numbers of bottlenecks.
    num_bins: B.
    score_threshold: detections score above it.
    nms_threshold: overlap that two detections of a class may have.
    max_detections: D.
    settings: of ``Deployed``.
  """

  outputs = ('boxes', 'scores', 'labels', 'valid')

  def __init__(
    self,
    *,
    width: float,
    depth: float,
    num_bins: int,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    **settings: Any,
  ):
    super().__init__(**settings)
    channels = [8 * math.ceil(number * width / 8) for number in _YOLO_CHANNELS]
    blocks = [max(1, round(number * depth)) for number in _YOLO_BLOCKS]
    self.backbone = CSPBackbone(channels, blocks)
    self.neck = PANNeck(channels[2:], blocks[0])
    self.head = YoloHead(channels[2:], len(self.classes), num_bins)
    self.score_threshold, self.nms_threshold = float(score_threshold), float(nms_threshold)
    self.max_detections = max_detections

  def resized(self, images: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] -> canvases [N, h, w, 3], whole numbers 0..255."""
    if self.image_size is None or images.ndim != 4:
      return super().resized(images)
    return letterboxed(images, self.image_size, self.interpolation)[0]

  def inspect(self, pixels: Tensor, size: Tensor | None = None) -> tuple[Tensor, ...]:
    """Detections on canvases.

    Args:
      pixels: [N, h, w, 3].
      size: [N or 1, 2] (height, width) of the pictures on them; None for whole canvases.

    Returns:
      [N, D, 4] boxes in pixels of the canvas, [N, D] scores, labels and bool.
    """
    if size is None:
      sides = [list(pixels.shape[1:3])]
      size = torch.tensor(sides, dtype=torch.float32, device=pixels.device)
    maps = self.neck(self.backbone(self.normalised(pixels)))
    logits, bins = self.head(maps)
    boxes = clipped_boxes(_boxes_of_cells(bins, maps), size[:, None])
    return best_detections(
      logits.sigmoid(),
      boxes[:, :, None],
      torch.ones_like(logits[..., 0], dtype=torch.bool),
      score_threshold=self.score_threshold,
      iou_threshold=self.nms_threshold,
      num_after=self.max_detections,
    )

  def forward(self, images: Tensor) -> tuple[Tensor, ...]:
    """uint8 [N, H, W, 3] -> the ``outputs``, boxes in pixels of these images."""
    if self.image_size is None or images.ndim != 4 or images.shape[-1] != 3:
      return self.inspect(self.resized(images))  # which complains of images that are none
    pixels, size, scale = letterboxed(images, self.image_size, self.interpolation)
    boxes, *rest = self.inspect(pixels, size[None])
    return boxes / scale, *rest


def _boxes_of_cells(bins: Tensor, maps: Sequence[Tensor]) -> Tensor:
  """Logits of the distances [N, A, 4, B], in cells, -> boxes [N, A, 4], pixels of the canvas."""
  centres, strides = [], []
  for one, stride in zip(maps, _YOLO_STRIDES):
    y, x = (torch.arange(side, device=one.device) + 0.5 for side in one.shape[2:])
    y, x = torch.meshgrid(y, x, indexing='ij')
    centres.append(torch.stack([x, y], dim=-1).flatten(0, 1) * stride)
    strides.append(torch.full_like(centres[-1][:, :1], stride))
  places = torch.arange(bins.shape[-1], dtype=bins.dtype, device=bins.device)
  distances = (bins.softmax(-1) * places).sum(-1) * torch.cat(strides)
  centre = torch.cat(centres)
  return torch.cat([centre - distances[..., :2], centre + distances[..., 2:]], dim=-1)
