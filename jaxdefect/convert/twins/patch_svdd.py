"""Patch SVDD in plain PyTorch: an anomaly is a patch without a near neighbour among good ones.

Shape legend: N images, H x W pixels, K side of a large patch (small ones have half of it), D
embedding size, M patches of a bank, r x c patches of an image.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.deployed import Inspector
from jaxdefect.convert.twins.nearest_neighbors import nearest_neighbors

_PATCH_STRIDE = 2  # pixels between neighbours of a dense map
_CANDIDATES = 4  # whose distances are computed as differences, see ``methods.patch_svdd``
_PATCH_SLOPE = 0.1  # of the leaky ReLU


class PatchSVDD(Inspector, family='patch_svdd'):
  """How far every patch is from the nearest one of good parts (``methods.patch_svdd``).

  A pixel has the mean distance of the patches that cover it; the map is the product of both scales,
  the score its largest value.

  Args:
    patch_size: K, a multiple of 8.
    strides: pixels between the patches, large and small, both even.
    features: D.
    width: channels of the encoder's widest layer.
    settings: of ``Inspector``; ``memory`` holds ``bank_large`` and ``bank_small`` [M, D].
  """

  keeps = ('bank_large', 'bank_small')
  bank_large: Tensor
  bank_small: Tensor

  def __init__(
    self, *, patch_size: int, strides: Sequence[int], features: int, width: int, **settings: Any
  ):
    super().__init__(**settings)
    self.encoder = PatchEncoder(patch_size, features, width)
    self.sizes, self.strides = (patch_size, patch_size // 2), tuple(strides)

  def measure(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """[N, H, W, 3] -> scores [N] and maps [N, H, W]."""
    sides = pixels.shape[1:3]
    banks = (self.bank_large, self.bank_small)
    factors = []
    for dense, bank, size, stride in zip(
      self.encoder(self.normalised(pixels)), banks, self.sizes, self.strides
    ):
      starts = [_patch_starts(side, size, stride).to(dense.device) for side in sides]
      grid = dense
      for axis, start in zip((2, 3), starts):
        grid = grid.index_select(axis, start // _PATCH_STRIDE)
      away, _ = nearest_neighbors(grid.flatten(2).mT, bank, min(_CANDIDATES, bank.shape[0]))
      away = away[..., 0].reshape(-1, *grid.shape[2:])  # [N, r, c]
      rows, columns = (
        _patch_shares(side, start, size).to(away) for side, start in zip(sides, starts)
      )
      factors.append(rows @ away @ columns.T)
    maps = factors[0] * factors[1]
    return maps.amax((1, 2)), maps


class PatchEncoder(nn.Module):
  """Embeds the patches at every second pixel, the large ones by the embeddings of their quarters.

  Args:
    size: K, a multiple of 8.
    features: D.
    width: channels of the widest layer.
  """

  def __init__(self, size: int, features: int, width: int):
    super().__init__()
    self.size = size
    self.small = SmallPatchEncoder(size // 2, features, width)
    # One place of the first layer sees the 2x2 quarters.
    self.conv1 = nn.Conv2d(4 * features, width, 1)
    self.conv2 = nn.Conv2d(width, features, 1)

  def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
    """Embeds whole images.

    Args:
      x: [N, 3, H, W], at least K x K pixels.

    Returns:
      ``(large, small)`` maps [N, D, (H - K) // 2 + 1, (W - K) // 2 + 1] and
      [N, D, (H - K/2) // 2 + 1, (W - K/2) // 2 + 1]; place (i, j) is the patch whose upper left
      corner is pixel (2 i, 2 j).
    """
    small = self.small(x)
    away = self.size // 2 // _PATCH_STRIDE  # from a quarter to the next
    height, width = ((side - self.size) // _PATCH_STRIDE + 1 for side in x.shape[2:])
    quarters = [
      small[:, :, i : i + height, j : j + width] for i in (0, away) for j in (0, away)
    ]  # rows first
    y = nn.functional.leaky_relu(self.conv1(torch.cat(quarters, 1)), _PATCH_SLOPE)
    return torch.tanh(self.conv2(y)), small


class SmallPatchEncoder(nn.Module):
  """Convolutions without padding, the first at stride 2, that leave one place of a patch.

  Args:
    size: K / 2, a multiple of 4.
    features: D.
    width: channels of the widest layer: doubled up to it and halved again, at most twice.
  """

  def __init__(self, size: int, features: int, width: int):
    super().__init__()
    self.size, self.layers = size, size // 4
    hidden = [
      max(1, width >> max(0, 2 - min(k, self.layers - 2 - k))) for k in range(self.layers - 1)
    ]
    channels = [3, *hidden, features]
    for k, (inputs, outputs) in enumerate(pairwise(channels)):
      stride = 1 if k else _PATCH_STRIDE
      self.add_module(f'conv{k + 1}', nn.Conv2d(inputs, outputs, 3, stride))

  def forward(self, x: Tensor) -> Tensor:
    """[N, 3, H, W] -> [N, D, (H - size) // 2 + 1, (W - size) // 2 + 1] in -1..1."""
    height, width = ((side - self.size) // _PATCH_STRIDE + 1 for side in x.shape[2:])
    for k in range(self.layers):
      x = self.get_submodule(f'conv{k + 1}')(x)
      if k < self.layers - 1:
        x = nn.functional.leaky_relu(x, _PATCH_SLOPE)
    # An odd side leaves a place whose patch would end one pixel outside.
    return torch.tanh(x[:, :, :height, :width])


def _patch_starts(side: int, size: int, stride: int) -> Tensor:
  """Where the patches along an axis begin: every ``stride`` pixels, and once more at the end."""
  last = (side - size) // _PATCH_STRIDE * _PATCH_STRIDE
  return torch.tensor(sorted({*range(0, last + 1, stride), last}))


def _patch_shares(side: int, start: Tensor, size: int) -> Tensor:
  """[side, patches] float64: the share of each patch in the mean at each pixel of an axis."""
  pixel = torch.arange(side, device=start.device)[:, None]
  # The last row of an odd side belongs to the last patch.
  end = torch.where(start == start[-1], side, start + size)
  inside = ((pixel >= start) & (pixel < end)).double()
  return inside / inside.sum(1, keepdim=True)
