"""A two-stage detector: backbone, pyramid, region proposals, and a head on pooled regions.

Shape legend: N images, H x W pixels, A anchors, L pyramid maps, R regions per image,
F features of a region, K classes.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.backbone import Backbone
from jaxdefect.models.box_head import BoxPredictor, GSBoxHead, MLPBoxHead
from jaxdefect.models.fpn import FPN, GSFPN
from jaxdefect.models.normalization import BatchNorm, GroupNorm
from jaxdefect.models.rpn import RPNHead
from jaxdefect.ops import grid_anchors, multiscale_roi_align
from jaxdefect.ops.ordering import backward_in_order

POOL = 7


class BoxEmbedder(nn.Module):
  """What a prototype head needs of a region: an embedding, and one box for all classes.

  Attributes:
    features: size of the embedding.
    background: also say how little there is to see, as one more number behind the embedding.
    dtype: type of the computation.
  """

  features: int
  background: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[R, F] -> embeddings [R, features] (+ 1 with ``background``), box deltas [R, 4]."""

    def dense(features: int, deviation: float, name: str) -> jax.Array:
      init = nn.initializers.normal(deviation)
      return nn.Dense(features, dtype=self.dtype, kernel_init=init, name=name)(x)

    described = nn.Dense(self.features, dtype=self.dtype, name='embedding')(x)
    if self.background:
      described = jnp.concatenate([described, dense(1, 0.01, 'background')], axis=-1)
    return described, dense(4, 0.001, 'bbox_pred')


class Pyramid(NamedTuple):
  """What the first stage of a detector sees and says.

  Attributes:
    maps: L maps [N, h, w, C], finest first.
    objectness: [N, A] logits of the anchors, levels one after the other.
    deltas: [N, A, 4] encoded boxes.
    anchors: [A, 4] pixels.
    strides: L strides of the maps, pixels.
    level_sizes: L numbers of anchors.
  """

  maps: tuple[jax.Array, ...]
  objectness: jax.Array
  deltas: jax.Array
  anchors: jax.Array
  strides: tuple[int, ...]
  level_sizes: tuple[int, ...]


class Detector(nn.Module):
  """The forward passes of Faster R-CNN; what happens between them is the method's.

  Attributes:
    backbone: a module from ``models.backbone``.
    neck: ``FPN`` or ``GSFPN``.
    rpn: ``RPNHead``.
    box_head: ``MLPBoxHead`` or ``GSBoxHead``.
    predictor: ``BoxPredictor`` or ``BoxEmbedder``.
    anchor_sizes: one side per pyramid map, pixels.
    anchor_ratios: height / width.
    pooled_levels: from how many of the maps regions are pooled; the coarser ones only propose.
    frozen_norm: the backbone's BatchNorm keeps its scale and bias.
  """

  backbone: Backbone
  neck: FPN | GSFPN
  rpn: nn.Module
  box_head: nn.Module
  predictor: nn.Module
  anchor_sizes: tuple[float, ...]
  anchor_ratios: tuple[float, ...]
  pooled_levels: int
  frozen_norm: bool = False

  @nn.nowrap
  def frozen(self, path: tuple[str, ...]) -> bool:
    """Says whether the parameter at ``path`` gets no gradient."""
    if path[0] != 'backbone':
      return False
    # Squeeze-and-excitation, fc1 and fc2, has biases of its own.
    of_norm = path[-1] in ('scale', 'bias') and path[-2] not in ('fc1', 'fc2')
    return self.backbone.frozen(path[1:]) or (self.frozen_norm and of_norm)

  def pyramid(
    self, x: jax.Array, *, train: bool = False, valid: jax.Array | None = None
  ) -> Pyramid:
    """[N, H, W, 3] normalised images -> their ``Pyramid``."""
    stages = self.backbone(x, train=train, valid=valid)
    maps = self.neck(stages, train=train, valid=valid)
    if len(maps) != len(self.anchor_sizes):
      raise ValueError(
        f'anchor_sizes has {len(self.anchor_sizes)} entries for {len(maps)} pyramid maps'
      )
    # What is pooled is the larger branch: it is through before the smaller one is in memory.
    maps, (objectness, deltas) = backward_in_order(maps, self.rpn(maps))
    # Not from the sides of the maps, which are rounded up.
    strides = tuple(2 ** (self.neck.first_stage + 1 + level) for level in range(len(maps)))
    anchors = grid_anchors(
      [m.shape[1:3] for m in maps],
      strides=strides,
      sizes=self.anchor_sizes,
      ratios=self.anchor_ratios,
    )
    level_sizes = tuple(m.shape[1] * m.shape[2] * len(self.anchor_ratios) for m in maps)
    return Pyramid(maps, objectness, deltas, jnp.asarray(anchors), strides, level_sizes)

  def regions(
    self,
    pyramid: Pyramid,
    boxes: jax.Array,
    *,
    train: bool = False,
    valid: jax.Array | None = None,
  ) -> tuple[jax.Array, jax.Array]:
    """Describes regions of the images.

    Args:
      pyramid: of the images.
      boxes: [N, R, 4] pixels.
      train: True normalises with the statistics of the batch, where the box head has such.
      valid: [N, R] bool, regions that count in the statistics.

    Returns:
      Class logits or embeddings [N, R, F], and encoded boxes [N, R, 4 or 4 (K + 1)].
    """
    num, count = boxes.shape[:2]
    pooled = multiscale_roi_align(
      pyramid.maps[: self.pooled_levels],
      boxes.reshape(num * count, 4),
      jnp.repeat(jnp.arange(num, dtype=jnp.int32), count),
      output_size=POOL,
      strides=pyramid.strides[: self.pooled_levels],
    )  # [N*R, 7, 7, C]
    counts = None if valid is None else valid.reshape(-1)
    described, deltas = self.predictor(self.box_head(pooled, train=train, valid=counts))
    return described.reshape(num, count, -1), deltas.reshape(num, count, -1)

  def __call__(self, x: jax.Array):
    """Every part once, on one region per image; for ``init``."""
    pyramid = self.pyramid(x)
    return pyramid.objectness, self.regions(pyramid, jnp.zeros((x.shape[0], 1, 4)))


