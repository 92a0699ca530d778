"""A convolution layer that learns where to look, in plain PyTorch.

Shape legend: N images, H x W input and h x w output pixels, C input and O output channels,
k window, T = k k taps.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class DeformConv(nn.Module):
  r"""A convolution whose sampling points are moved by offsets that it reads from its input.

  .. math:: y(p) = \sum_{n} w_n \; m_n(p) \; x(s p + p_n + \Delta p_n(p))

  with x bilinear between the centres of pixels and zero outside of the image. Keys are ``weight``,
  as of the plain convolution, and ``offset.weight`` and ``offset.bias``.

  Args:
    inputs: C.
    outputs: O.
    size: k; half of it is padded on every side.
    stride: s, in pixels.
    version: ``'v1'`` (offsets) or ``'v2'`` (offsets, and masks m = 2 sigmoid).
  """

  def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, *, version: str = 'v2'):
    super().__init__()
    if version not in ('v1', 'v2'):
      raise ValueError(f"deformable must be 'v1', 'v2' or None, got {version!r}")
    self.size, self.stride, self.version = size, stride, version
    self.weight = nn.Parameter(torch.empty(outputs, inputs, size, size))
    nn.init.kaiming_normal_(self.weight, mode='fan_out')
    self.offset = nn.Conv2d(
      inputs, (2 if version == 'v1' else 3) * size**2, size, stride, size // 2
    )
    nn.init.zeros_(self.offset.weight)
    nn.init.zeros_(self.offset.bias)  # pyright: ignore[reportArgumentType]

  def forward(self, x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, O, h, w]."""
    predicted = self.offset(x)
    taps = self.size**2
    offsets, masks = predicted[:, : 2 * taps], None
    if self.version == 'v2':
      masks = 2 * predicted[:, 2 * taps :].sigmoid()
    # On a CPU torchvision's is the slower one (by 1.5 to 3), and no graph should hold it.
    if x.is_cuda and not torch.compiler.is_compiling():
      operator = _torchvision_operator()
      if operator is not None:
        pad = self.size // 2
        return operator(x, offsets, self.weight, None, self.stride, pad, mask=masks)
    return self._sampled(x, offsets, masks)

  def _sampled(self, x: Tensor, offsets: Tensor, masks: Tensor | None) -> Tensor:
    """All taps of all pixels first [N, C T, h, w], then one product with the weights."""
    high, wide = offsets.shape[2:]
    steps = torch.arange(self.size, device=x.device) - self.size // 2
    rows = steps[:, None, None, None] + self.stride * torch.arange(high, device=x.device)[:, None]
    columns = steps[:, None, None] + self.stride * torch.arange(wide, device=x.device)
    moves = offsets.unflatten(1, (self.size, self.size, 2))  # [N, k, k, 2, h, w], (y, x)
    # grid_sample counts from -1 to 1 over the edges of the image.
    y = (moves[:, :, :, 0] + rows + 0.5) * (2 / x.shape[2]) - 1
    x_ = (moves[:, :, :, 1] + columns + 0.5) * (2 / x.shape[3]) - 1
    grid = torch.stack([x_, y], dim=-1).flatten(1, 3)  # [N, T h, w, 2]
    seen = nn.functional.grid_sample(x, grid, align_corners=False)  # [N, C, T h, w]
    seen = seen.unflatten(2, (self.size**2, high))
    if masks is not None:
      seen = seen * masks[:, None]
    return nn.functional.conv2d(seen.flatten(1, 2), self.weight.flatten(1)[:, :, None, None])


@functools.cache
def _torchvision_operator() -> Callable[..., Any] | None:
  """torchvision's, with a kernel of its own for GPUs, where it is installed and fits PyTorch."""
  try:
    from torchvision.ops import deform_conv2d  # pyright: ignore[reportMissingImports]
  except (ImportError, OSError, RuntimeError):  # the last where it was built for another PyTorch
    return None
  return deform_conv2d
