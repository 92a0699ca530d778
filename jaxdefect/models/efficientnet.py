"""EfficientNet-B0 and B3, interchangeable with torchvision's ``efficientnet_b0`` and ``_b3``.

Shape legend: N images, H x W pixels, C channels.

Joining the path of a parameter with dots gives torchvision's key, but for the last word::

  params       features.0.0 / kernel                  features.0.0.weight
  params       features.1.0 / block.0.1 / scale       features.1.0.block.0.1.weight
  params       features.2.0 / block.2 / fc1 / bias    features.2.0.block.2.fc1.bias
  batch_stats  features.2.0 / block.3.1 / var         features.2.0.block.3.1.running_var

``features.0`` is the stem, ``features.1`` to ``features.7`` are the rows of the paper's table. In a
block ``block.0`` expands, ``block.1`` is depthwise, ``block.2`` weighs the channels and ``block.3``
projects. Blocks of ``features.1`` do not expand, so that everything there is one number lower.

Stages end where the resolution halves, as in a ResNet: stage k has stride ``2**(k + 1)``.

=====  ==============================  ====  ====
stage  ends with                         B0    B3
=====  ==============================  ====  ====
1      ``features.2``                    24    32
2      ``features.3``                    40    48
3      ``features.5``                   112   136
4      ``features.8``, 1x1 and SiLU    1280  1536
=====  ==============================  ====  ====

Maps of stages 1 to 3 are linear. Stochastic depth and dropout are left out: randomness is drawn by
key and example here, and a backbone is called with neither. Both are for training alone and hold
no parameters, so that the same file computes the same numbers.

Reference:
  Tan, Le, `EfficientNet <https://arxiv.org/abs/1905.11946>`_, table 1 and equation 3.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.models.convolution import Conv
from jaxdefect.models.normalization import BatchNorm
from jaxdefect.models.pooling import global_average_pool
from jaxdefect.models.recomputation import recomputed

# (expansion, window, stride, channels, blocks) of features.1 to features.7 at width and depth 1.
ROWS = (
  (1, 3, 1, 16, 1),
  (6, 3, 2, 24, 2),
  (6, 5, 2, 40, 2),
  (6, 3, 2, 80, 3),
  (6, 5, 1, 112, 3),
  (6, 5, 2, 192, 4),
  (6, 3, 1, 320, 1),
)
LAST_ROWS = (2, 3, 5, 7)
STEM_CHANNELS = 32


def scaled_channels(channels: int, width: float) -> int:
  """The multiple of 8 nearest to ``channels * width``, but at least 8 and 90 % of it.

  >>> [scaled_channels(channels, 1.2) for channels in (16, 32, 112)]
  [24, 40, 136]
  """
  wanted = channels * width
  rounded = max(8, math.floor(wanted / 8 + 0.5) * 8)
  return rounded if rounded >= 0.9 * wanted else rounded + 8


class SqueezeExcitation(nn.Module):
  r"""Channels weighed by what the whole image holds.

  .. math:: y = x \cdot \sigma\bigl(W_2\, \mathrm{SiLU}(W_1 \bar x + b_1) + b_2\bigr)

  with the mean :math:`\bar x` over all pixels of an image.

  Attributes:
    channels: rows of :math:`W_1` (``fc1``).
    dtype: type of the computation; the mean is in float32 at least.

  Reference:
    Hu et al., `Squeeze-and-Excitation Networks <https://arxiv.org/abs/1709.01507>`_, section 3.
  """

  channels: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[N, H, W, C] -> [N, H, W, C]."""
    y = global_average_pool(x)[:, None, None]  # [N, 1, 1, C]
    y = nn.silu(Conv(self.channels, 1, dtype=self.dtype, use_bias=True, name='fc1')(y))
    y = Conv(x.shape[-1], 1, dtype=self.dtype, use_bias=True, name='fc2')(y)
    return x * nn.sigmoid(y)


