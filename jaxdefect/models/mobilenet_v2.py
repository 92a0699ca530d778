"""MobileNetV2 (width 1.0), interchangeable with torchvision's or with MXNet Gluon's.

Shape legend: N images, H x W pixels, C channels.

Both are the same network but for the first block, where Gluon has a 1x1 expansion (from 32 to 32
channels) that torchvision leaves out. ``gluon`` chooses the block and the names. torchvision's
key is the path joined with dots, but for the last word::

  params       features.0.0 / kernel               features.0.0.weight
  params       features.1 / conv.0.1 / scale       features.1.conv.0.1.weight
  batch_stats  features.2 / conv.3 / mean          features.2.conv.3.running_mean

Gluon's is the path joined with underscores behind ``mobilenetv20_features_``::

  params       conv0 / kernel                          conv0_weight
  params       linearbottleneck3 / batchnorm1 / scale  linearbottleneck3_batchnorm1_gamma
  batch_stats  linearbottleneck3 / batchnorm1 / var    linearbottleneck3_batchnorm1_running_var

Stages end where the resolution halves, as in a ResNet: stage k has stride ``2**(k + 1)`` and ends
with ``features.3`` (24 channels), ``features.6`` (32), ``features.13`` (96) and ``features.18``
(1280, the last 1x1 convolution). ``linearbottleneck<n>`` is ``features.<n + 1>``;
``features.0`` and ``features.1`` are the stem. Maps of stages 1 to 3 are not rectified.

Reference:
  Sandler et al., `MobileNetV2 <https://arxiv.org/abs/1801.04381>`_, table 2.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.models.convolution import Conv
from jaxdefect.models.normalization import BatchNorm
from jaxdefect.models.recomputation import recomputed

# (channels, stride) of features.1 to features.17.
BLOCKS = (
  (16, 1),
  *((24, 2), (24, 1)),
  *((32, 2), (32, 1), (32, 1)),
  *((64, 2), (64, 1), (64, 1), (64, 1), (96, 1), (96, 1), (96, 1)),
  *((160, 2), (160, 1), (160, 1), (320, 1)),
)
LAST_BLOCKS = (3, 6, 13, 17)
LAST_CHANNELS = 1280


class InvertedResidual(nn.Module):
  """1x1 expansion, 3x3 depthwise and linear 1x1 projection, with a skip where shapes agree."""

  channels: int
  stride: int
  expansion: int
  gluon: bool = False
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """[N, H, W, C] -> [N, H/stride, W/stride, channels]."""
    width = x.shape[-1] * self.expansion
    expands = self.gluon or self.expansion != 1
    last = 2 if expands else 1
    # Layers are (convolution, BatchNorm) pairs; torchvision nests all but the last one.
    names = [(f'conv.{k}.0', f'conv.{k}.1') for k in range(last)]
    names.append((f'conv.{last}', f'conv.{last + 1}'))
    if self.gluon:
      names = [(f'conv{k}', f'batchnorm{k}') for k in range(3)]

    def layer(y: jax.Array, features: int, size: int, stride: int, groups: int) -> jax.Array:
      conv, norm = names.pop(0)
      padding = size // 2
      y = Conv(features, size, stride, padding, groups, dtype=self.dtype, name=conv)(y)
      module = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=norm)
      return module(y, use_running_average=running, valid=valid)

    y = x
    if expands:
      y = nn.relu6(layer(y, width, 1, 1, 1))
    y = nn.relu6(layer(y, width, 3, self.stride, width))
    y = layer(y, self.channels, 1, 1, 1)
    return x + y if x.shape == y.shape else y


class MobileNetV2(nn.Module):
  """A MobileNetV2 up to a stage; attributes as of ``ResNet``, and the number of ``stages``."""

  stages: int = 4
  gluon: bool = False
  frozen_stages: int = 0
  update_statistics: bool = True
  dtype: Any = jnp.float32
  axis_name: str | None = None
  remat: bool = False

  @property
  def stage_features(self) -> tuple[int, ...]:
    """Channels of every map."""
    return (24, 32, 96, LAST_CHANNELS)[: self.stages]

  @nn.nowrap
  def frozen(self, path: tuple[str, ...]) -> bool:
    """Says whether the parameter at ``path`` gets no gradient."""
    if path[0] in ('conv0', 'batchnorm0'):
      block = 0
    elif path[0] in ('conv1', 'batchnorm1'):
      block = 18
    elif self.gluon:
      block = int(path[0].removeprefix('linearbottleneck')) + 1
    else:
      block = int(path[0].split('.')[1])
    return block <= (-1, 3, 6, 13, 18)[self.frozen_stages]

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    train: bool = False,
    valid: jax.Array | None = None,
    tap: jax.Array | None = None,
  ) -> tuple[jax.Array, ...]:
    """Maps images to one feature map per stage; arguments as of ``ResNet.__call__``."""

    def running(stage: int) -> bool:
      return not train or not self.update_statistics or stage <= self.frozen_stages

    def layer(y: jax.Array, features: int, size: int, stride: int, stage: int) -> jax.Array:
      last = stage == 4
      conv, norm = ('features.18.0', 'features.18.1') if last else ('features.0.0', 'features.0.1')
      if self.gluon:
        conv, norm = ('conv1', 'batchnorm1') if last else ('conv0', 'batchnorm0')
      y = Conv(features, size, stride, size // 2, dtype=self.dtype, name=conv)(y)
      module = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=norm)
      return nn.relu6(module(y, use_running_average=running(stage), valid=valid))

    x = layer(x, 32, 3, 2, 1)
    maps, stage = [], 1
    for index, (channels, stride) in enumerate(BLOCKS[: LAST_BLOCKS[self.stages - 1]], start=1):
      block = InvertedResidual(
        channels=channels,
        stride=stride,
        expansion=1 if index == 1 else 6,
        gluon=self.gluon,
        axis_name=self.axis_name,
        dtype=self.dtype,
        name=f'linearbottleneck{index - 1}' if self.gluon else f'features.{index}',
      )
      again = self.remat and stage > self.frozen_stages
      x = recomputed(block, x, when=again, running=running(stage), valid=valid)
      if index == LAST_BLOCKS[stage - 1]:
        if stage == 4:
          x = layer(x, LAST_CHANNELS, 1, 1, 4)
        if stage <= self.frozen_stages:
          x = lax.stop_gradient(x)
        maps.append(x)
        stage += 1
    if tap is not None:
      maps[-1] = maps[-1] + tap
    return tuple(maps)
