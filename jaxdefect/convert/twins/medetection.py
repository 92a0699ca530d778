"""MeDetection in plain PyTorch, its reference images included.

Shape legend: N images, R references, C channels, H x W pixels, h x w cells of a map.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.coordinate_attention import CoordinateAttention
from jaxdefect.convert.twins.deployed import Deployed

_PLACES = {None: (), 'low': (0,), 'high': (-1,), 'multiple': (0, -1)}
_VGG = ((64, 64), (128, 128), (256, 256, 256))
_LEVELS = (4, 2, 1)
_GROUP = 16  # channels of a group

Norm = Callable[[int], nn.Module]

_NORMS: dict[str, Norm] = {
  'batch': nn.BatchNorm2d,
  'group': lambda channels: nn.GroupNorm(max(1, channels // _GROUP), channels),
}


def _choice(name: str, value: str | None, allowed: Sequence[str | None]) -> None:
  if value not in allowed:
    raise ValueError(f'{name} {value!r} must be one of {", ".join(map(str, allowed))}')


class Conv4(nn.Module):
  """Blocks of 3x3 convolution, normalisation, ReLU and 2x2 max pool, with attention in places."""

  def __init__(
    self, inputs: int, width: int, blocks: int, attention: str | None, reduction: int, norm: Norm
  ):
    super().__init__()
    _choice('attention', attention, tuple(_PLACES))
    self.conv, self.norm = nn.ModuleList(), nn.ModuleList()
    for _ in range(blocks):
      self.conv.append(nn.Conv2d(inputs, width, 3, padding=1, bias=False))
      self.norm.append(norm(width))
      inputs = width
    places = {place % blocks for place in _PLACES[attention]}
    self.attention = nn.ModuleDict(
      {str(place): CoordinateAttention(width, reduction, norm) for place in sorted(places)}
    )

  def forward(self, x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, width, H // 2**blocks, W // 2**blocks]."""
    for index, (conv, norm) in enumerate(zip(self.conv, self.norm, strict=True)):
      x = nn.functional.max_pool2d(torch.relu(norm(conv(x))), 2)
      if str(index) in self.attention:
        x = self.attention[str(index)](x)
    return x


class SiameseStem(nn.Module):
  """3x3 convolutions, each with normalisation and ReLU."""

  enlargement = 1

  def __init__(self, channels: Sequence[int], strides: Sequence[int], norm: Norm):
    super().__init__()
    if not channels or len(channels) != len(strides):
      raise ValueError(
        f'stem_channels has {len(channels)} entries, stem_strides {len(strides)}: '
        'one of each per convolution'
      )
    self.conv, self.norm = nn.ModuleList(), nn.ModuleList()
    self.features = 3
    for features, stride in zip(channels, strides, strict=True):
      self.conv.append(nn.Conv2d(self.features, features, 3, stride, padding=1, bias=False))
      self.norm.append(norm(features))
      self.features = features

  def forward(self, x: Tensor) -> Tensor:
    """[N, 3, H, W] -> [N, C, h, w]."""
    for conv, norm in zip(self.conv, self.norm, strict=True):
      x = torch.relu(norm(conv(x)))
    return x


class VGGStem(nn.Module):
  """The published stack without activations; its enlargement comes after the difference."""

  enlargement = 2 ** len(_VGG)

  def __init__(self):
    super().__init__()
    self.conv = nn.ModuleList()
    self.features = 3
    for features in sum(_VGG, ()):
      self.conv.append(nn.Conv2d(self.features, features, 3, padding=1))
      self.features = features

  def forward(self, x: Tensor) -> Tensor:
    """[N, 3, H, W] -> [N, 256, H / 8, W / 8]."""
    layers = iter(self.conv)
    for stage in _VGG:
      for _ in stage:
        x = next(layers)(x)
      x = nn.functional.max_pool2d(x, 2)
    return x


