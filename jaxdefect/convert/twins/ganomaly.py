"""GANomaly in plain PyTorch: what cannot be encoded again after reconstruction is anomalous.

Shape legend: N images, S x S pixels (S a power of two), F channels of a map, Z latent size,
W width.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.anomaly_map import smooth_map
from jaxdefect.convert.twins.deployed import Inspector

_GANOMALY_MAP = 4  # side of the map beside the latent vector
_GANOMALY_SLOPE = 0.2  # of the leaky ReLU


class GANomaly(Inspector, family='ganomaly'):
  """How far a picture's latent vector is from its reconstruction's (``methods.ganomaly``).

  Args:
    latent: Z.
    width: W.
    halvings: how often a picture is halved down to 4 x 4.
    sigma: of the map's smoothing, pixels of the image.
    settings: of ``Inspector``.

  Raises:
    ValueError: the network was trained for images of another size.
  """

  def __init__(self, *, latent: int, width: int, halvings: int, sigma: float, **settings: Any):
    super().__init__(**settings)
    side = _GANOMALY_MAP << halvings
    if self.image_size not in (None, (side, side)):
      raise ValueError(f'image_size must be {side} x {side}, got {self.image_size}')
    self.encoder = LatentEncoder(latent, width, halvings)
    self.decoder = LatentDecoder(latent, width, halvings)
    self.encoder_again = LatentEncoder(latent, width, halvings)
    self.sigma = float(sigma)

  def measure(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """[N, S, S, 3] -> scores [N] and maps [N, S, S]."""
    x = self.normalised(pixels)
    z = self.encoder(x)
    image = self.decoder(z)
    again = self.encoder_again(image)
    maps = smooth_map((x - image).abs().mean(1), pixels.shape[1:3], self.sigma)
    return (z - again).square().mean(1), maps


class LatentEncoder(nn.Module):
  """Convolutions that halve a picture down to 4 x 4, then one dense layer.

  Args:
    latent: Z.
    width: channels at S / 2; they double with every further halving.
    halvings: how many there are.
  """

  def __init__(self, latent: int, width: int, halvings: int):
    super().__init__()
    channels = [3, *(width << k for k in range(halvings))]
    self.conv = nn.ModuleList(
      nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False) for inputs, outputs in pairwise(channels)
    )
    # None behind the first.
    self.norm = nn.ModuleDict({str(k): nn.BatchNorm2d(width << k) for k in range(1, halvings)})
    self.latent = nn.Linear(_GANOMALY_MAP**2 * channels[-1], latent, bias=False)

  def forward(self, x: Tensor) -> Tensor:
    """[N, 3, S, S] -> [N, Z]."""
    for k, conv in enumerate(self.conv):
      x = conv(x)
      if k:
        x = self.norm[str(k)](x)
      x = nn.functional.leaky_relu(x, _GANOMALY_SLOPE)
    return self.latent(x.permute(0, 2, 3, 1).flatten(1))  # [N, 16 F], channels last


class LatentDecoder(nn.Module):
  """The way back: one dense layer to 4 x 4, then transposed convolutions that double the map.

  Args:
    latent: Z.
    width: channels at S / 2, as in the encoder.
    halvings: of the encoder.
  """

  def __init__(self, latent: int, width: int, halvings: int):
    super().__init__()
    channels = [*(width << k for k in reversed(range(halvings))), 3]
    self.map = nn.Linear(latent, _GANOMALY_MAP**2 * channels[0], bias=False)
    self.norm = nn.ModuleList(nn.BatchNorm2d(inputs) for inputs in channels[:-1])
    self.up = nn.ModuleList(
      nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)
      for inputs, outputs in pairwise(channels)
    )

  def forward(self, z: Tensor) -> Tensor:
    """[N, Z] -> [N, 3, S, S] in -1..1."""
    x = self.map(z).unflatten(1, (_GANOMALY_MAP, _GANOMALY_MAP, -1)).permute(0, 3, 1, 2)
    for norm, up in zip(self.norm, self.up):
      x = up(norm(x).relu())
    return torch.tanh(x)