def detector(
  num_classes: int,
  *,
  backbone: Backbone,
  neck: str = 'fpn',
  neck_channels: int = 256,
  first_stage: int = 1,
  extra_levels: int = 1,
  anchor_sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0),
  anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
  box_head: str = 'mlp',
  head_width: int = 1024,
  norm: str = 'batch',
  embedding: int | None = None,
  background: bool = False,
  frozen_norm: bool = False,
  dtype: Any = jnp.float32,
  axis_name: str | None = None,
) -> Detector:
  """Makes a detector by the names of its parts.

  Args:
    num_classes: K, without the background.
    backbone: a module from ``models.backbone``.
    neck: ``'fpn'`` or ``'gs_fpn'``.
    neck_channels: channels of every pyramid map.
    first_stage: stage of the finest pyramid map.
    extra_levels: coarser maps by pooling.
    anchor_sizes: one side per pyramid map, pixels of the network's image.
    anchor_ratios: height / width.
    box_head: ``'mlp'`` (two dense layers) or ``'gs'`` (GSConv and pooling).
    head_width: width of the dense layers.
    norm: normalisation in the GS neck and head, ``'batch'`` or ``'group'``.
    embedding: size of the embedding of a prototype head; None classifies with a linear layer.
    background: of a ``BoxEmbedder``.
    frozen_norm: the backbone's BatchNorm keeps its scale and bias, as torchvision's detectors have
      it. Wrong for weights that have BatchNorm folded in: their convolutions' biases are there.
    dtype: type of the computation.
    axis_name: device axis over which the batch is spread.

  Returns:
    The ``Detector``.

  Raises:
    ValueError: an unknown part.
  """
  norms = {'batch': functools.partial(BatchNorm, axis_name=axis_name), 'group': GroupNorm}
  if norm not in norms:
    raise ValueError(f'norm is {norm!r}; it can be {", ".join(norms)}')
  pyramid: dict[str, Any] = {
    'channels': neck_channels,
    'first_stage': first_stage,
    'extra_levels': extra_levels,
    'dtype': dtype,
  }
  necks = {'fpn': lambda: FPN(**pyramid), 'gs_fpn': lambda: GSFPN(**pyramid, norm=norms[norm])}
  heads = {
    'mlp': lambda: MLPBoxHead(width=head_width, dtype=dtype),
    'gs': lambda: GSBoxHead(norm=norms[norm], dtype=dtype),
  }
  for name, value, parts in (('neck', neck, necks), ('box_head', box_head, heads)):
    if value not in parts:
      raise ValueError(f'{name} is {value!r}; it can be {", ".join(parts)}')
  return Detector(
    backbone=backbone,
    neck=necks[neck](),
    rpn=RPNHead(len(anchor_ratios), dtype=dtype),
    box_head=heads[box_head](),
    predictor=BoxPredictor(num_classes, class_agnostic=False, dtype=dtype)
    if embedding is None
    else BoxEmbedder(embedding, background=background, dtype=dtype),
    anchor_sizes=tuple(anchor_sizes),
    anchor_ratios=tuple(anchor_ratios),
    pooled_levels=len(anchor_sizes) - extra_levels,
    frozen_norm=frozen_norm,
  )


def sampling_offsets(module: Detector, variables: Any, x: jax.Array, layer: str) -> jax.Array:
  """Where a deformable convolution of the backbone looks.

  Args:
    module: a detector with a deformable backbone.
    variables: its variables.
    x: [N, H, W, 3] normalised images.
    layer: path of the convolution in the backbone, for example ``'layer3.1/conv2'``.

  Returns:
    Offsets [N, h, w, 2*G*kh*kw], ordered group, row, column, (y, x), in cells of its input.

  Raises:
    ValueError: there is no deformable convolution of that name.
  """
  _, sown = module.apply(variables, x, method='pyramid', mutable=['intermediates'])
  found: Any = sown['intermediates']['backbone']
  for name in layer.split('/'):
    if name not in found:
      raise ValueError(f'layer is {layer!r}, but {name!r} is none of {", ".join(sorted(found))}')
    found = found[name]
  return found['offsets'][0]