class MBConv(nn.Module):
  """1x1 expansion (unless it is 1), depthwise convolution, squeeze-excitation and linear 1x1
  projection, with a skip where shapes agree."""

  channels: int
  window: int
  stride: int
  expansion: int
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """[N, H, W, C] -> [N, H/stride, W/stride, channels]."""

    def layer(y: jax.Array, place: int, features: int, size: int, stride: int, groups: int):
      name = f'block.{place}'
      y = Conv(features, size, stride, size // 2, groups, dtype=self.dtype, name=f'{name}.0')(y)
      module = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=f'{name}.1')
      return module(y, use_running_average=running, valid=valid)

    inputs = x.shape[-1]
    width = inputs * self.expansion
    y, place = x, 0
    if self.expansion != 1:
      y, place = nn.silu(layer(y, 0, width, 1, 1, 1)), 1
    y = nn.silu(layer(y, place, width, self.window, self.stride, width))
    squeezed = max(1, inputs // 4)  # a quarter of what comes in, not of what it is expanded to
    y = SqueezeExcitation(squeezed, dtype=self.dtype, name=f'block.{place + 1}')(y)
    y = layer(y, place + 2, self.channels, 1, 1, 1)
    return x + y if self.stride == 1 and inputs == self.channels else y


class EfficientNet(nn.Module):
  """An EfficientNet up to a stage.

  Attributes:
    width: factor on the channels of B0, see ``scaled_channels``; 1.2 in B3.
    depth: factor on the blocks of B0, rounded up; 1.4 in B3.
    stages: how many of the four stages there are.
    frozen_stages: as of ``ResNet``, and so are the other attributes.
  """

  width: float = 1.0
  depth: float = 1.0
  stages: int = 4
  frozen_stages: int = 0
  update_statistics: bool = True
  dtype: Any = jnp.float32
  axis_name: str | None = None
  remat: bool = False

  @property
  def stage_features(self) -> tuple[int, ...]:
    """Channels of every map."""
    features = [scaled_channels(ROWS[last - 1][3], self.width) for last in LAST_ROWS]
    features[3] *= 4  # the last 1x1 convolution
    return tuple(features[: self.stages])

  @nn.nowrap
  def frozen(self, path: tuple[str, ...]) -> bool:
    """Says whether the parameter at ``path`` gets no gradient."""
    return int(path[0].split('.')[1]) <= (-1, 2, 3, 5, 8)[self.frozen_stages]

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

    def layer(y: jax.Array, place: int, features: int, size: int, stride: int, stage: int):
      name = f'features.{place}'
      y = Conv(features, size, stride, size // 2, dtype=self.dtype, name=f'{name}.0')(y)
      module = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=f'{name}.1')
      return nn.silu(module(y, use_running_average=running(stage), valid=valid))

    x = layer(x, 0, scaled_channels(STEM_CHANNELS, self.width), 3, 2, 1)
    maps, stage = [], 1
    for place, row in enumerate(ROWS[: LAST_ROWS[self.stages - 1]], start=1):
      expansion, window, stride, channels, blocks = row
      for index in range(math.ceil(blocks * self.depth)):
        block = MBConv(
          channels=scaled_channels(channels, self.width),
          window=window,
          stride=stride if index == 0 else 1,
          expansion=expansion,
          axis_name=self.axis_name,
          dtype=self.dtype,
          name=f'features.{place}.{index}',
        )
        again = self.remat and stage > self.frozen_stages
        x = recomputed(block, x, when=again, running=running(stage), valid=valid)
      if place == LAST_ROWS[stage - 1]:
        if stage == 4:
          x = layer(x, 8, self.stage_features[3], 1, 1, 4)
        if stage <= self.frozen_stages:
          x = lax.stop_gradient(x)
        maps.append(x)
        stage += 1
    if tap is not None:
      maps[-1] = maps[-1] + tap
    return tuple(maps)
