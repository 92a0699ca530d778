r"""CASI-Net: a light extractor, coordinate attention, and a map that interacts with itself.

Shape legend: N images, H x W pixels, h x w pixels of the last map, C channels, K classes.

A stem, then stages of depthwise separable convolutions that each halve the map and end with
coordinate attention. The last map x meets itself: two 1x1 convolutions see it as two eyes would,
and their views are multiplied,

.. math:: y = x + \mathrm{BN}\bigl(\mathrm{BN}(A x) \odot \mathrm{BN}(B x)\bigr)

at every place. Behind the mean over all places, a product of two linear views is
:math:`a^\top (\tfrac{1}{hw} \sum x x^\top)\, b`: a bilinear pooling of rank one per channel, which
knows which channels answer at the same place and not only how much each of them answers.

Joining the path of a parameter with dots gives the key of its PyTorch twin
(``convert.twins.casi_net``), but for the last word.

References:
  Li et al., `CASI-Net <https://doi.org/10.3390/math10060963>`_, 2022, sections 3.1 to 3.3, of which
  the names are known here and not the layers (see ``methods.casi_net``); Lin et al., `Bilinear CNN
  models <https://arxiv.org/abs/1504.07889>`_, section 3; Kim et al., `Hadamard product for low-rank
  bilinear pooling <https://arxiv.org/abs/1610.04325>`_, equation 3.
"""

import functools
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.coordinate_attention import CoordinateAttention
from jaxdefect.models.gsconv import ConvNorm, Norm
from jaxdefect.models.normalization import BatchNorm
from jaxdefect.models.pooling import global_average_pool


class CASINetOutputs(NamedTuple):
  """What the network makes of a batch.

  Attributes:
    feature_map: [N, h, w, C] float32, what is averaged and classified.
    logits: [N, K] float32 at least.
  """

  feature_map: jax.Array
  logits: jax.Array


class SeparableConv(nn.Module):
  """3x3 depthwise (``depthwise``), then 1x1 (``pointwise``), each with normalisation and ReLU.

  Attributes:
    features: number of output channels.
    stride: of the depthwise window in pixels.
    norm: makes the normalisations, see ``gsconv.ConvNorm``.
    dtype: type of the computation; parameters are float32.
  """

  features: int
  stride: int = 1
  norm: Norm = BatchNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), features]; skips where shapes fit."""
    shared: Any = {'activation': nn.relu, 'norm': self.norm, 'dtype': self.dtype}
    inputs = x.shape[-1]
    y = ConvNorm(inputs, 3, self.stride, inputs, **shared, name='depthwise')(
      x, running=running, valid=valid
    )
    y = ConvNorm(self.features, 1, **shared, name='pointwise')(y, running=running, valid=valid)
    return x + y if x.shape == y.shape else y


class SelfInteraction(nn.Module):
  """Adds the product of two linear views of a map to it; see the top of this file.

  Parameters lie under ``left``, ``right`` and ``norm``.

  Attributes:
    norm: makes the normalisations, see ``gsconv.ConvNorm``.
    dtype: type of the computation; parameters are float32.
  """

  norm: Norm = BatchNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """[N, H, W, C] -> [N, H, W, C]."""
    left, right = (
      ConvNorm(x.shape[-1], activation=None, norm=self.norm, dtype=self.dtype, name=name)(
        x, running=running, valid=valid
      )
      for name in ('left', 'right')
    )
    norm = self.norm(dtype=self.dtype, name='norm')
    return x + norm(left * right, use_running_average=running, valid=valid)


class CASINet(nn.Module):
  """Stem (``stem``), stages (``stage.<k>.<block>``, ``attention.<k>``), ``interaction``, ``fc``.

  Attributes:
    num_classes: K.
    stem: channels of the stem, which halves the image.
    channels: of every stage; each halves its map.
    blocks: separable convolutions of a stage.
    attention: whether stages end with coordinate attention.
    interaction: whether the last map interacts with itself.
    reduction: of the attention, see ``CoordinateAttention``.
    axis_name: device axis, for the batch statistics.
    dtype: type of the computation; parameters are float32.
  """

  num_classes: int
  stem: int = 16
  channels: tuple[int, ...] = (32, 64, 128)
  blocks: int = 2
  attention: bool = True
  interaction: bool = True
  reduction: int = 8
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    train: bool = False,
    valid: jax.Array | None = None,
    tap: jax.Array | None = None,
  ) -> CASINetOutputs:
    """Classifies images.

    Args:
      x: [N, H, W, 3] normalised images.
      train: True normalises with the statistics of the batch.
      valid: [N] bool, images that count in the statistics. None counts all.
      tap: added to the last map, so that its gradient is the map's. None adds nothing.

    Returns:
      ``CASINetOutputs``.

    Raises:
      ValueError: no stage, or a stage without blocks.
    """
    chex.assert_rank(x, 4)
    if not self.channels or self.blocks < 1:
      raise ValueError(
        f'channels is {self.channels} and blocks is {self.blocks}; '
        'CASI-Net needs at least one stage of at least one block.'
      )
    shared: Any = {
      'norm': functools.partial(BatchNorm, axis_name=self.axis_name),
      'dtype': self.dtype,
    }
    when: Any = {'running': not train, 'valid': valid}
    x = ConvNorm(self.stem, 3, 2, activation=nn.relu, **shared, name='stem')(x, **when)
    for k, features in enumerate(self.channels):
      for block in range(self.blocks):
        stride = 1 if block else 2
        x = SeparableConv(features, stride, **shared, name=f'stage.{k}.{block}')(x, **when)
      if self.attention:
        x = CoordinateAttention(self.reduction, **shared, name=f'attention.{k}')(x, **when)
    if self.interaction:
      x = SelfInteraction(**shared, name='interaction')(x, **when)
    feature_map = x if tap is None else x + tap
    features = global_average_pool(feature_map)
    logits = nn.Dense(self.num_classes, dtype=features.dtype, name='fc')(features)
    return CASINetOutputs(feature_map, logits)