class MeDetection(Deployed, family='medetection'):
  r"""How much an image differs from defect-free ones of its product, as a probability.

  .. math:: d = \frac{1}{R} \sum_r |f(x_r) - f(x)|, \qquad z = w^\top \mathrm{pool}(g(d)) + b

  The reference images are part of the state dict (``references``, uint8 [R, H, W, 3]): replace
  them and the model compares with others.

  Args:
    classes: two names, the second one is that of the defect.
    stem: ``'conv'`` or ``'vgg'``.
    stem_channels: channels of the convolutions of ``'conv'``.
    stem_strides: their strides.
    width: channels of 4Conv.
    blocks: of 4Conv.
    attention: ``'low'``, ``'high'``, ``'multiple'`` or None.
    reduction: of the attention.
    pool: ``'pyramid'`` or ``'mean'``.
    siamese: False looks at the image alone.
    nearest: compares with so many of the references, the nearest ones; None with all, and so
      does a number that is not smaller than R.
    norm: ``'batch'`` or ``'group'``.
    settings: of ``Deployed``; ``memory`` holds ``references``, uint8 [R, H, W, 3].
  """

  outputs = ('scores', 'probabilities')
  keeps = ('references',)
  references: Tensor

  def __init__(
    self,
    *,
    classes: Sequence[str] = ('good', 'defect'),
    stem: str = 'conv',
    stem_channels: Sequence[int] = (16, 16),
    stem_strides: Sequence[int] = (2, 1),
    width: int = 32,
    blocks: int = 4,
    attention: str | None = 'low',
    reduction: int = 32,
    pool: str = 'pyramid',
    siamese: bool = True,
    nearest: int | None = None,
    norm: str = 'batch',
    **settings: Any,
  ):
    if len(classes) != 2:
      raise ValueError(f'classes has {len(classes)} names; MeDetection tells two classes apart')
    super().__init__(classes=classes, **settings)
    _choice('stem', stem, ('conv', 'vgg'))
    _choice('pool', pool, ('pyramid', 'mean'))
    _choice('norm', norm, tuple(_NORMS))
    self._check_references(siamese)
    if nearest is not None and nearest < 1:
      raise ValueError(f'nearest is {nearest}; it must be at least 1, or None')
    made = _NORMS[norm]
    self.stem = VGGStem() if stem == 'vgg' else SiameseStem(stem_channels, stem_strides, made)
    self.body = Conv4(self.stem.features, width, blocks, attention, reduction, made)
    self.pool, self.siamese, self.nearest = pool, siamese, nearest
    cells = sum(level * level for level in _LEVELS) if pool == 'pyramid' else 1
    self.fc = nn.Linear(width * cells, 1)

  def _check_references(self, siamese: bool) -> None:
    shape = list(self.references.shape)
    if len(shape) != 4 or shape[3] != 3 or self.references.dtype != torch.uint8:
      raise ValueError(
        f'references must be uint8 [R, H, W, 3], came as {self.references.dtype} {shape}'
      )
    if siamese and not shape[0]:
      raise ValueError('references is empty; there must be one to compare with')
    if self.image_size is None:
      self.image_size = (shape[1], shape[2])
    if self.image_size != (shape[1], shape[2]):
      raise ValueError(
        f'references are {shape[1]} x {shape[2]} pixels, '
        f'image_size is {self.image_size[0]} x {self.image_size[1]}'
      )

  def logit(self, pixels: Tensor) -> Tensor:
    """[N, H, W, 3] -> [N], above 0 for a defect."""
    x = self.stem(self.normalised(pixels))
    if self.siamese:
      x = self._difference(x, self.stem(self.normalised(self.references)))
    if self.stem.enlargement > 1:
      x = nn.functional.interpolate(x, scale_factor=self.stem.enlargement, mode='nearest')
    x = self.body(x)
    if self.pool == 'mean':
      return self.fc(x.mean((2, 3)))[:, 0]
    levels = [_largest_of_cells(x, cells).flatten(1) for cells in _LEVELS]
    return self.fc(torch.cat(levels, dim=1))[:, 0]

  def inspect(self, pixels: Tensor) -> tuple[Tensor, ...]:
    """[N, H, W, 3] -> scores (-z/2, z/2) of the logit z and probabilities, [N, 2] each."""
    logit = self.logit(pixels)
    scores = torch.stack([-logit, logit], dim=-1) / 2
    return scores, scores.softmax(-1)

  def _difference(self, x: Tensor, references: Tensor) -> Tensor:
    """[N, C, h, w] and [R, C, h, w] -> mean absolute difference [N, C, h, w]."""
    apart = (references[None] - x[:, None]).abs()  # [N, R, C, h, w]
    if self.nearest is None or self.nearest >= len(references):
      return apart.mean(1)
    chosen = apart.mean((2, 3, 4)).topk(self.nearest, dim=1, largest=False).indices  # [N, k]
    places = torch.arange(len(references), device=x.device)
    counts = (chosen[:, :, None] == places).any(1).to(apart.dtype)  # [N, R]
    return (apart * counts[:, :, None, None, None]).sum(1) / self.nearest


def _largest_of_cells(x: Tensor, cells: int) -> Tensor:
  """[N, C, h, w] -> [N, C, cells, cells], ``adaptive_max_pool2d`` (which ONNX does not have)."""
  parts = [
    [slice(i * side // cells, -(-(i + 1) * side // cells)) for i in range(cells)]
    for side in x.shape[2:]
  ]
  rows = [
    torch.stack([x[:, :, row, column].amax((2, 3)) for column in parts[1]], dim=2)
    for row in parts[0]
  ]
  return torch.stack(rows, dim=2)
