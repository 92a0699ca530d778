"""WaferSegClassNet: one light encoder for the class of a wafer map and for a mask on it.

Shape legend: N images, H x W pixels, C channels, F features, K classes, D embedding size.

A block is a 3x3 convolution, ReLU, BatchNorm, dropout, a separable 3x3 convolution, ReLU and
BatchNorm. Five blocks make the encoder (``encoder.<k>``), with 2x2 pooling between them: the
largest value, and before the last block the mean. Behind its last map stand two heads:
``classifier`` (pooled features, one hidden layer) and the decoder, whose blocks (``decoder.<k>``)
see a transposed convolution (``up.<k>``) beside the rectified first convolution of the encoder's
block at that size. ``projection`` is the third, for contrastive pretraining.

Channels and order of layers are those of the authors' published program; the transposed
convolutions have no bias here, since a convolution follows them. The paper's '0.51 MB' is the size
of a file: with 38 classes the network has 84,343 parameters, and 8,320 more in the projection.

References:
  Nag et al., `WaferSegClassNet <https://arxiv.org/abs/2207.00960>`_, Computers in Industry 142
  (2022), section 3.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdefect.models.conv4 import halve
from jaxdefect.models.convolution import Conv
from jaxdefect.models.normalization import BatchNorm
from jaxdefect.models.pooling import global_average_pool
from jaxdefect.models.recogniser import ProjectionMLP
from jaxdefect.models.transposed_convolution import ConvTranspose

# Factors on the width, of the encoder's blocks and of the decoder's.
DOWN, UP = (1, 2, 2, 4, 8), (4, 2, 2, 1)
MULTIPLE = 2 ** len(UP)  # images are padded to a multiple of so many pixels
HIDDEN, EMBEDDING = 64, 128
EPSILON = 1e-3  # of BatchNorm: behind ReLU a channel may be almost dead
he_normal = nn.initializers.he_normal()


class Segmentation(NamedTuple):
  """What a ``WaferSegClassNet`` gives.

  Attributes:
    feature_map: [N, h, w, F] the encoder's last map, ``tap`` added.
    logits: [N, K].
    mask: [N, H, W] logits of the pixels.
    embedding: [N, D] not negative, for contrastive pretraining.
  """

  feature_map: jax.Array
  logits: jax.Array
  mask: jax.Array
  embedding: jax.Array


def draw_kept(
  keys: jax.Array, shapes: Sequence[tuple[int, ...]], *, rate: float
) -> list[jax.Array]:
  """Which numbers of several maps dropout keeps, drawn for every image by itself.

  One draw serves all maps: a draw for each would double the time that the network compiles.

  Args:
    keys: [N] typed PRNG keys, one per image.
    shapes: of the maps of one image.
    rate: share of the numbers that are dropped, in [0, 1).

  Returns:
    [N, *shape] bool for each of ``shapes``, True where a number is kept.
  """
  ends = np.cumsum([math.prod(shape) for shape in shapes])
  kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, (int(ends[-1]),)))(keys)
  parts = jnp.split(kept, ends[:-1], axis=1)
  return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes)]


class SeparableBlock(nn.Module):
  """Convolution and separable convolution, each with ReLU and, behind it, BatchNorm.

  Attributes:
    features: number of output channels.
    dropout: rate between the two.
    axis_name: device axis, for the batch statistics.
    dtype: type of the computation; parameters are float32.
  """

  features: int
  dropout: float = 0.1
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    running: bool,
    valid: jax.Array | None = None,
    kept: jax.Array | None = None,
  ) -> tuple[jax.Array, jax.Array]:
    """Runs the block.

    Args:
      x: [N, H, W, C].
      running: True normalises with the running statistics.
      valid: [N] bool, images that count in the statistics. None counts all.
      kept: [N, H, W, features] bool, what dropout keeps; None drops nothing.

    Returns:
      The rectified first convolution and the block's last map, [N, H, W, features] each.
    """

    def conv(name: str, size: int, *, groups: int = 1, use_bias: bool = True) -> Conv:
      return Conv(
        self.features,
        size,
        padding=size // 2,
        groups=groups,
        use_bias=use_bias,
        kernel_init=he_normal,
        dtype=self.dtype,
        name=name,
      )

    def norm(name: str, y: jax.Array) -> jax.Array:
      layer = BatchNorm(epsilon=EPSILON, axis_name=self.axis_name, dtype=self.dtype, name=name)
      return layer(y, use_running_average=running, valid=valid)

    first = nn.relu(conv('conv', 3)(x))
    y = norm('norm1', first)
    if kept is not None:
      y = jnp.where(kept, y / (1 - self.dropout), 0)
    y = conv('depthwise', 3, groups=self.features, use_bias=False)(y)
    y = nn.relu(conv('pointwise', 1)(y))
    return first, norm('norm2', y)


class WaferSegClassNet(nn.Module):
  """Encoder, classifier, decoder and projection.

  Attributes:
    num_classes: K.
    width: channels of the first block; 8 is the published network.
    dropout: rate inside every block.
    axis_name: device axis, for the batch statistics.
    dtype: type of the computation; parameters, pooling, logits and embedding are float32 at least.
  """

  num_classes: int
  width: int = 8
  dropout: float = 0.1
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
    dropout_keys: jax.Array | None = None,
    heads_move_encoder: bool | jax.Array = True,
  ) -> Segmentation:
    """Recognises and segments images.

    Args:
      x: [N, H, W, C] normalised images; zeros are added on the right and below up to a multiple of
        16 pixels, and cut off the mask again.
      train: True normalises with the statistics of the batch.
      valid: [N] bool, images that count in the statistics. None counts all.
      tap: added to the encoder's last map, so that its gradient is the map's. None adds nothing.
      dropout_keys: [N] typed PRNG keys; None drops nothing.
      heads_move_encoder: False stops the gradient of classifier and decoder in front of the
        encoder, so that the projection's alone arrives there; may be traced.

    Returns:
      A ``Segmentation``; what it holds does not depend on ``heads_move_encoder``.
    """
    chex.assert_rank(x, 4)
    size = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), *((0, -side % MULTIPLE) for side in size), (0, 0)))
    # Name -> halvings of the map in a block, and its channels.
    names = {f'encoder.{k}': (k, factor) for k, factor in enumerate(DOWN)}
    names |= {f'decoder.{k}': (len(UP) - 1 - k, factor) for k, factor in enumerate(UP)}
    shapes = [(x.shape[1] >> k, x.shape[2] >> k, f * self.width) for k, f in names.values()]
    kept = {}
    if dropout_keys is not None and self.dropout:
      kept = dict(zip(names, draw_kept(dropout_keys, shapes, rate=self.dropout)))

    def block(name: str, y: jax.Array) -> tuple[jax.Array, jax.Array]:
      features = names[name][1] * self.width
      layer = SeparableBlock(features, self.dropout, self.axis_name, self.dtype, name=name)
      return layer(y, running=not train, valid=valid, kept=kept.get(name))

    def for_heads(y: jax.Array) -> jax.Array:
      return jnp.where(heads_move_encoder, y, jax.lax.stop_gradient(y))

    skips = []
    for k in range(len(DOWN)):
      if k:
        x = halve_mean(x) if k == len(DOWN) - 1 else halve(x)
      first, x = block(f'encoder.{k}', x)
      skips.append(for_heads(first))
    if tap is not None:
      x = x + tap
    feature_map = x
    features = global_average_pool(x)
    embedding = nn.relu(nn.Dense(EMBEDDING, dtype=features.dtype, name='projection')(features))
    classifier = ProjectionMLP((HIDDEN, self.num_classes), dtype=features.dtype, name='classifier')
    logits = classifier(for_heads(features))

    x = for_heads(x)
    for k, (factor, skip) in enumerate(zip(UP, skips[-2::-1])):
      up = ConvTranspose(factor * self.width, 2, 2, dtype=self.dtype, name=f'up.{k}')
      _, x = block(f'decoder.{k}', jnp.concatenate([up(x), skip], axis=-1))
    mask = Conv(1, 1, use_bias=True, dtype=self.dtype, name='mask')(x)[..., 0]
    mask = mask[:, : size[0], : size[1]].astype(features.dtype)
    return Segmentation(feature_map, logits, mask, embedding)


def halve_mean(x: jax.Array) -> jax.Array:
  """Mean of every 2x2 window at stride 2; [N, H, W, C] with even sides -> [N, H/2, W/2, C]."""
  n, height, width, channels = x.shape
  return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))
