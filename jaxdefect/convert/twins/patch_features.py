"""What a backbone says about every place of an image (``models.patch_features``), in plain PyTorch.

Shape legend: N images, H x W pixels, h x w places, C channels of a stage, D features of a place.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.backbone import Backbone, backbone
from jaxdefect.convert.twins.deployed import Deployed, Inspector


class PatchInspector(Inspector):
  """An anomaly method that compares the places of a backbone's maps.

  Args:
    network: a module from ``backbone``.
    layers: stages whose maps describe a place, rising; the first gives the grid.
    neighbourhood: side of the window over which maps are averaged; 1 takes them as they are.
    settings: of ``Inspector``.
  """

  def __init__(
    self, network: Backbone, *, layers: Sequence[int], neighbourhood: int = 1, **settings: Any
  ):
    super().__init__(**settings)
    self.backbone = network
    self.layers, self.neighbourhood = tuple(layers), neighbourhood

  @classmethod
  def build(cls, *, stages: int | None = None, width: int = 64, **arguments: Any) -> Deployed:
    """As of ``Deployed``; ``backbone``, ``stages`` and ``width`` name the network."""
    network = backbone(arguments.pop('backbone'), stages=stages, width=width)
    return cls(network, **arguments)

  def maps(self, pixels: Tensor) -> tuple[Tensor, ...]:
    """[N, H, W, 3] -> [N, C, h, w] of every stage."""
    return self.backbone.maps(self.normalised(pixels))

  def joined(self, maps: Sequence[Tensor]) -> Tensor:
    """The ``layers`` of the maps, side by side on the grid of the first: [N, h, w, D]."""
    side = self.neighbourhood
    chosen = [maps[layer - 1] for layer in self.layers]
    if side > 1:  # zeros beyond the border count
      chosen = [nn.functional.avg_pool2d(one, side, 1, side // 2) for one in chosen]
    grid = chosen[0].shape[2:]
    on_grid = [
      one
      if one.shape[2:] == grid
      else nn.functional.interpolate(one, grid, mode='bilinear', align_corners=False)
      for one in chosen
    ]
    return torch.cat(on_grid, dim=1).permute(0, 2, 3, 1)
