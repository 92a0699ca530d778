"""A single-stage detector of the YOLOv8 class: anchor-free, with decoupled heads.

Shape legend: N images, H x W pixels, A cells of all levels, K classes, B bins of a distance.

    image -> CSPBackbone (strides 8, 16, 32) -> PANNeck (down, then up again) -> YoloHead -> boxes

Every cell of a level predicts one box: the distances from the cell's centre to the four edges, in
cells, each as the mean of a distribution over 0, ..., B - 1 (Generalized Focal Loss, equation 5),
and the probability of every class. No cell says whether there is an object: with soft targets the
classes do.

Written from the papers; channels, depths and widths of the heads are those that the published
YOLOv8 models are known to have, so that ``width`` 0.25 and ``depth`` 1/3 give the size of its 'n'
(3.16 M parameters with 80 classes) and ``width`` 0.5 that of its 's' (11.17 M). Joining the path of
a parameter with dots gives the key of the PyTorch twin, but for the last word; no published
checkpoint has these names.

References:
  Wang et al., `CSPNet <https://arxiv.org/abs/1911.11929>`_; Liu et al., `Path Aggregation Network
  <https://arxiv.org/abs/1803.01534>`_, section 3.1; Ge et al., `YOLOX
  <https://arxiv.org/abs/2107.08430>`_, section 2.1 (decoupled, anchor-free heads); Li et al.,
  `Generalized Focal Loss <https://arxiv.org/abs/2006.04388>`_.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdefect.models.csp import CSPBlock, PyramidPool
from jaxdefect.models.fpn import Maps, resize_nearest
from jaxdefect.models.gsconv import ConvNorm, Norm
from jaxdefect.models.normalization import BatchNorm

STRIDES = (8, 16, 32)
_CHANNELS = (64, 128, 256, 512, 1024)  # of the stem and the four stages at width 1
_BLOCKS = (3, 6, 6, 3)  # of the four stages at depth 1
_PRIOR = 0.01  # of every class in every cell, before training (Focal Loss, section 3.3)


class YoloOutputs(NamedTuple):
  """What the cells of all levels say, finest level first, row by row.

  Attributes:
    logits: [N, A, K] of independent classes, float32 or wider.
    bins: [N, A, 4, B] logits of the distances to the edges (x0, y0, x1, y1), float32 or wider.
    boxes: [N, A, 4] pixels, not clipped to the image.
    centres: [A, 2] (x, y) of the cells, pixels.
    strides: [A] pixels per cell.
  """

  logits: jax.Array
  bins: jax.Array
  boxes: jax.Array
  centres: jax.Array
  strides: jax.Array


class CSPBackbone(nn.Module):
  """A stem and four stages of a stride-2 convolution (``down<k>``) and a CSP block (``stage<k>``).

  Attributes:
    channels: of the stem and the four stages.
    blocks: bottlenecks of the four stages.
    norm: makes the normalisations.
    dtype: type of the computation.
  """

  channels: tuple[int, ...]
  blocks: tuple[int, ...]
  norm: Norm = BatchNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, *, running: bool, valid: jax.Array | None = None
  ) -> tuple[jax.Array, ...]:
    """[N, H, W, 3] -> maps of strides 8, 16 and 32, the last one pooled (``pool``)."""
    settings: dict[str, Any] = {'norm': self.norm, 'dtype': self.dtype}
    state: dict[str, Any] = {'running': running, 'valid': valid}
    x = ConvNorm(self.channels[0], 3, 2, name='stem', **settings)(x, **state)
    maps = []
    for stage, (features, blocks) in enumerate(zip(self.channels[1:], self.blocks), 1):
      x = ConvNorm(features, 3, 2, name=f'down{stage}', **settings)(x, **state)
      x = CSPBlock(features, blocks, name=f'stage{stage}', **settings)(x, **state)
      maps.append(x)
    maps[-1] = PyramidPool(self.channels[-1], name='pool', **settings)(maps[-1], **state)
    return tuple(maps[1:])


class PANNeck(nn.Module):
  """What coarse maps know goes down to the fine ones, then what fine ones know up again.

  PANet adds maps; here they are concatenated, and a CSP block without shortcuts mixes them:
  ``top_down.<level>`` on the way down, ``bottom_up.<level - 1>`` behind the stride-2 convolution
  ``reduce.<level - 1>`` on the way up (level 0 is the finest). Every map keeps the channels that it
  comes with.

  Attributes:
    blocks: bottlenecks of every CSP block.
    norm: makes the normalisations.
    dtype: type of the computation.
  """

  blocks: int
  norm: Norm = BatchNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, maps: Maps, *, running: bool, valid: jax.Array | None = None
  ) -> tuple[jax.Array, ...]:
    """[N, h, w, C] per level, finest first -> maps of the same shapes."""
    settings: dict[str, Any] = {'norm': self.norm, 'dtype': self.dtype}
    state: dict[str, Any] = {'running': running, 'valid': valid}

    def mixed(parts: Sequence[jax.Array], features: int, name: str) -> jax.Array:
      block = CSPBlock(features, self.blocks, shortcut=False, name=name, **settings)
      return block(jnp.concatenate(parts, axis=-1), **state)

    down = [maps[-1]]
    for level in reversed(range(len(maps) - 1)):
      fine = maps[level]
      coarse = resize_nearest(down[0], (fine.shape[1], fine.shape[2]))
      down.insert(0, mixed((coarse, fine), fine.shape[-1], f'top_down.{level}'))
    up = [down[0]]
    for level in range(1, len(maps)):
      shrink = ConvNorm(up[-1].shape[-1], 3, 2, name=f'reduce.{level - 1}', **settings)
      parts = (shrink(up[-1], **state), down[level])
      up.append(mixed(parts, maps[level].shape[-1], f'bottom_up.{level - 1}'))
    return tuple(up)


class YoloHead(nn.Module):
  """Classes and boxes by ways of their own, on every level with weights of its own.

  Each way is two 3x3 convolutions and a 1x1 one with bias: ``cls.<level>.<0, 1, 2>`` and
  ``box.<level>.<0, 1, 2>``. Their widths follow from the channels of the finest map, C: the
  larger of C and K (100 at most) for the classes, the largest of C / 4, 4 B and 16 for the boxes.

  Attributes:
    num_classes: K.
    num_bins: B.
    norm: makes the normalisations.
    dtype: type of the convolutions; what comes out is float32 at least.
  """

  num_classes: int
  num_bins: int
  norm: Norm = BatchNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, maps: Maps, *, running: bool, valid: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """[N, h, w, C] per level -> logits [N, A, K] of the classes and [N, A, 4, B] of the bins."""
    finest = maps[0].shape[-1]
    prior = nn.initializers.constant(-math.log((1 - _PRIOR) / _PRIOR))
    ways = {
      'cls': (max(finest, min(self.num_classes, 100)), self.num_classes, prior),
      'box': (max(finest // 4, 4 * self.num_bins, 16), 4 * self.num_bins, nn.initializers.zeros),
    }
    said = {}
    for way, (width, outputs, bias) in ways.items():
      levels = []
      for level, x in enumerate(maps):
        for place in (0, 1):
          name = f'{way}.{level}.{place}'
          layer = ConvNorm(width, 3, norm=self.norm, dtype=self.dtype, name=name)
          x = layer(x, running=running, valid=valid)
        start: dict[str, Any] = {'kernel_init': nn.initializers.normal(0.01), 'bias_init': bias}
        last = nn.Conv(outputs, (1, 1), dtype=self.dtype, name=f'{way}.{level}.2', **start)
        x = last(x)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        levels.append(x.reshape(x.shape[0], x.shape[1] * x.shape[2], outputs))
      said[way] = jnp.concatenate(levels, axis=1)
    bins = said['box']
    return said['cls'], bins.reshape(*bins.shape[:2], 4, self.num_bins)


class Yolo(nn.Module):
  """The whole network: ``backbone``, ``neck`` and ``head``.

  Attributes:
    num_classes: K.
    width: factor on the channels, each of which is then rounded up to a multiple of 8.
    depth: factor on the numbers of bottlenecks, each of which is then rounded, to 1 at least.
    num_bins: B; a distance is at most B - 1 cells.
    dtype: type of the convolutions; boxes and logits are float32 at least.
    axis_name: device axis over which the batch is spread.
  """

  num_classes: int
  width: float = 0.25
  depth: float = 1 / 3
  num_bins: int = 16
  dtype: Any = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False, valid: jax.Array | None = None
  ) -> YoloOutputs:
    """Predicts a box in every cell.

    Args:
      x: [N, H, W, 3] normalised images.
      train: True normalises with the statistics of the batch.
      valid: [N] bool, images that count in the statistics. None counts all.

    Returns:
      ``YoloOutputs``.

    Raises:
      ValueError: width, depth or num_bins is too small.
    """
    chex.assert_shape(x, (None, None, None, 3))
    if not (self.width > 0 and self.depth > 0 and self.num_bins > 1):
      raise ValueError(
        f'width is {self.width}, depth {self.depth} and num_bins {self.num_bins}; the first two '
        'must be above 0 and the last above 1'
      )
    # PyTorch's conventions: a momentum of 0.03 on the new values, and this epsilon.
    norm = functools.partial(BatchNorm, momentum=0.97, epsilon=1e-3, axis_name=self.axis_name)
    settings: dict[str, Any] = {'norm': norm, 'dtype': self.dtype}
    state: dict[str, Any] = {'running': not train, 'valid': valid}
    channels = tuple(8 * math.ceil(number * self.width / 8) for number in _CHANNELS)
    blocks = tuple(max(1, round(number * self.depth)) for number in _BLOCKS)
    maps = CSPBackbone(channels, blocks, name='backbone', **settings)(x, **state)
    maps = PANNeck(blocks[0], name='neck', **settings)(maps, **state)
    logits, bins = YoloHead(self.num_classes, self.num_bins, name='head', **settings)(maps, **state)
    centres, strides = cell_centres([(m.shape[1], m.shape[2]) for m in maps])
    boxes = boxes_from_bins(bins, jnp.asarray(centres), jnp.asarray(strides))
    return YoloOutputs(logits, bins, boxes, jnp.asarray(centres), jnp.asarray(strides))


def cell_centres(sizes: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
  """Where the cells of the levels lie; known before tracing.

  Args:
    sizes: (h, w) of every level, in the order of ``STRIDES``.

  Returns:
    [A, 2] float32 centres (x, y) in pixels and [A] float32 pixels per cell.

  >>> cell_centres([(1, 2), (1, 1)])[0].tolist()
  [[4.0, 4.0], [12.0, 4.0], [8.0, 8.0]]
  """
  centres, strides = [], []
  for (height, width), stride in zip(sizes, STRIDES):
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    centres.append(np.stack([x, y], axis=-1).reshape(-1, 2) * stride)
    strides.append(np.full(height * width, stride))
  return np.concatenate(centres).astype(np.float32), np.concatenate(strides).astype(np.float32)


def boxes_from_bins(bins: jax.Array, centres: jax.Array, strides: jax.Array) -> jax.Array:
  r"""Boxes from the distributions of their edges' distances (Generalized Focal Loss, equation 5).

  .. math:: d = \sum_{i=0}^{B-1} i\, \mathrm{softmax}(b)_i

  Args:
    bins: [..., A, 4, B] logits of the distances from a centre to (x0, y0, x1, y1), in cells.
    centres: [A, 2] (x, y), pixels.
    strides: [A] pixels per cell.

  Returns:
    [..., A, 4] pixels.

  >>> sure = 50 * jax.nn.one_hot(jnp.array([[1, 0, 2, 1]]), 3)
  >>> boxes_from_bins(sure, jnp.array([[12.0, 4.0]]), jnp.array([8.0])).tolist()
  [[4.0, 4.0, 28.0, 12.0]]
  """
  places = jnp.arange(bins.shape[-1], dtype=bins.dtype)
  distances = (nn.softmax(bins) * places).sum(-1) * strides[:, None]  # [..., A, 4] pixels
  low = centres - distances[..., :2]
  high = centres + distances[..., 2:]
  return jnp.concatenate([low, high], axis=-1)
