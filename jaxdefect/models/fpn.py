"""Feature pyramids: one width on every scale, and what coarse maps know on the fine ones too.

Shape legend: N images, h x w pixels of a map, C channels.

A pyramid takes the maps of a backbone (stage k at stride ``2**(k + 1)``, finest first) and gives
maps of the same strides, all with ``channels`` channels, followed by ``extra_levels`` maps of half
the resolution each.

Joining the path of a parameter of ``FPN`` with dots gives torchvision's key behind
``backbone.fpn.``, but for the last word (index 0 is the finest level)::

  inner_blocks.0.0 / kernel    inner_blocks.0.0.weight    1x1 from the backbone
  layer_blocks.0.0 / bias      layer_blocks.0.0.bias      3x3 on the sum

References:
  Lin et al., `Feature Pyramid Networks <https://arxiv.org/abs/1612.03144>`_; Xia & Long,
  section 3.3 (GS-FPN).
"""

from collections.abc import Callable, Sequence
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdefect.models.convolution import Conv
from jaxdefect.models.gsconv import Activation, GSConv, Norm, VoVGSCSP
from jaxdefect.models.normalization import BatchNorm

Maps = Sequence[jax.Array]

# Uniform with variance 1 / (kh kw C): nothing rectifies these layers.
unit_fan_in = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')


def pyramid_strides(stages: int, *, first_stage: int = 1, extra_levels: int = 1) -> tuple[int, ...]:
  """Strides of the maps of a pyramid in pixels of the image.

  Args:
    stages: stages that the backbone has.
    first_stage: finest stage that the pyramid uses.
    extra_levels: coarser maps on top.

  Returns:
    One stride per map, finest first.

  >>> pyramid_strides(4)
  (4, 8, 16, 32, 64)
  """
  return tuple(2 ** (level + 1) for level in range(first_stage, stages + extra_levels + 1))


def resize_nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Repeats pixels up to a size: pixel i of n comes from pixel floor(i m / n) of m, as in PyTorch.

  Args:
    x: [N, h, w, C].
    size: (H, W).

  Returns:
    [N, H, W, C].

  >>> resize_nearest(jnp.arange(2.0).reshape(1, 1, 2, 1), (1, 3))[0, 0, :, 0].tolist()
  [0.0, 0.0, 1.0]
  """
  n, height, width, channels = x.shape
  if (height, width) == tuple(-(-side // 2) for side in size):
    # What a stride of 2 leaves behind. The gradient of a repetition is a sum, that of a gather a
    # scatter.
    x = jnp.broadcast_to(x[:, :, None, :, None], (n, height, 2, width, 2, channels))
    x = x.reshape(n, 2 * height, 2 * width, channels)
    return x[:, : size[0], : size[1]]
  rows = np.arange(size[0]) * height // size[0]
  columns = np.arange(size[1]) * width // size[1]
  return x[:, rows][:, :, columns]


def top_down(laterals: Maps, fuse: Callable[[jax.Array, int], jax.Array]) -> list[jax.Array]:
  """Adds every map, resized, to the next finer one; ``fuse(sum, level)`` is what goes on down."""
  maps = [laterals[-1]]
  for level in reversed(range(len(laterals) - 1)):
    lateral = laterals[level]
    coarser = resize_nearest(maps[0], (lateral.shape[1], lateral.shape[2]))
    maps.insert(0, fuse(lateral + coarser, level))
  return maps


def add_levels(maps: list[jax.Array], extra_levels: int) -> tuple[jax.Array, ...]:
  """Appends maps of half the resolution: a max pool of one pixel at stride 2 is every second."""
  for _ in range(extra_levels):
    maps = [*maps, maps[-1][:, ::2, ::2]]
  return tuple(maps)


def used_maps(maps: Maps, first_stage: int) -> Maps:
  """The backbone's maps from ``first_stage`` on."""
  chex.assert_rank(list(maps), 4)
  if not 1 <= first_stage <= len(maps):
    raise ValueError(f'first_stage is {first_stage}; the backbone has the stages 1 to {len(maps)}.')
  return maps[first_stage - 1 :]


