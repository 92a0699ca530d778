"""What all networks share, in plain PyTorch; each file of a network adds itself to ``NETWORKS``.

Shape legend: N images, 3 or C channels, H x W pixels.

Every network has four stages; stage k ends at stride ``2**(k + 1)``.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def convolution(
  inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
  """A convolution without bias, padded on every side by half the window."""
  return nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)


class Backbone(nn.Module):
  """What all networks share: ``maps`` per stage, and ``forward`` to pooled features or logits.

  Attributes:
    num_features: channels of the last map.
    stages: how many of the four stages there are.
  """

  num_features: int
  stages: int

  def maps(self, x: Tensor) -> tuple[Tensor, ...]:
    """[N, 3, H, W] normalised images -> one [N, C, h, w] per stage, finest first."""
    raise NotImplementedError

  def head(self) -> nn.Module | None:
    """The classifier, where the network was made with ``num_classes``."""
    return None

  def forward(self, x: Tensor) -> Tensor:
    """[N, 3, H, W] -> [N, num_features], or [N, num_classes] where there are classes."""
    features = self.maps(x)[-1].mean(dim=(2, 3))
    head = self.head()
    return features if head is None else head(features)


# Name -> (stages, width, **settings) -> the network.
NETWORKS: dict[str, Callable[..., Backbone]] = {}


def backbone(name: str, *, stages: int | None = None, width: int = 64, **settings: Any) -> Backbone:
  """Makes a network without classifier by the name that it has in ``models.backbone``.

  Args:
    name: of ``NETWORKS``.
    stages: 1 to 4; None means all four.
    width: channels of a ResNet's first stage.
    settings: further ones of ``ResNet``.

  Returns:
    The module, with random weights.

  Raises:
    ValueError: an unknown name or number of stages.
  """
  stages = 4 if stages is None else stages
  if stages not in (1, 2, 3, 4):
    raise ValueError(f'stages must be 1, 2, 3, 4 or None (all), got {stages!r}')
  if name not in NETWORKS:
    raise ValueError(f'backbone {name!r} must be one of {", ".join(NETWORKS)}')
  return NETWORKS[name](stages, width, **settings)
