"""Uninformed Students in plain PyTorch: where students miss their teacher, and disagree.

Shape legend: N images, H x W pixels, h x w places, D descriptor size, p field, s stride, L fields,
M students.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.anomaly_map import smooth_map
from jaxdefect.convert.twins.deployed import Inspector

_DESCRIPTOR_SLOPE = 5e-3  # of the leaky ReLU


class UninformedStudents(Inspector, family='uninformed_students'):
  r"""Error and disagreement of the students (``methods.uninformed_students``).

  With the teacher's descriptors y, standardised, and the students' :math:`s_1 \ldots s_M`,

  .. math:: e = \| \bar s - y \|^2, \qquad v = \tfrac1M \sum_i \| s_i - \bar s \|^2, \qquad
            a = \frac{e - \mu_e}{\sigma_e} + \frac{v - \mu_v}{\sigma_v}

  averaged over the fields and enlarged to the image's size; the score is the map's largest value.

  Args:
    fields: p of 17, 33 and 65 pixels, rising; each has a teacher and students of its own.
    students: M per field.
    features: D.
    channels: of a descriptor's first layer.
    stride: s, pixels between places.
    sigma: of the map's smoothing, pixels of the image.
    settings: of ``Inspector``; ``memory`` holds ``descriptor_mean`` and ``descriptor_sd`` [L, D] of
      the teachers, ``usual`` and ``spread`` [L, 2] of e and v on good parts.
  """

  keeps = ('descriptor_mean', 'descriptor_sd', 'usual', 'spread')
  descriptor_mean: Tensor
  descriptor_sd: Tensor
  usual: Tensor
  spread: Tensor

  def __init__(
    self,
    *,
    fields: Sequence[int],
    students: int,
    features: int,
    channels: int,
    stride: int,
    sigma: float,
    **settings: Any,
  ):
    super().__init__(**settings)
    self.fields, self.stride, self.sigma = tuple(fields), stride, float(sigma)

    def descriptors() -> nn.ModuleDict:
      return nn.ModuleDict(
        {f'field_{p}': PatchDescriptor(p, features, channels, stride) for p in self.fields}
      )

    self.teacher = descriptors()
    self.students = nn.ModuleDict({f'student_{i}': descriptors() for i in range(students)})

  def measure(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """[N, H, W, 3] -> scores [N] and maps [N, H, W]."""
    x = self.normalised(pixels)
    found = []
    for number, field in enumerate(self.fields):
      padded = _padded_to_cells(x, field, self.stride)
      error, variance = self._deviations(padded, number)
      centre, scale = self.usual[number], self.spread[number]
      found.append((error - centre[0]) / scale[0] + (variance - centre[1]) / scale[1])
    cells = torch.stack(found).mean(0)  # [N, h, w]
    maps = smooth_map(cells, pixels.shape[1:3], self.sigma)
    return maps.amax((1, 2)), maps

  def _deviations(self, padded: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """e and v of one field, [N, h, w] each."""
    name = f'field_{self.fields[number]}'
    shift, scale = (x[number, :, None, None] for x in (self.descriptor_mean, self.descriptor_sd))
    wanted = (self.teacher[name](padded) - shift) / scale
    guesses = torch.stack([one.get_submodule(name)(padded) for one in self.students.values()])
    middle = guesses.mean(0)  # [N, D, h, w]
    error = (middle - wanted).square().sum(1)
    return error, (guesses - middle).square().sum(2).mean(0)


class DescriptorLayer(NamedTuple):
  """A convolution and what follows it."""

  window: int
  widen: int = 1  # channels, as a multiple of the network's width; of the last layer they are D
  pool: bool = False


# Field in pixels -> layers.
DESCRIPTOR_LAYERS = {
  17: (DescriptorLayer(6), DescriptorLayer(5, 2), DescriptorLayer(5, 2), DescriptorLayer(4)),
  33: (
    DescriptorLayer(5, pool=True),
    DescriptorLayer(5, 2, pool=True),
    DescriptorLayer(2, 2),
    DescriptorLayer(4),
  ),
  65: (
    *(DescriptorLayer(5, pool=True),) * 3,
    DescriptorLayer(4, 2),
    DescriptorLayer(1),
  ),
}


class PatchDescriptor(nn.Module):
  """Describes every patch of p x p pixels at a stride, as if each were cut out alone.

  A pool halves the map while the stride asks for it; after that it keeps every place, and what
  follows is dilated instead.

  Args:
    field: p, 17, 33 or 65.
    features: D.
    width: channels of the first layer.
    stride: s, pixels between neighbouring patches.
  """

  def __init__(self, field: int, features: int, width: int, stride: int):
    super().__init__()
    self.field, self.stride = field, stride
    layers = DESCRIPTOR_LAYERS[field]
    last_window = max(k for k, layer in enumerate(layers) if layer.window > 1)
    reached, dilation, inputs = 1, 1, 3  # pixels between places of the map; places between taps
    self.pools: list[int | None] = []  # behind each layer: places between its taps, 0 halves
    for k, layer in enumerate(layers):
      outputs = features if k == len(layers) - 1 else layer.widen * width
      # What the pools left of the stride.
      step = stride // reached if k == last_window else 1
      apart = dilation if layer.window > 1 else 1
      conv = nn.Conv2d(inputs, outputs, layer.window, step, dilation=apart)
      self.add_module(f'conv{k + 1}', conv)
      inputs = outputs
      if layer.pool and stride % (2 * reached) == 0:
        self.pools.append(0)
        reached *= 2
      elif layer.pool:
        self.pools.append(dilation)
        dilation *= 2
      else:
        self.pools.append(None)

  def forward(self, x: Tensor) -> Tensor:
    """[N, 3, H, W] -> [N, D, (H - p) // s + 1, (W - p) // s + 1]."""
    height, width = ((side - self.field) // self.stride + 1 for side in x.shape[2:])
    for k, pool in enumerate(self.pools):
      x = self.get_submodule(f'conv{k + 1}')(x)
      if k < len(self.pools) - 1:
        x = nn.functional.leaky_relu(x, _DESCRIPTOR_SLOPE)
      if pool == 0:
        x = nn.functional.max_pool2d(x, 2)
      elif pool is not None:
        x = torch.maximum(x[:, :, pool:], x[:, :, :-pool])
        x = torch.maximum(x[:, :, :, pool:], x[:, :, :, :-pool])
    # Where a pool drops the last row of a patch, the map goes on for a place or two.
    return x[:, :, :height, :width]


def _padded_to_cells(x: Tensor, field: int, stride: int) -> Tensor:
  """Mirrors the border so that every cell of s x s pixels has its patch.

  Args:
    x: [N, C, H, W].
    field: p.
    stride: s.

  Returns:
    [N, C, (h - 1) s + p, (w - 1) s + p] with h = ceil(H / s).
  """
  for axis in (2, 3):
    side = x.shape[axis]
    before = (field - stride + 1) // 2
    place = torch.arange((-(-side // stride) - 1) * stride + field, device=x.device) - before
    period = max(1, 2 * (side - 1))  # mirrored as often as it takes
    place = place % period
    x = x.index_select(axis, torch.minimum(place, period - place))
  return x
