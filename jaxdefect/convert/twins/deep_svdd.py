"""Deep SVDD in plain PyTorch.

Shape legend: N images, H x W pixels, C channels, D embedding size.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from jaxdefect.convert.twins.backbone import Backbone, backbone, convolution
from jaxdefect.convert.twins.deployed import Deployed, Inspector


class OneClassEncoder(nn.Module):
  """Convolutions without biases, each behind it a norm and a 2x2 pool, then one dense layer.

  Args:
    inputs: channels of what is seen.
    channels: of every layer; each halves the map.
    kernel_size: side of the windows, odd.
    flattened: numbers in the last map.
    embedding: D.
    slope: of the leaky ReLU below zero.
  """

  def __init__(
    self,
    inputs: int,
    channels: Sequence[int],
    kernel_size: int,
    flattened: int,
    embedding: int,
    slope: float = 0.01,
  ):
    super().__init__()
    self.conv, self.norm, self.slope = nn.ModuleList(), nn.ModuleList(), slope
    for outputs in channels:
      self.conv.append(convolution(inputs, outputs, kernel_size))
      self.norm.append(nn.BatchNorm2d(outputs, eps=1e-4, affine=False))
      inputs = outputs
    self.embedding = nn.Linear(flattened, embedding, bias=False)

  def forward(self, x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, D]."""
    for conv, norm in zip(self.conv, self.norm):
      x = nn.functional.max_pool2d(nn.functional.leaky_relu(norm(conv(x)), self.slope), 2)
    return self.embedding(x.permute(0, 2, 3, 1).flatten(1))  # channels last, as it was trained


class DeepSVDD(Inspector, family='deep_svdd'):
  """Squared distance of the embedding from the centre of good parts (``methods.deep_svdd``).

  Args:
    network: a module from ``backbone`` whose last map the encoder sees; None shows it the image.
    channels: of the encoder's layers.
    kernel_size: side of the encoder's windows.
    flattened: numbers in the encoder's last map; it follows from the size of the images.
    embedding: D.
    settings: of ``Inspector``; ``memory`` holds ``center`` [D].
  """

  keeps = ('center',)
  center: Tensor

  def __init__(
    self,
    network: Backbone | None,
    *,
    channels: Sequence[int],
    kernel_size: int,
    flattened: int,
    embedding: int,
    **settings: Any,
  ):
    super().__init__(**settings)
    self.backbone = network
    inputs = 3 if network is None else network.num_features
    self.encoder = OneClassEncoder(inputs, channels, kernel_size, flattened, embedding)

  @classmethod
  def build(cls, *, stages: int | None = None, width: int = 64, **arguments: Any) -> Deployed:
    """As of ``Deployed``; ``backbone``, ``stages`` and ``width`` name the network, or None."""
    name = arguments.pop('backbone')
    network = None if name is None else backbone(name, stages=stages, width=width)
    return cls(network, **arguments)

  def measure(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """[N, H, W, 3] -> scores [N], and again as maps [N, 1, 1]."""
    x = self.normalised(pixels)
    if self.backbone is not None:
      x = self.backbone.maps(x)[-1]
    scores = (self.encoder(x) - self.center).square().sum(1)
    return scores, scores[:, None, None]
