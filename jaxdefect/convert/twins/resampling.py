"""Pictures brought to the network's size exactly as Pillow does it, in plain PyTorch.

Pillow's bilinear resizing widens its triangle by the scale when it shrinks (antialias), rounds the
weights to 22 bits and the pixels after each of its two passes. Every one of these numbers is whole
and below 2**53, so products in float64 give the same pixels bit by bit, here and in ONNX.

Shape legend: N images, H x W native pixels, h x w wanted pixels.
"""

import torch
from torch import Tensor

GRAY = 114  # what surrounds a letterboxed picture
_BITS = 22  # of Pillow's weights


def stretched(images: Tensor, size: tuple[int, int], interpolation: str = 'bilinear') -> Tensor:
  """Fills the whole canvas, whatever becomes of the proportions.

  Args:
    images: uint8 [N, H, W, 3].
    size: (h, w).
    interpolation: ``'bilinear'`` or ``'nearest'``.

  Returns:
    [N, h, w, 3] whole numbers 0..255, float32.
  """
  axes = []
  for have, want in ((images.shape[1], size[0]), (images.shape[2], size[1])):
    places = _places(have, images)
    axes.append(_weights(places, places[-1] + 1, want, interpolation))
  return _resampled(images, axes[0], axes[1])


def letterboxed(
  images: Tensor, size: tuple[int, int], interpolation: str = 'bilinear'
) -> tuple[Tensor, Tensor, Tensor]:
  r"""Enlarges or shrinks until the picture just fits the canvas, at its upper left corner.

  .. math:: s = \min(h / H,\; w / W)

  Args:
    images: uint8 [N, H, W, 3].
    size: (h, w).
    interpolation: ``'bilinear'`` or ``'nearest'``.

  Returns:
    [N, h, w, 3] whole numbers 0..255, float32, ``GRAY`` around the picture; the picture's
    (height, width) on the canvas, float32 [2]; and s, a float32 scalar.
  """
  # Tensors, not Python numbers: the sizes stay open in an exported graph.
  length, own = images.shape[1] + images.shape[2], (images.shape[1], images.shape[2])
  high, wide = (_places(side, images)[-1] + 1 for side in own)
  tall = size[0] * wide <= size[1] * high
  numerator = torch.where(tall, float(size[0]), float(size[1])).double()
  denominator = torch.where(tall, high, wide)
  axes, shown = [], []
  for side, count, want in ((own[0], high, size[0]), (own[1], wide, size[1])):
    kept = torch.ceil(count * numerator / denominator)  # rows of the picture on the canvas
    seen = kept * denominator / numerator
    # The picture is continued with its last row: weights beyond it are that row's.
    places = _places(length, images)
    limit = torch.maximum(torch.ceil(seen), count)
    weights = _weights(places, seen, want, interpolation, kept=kept, limit=limit)
    within = weights[:, :side]
    beyond = weights[:, side:].sum(1, keepdim=True)
    last = (_places(side, images) == count - 1).double()
    axes.append(within + beyond * last)
    shown.append(kept)
  canvas = _resampled(images, axes[0], axes[1])
  inside = (_places(size[0], images) < shown[0])[:, None] & (_places(size[1], images) < shown[1])
  canvas = torch.where(inside[None, :, :, None], canvas, float(GRAY))
  scale = (numerator / denominator).float()
  return canvas, torch.stack([high, wide]).float() * scale, scale


def _places(count: int, like: Tensor) -> Tensor:
  """0, 1, ... as float64."""
  return torch.arange(count, dtype=torch.float64, device=like.device)


def _weights(
  places: Tensor,
  seen: Tensor,
  want: int,
  interpolation: str,
  *,
  kept: Tensor | None = None,
  limit: Tensor | None = None,
) -> Tensor:
  """[want, places] Pillow's whole weights, in units of 2**-22; of sources 0..seen.

  Args:
    places: source pixels 0, 1, ...
    seen: how much of them is spread over the result, not necessarily whole.
    want: rows of the matrix.
    interpolation: ``'bilinear'`` or ``'nearest'``.
    kept: how many of the rows ``seen`` is spread over; None for all.
    limit: how many source pixels there are; None for all of ``places``.
  """
  seen = seen.float().double()  # Pillow keeps the region in single precision
  scale = seen / (want if kept is None else kept)
  centers = (_places(want, places) + 0.5)[:, None] * scale
  if interpolation == 'nearest':
    return (places == torch.floor(centers)).double() * 2.0**_BITS
  shrink = torch.clamp(scale, min=1.0)
  weights = torch.clamp(1 - ((places - centers + 0.5) * (1 / shrink)).abs(), min=0.0)
  if limit is not None:
    weights = weights * (places < limit)
  total = weights.sum(1, keepdim=True)
  weights = weights / torch.where(total > 0, total, 1.0)
  return torch.floor(0.5 + weights * 2.0**_BITS)


def _resampled(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
  x = images.permute(0, 3, 1, 2).double()
  x = _rounded(x @ columns.T)  # along the width first, as Pillow
  x = _rounded(rows @ x)
  return x.permute(0, 2, 3, 1).float()


def _rounded(sums: Tensor) -> Tensor:
  return torch.clamp(torch.floor((sums + 2.0 ** (_BITS - 1)) / 2.0**_BITS), 0, 255)