class FPN(nn.Module):
  """The feature pyramid of Faster R-CNN, interchangeable with torchvision's.

  1x1 convolutions to one width, added from coarse to fine (nearest pixel), 3x3 convolutions on the
  sums. All have a bias, none is normalised or rectified.

  Attributes:
    channels: channels of every map.
    first_stage: finest stage of the backbone that is used; 2 leaves the map of stride 4 out.
    extra_levels: number of stride-2 pooled maps on top of the coarsest one.
    dtype: type of the computation; parameters are float32.
  """

  channels: int = 256
  first_stage: int = 1
  extra_levels: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, maps: Maps, *, train: bool = False, valid: jax.Array | None = None
  ) -> tuple[jax.Array, ...]:
    """Makes the pyramid.

    Args:
      maps: [N, h, w, C] per stage of the backbone, finest first.
      train: changes nothing here, see ``GSFPN``.
      valid: changes nothing here.

    Returns:
      [N, h, w, channels] per level, finest first.

    Raises:
      ValueError: the backbone does not have ``first_stage``.
    """
    del train, valid
    maps = used_maps(maps, self.first_stage)

    def convolve(x: jax.Array, size: int, name: str) -> jax.Array:
      layer = Conv(
        self.channels,
        size,
        padding=size // 2,
        dtype=self.dtype,
        use_bias=True,
        kernel_init=unit_fan_in,
        name=name,
      )
      return layer(x)

    laterals = [convolve(x, 1, f'inner_blocks.{level}.0') for level, x in enumerate(maps)]
    summed = top_down(laterals, lambda x, level: x)
    outputs = [convolve(x, 3, f'layer_blocks.{level}.0') for level, x in enumerate(summed)]
    return add_levels(outputs, self.extra_levels)


class GSFPN(nn.Module):
  """The light pyramid: GSConv where ``FPN`` has 3x3 convolutions, VoV-GSCSP where maps are added.

  The 1x1 convolutions to one width stay (``inner_blocks.<level>.0``). What comes down is added as
  in ``FPN``, and a VoV-GSCSP (``fuse_blocks.<level>``) aggregates every sum before it goes further
  down; the coarsest map, on which nothing comes down, has none. A 3x3 GSConv
  (``layer_blocks.<level>``) makes the output. Maps have the shapes of ``FPN``'s.

  With 256 channels on the four stages of ResNet-50 it has 2.76 M parameters where ``FPN`` has
  3.34 M: 0.98 M of either are the 1x1 convolutions, so no neck can save the 11.5 M of the paper's
  table 2.

  Attributes:
    channels: channels of every map, a multiple of 8.
    first_stage, extra_levels: as of ``FPN``.
    blocks: GS bottlenecks in each VoV-GSCSP.
    shuffle, activation: as of ``GSConv``.
    norm: makes the normalisations, see ``gsconv.ConvNorm``.
    dtype: type of the computation; parameters and statistics are float32.
  """

  channels: int = 256
  first_stage: int = 1
  extra_levels: int = 1
  blocks: int = 1
  shuffle: str = 'interleave'
  activation: Activation | None = nn.silu
  norm: Norm = BatchNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, maps: Maps, *, train: bool = False, valid: jax.Array | None = None
  ) -> tuple[jax.Array, ...]:
    """Makes the pyramid.

    Args:
      maps: [N, h, w, C] per stage of the backbone, finest first.
      train: True normalises with the statistics of the batch.
      valid: [N] bool, images that count in the statistics. None counts all.

    Returns:
      [N, h, w, channels] per level, finest first.

    Raises:
      ValueError: the backbone does not have ``first_stage``, or channels is no multiple of 8.
    """
    maps = used_maps(maps, self.first_stage)
    settings: dict[str, Any] = {
      'shuffle': self.shuffle,
      'activation': self.activation,
      'norm': self.norm,
      'dtype': self.dtype,
    }

    def fuse(x: jax.Array, level: int) -> jax.Array:
      block = VoVGSCSP(self.channels, self.blocks, name=f'fuse_blocks.{level}', **settings)
      return block(x, running=not train, valid=valid)

    laterals, outputs = [], []
    for level, x in enumerate(maps):
      lateral = Conv(
        self.channels,
        1,
        dtype=self.dtype,
        use_bias=True,
        kernel_init=unit_fan_in,
        name=f'inner_blocks.{level}.0',
      )
      laterals.append(lateral(x))
    for level, x in enumerate(top_down(laterals, fuse)):
      block = GSConv(self.channels, 3, name=f'layer_blocks.{level}', **settings)
      outputs.append(block(x, running=not train, valid=valid))
    return add_levels(outputs, self.extra_levels)
