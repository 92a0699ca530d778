"""The nearest good image (DN2) in plain PyTorch.

Shape legend: N images, h x w pixels, M gathered images, F features.
"""

from typing import Any

from torch import Tensor, nn

from jaxdefect.convert.twins.backbone import Backbone, backbone
from jaxdefect.convert.twins.deployed import Deployed, Inspector
from jaxdefect.convert.twins.nearest_neighbors import nearest_neighbors


class NearestNeighbor(Inspector, family='nearest_neighbor'):
  """How far the pooled features are from those of good images (``methods.nearest_neighbor``).

  Args:
    network: a module from ``backbone``.
    neighbours: good images whose mean distance is the score; all where there are no more.
    settings: of ``Inspector``; ``memory`` holds ``embeddings`` [M, F] of length one.
  """

  keeps = ('embeddings',)
  embeddings: Tensor

  def __init__(self, network: Backbone, *, neighbours: int, **settings: Any):
    super().__init__(**settings)
    self.backbone = network
    self.neighbours = min(neighbours, self.embeddings.shape[0])

  @classmethod
  def build(cls, *, stages: int | None = None, width: int = 64, **arguments: Any) -> Deployed:
    """As of ``Deployed``; ``backbone``, ``stages`` and ``width`` name the network."""
    network = backbone(arguments.pop('backbone'), stages=stages, width=width)
    return cls(network, **arguments)

  def measure(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """[N, h, w, 3] -> scores [N], 0..2, and again as maps [N, 1, 1]."""
    vectors = nn.functional.normalize(self.backbone(self.normalised(pixels)), dim=-1)
    distances, _ = nearest_neighbors(vectors[:, None], self.embeddings, self.neighbours)
    scores = distances.mean((1, 2))
    return scores, scores[:, None, None]
