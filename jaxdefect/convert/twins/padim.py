"""PaDiM in plain PyTorch.

Shape legend: N images, H x W pixels, P = h x w places, d features that are kept.
"""

from typing import Any

import torch
from torch import Tensor

from jaxdefect.convert.twins.anomaly_map import smooth_map
from jaxdefect.convert.twins.backbone import Backbone
from jaxdefect.convert.twins.patch_features import PatchInspector


class PaDiM(PatchInspector, family='padim'):
  r"""How far every place is from the Gaussian that good parts have there (``methods.padim``).

  With the inverse Cholesky factor :math:`L_p^{-1}` of the covariance at place p,

  .. math:: M_p = \| L_p^{-1} (x_p - \mu_p) \|

  Args:
    network: a module from ``backbone``.
    sigma: of the map's smoothing, pixels of the image.
    settings: of ``PatchInspector``; ``memory`` holds ``dims`` [d] (which features are kept),
      ``gaussian_mean`` [P, d] and ``whitening`` [P, d, d], the inverse Cholesky factors.
  """

  keeps = ('dims', 'gaussian_mean', 'whitening')
  dims: Tensor
  gaussian_mean: Tensor
  whitening: Tensor

  def __init__(self, network: Backbone, *, sigma: float, **settings: Any):
    super().__init__(network, **settings)
    self.sigma = float(sigma)

  def measure(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """[N, H, W, 3] -> scores [N] and maps [N, H, W], standard deviations."""
    x = self.joined(self.maps(pixels)).index_select(-1, self.dims)
    count, height, width, size = x.shape
    places = self.gaussian_mean.shape[0]
    if height * width != places:
      raise ValueError(
        f'padim has Gaussians of {places} places, images of this size have {height} x {width}'
      )
    shift = x.reshape(count, places, size) - self.gaussian_mean
    white = self.whitening @ shift.permute(1, 2, 0)  # [P, d, N]
    distances = torch.linalg.norm(white, dim=1).T  # [N, P]
    maps = smooth_map(distances.reshape(count, height, width), pixels.shape[1:3], self.sigma)
    return maps.amax((1, 2)), maps
