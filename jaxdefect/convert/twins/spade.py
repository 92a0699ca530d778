"""SPADE in plain PyTorch.

Shape legend: N images, M images of the gallery, K of them near, H x W pixels, P = h x w places of
an image, k near places, F pooled features, D features of a place.
"""

from typing import Any

import torch
from torch import Tensor

from jaxdefect.convert.twins.anomaly_map import smooth_map
from jaxdefect.convert.twins.backbone import Backbone
from jaxdefect.convert.twins.nearest_neighbors import (
  nearest_neighbors,
  nearest_of_parts,
  vectors_held,
)
from jaxdefect.convert.twins.patch_features import PatchInspector


class Spade(PatchInspector, family='spade'):
  """Nearest good images, then nearest places in them (``methods.spade``).

  Args:
    network: a module from ``backbone``; its last map is pooled.
    images: K; all where the gallery has no more.
    places: k, near places of all K images.
    score: what an image is judged by: the distance of the ``'images'`` or the maximum of the
      ``'map'``.
    sigma: of the map's smoothing, pixels of the image.
    settings: of ``PatchInspector``; ``memory`` holds ``gallery_features`` [M, F] and
      ``gallery_places`` [M, h, w, D].
  """

  keeps = ('gallery_features', 'gallery_places')
  gallery_features: Tensor
  gallery_places: Tensor

  def __init__(
    self,
    network: Backbone,
    *,
    images: int,
    places: int,
    score: str,
    sigma: float,
    **settings: Any,
  ):
    super().__init__(network, **settings)
    if score not in ('images', 'map'):
      raise ValueError(f"score must be 'images' or 'map', got {score!r}")
    self.images, self.places = min(images, self.gallery_features.shape[0]), places
    self.score, self.sigma = score, float(sigma)

  def measure(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """[N, H, W, 3] -> scores [N] and maps [N, H, W]."""
    maps = self.maps(pixels)
    queries = self.joined(maps)
    grid, known = queries.shape[1:3], self.gallery_places.shape[1:3]
    if grid != known:
      raise ValueError(
        f'the gallery has {known[0]} x {known[1]} places per image, '
        f'images of this size have {grid[0]} x {grid[1]}'
      )
    pooled = maps[-1].mean(dim=(2, 3))
    distances, images = (
      one[:, 0] for one in nearest_neighbors(pooled[:, None], self.gallery_features, self.images)
    )
    found = self._place_distances(queries.flatten(1, 2), images).reshape(queries.shape[:3])
    found = smooth_map(found, pixels.shape[1:3], self.sigma)
    return distances.mean(1) if self.score == 'images' else found.amax((1, 2)), found

  def _place_distances(self, queries: Tensor, images: Tensor) -> Tensor:
    """Mean distance of places [N, P, D] to the nearest ones of the images [N, K]: [N, P]."""
    gallery = self.gallery_places.flatten(1, 2)  # [M, P, D]
    size = gallery.shape[1]
    held = vectors_held(queries)
    # Some near images at once, or some places of one: never all K x P.
    parts = (
      piece[group].flatten(1, 2).to(queries.dtype)
      for group in images.split(max(1, held // size), dim=1)
      for piece in gallery.split(held, dim=1)
    )
    near = nearest_of_parts(queries, parts, min(self.places, self.images * size))
    image, place = (near // size).flatten(1), (near % size).flatten(1)  # [N, P * k]
    rows = (images.gather(1, image) * size + place).reshape(near.shape)
    vectors = gallery.flatten(0, 1)[rows].to(queries.dtype)  # [N, P, k, D]
    return torch.linalg.norm(queries[:, :, None] - vectors, dim=-1).mean(-1)
