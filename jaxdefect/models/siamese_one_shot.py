"""The encoder that both pictures of a pair pass: convolutions, then dense layers.

Shape legend: N images, H x W pixels, h x w pixels of the map, C channels, D embedding size.

3x3 convolutions (``conv.<k>``) with ReLU, and dense layers (``fc.<k>``) with ReLU between them.
With the defaults, on gray pictures of 100 x 100 pixels, these are the 40.3 M parameters of the
authors' published network, all but 0.6 % of them in ``fc.0``, which reads every pixel of the map.
``pool`` halves the map behind every convolution, as in Koch et al., and ``fc.0`` has 1/69 of that.

References:
  Deshpande et al. 2020, figure 1 and the authors' code; Koch et al. 2015, section 3.1.
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.conv4 import halve
from jaxdefect.models.convolution import Conv

he_uniform = nn.initializers.he_uniform()


class SiameseEncoder(nn.Module):
  """Convolutions and dense layers.

  Attributes:
    channels: of every convolution.
    widths: of the dense layers; the last is D.
    pool: whether a 2x2 max pool follows every convolution.
    dtype: type of the computation; parameters are float32.
  """

  channels: tuple[int, ...] = (4, 8, 8)
  widths: tuple[int, ...] = (500, 500, 5)
  pool: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, tap: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Embeds images.

    Args:
      x: [N, H, W, 3] normalised images.
      tap: added to the last map, so that its gradient is the map's. None adds nothing.

    Returns:
      The last map [N, h, w, C], ``tap`` added, and the embeddings [N, D], float32 at least.

    Raises:
      ValueError: a map is too small to be halved, or there is no convolution or dense layer.
    """
    chex.assert_rank(x, 4)
    if not self.channels or not self.widths:
      raise ValueError(
        f'channels is {self.channels} and widths is {self.widths}; '
        'the encoder needs at least one of each.'
      )
    x = x.astype(self.dtype)
    for k, features in enumerate(self.channels):
      layer = Conv(
        features,
        3,
        padding=1,
        use_bias=True,
        kernel_init=he_uniform,
        dtype=self.dtype,
        name=f'conv.{k}',
      )
      x = nn.relu(layer(x))
      x = halve(x) if self.pool else x
    feature_map = x if tap is None else x + tap
    x = feature_map.reshape(x.shape[0], -1)  # [N, h * w * C]
    for k, width in enumerate(self.widths):
      last = k == len(self.widths) - 1
      start = nn.initializers.lecun_normal() if last else he_uniform
      x = nn.Dense(width, kernel_init=start, dtype=self.dtype, name=f'fc.{k}')(x)
      x = x if last else nn.relu(x)
    return feature_map, x.astype(jnp.promote_types(x.dtype, jnp.float32))
