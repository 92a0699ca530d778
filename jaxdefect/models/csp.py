"""Cross-stage partial blocks and the pooling behind them: what a fast single-stage detector is of.

Shape legend: N images, H x W pixels, C input channels.

Half of the channels of a CSP stage go around its bottlenecks, so that these have half the width
and a gradient reaches both halves by ways of its own (CSPNet). Here every bottleneck's answer is
kept too, and all of them are mixed at the end (ELAN), as in detectors of the YOLOv8 class: one 1x1
convolution in, one out. Nothing has a bias, as a normalisation follows every convolution.

References:
  Wang et al., `CSPNet <https://arxiv.org/abs/1911.11929>`_, 2020, section 3.1; Wang et al.,
  `ELAN <https://arxiv.org/abs/2211.04800>`_, 2022; He et al., `Spatial Pyramid Pooling
  <https://arxiv.org/abs/1406.4729>`_, 2014.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.gsconv import ConvNorm, Norm
from jaxdefect.models.normalization import BatchNorm


class CSPBottleneck(nn.Module):
  """Two 3x3 convolutions (``conv1``, ``conv2``), each with normalisation and SiLU.

  Attributes:
    features: channels in and out.
    shortcut: adds the input to the answer.
    norm: makes the normalisations, see ``gsconv.ConvNorm``.
    dtype: type of the computation; parameters are float32.
  """

  features: int
  shortcut: bool = True
  norm: Norm = BatchNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """[N, H, W, features] -> [N, H, W, features]."""
    y = x
    for name in ('conv1', 'conv2'):
      layer = ConvNorm(self.features, 3, norm=self.norm, dtype=self.dtype, name=name)
      y = layer(y, running=running, valid=valid)
    return x + y if self.shortcut else y


class CSPBlock(nn.Module):
  r"""Cross-stage partial bottleneck with two convolutions.

  .. math::
    [a, b_0] = \mathrm{enter}(x), \qquad b_i = B_i(b_{i-1}), \qquad
    y = \mathrm{leave}([a, b_0, b_1, \ldots, b_n])

  with 1x1 convolutions ``enter`` and ``leave`` and bottlenecks ``blocks.0``, ..., each on half of
  the channels.

  Attributes:
    features: number of output channels, even.
    blocks: n, number of bottlenecks.
    shortcut: of the bottlenecks: in a backbone, not in a neck.
    norm: as of ``CSPBottleneck``.
    dtype: as of ``CSPBottleneck``.
  """

  features: int
  blocks: int = 1
  shortcut: bool = True
  norm: Norm = BatchNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """Mixes space and channels.

    Args:
      x: [N, H, W, C].
      running: True normalises with the running statistics.
      valid: [N] bool, images that count in the statistics. None counts all.

    Returns:
      [N, H, W, features].

    Raises:
      ValueError: features is odd.
    """
    if self.features % 2:
      raise ValueError(
        f'features is {self.features}; the halves of a CSP block need an even number.'
      )
    settings: dict[str, Any] = {'norm': self.norm, 'dtype': self.dtype}
    half = self.features // 2
    x = ConvNorm(self.features, name='enter', **settings)(x, running=running, valid=valid)
    kept = [x[..., :half], x[..., half:]]
    for index in range(self.blocks):
      block = CSPBottleneck(half, self.shortcut, name=f'blocks.{index}', **settings)
      kept.append(block(kept[-1], running=running, valid=valid))
    x = jnp.concatenate(kept, axis=-1)
    return ConvNorm(self.features, name='leave', **settings)(x, running=running, valid=valid)


class PyramidPool(nn.Module):
  """Spatial pyramid pooling, fast: maxima of 5x5, 9x9 and 13x13 pixels about every pixel.

  A 1x1 convolution to half of the input channels (``enter``); the 9x9 maximum is the 5x5 one of
  the 5x5 ones, and so on; all four are mixed by a 1x1 convolution (``leave``).

  Attributes:
    features: number of output channels.
    norm: as of ``CSPBottleneck``.
    dtype: as of ``CSPBottleneck``.
  """

  features: int
  norm: Norm = BatchNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """[N, H, W, C] -> [N, H, W, features]; arguments as of ``CSPBlock``."""
    settings: dict[str, Any] = {'norm': self.norm, 'dtype': self.dtype}
    enter = ConvNorm(x.shape[-1] // 2, name='enter', **settings)
    maps = [enter(x, running=running, valid=valid)]
    for _ in range(3):
      maps.append(window_max(maps[-1], 5))
    x = jnp.concatenate(maps, axis=-1)
    return ConvNorm(self.features, name='leave', **settings)(x, running=running, valid=valid)


def window_max(x: jax.Array, size: int) -> jax.Array:
  """Largest value of the window about every pixel; outside of the map there is nothing.

  Along one axis after the other, as maxima of shifted views: XLA's gradient of a pooling runs as
  scalar loops on a CPU. Equal values share the gradient.

  Args:
    x: [N, H, W, C].
    size: side of the window, odd.

  Returns:
    [N, H, W, C].

  >>> window_max(jnp.array([3.0, 1.0, 2.0, 5.0]).reshape(1, 1, 4, 1), 3).ravel().tolist()
  [3.0, 3.0, 5.0, 5.0]
  """
  reach = size // 2
  for axis in (1, 2):
    side = x.shape[axis]
    edges = [(reach, reach) if a == axis else (0, 0) for a in range(4)]
    padded = jnp.pad(x, edges, constant_values=-jnp.inf)
    for shift in range(size):
      if shift != reach:
        x = jnp.maximum(x, jax.lax.slice_in_dim(padded, shift, shift + side, axis=axis))
  return x
