"""The networks of Patch SVDD: an encoder of patches at two scales, and a judge of where they lay.

Shape legend: N images or patches, K side of a large patch, H x W pixels, D embedding size.

A small patch (K/2 pixels) passes 3x3 convolutions without padding, the first at stride 2, until one
place is left. A large patch (K pixels) is cut into 2x2 small ones; their embeddings, side by side,
pass two more layers. Without padding the encoder slides: run over a whole image it gives every
patch at stride 2, for a fraction of the arithmetic (``dense``).

References:
  Yi, Yoon, `Patch SVDD <https://arxiv.org/abs/2006.16067>`_, section 3.3 and figure 5. Widths as in
  the authors' code for K = 64, tapered in the same way for other sizes.
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.convolution import Conv

SLOPE = 0.1  # of the leaky ReLU
STRIDE = 2  # pixels between neighbours of a dense map
POSITIONS = 8


def tapered_widths(layers: int, width: int) -> tuple[int, ...]:
  """Channels of the hidden layers: doubled up to ``width`` and halved again, at most twice.

  >>> tapered_widths(7, 128)
  (32, 64, 128, 128, 128, 64, 32)
  """
  last = layers - 1
  return tuple(max(1, width >> max(0, 2 - min(i, last - i))) for i in range(layers))


class SmallEncoder(nn.Module):
  """Convolutions without padding that leave one place of a patch.

  Attributes:
    size: side of the patch in pixels, a multiple of 4.
    features: D.
    width: channels of the widest layer.
    dtype: type of the computation; parameters are float32.
  """

  size: int
  features: int = 64
  width: int = 128
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[N, H, W, C] -> [N, (H - size) // 2 + 1, (W - size) // 2 + 1, D] in -1..1."""
    height, width = ((side - self.size) // STRIDE + 1 for side in x.shape[1:3])
    for k, channels in enumerate(tapered_widths(self.size // 4 - 1, self.width)):
      x = self._conv(channels, k)(x)
      x = nn.leaky_relu(x, SLOPE)
    x = self._conv(self.features, self.size // 4 - 1)(x)
    # An odd side leaves a place whose patch would end one pixel outside.
    return jnp.tanh(x[:, :height, :width])

  def _conv(self, channels: int, k: int) -> Conv:
    stride = STRIDE if k == 0 else 1
    name = f'conv{k + 1}'
    return Conv(channels, 3, stride=stride, use_bias=True, dtype=self.dtype, name=name)


class PatchEncoder(nn.Module):
  """Embeds patches of two sizes; the large ones by the embeddings of their quarters.

  Attributes:
    size: K, side of a large patch in pixels, a multiple of 8; small ones have half of it.
    features: D.
    width: channels of the widest layer.
    dtype: type of the computation; parameters are float32.
  """

  size: int = 64
  features: int = 64
  width: int = 128
  dtype: Any = jnp.float32

  def __post_init__(self) -> None:
    if self.size < 8 or self.size % 8:
      raise ValueError(f'size of the large patches must be a multiple of 8, got {self.size}.')
    super().__post_init__()

  def setup(self) -> None:
    self.small = SmallEncoder(self.size // 2, self.features, self.width, dtype=self.dtype)
    # One place of the first layer sees the 2x2 quarters: a 2x2 window as a product.
    self.conv1 = Conv(self.width, 1, use_bias=True, dtype=self.dtype)
    self.conv2 = Conv(self.features, 1, use_bias=True, dtype=self.dtype)

  def __call__(self, patch: jax.Array) -> jax.Array:
    """Embeds patches.

    Args:
      patch: [N, K, K, C], or [N, K/2, K/2, C] for small ones.

    Returns:
      [N, D] in -1..1.

    Raises:
      ValueError: patches of another size.
    """
    chex.assert_rank(patch, 4)
    n, side, half = patch.shape[0], patch.shape[1], self.size // 2
    if side == half:
      return self.small(patch)[:, 0, 0]
    if side != self.size:
      raise ValueError(f'patches must have {half} or {self.size} pixels a side, got {side}.')
    quarters = patch.reshape(n, 2, half, 2, half, -1).transpose(0, 1, 3, 2, 4, 5)
    quarters = self.small(quarters.reshape(4 * n, half, half, -1))  # [4 N, 1, 1, D]
    return self._join(quarters.reshape(n, 1, 1, 4 * self.features))[:, 0, 0]

  def dense(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Embeds the patches at every second pixel of whole images.

    Args:
      image: [N, H, W, C], at least K x K pixels.

    Returns:
      ``(large, small)`` maps [N, (H - K) // 2 + 1, (W - K) // 2 + 1, D] and
      [N, (H - K/2) // 2 + 1, (W - K/2) // 2 + 1, D]; place (i, j) is the patch whose upper left
      corner is pixel (2 i, 2 j).
    """
    chex.assert_rank(image, 4)
    small = self.small(image)
    away = self.size // 2 // STRIDE  # from a quarter to the next
    height, width = ((side - self.size) // STRIDE + 1 for side in image.shape[1:3])
    quarters = [
      small[:, i : i + height, j : j + width] for i in (0, away) for j in (0, away)
    ]  # rows first, as in a kernel
    return self._join(jnp.concatenate(quarters, axis=-1)), small

  def _join(self, quarters: jax.Array) -> jax.Array:
    """[N, h, w, 4 D] -> [N, h, w, D]."""
    return jnp.tanh(self.conv2(nn.leaky_relu(self.conv1(quarters), SLOPE)))


class PositionClassifier(nn.Module):
  """Says on which of eight sides of a patch its neighbour lay, by the difference of the two.

  Attributes:
    hidden: width of the two hidden layers.
    dtype: type of the computation; parameters are float32.
  """

  hidden: int = 128
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, first: jax.Array, second: jax.Array) -> jax.Array:
    """[N, D], [N, D] -> [N, 8] logits."""
    x = first - second
    for k in (1, 2):
      x = nn.leaky_relu(nn.Dense(self.hidden, dtype=self.dtype, name=f'fc{k}')(x), SLOPE)
    return nn.Dense(POSITIONS, dtype=self.dtype, name='fc3')(x)
