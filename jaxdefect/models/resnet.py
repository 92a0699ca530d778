"""ResNet-18/34/50/101, interchangeable with torchvision's (v1.5: stride in the 3x3).

Shape legend: N images, H x W pixels, C channels.

Joining the path of a parameter with dots gives torchvision's key, but for the last word::

  params       conv1 / kernel                      conv1.weight
  params       layer2.0 / downsample.1 / scale     layer2.0.downsample.1.weight
  params       layer2.0 / bn1 / bias               layer2.0.bn1.bias
  batch_stats  layer2.0 / bn1 / mean               layer2.0.bn1.running_mean
  batch_stats  layer2.0 / bn1 / var                layer2.0.bn1.running_var

Kernels are HWIO here and OIHW there. Stage k is ``layer<k>``, its map has stride ``2**(k + 1)``.

A deformable 3x3 convolution keeps the place and shape of its kernel, so the same files load; its
offset predictor lies beneath (``layer2.0 / conv2 / offset / kernel``).

References:
  He et al., `Deep Residual Learning for Image Recognition <https://arxiv.org/abs/1512.03385>`_;
  Xia & Long, section 3.2 (deformable convolution in the last three stages).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.models.convolution import Conv
from jaxdefect.models.deform_conv import DeformConv
from jaxdefect.models.normalization import BatchNorm
from jaxdefect.models.pooling import max_pool
from jaxdefect.models.recomputation import recomputed
from jaxdefect.models.rectifier import lean_relu


def conv3x3(
  features: int, *, name: str, stride: int = 1, deformable: str | None, dtype: Any
) -> Conv | DeformConv:
  """A 3x3 convolution that keeps the size at stride 1; ``deformable`` is None, 'v1' or 'v2'."""
  if deformable is None:
    return Conv(features, 3, stride=stride, padding=1, dtype=dtype, name=name)
  return DeformConv(features, 3, stride, padding=1, version=deformable, dtype=dtype, name=name)


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a skip; the first one carries the stride."""

  channels: int
  stride: int
  expansion: int = 1
  deformable: str | None = None
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """[N, H, W, C] -> [N, H/stride, W/stride, channels]."""

    def normalize(y: jax.Array, name: str) -> jax.Array:
      norm = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=name)
      return norm(y, use_running_average=running, valid=valid)

    relu = lean_relu if running else nn.relu
    window: dict[str, Any] = {'deformable': self.deformable, 'dtype': self.dtype}
    y = conv3x3(self.channels, stride=self.stride, name='conv1', **window)(x)
    y = relu(normalize(y, 'bn1'))
    y = conv3x3(self.channels, name='conv2', **window)(y)
    y = normalize(y, 'bn2')
    if self.stride != 1 or x.shape[-1] != self.channels:
      x = Conv(self.channels, 1, stride=self.stride, dtype=self.dtype, name='downsample.0')(x)
      x = normalize(x, 'downsample.1')
    return relu(x + y)


class Bottleneck(nn.Module):
  """1x1, 3x3 (with the stride) and 1x1 convolutions and a skip."""

  channels: int
  stride: int
  expansion: int = 4
  deformable: str | None = None
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """[N, H, W, C] -> [N, H/stride, W/stride, 4 channels]."""

    def normalize(y: jax.Array, name: str) -> jax.Array:
      norm = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=name)
      return norm(y, use_running_average=running, valid=valid)

    relu = lean_relu if running else nn.relu
    width = self.channels * self.expansion
    y = Conv(self.channels, 1, dtype=self.dtype, name='conv1')(x)
    y = relu(normalize(y, 'bn1'))
    window: dict[str, Any] = {'deformable': self.deformable, 'dtype': self.dtype}
    y = conv3x3(self.channels, stride=self.stride, name='conv2', **window)(y)
    y = relu(normalize(y, 'bn2'))
    y = Conv(width, 1, dtype=self.dtype, name='conv3')(y)
    y = normalize(y, 'bn3')
    if self.stride != 1 or x.shape[-1] != width:
      x = Conv(width, 1, stride=self.stride, dtype=self.dtype, name='downsample.0')(x)
      x = normalize(x, 'downsample.1')
    return relu(x + y)


class ResNet(nn.Module):
  """A ResNet up to a stage.

  Attributes:
    block: ``BasicBlock`` or ``Bottleneck``.
    depths: blocks of every stage that the network has.
    width: channels of the stem and of the first stage's 3x3 convolutions; doubles every stage.
    frozen_stages: k >= 1 gives the stem and the first k stages no gradient and leaves their
      statistics as they are; 0 trains everything.
    update_statistics: False normalises with the running statistics also in training.
    dtype: type of the computation.
    axis_name: device axis over which the batch is spread.
    deformable: 'v1' or 'v2' makes 3x3 convolutions deformable, None none.
    deformable_from: first stage in which they are.
    remat: computes the inside of every block again in the backward pass.
  """

  block: type[BasicBlock] | type[Bottleneck]
  depths: tuple[int, ...]
  width: int = 64
  frozen_stages: int = 0
  update_statistics: bool = True
  dtype: Any = jnp.float32
  axis_name: str | None = None
  deformable: str | None = None
  deformable_from: int = 2
  remat: bool = False

  @property
  def stage_features(self) -> tuple[int, ...]:
    """Channels of every map."""
    return tuple(self.width * 2**k * self.block.expansion for k in range(len(self.depths)))

  @nn.nowrap
  def frozen(self, path: tuple[str, ...]) -> bool:
    """Says whether the parameter at ``path`` gets no gradient."""
    stage = int(path[0][5]) if path[0].startswith('layer') else 1
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
    """Maps images to one feature map per stage.

    Args:
      x: [N, H, W, 3] normalised images.
      train: True normalises with the statistics of the batch.
      valid: [N] bool, images that count in the statistics. None counts all.
      tap: added to the last map, so that its gradient is the map's. None adds nothing.

    Returns:
      One [N, h, w, C] per stage, finest first.
    """

    def running(stage: int) -> bool:
      return not train or not self.update_statistics or stage <= self.frozen_stages

    norm = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name='bn1')
    x = Conv(self.width, 7, stride=2, padding=3, dtype=self.dtype, name='conv1')(x)
    x = nn.relu(norm(x, use_running_average=running(1), valid=valid))
    x = max_pool(x)
    maps = []
    for stage, depth in enumerate(self.depths, start=1):
      for index in range(depth):
        block = self.block(
          channels=self.width * 2 ** (stage - 1),
          stride=2 if stage > 1 and index == 0 else 1,
          deformable=self.deformable if stage >= self.deformable_from else None,
          axis_name=self.axis_name,
          dtype=self.dtype,
          name=f'layer{stage}.{index}',
        )
        # Frozen blocks keep nothing for a gradient.
        again = self.remat and stage > self.frozen_stages
        x = recomputed(block, x, when=again, running=running(stage), valid=valid)
      if stage <= self.frozen_stages:
        x = lax.stop_gradient(x)
      maps.append(x)
    if tap is not None:
      maps[-1] = maps[-1] + tap
    return tuple(maps)
