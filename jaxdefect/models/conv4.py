"""4Conv, the small backbone of few-shot learning, with coordinate attention where it is wanted.

Shape legend: N images, H x W pixels, C channels.

A block is a 3x3 convolution (``conv.<k>``), a normalisation (``norm.<k>``), ReLU and a 2x2 max
pool. The authors of MeDetection put ReLU before the normalisation; here it comes after it, as in
the 4Conv that they cite.

References:
  Vinyals et al., `Matching Networks <https://arxiv.org/abs/1606.04080>`_, section 4.1; Finn et al.,
  `MAML <https://arxiv.org/abs/1703.03400>`_, section 5.2; Zhang et al. 2023, figure 2 and 'CA
  effect'.
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.convolution import Conv
from jaxdefect.models.coordinate_attention import CoordinateAttention
from jaxdefect.models.gsconv import Norm
from jaxdefect.models.normalization import BatchNorm

# Place of the attention -> whether it follows the first block, and the last.
PLACES = {
  None: (False, False),
  'low': (True, False),
  'high': (False, True),
  'multiple': (True,) * 2,
}


def halve(x: jax.Array) -> jax.Array:
  """Largest value of every 2x2 window at stride 2; an odd last row or column is left out.

  Equal values share the gradient. It is a maximum over two axes and not XLA's pooling, whose
  gradient runs as scalar loops on a CPU and whose second derivative is slow everywhere.

  Args:
    x: [N, H, W, C] values, H and W at least 2.

  Returns:
    [N, H // 2, W // 2, C].

  Raises:
    ValueError: a side is smaller than 2 pixels.

  >>> halve(jnp.arange(8.0).reshape(1, 2, 4, 1)).ravel().tolist()
  [5.0, 7.0]
  """
  chex.assert_rank(x, 4)
  n, height, width, channels = x.shape
  if min(height, width) < 2:
    raise ValueError(
      f'a map of {height}x{width} pixels cannot be halved; use larger images or fewer blocks.'
    )
  height, width = height // 2, width // 2
  x = x[:, : 2 * height, : 2 * width].reshape(
    n, height, 2, width, 2, channels
  )  # [N, h, 2, w, 2, C]
  return x.max(axis=(2, 4))


class Conv4(nn.Module):
  """Blocks of convolution, normalisation, ReLU and max pool, all of one width.

  Attention has the names ``attention.0`` after the first block and ``attention.<blocks - 1>`` after
  the last; with one block both are the same, and it is there once.

  Attributes:
    width: channels of every block.
    blocks: their number; each halves the map, so H and W must be at least ``2 ** blocks``.
    attention: ``'low'`` puts coordinate attention after the first block, ``'high'`` after the last,
      ``'multiple'`` after both, None nowhere.
    reduction: of the attention, see ``CoordinateAttention``.
    norm: makes the normalisations, see ``gsconv.ConvNorm``.
    dtype: type of the computation; parameters are float32.
  """

  width: int = 32
  blocks: int = 4
  attention: str | None = None
  reduction: int = 32
  norm: Norm = BatchNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """Makes a feature map.

    Args:
      x: [N, H, W, C].
      running: True normalises with the running statistics.
      valid: [N] bool, images that count in the statistics. None counts all.

    Returns:
      [N, H // 2**blocks, W // 2**blocks, width].

    Raises:
      ValueError: no blocks, an unknown place of the attention, or a map that is too small.
    """
    chex.assert_rank(x, 4)
    if self.blocks < 1:
      raise ValueError(f'blocks is {self.blocks}; 4Conv needs at least one.')
    if self.attention not in PLACES:
      raise ValueError(f'attention is {self.attention!r}; it can be {", ".join(map(str, PLACES))}.')
    low, high = PLACES[self.attention]
    for k in range(self.blocks):
      x = Conv(self.width, 3, padding=1, dtype=self.dtype, name=f'conv.{k}')(x)
      norm = self.norm(dtype=self.dtype, name=f'norm.{k}')
      x = halve(nn.relu(norm(x, use_running_average=running, valid=valid)))
      if (low and k == 0) or (high and k == self.blocks - 1):
        layer = CoordinateAttention(
          self.reduction, norm=self.norm, dtype=self.dtype, name=f'attention.{k}'
        )
        x = layer(x, running=running, valid=valid)
    return x
