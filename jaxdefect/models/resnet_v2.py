"""Pre-activation ResNet-50, interchangeable with MXNet Gluon's ``resnet50_v2``.

Shape legend: N images, H x W pixels, C channels.

Joining the path of a parameter with underscores gives Gluon's key without its prefix
(``resnetv24_``), but for the last word::

  params       conv0 / kernel                  conv0_weight
  params       stage2 / conv4 / kernel         stage2_conv4_weight
  params       stage2 / batchnorm3 / scale     stage2_batchnorm3_gamma
  params       stage2 / batchnorm3 / bias      stage2_batchnorm3_beta
  batch_stats  stage2 / batchnorm3 / mean      stage2_batchnorm3_running_mean
  batch_stats  stage2 / batchnorm3 / var       stage2_batchnorm3_running_var

Kernels are HWIO here and OIHW there. A block ends in a bare sum, so the map of stage k is taken
after the BatchNorm and ReLU that follow it: ``stage<k+1>_batchnorm0``, or ``batchnorm2`` behind
the last of the four. These belong to stage k: a network of three stages has
``stage4_batchnorm0`` and nothing else of stage 4. Nothing is lost, because the first block of a
stage takes its skip after that ReLU. ``batchnorm0`` normalises the input; Gluon fixes its scale
at 1 and its bias at 0, so they are never trained here either.

Reference:
  He et al., `Identity Mappings in Deep Residual Networks <https://arxiv.org/abs/1603.05027>`_.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.models.convolution import Conv
from jaxdefect.models.normalization import BatchNorm
from jaxdefect.models.pooling import max_pool
from jaxdefect.models.recomputation import recomputed


class Stage(nn.Module):
  """One stage of blocks BN-ReLU-1x1, BN-ReLU-3x3 (stride), BN-ReLU-1x1, plus a skip.

  ``opening_only`` makes nothing but the BatchNorm and ReLU in front of the first block.
  """

  channels: int
  stride: int
  depth: int
  opening_running: bool
  running: bool
  opening_only: bool = False
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, *, valid: jax.Array | None = None, stop: bool = False
  ) -> tuple[jax.Array, jax.Array]:
    """[N, H, W, C] -> the activated input (the map of the stage before) and the bare sum.

    ``stop`` gives everything up to the activated input no gradient.
    """

    def activate(y: jax.Array, index: int, running: bool) -> jax.Array:
      norm = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=f'batchnorm{index}')
      return nn.relu(norm(y, use_running_average=running, valid=valid))

    opening = activate(x, 0, self.opening_running)
    if stop:
      opening = lax.stop_gradient(opening)
    if self.opening_only:
      return opening, opening
    convolutions = 0

    def convolve(y: jax.Array, features: int, size: int, stride: int = 1) -> jax.Array:
      nonlocal convolutions
      name = f'conv{convolutions}'
      convolutions += 1
      padding = size // 2
      return Conv(features, size, stride, padding, dtype=self.dtype, name=name)(y)

    for block in range(self.depth):
      y = opening if block == 0 else activate(x, 3 * block, self.running)
      skip, stride = (y, self.stride) if block == 0 else (x, 1)
      y = convolve(y, self.channels // 4, 1)
      y = activate(y, 3 * block + 1, self.running)
      y = convolve(y, self.channels // 4, 3, stride)
      y = activate(y, 3 * block + 2, self.running)
      y = convolve(y, self.channels, 1)
      if block == 0:
        skip = convolve(skip, self.channels, 1, stride)
      x = y + skip
    return opening, x


class ResNetV2(nn.Module):
  """A pre-activation ResNet up to a stage; attributes as of ``ResNet``."""

  depths: tuple[int, ...]
  frozen_stages: int = 0
  update_statistics: bool = True
  dtype: Any = jnp.float32
  axis_name: str | None = None
  remat: bool = False

  @property
  def stage_features(self) -> tuple[int, ...]:
    """Channels of every map."""
    return tuple(256 * 2**k for k in range(len(self.depths)))

  @nn.nowrap
  def frozen(self, path: tuple[str, ...]) -> bool:
    """Says whether the parameter at ``path`` gets no gradient."""
    if path[0] == 'batchnorm0':
      return True
    if path[0] == 'batchnorm2':
      stage = 4
    elif path[0].startswith('stage'):
      stage = int(path[0][5:])
      if path[1] == 'batchnorm0' and stage > 1:
        stage -= 1
    else:
      stage = 1
    return stage <= self.frozen_stages

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

    def normalize(y: jax.Array, name: str, stage: int) -> jax.Array:
      norm = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=name)
      return norm(y, use_running_average=running(stage), valid=valid)

    # No parameter lies in front of this layer: its own two are fixed.
    x = lax.stop_gradient(normalize(x, 'batchnorm0', 1))
    x = Conv(64, 7, stride=2, padding=3, dtype=self.dtype, name='conv0')(x)
    x = max_pool(nn.relu(normalize(x, 'batchnorm1', 1)))
    maps = []
    for stage in range(1, len(self.depths) + 2):
      stop = 1 < stage <= self.frozen_stages + 1
      if stage == 5:
        x = nn.relu(normalize(x, 'batchnorm2', 4))
        maps.append(lax.stop_gradient(x) if stop else x)
        break
      block = Stage(
        channels=256 * 2 ** (stage - 1),
        stride=1 if stage == 1 else 2,
        depth=0 if stage > len(self.depths) else self.depths[stage - 1],
        opening_only=stage > len(self.depths),
        opening_running=running(max(stage - 1, 1)),
        running=running(stage),
        axis_name=self.axis_name,
        dtype=self.dtype,
        name=f'stage{stage}',
      )
      again = self.remat and stage > self.frozen_stages
      opening, x = recomputed(block, x, when=again, valid=valid, stop=stop)
      if stage > 1:
        maps.append(opening)
    if tap is not None:
      maps[-1] = maps[-1] + tap
    return tuple(maps)
