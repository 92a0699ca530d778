"""MeDetection's network: what differs from a defect-free picture, to one logit.

Shape legend: N images, R references, H x W pixels, h x w cells of the map, C channels.

Joining the path of a parameter with dots gives the key of its PyTorch twin
(``convert.twins.medetection``), but for the last word: ``stem.conv.0``, ``body.attention.0.conv1``,
``fc``. With ``stem='vgg'`` there are 1.84 M parameters, as in the authors' code.

Reference:
  Zhang et al. 2023, figure 2; the pooling is that of the authors' code, as the paper names none.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.conv4 import Conv4
from jaxdefect.models.normalization import BatchNorm, GroupNorm
from jaxdefect.models.pooling import cell_slices, global_average_pool
from jaxdefect.models.siamese import SiameseStem, VGGStem, difference, enlarge

LEVELS = (4, 2, 1)  # cells per side of the pyramid
POOLS = ('pyramid', 'mean')


class MeDetectionOutputs(NamedTuple):
  """What the network makes of a batch.

  Attributes:
    logit: [N] float32, how likely each image is a defect.
    feature_map: [N, h, w, C], what is pooled and classified.
  """

  logit: jax.Array
  feature_map: jax.Array


def pyramid_max_pool(x: jax.Array) -> jax.Array:
  """Largest values of 4x4, 2x2 and 1x1 cells, one after the other.

  Cell i of n covers the pixels from floor(i m / n) up to ceil((i + 1) m / n), as in PyTorch's
  adaptive pooling, so a map may have any size. Within a level the order is (channel, row, column),
  that of PyTorch's ``flatten``.

  Args:
    x: [N, h, w, C].

  Returns:
    [N, 21 C].

  >>> pyramid_max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, 16:].tolist()
  [5.0, 7.0, 13.0, 15.0, 15.0]
  """
  chex.assert_rank(x, 4)
  n, height, width, channels = x.shape

  levels = []
  for cells in LEVELS:
    rows = [
      jnp.stack([x[:, row, column].max((1, 2)) for column in cell_slices(width, cells)], axis=-1)
      for row in cell_slices(height, cells)
    ]
    levels.append(jnp.stack(rows, axis=-2).reshape(n, channels * cells * cells))
  return jnp.concatenate(levels, axis=1)


class MeDetection(nn.Module):
  """Stem on images and references, their difference, 4Conv, a pool and one linear layer ``fc``.

  The head starts at zero, so that the first step of an inner loop decides where it points, and not
  chance.

  Attributes:
    stem: ``SiameseStem`` or ``VGGStem``.
    body: ``Conv4``.
    pool: ``'pyramid'`` or ``'mean'``.
    siamese: False hands the features of the images on as they are (Table 5, -SN).
    nearest: compares with so many of the references, the nearest ones; None with all, see
      ``siamese.difference``.
  """

  stem: SiameseStem | VGGStem
  body: Conv4
  pool: str = 'pyramid'
  siamese: bool = True
  nearest: int | None = None

  @nn.compact
  def __call__(
    self,
    image: jax.Array,
    reference: jax.Array | None,
    *,
    train: bool = False,
    valid: jax.Array | None = None,
    tap: jax.Array | None = None,
  ) -> MeDetectionOutputs:
    """Scores images.

    Every picture, image or reference, counts once in the statistics of the stem: references of an
    image where it counts, shared references where any image does. So the difference of equal
    pictures is zero, whatever the weights.

    Args:
      image: [N, H, W, 3] normalised images.
      reference: [N, R, H, W, 3] normalised defect-free pictures of every image's product, or
        [R, H, W, 3] shared by all images, which pass the stem once. Not read, and may be None,
        where ``siamese`` is False.
      train: True normalises with the statistics of the batch.
      valid: [N] bool, images that count in the statistics; the others are normalised by those that
        do (a query set by the support set, say). None counts all.
      tap: added to the feature map, so that its gradient is the map's. None adds nothing.

    Returns:
      ``MeDetectionOutputs``.

    Raises:
      ValueError: an unknown pool, or references that are missing or do not fit the images.
    """
    chex.assert_rank(image, 4)
    if self.pool not in POOLS:
      raise ValueError(f'pool is {self.pool!r}; it can be {", ".join(POOLS)}.')
    running = not train
    if self.siamese:
      x = self._apart(image, reference, running, valid)
    else:
      x = self.stem(image, running=running, valid=valid)
    x = self.body(enlarge(x, self.stem.enlargement), running=running, valid=valid)
    if tap is not None:
      x = x + tap
    features = pyramid_max_pool(x) if self.pool == 'pyramid' else global_average_pool(x)
    features = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    head = nn.Dense(1, dtype=features.dtype, kernel_init=nn.initializers.zeros, name='fc')
    return MeDetectionOutputs(head(features)[:, 0], x)

  def _apart(
    self,
    image: jax.Array,
    reference: jax.Array | None,
    running: bool,
    valid: jax.Array | None,
  ) -> jax.Array:
    """Equation 1 behind one pass of the stem over all pictures, [N, h, w, C]."""
    if reference is None:
      raise ValueError('the Siamese network needs a reference to compare with, got None.')
    n, size = image.shape[0], image.shape[1:]
    leading = reference.shape[:-3]
    if reference.shape[-3:] != size or len(leading) not in (1, 2) or leading[:-1] not in ((), (n,)):
      raise ValueError(
        f'reference has shape {reference.shape}; with images of shape {image.shape} it must be '
        f'{["R", *size]} or {[n, "R", *size]}.'.replace("'", '')
      )
    pictures = jnp.concatenate([image, reference.reshape(-1, *size)])
    if valid is not None:
      counts = valid.any()[None] if len(leading) == 1 else valid
      valid = jnp.concatenate([valid, jnp.repeat(counts, leading[-1])])
    features = self.stem(pictures, running=running, valid=valid)
    references = features[n:].reshape(*leading, *features.shape[1:])
    return difference(features[:n], references, nearest=self.nearest)


def medetection(
  *,
  stem: str = 'conv',
  stem_channels: Sequence[int] = (16, 16),
  stem_strides: Sequence[int] = (2, 1),
  width: int = 32,
  blocks: int = 4,
  attention: str | None = 'low',
  reduction: int = 32,
  pool: str = 'pyramid',
  siamese: bool = True,
  nearest: int | None = None,
  norm: str = 'batch',
  momentum: float = 0.9,
  dtype: Any = jnp.float32,
  axis_name: str | None = None,
) -> MeDetection:
  """Makes MeDetection's network by the names of its parts.

  All but ``momentum``, ``dtype`` and ``axis_name`` are also arguments of the PyTorch twin.

  Args:
    stem: ``'conv'`` (``SiameseStem``) or ``'vgg'`` (``VGGStem``, as published).
    stem_channels: of ``SiameseStem``.
    stem_strides: of ``SiameseStem``; at 128 pixels the default leaves 4x4 cells behind four blocks.
    width: channels of 4Conv.
    blocks: of 4Conv.
    attention: its place, ``'low'``, ``'high'``, ``'multiple'`` or None.
    reduction: of the attention.
    pool: ``'pyramid'`` or ``'mean'``.
    siamese: see ``MeDetection``.
    nearest: see ``MeDetection``.
    norm: ``'batch'`` or ``'group'``.
    momentum: of BatchNorm's running statistics; 0 keeps those of the last batch alone.
    dtype: type of the computation; parameters are float32.
    axis_name: device axis over which one batch is spread, for BatchNorm.

  Returns:
    The ``MeDetection``.

  Raises:
    ValueError: an unknown stem or norm.
  """
  norms = {
    'batch': functools.partial(BatchNorm, momentum=momentum, axis_name=axis_name),
    'group': GroupNorm,
  }
  if norm not in norms:
    raise ValueError(f'norm is {norm!r}; it can be {", ".join(norms)}.')
  made = norms[norm]
  stems = {
    'conv': lambda: SiameseStem(tuple(stem_channels), tuple(stem_strides), norm=made, dtype=dtype),
    'vgg': lambda: VGGStem(dtype=dtype),
  }
  if stem not in stems:
    raise ValueError(f'stem is {stem!r}; it can be {", ".join(stems)}.')
  return MeDetection(
    stem=stems[stem](),
    body=Conv4(width, blocks, attention, reduction, norm=made, dtype=dtype),
    pool=pool,
    siamese=siamese,
    nearest=nearest,
  )
