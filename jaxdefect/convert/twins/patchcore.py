"""PatchCore in plain PyTorch.

Shape legend: N images, H x W pixels, h x w patches, D features of a patch, M patches of the bank.
"""

from typing import Any

import torch
from torch import Tensor

from jaxdefect.convert.twins.anomaly_map import smooth_map
from jaxdefect.convert.twins.backbone import Backbone
from jaxdefect.convert.twins.nearest_neighbors import nearest_neighbors
from jaxdefect.convert.twins.patch_features import PatchInspector


class PatchCore(PatchInspector, family='patchcore'):
  """How far every patch is from the nearest one of good parts (``methods.patchcore``).

  Args:
    network: a module from ``backbone``.
    reweight: whether the score is weighed by how rare the nearest patch is.
    neighbours: patches of the bank around it that are looked at.
    sigma: of the map's smoothing, pixels of the image.
    settings: of ``PatchInspector``; ``memory`` holds ``bank`` [M, D].
  """

  keeps = ('bank',)
  bank: Tensor

  def __init__(
    self, network: Backbone, *, reweight: bool, neighbours: int, sigma: float, **settings: Any
  ):
    super().__init__(network, **settings)
    self.reweight, self.neighbours, self.sigma = reweight, neighbours, float(sigma)

  def measure(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """[N, H, W, 3] -> scores [N] and maps [N, H, W]."""
    features = self.joined(self.maps(pixels))
    count, height, width, size = features.shape
    patches = features.reshape(count, height * width, size)
    distances, nearest = (one[..., 0] for one in nearest_neighbors(patches, self.bank))
    scores, worst = distances.max(1)
    if self.reweight and self.bank.shape[0] > 1:
      rows = torch.arange(count, device=worst.device)
      scores = scores * self._rarity(patches[rows, worst], nearest[rows, worst])
    maps = distances.reshape(count, height, width)
    return scores, smooth_map(maps, pixels.shape[1:3], self.sigma)

  def _rarity(self, patches: Tensor, nearest: Tensor) -> Tensor:
    """1 where the nearest patch lies in the open, less where it has many like it; [N]."""
    number = min(self.neighbours, self.bank.shape[0])
    own = self.bank[nearest]
    around = nearest_neighbors(own[:, None], self.bank, number)[1][:, 0]  # [N, b]
    distances = torch.linalg.norm(patches[:, None] - self.bank[around], dim=2)
    return distances.softmax(1)[:, 1:].sum(1)
