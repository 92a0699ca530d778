"""AnomalyDINO in plain PyTorch.

Shape legend: N images, H x W pixels, P = h x w patches, D features of a patch, M patches of the
bank.
"""

from typing import Any

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.anomaly_map import smooth_map
from jaxdefect.convert.twins.backbone import Backbone
from jaxdefect.convert.twins.nearest_neighbors import nearest_neighbors
from jaxdefect.convert.twins.patch_features import PatchInspector


class AnomalyDINO(PatchInspector, family='anomaly_dino'):
  """The angle between every patch and the nearest one of good parts (``methods.anomaly_dino``).

  Args:
    network: a module from ``backbone``.
    share: of the patches whose mean distance is the score.
    mask_threshold: of the first principal component, beyond which a place is part of the object;
      None looks at all places.
    sigma: of the map's smoothing, pixels of the image.
    settings: of ``PatchInspector``; ``memory`` holds ``bank`` [M, D], rows of length 1.
  """

  keeps = ('bank',)
  bank: Tensor

  def __init__(
    self,
    network: Backbone,
    *,
    share: float,
    mask_threshold: float | None,
    sigma: float,
    **settings: Any,
  ):
    super().__init__(network, **settings)
    self.share, self.mask_threshold, self.sigma = share, mask_threshold, float(sigma)

  def measure(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """[N, H, W, 3] -> scores [N] and maps [N, H, W]."""
    features = self.joined(self.maps(pixels))
    grid = features.shape[:3]
    patches = features.flatten(1, 2)
    unit = patches / torch.linalg.norm(patches, dim=-1, keepdim=True).clamp(min=1e-12)
    # Of vectors of length 1, half the square of the distance is one less the cosine.
    distances = nearest_neighbors(unit, self.bank)[0][..., 0].square() / 2  # [N, P]
    if self.mask_threshold is not None:
      seen = foreground(features, self.mask_threshold).flatten(1)
      distances = torch.where(seen, distances, torch.zeros_like(distances))
    tail = distances.topk(max(1, int(self.share * distances.shape[1])), dim=1)[0]
    return tail.mean(1), smooth_map(distances.reshape(grid), pixels.shape[1:3], self.sigma)


def foreground(features: Tensor, threshold: float) -> Tensor:
  """Which places of images [N, h, w, D] belong to the object in their middle, [N, h, w] bool.

  One side of the first principal component, beyond ``threshold``: the one that holds more of the
  centre. It is dilated by one place, then closed.
  """
  component = first_component(features.flatten(1, 2)).reshape(features.shape[:3])
  sides = torch.stack([component > threshold, -component > threshold])  # [2, N, h, w]
  rows, columns = (slice(int(n * 0.2), int(n * (1 - 0.2))) for n in features.shape[1:3])
  held = sides[:, :, rows, columns].sum((2, 3))
  mask = (sides & (held == held.amax(0))[:, :, None, None]).any(0).to(features.dtype)
  grown = nn.functional.max_pool2d(mask, 5, 1, 2)  # dilated twice: once for the closing
  return -nn.functional.max_pool2d(-grown, 3, 1, 1) > 0.5


def first_component(vectors: Tensor) -> Tensor:
  """Coordinates of vectors [N, P, D] along their direction of most variance, [N, P]; of any sign.

  The covariance is squared ten times, which leaves that direction alone.
  """
  tiny = torch.finfo(vectors.dtype).tiny
  centred = vectors - vectors.mean(1, keepdim=True)
  power = centred.mT @ centred
  for number in range(11):
    power = power @ power if number else power
    trace = power.diagonal(dim1=1, dim2=2).sum(1)
    power = power / trace.clamp(min=tiny)[:, None, None]
  largest = power.diagonal(dim1=1, dim2=2).argmax(1)
  column = power.gather(2, largest[:, None, None].expand(-1, power.shape[1], 1))  # [N, D, 1]
  column = column / torch.linalg.norm(column, dim=1, keepdim=True).clamp(min=tiny)
  return (centred @ column)[..., 0]
