"""From one distance per place to a smooth map of the image (``ops.anomaly_map``), in PyTorch.

Shape legend: N images, h x w places, H x W pixels of the image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def smooth_map(maps: Tensor, size: Sequence[int], sigma: float) -> Tensor:
  """Enlarges maps bilinearly and smooths them with a Gaussian.

  Args:
    maps: [N, h, w].
    size: (H, W), at least (h, w).
    sigma: of the Gaussian, pixels of the image; 0 only enlarges.

  Returns:
    [N, H, W].
  """
  rows, columns = (
    smoothing(have, want, sigma).to(maps) for have, want in zip(maps.shape[1:], size)
  )
  return rows @ maps @ columns.T


def smoothing(have: int, want: int, sigma: float) -> Tensor:
  """[want, have] float64: bilinear enlargement of one axis, then a Gaussian with mirrored ends."""
  place = ((torch.arange(want, dtype=torch.float64) + 0.5) * have / want - 0.5).clamp(0, have - 1)
  low = place.floor().long()
  high = (low + 1).clamp(max=have - 1)
  part, rows = (place - low)[:, None], torch.arange(want)
  enlarge = torch.zeros(want, have, dtype=torch.float64)
  enlarge.index_put_((rows, low), 1 - part[:, 0], accumulate=True)
  enlarge.index_put_((rows, high), part[:, 0], accumulate=True)
  if not sigma:
    return enlarge
  radius = int(4 * sigma + 0.5)
  offset = torch.arange(-radius, radius + 1)
  weight = torch.exp(-0.5 * (offset.double() / sigma) ** 2)
  weight /= weight.sum()
  seen = (rows[:, None] + offset) % (2 * want)
  seen = torch.where(seen < want, seen, 2 * want - 1 - seen)
  smooth = torch.zeros(want, want, dtype=torch.float64)
  where = rows[:, None].expand_as(seen)
  smooth.index_put_((where, seen), weight.expand_as(seen), accumulate=True)
  return smooth @ enlarge
