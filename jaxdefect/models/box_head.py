"""What happens to one region: features of its pooled map, and class and box from these.

Shape legend: R regions, S x S cells of a pooled region, C channels, F features, K classes.

Joining the path of a parameter with dots gives torchvision's key, but for the last word: ``fc6``
and ``fc7`` behind ``roi_heads.box_head.``, ``cls_score`` and ``bbox_pred`` behind
``roi_heads.box_predictor.``. Pooled maps are flattened as (channel, row, column), which is the
order of PyTorch's ``flatten`` and so that of ``fc6``'s weights.

Parameters on 256 channels and 7x7 cells: ``MLPBoxHead`` 13.90 M, ``GSBoxHead`` 0.60 M. A Faster
R-CNN on ResNet-50 with 6 classes has 41.32 M, counted as torchvision does (the backbone's
BatchNorm is fixed and not counted), and 27.4 M with ``GSFPN`` and ``GSBoxHead``: the box head, not
the neck, is where the parameters are.

References:
  Ren et al., `Faster R-CNN <https://arxiv.org/abs/1506.01497>`_; Girshick, `Fast R-CNN
  <https://arxiv.org/abs/1504.08083>`_ (initial values of the last layers); Xia & Long, table 2.
"""

from collections.abc import Sequence
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.gsconv import Activation, GSConv, Norm
from jaxdefect.models.normalization import BatchNorm
from jaxdefect.models.pooling import cell_slices


class MLPBoxHead(nn.Module):
  """Two dense layers with ReLU, torchvision's ``TwoMLPHead``.

  Attributes:
    width: F, neurons of either layer.
    dtype: type of the computation; parameters are float32.
  """

  width: int = 1024
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False, valid: jax.Array | None = None
  ) -> jax.Array:
    """[R, S, S, C] pooled regions -> [R, F]; train and valid change nothing here."""
    del train, valid
    chex.assert_rank(x, 4)
    x = flatten(x)
    x = nn.relu(nn.Dense(self.width, dtype=self.dtype, name='fc6')(x))
    return nn.relu(nn.Dense(self.width, dtype=self.dtype, name='fc7')(x))


class GSBoxHead(nn.Module):
  """GSConvs and a mean pool, in place of the two wide dense layers.

  The first 3x3 GSConv (``convs.0``) has stride 2, the others (``convs.1``, ...) keep the size.
  Means over ``cells`` x ``cells`` parts, and not over the whole region, are the features: a box can
  only be corrected by what still knows on which side something lies.

  The paper does not describe a light box head, but its table 2 needs one, see the top of this file.

  Attributes:
    channels: output channels of every GSConv, even.
    cells: rows and columns of the pooled grid; 1 is the mean over the region.
    shuffle, activation: as of ``GSConv``.
    norm: makes the normalisations, see ``gsconv.ConvNorm``.
    dtype: type of the computation; parameters and statistics are float32.
  """

  channels: Sequence[int] = (256, 256)
  cells: int = 2
  shuffle: str = 'interleave'
  activation: Activation | None = nn.silu
  norm: Norm = BatchNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False, valid: jax.Array | None = None
  ) -> jax.Array:
    """Makes features of regions.

    Args:
      x: [R, S, S, C] pooled regions.
      train: True normalises with the statistics of the batch.
      valid: [R] bool, regions that count in the statistics. None counts all.

    Returns:
      [R, cells * cells * channels[-1]].

    Raises:
      ValueError: no channels, an odd number of them, or more cells than there are pixels.
    """
    chex.assert_rank(x, 4)
    if not self.channels:
      raise ValueError('channels is empty; GSBoxHead needs one number per GSConv.')
    for index, features in enumerate(self.channels):
      layer = GSConv(
        features,
        3,
        stride=2 if index == 0 else 1,
        shuffle=self.shuffle,
        activation=self.activation,
        norm=self.norm,
        dtype=self.dtype,
        name=f'convs.{index}',
      )
      x = layer(x, running=not train, valid=valid)
    return flatten(mean_of_cells(x, self.cells))


class BoxPredictor(nn.Module):
  """Class logits and box deltas of regions, torchvision's ``FastRCNNPredictor``.

  Attributes:
    num_classes: K, without background. None makes no ``cls_score`` and the logits are None, for a
      classifier of another kind; the deltas are class-agnostic then.
    class_agnostic: one box per region instead of one per class; a class that is added without
      training has no box regressor of its own.
    dtype: type of the dense layers; parameters are float32, and so are the outputs, at least.
  """

  num_classes: int | None
  class_agnostic: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array | None, jax.Array]:
    """Classifies and corrects.

    Args:
      x: [R, F] features.

    Returns:
      logits [R, K + 1], 0 is background and class c is c + 1; deltas [R, 4], or [R, (K + 1) * 4]
      with the four of a class (dx, dy, dw, dh) side by side.
    """
    chex.assert_rank(x, 2)
    wide = jnp.promote_types(self.dtype, jnp.float32)

    def dense(features: int, deviation: float, name: str) -> jax.Array:
      init = nn.initializers.normal(deviation)
      return nn.Dense(features, dtype=self.dtype, kernel_init=init, name=name)(x).astype(wide)

    logits, boxes = None, 1
    if self.num_classes is not None:
      logits = dense(self.num_classes + 1, 0.01, 'cls_score')
      boxes = 1 if self.class_agnostic else self.num_classes + 1
    return logits, dense(4 * boxes, 0.001, 'bbox_pred')


def flatten(x: jax.Array) -> jax.Array:
  """[R, S, S, C] -> [R, C S S], channel by channel as PyTorch does."""
  regions, height, width, channels = x.shape
  return x.transpose(0, 3, 1, 2).reshape(regions, channels * height * width)


def mean_of_cells(x: jax.Array, cells: int) -> jax.Array:
  """Means over a grid of parts; parts share a row or column where they do not divide the map.

  Part i of n covers the pixels from floor(i m / n) up to ceil((i + 1) m / n), as in PyTorch's
  adaptive pooling.

  Args:
    x: [R, H, W, C].
    cells: rows and columns of the grid, no more than H and W.

  Returns:
    [R, cells, cells, C] in the type of ``x``, summed in at least float32.

  Raises:
    ValueError: more cells than there are pixels.

  >>> mean_of_cells(jnp.arange(3.0).reshape(1, 1, 3, 1).repeat(3, axis=1), 2)[0, 0, :, 0].tolist()
  [0.5, 1.5]
  """
  height, width = x.shape[1:3]
  if not 1 <= cells <= min(height, width):
    raise ValueError(f'cells is {cells}; a map of {height}x{width} has 1 to {min(height, width)}.')

  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  rows = [
    jnp.stack(
      [jnp.mean(wide[:, row, column], axis=(1, 2)) for column in cell_slices(width, cells)], axis=1
    )
    for row in cell_slices(height, cells)
  ]
  return jnp.stack(rows, axis=1).astype(x.dtype)
