"""What both streams of a Siamese network pass, and how their features differ.

Shape legend: N images, R references per image, H x W pixels, h x w cells, C channels.

References:
  Zhang et al. 2023, equation 1; the layers of ``VGGStem`` are those of the authors' published code.
"""

from collections.abc import Sequence
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.models.conv4 import halve
from jaxdefect.models.convolution import Conv
from jaxdefect.models.gsconv import Norm
from jaxdefect.models.normalization import BatchNorm


class SiameseStem(nn.Module):
  """A light stem: 3x3 convolutions (``conv.<k>``), each with normalisation (``norm.<k>``) and ReLU.

  Attributes:
    channels: of every convolution.
    strides: of every convolution, pixels.
    norm: makes the normalisations, see ``gsconv.ConvNorm``.
    dtype: type of the computation; parameters are float32.
    enlargement: by how much the map is enlarged after the difference; 1, not at all.
  """

  channels: Sequence[int] = (16, 16)
  strides: Sequence[int] = (2, 1)
  norm: Norm = BatchNorm
  dtype: Any = jnp.float32

  @property
  def enlargement(self) -> int:
    return 1

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """[N, H, W, 3] -> [N, h, w, channels[-1]]; arguments as of ``Conv4``."""
    chex.assert_rank(x, 4)
    if not self.channels or len(self.channels) != len(self.strides):
      raise ValueError(
        f'channels has {len(self.channels)} entries and strides {len(self.strides)}; '
        'a stem needs one of each per convolution, and at least one convolution.'
      )
    for k, (features, stride) in enumerate(zip(self.channels, self.strides)):
      x = Conv(features, 3, stride, 1, dtype=self.dtype, name=f'conv.{k}')(x)
      norm = self.norm(dtype=self.dtype, name=f'norm.{k}')
      x = nn.relu(norm(x, use_running_average=running, valid=valid))
    return x


class VGGStem(nn.Module):
  """The published stack: stages of 3x3 convolutions with a bias, each ended by a 2x2 max pool.

  There are no activations and no normalisation. The authors resize the result back to the size of
  the image, by repeating pixels. That commutes with the difference of two streams, so here it comes
  after it (``enlarge`` by ``enlargement``), where the maps are 64 times smaller. An image pair of
  256 x 256 takes about 58 GFLOP with the 4Conv behind it: an option for accelerators.

  Attributes:
    stages: channels of the convolutions, stage by stage. They are counted through: ``conv.<k>``.
    dtype: type of the computation; parameters are float32.
    enlargement: by how much the map is enlarged after the difference, the factor that the pools
      made it smaller.
  """

  stages: Sequence[Sequence[int]] = ((64, 64), (128, 128), (256, 256, 256))
  dtype: Any = jnp.float32

  @property
  def enlargement(self) -> int:
    return 2 ** len(self.stages)

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """[N, H, W, 3] -> [N, H / enlargement, W / enlargement, C]; the others change nothing here."""
    del running, valid
    chex.assert_rank(x, 4)
    if x.shape[1] % self.enlargement or x.shape[2] % self.enlargement:
      raise ValueError(
        f'images are {x.shape[1]}x{x.shape[2]} pixels; '
        f'the VGG stem needs multiples of {self.enlargement}.'
      )
    k = 0
    for stage in self.stages:
      for features in stage:
        # Gain 1: without activations a larger one would double the variance in every layer.
        layer = Conv(
          features,
          3,
          padding=1,
          dtype=self.dtype,
          use_bias=True,
          kernel_init=nn.initializers.lecun_normal(),
          name=f'conv.{k}',
        )
        x, k = layer(x), k + 1
      x = halve(x)
    return x


def difference(f_x: jax.Array, f_ref: jax.Array, *, nearest: int | None = None) -> jax.Array:
  r"""Mean absolute difference of a feature map to those of its references.

  .. math:: d = \frac{1}{R} \sum_r |f(x_r) - f(x)|

  With ``nearest`` the sum goes only over those k references whose difference has the smallest mean,
  chosen image by image: a remedy for products that lie in different positions, where most
  references differ everywhere. The choice itself has no gradient.

  Args:
    f_x: [N, h, w, C] features of the images.
    f_ref: [N, R, h, w, C] features of the references of every image, or [R, h, w, C] of references
      that all images share.
    nearest: k, at least 1; None takes all, and so does a k of R or more.

  Returns:
    [N, h, w, C].

  Raises:
    ValueError: maps of other sizes, other numbers of images, no reference, or nearest below 1.

  Reference:
    Zhang et al. 2023, equation 1, which has one reference.
  """
  chex.assert_rank(f_x, 4)
  shared = f_ref.ndim == 4
  whole = f_ref[None] if shared else f_ref
  if whole.ndim != 5 or whole.shape[2:] != f_x.shape[1:] or whole.shape[0] not in (1, f_x.shape[0]):
    raise ValueError(
      f'references of shape {f_ref.shape} do not fit images of shape {f_x.shape}; '
      'they must be [R, ...] or [N, R, ...].'
    )
  num = whole.shape[1]
  if not num:
    raise ValueError('there is no reference to compare with.')
  if nearest is not None and nearest < 1:
    raise ValueError(f'nearest is {nearest}; it must be at least 1, or None.')
  apart = jnp.abs(whole - f_x[:, None])  # [N, R, h, w, C]
  if nearest is None or nearest >= num:
    return apart.mean(axis=1)
  distance = lax.stop_gradient(apart).astype(jnp.float32).mean(axis=(2, 3, 4))
  _, chosen = lax.top_k(-distance, nearest)  # [N, k]
  weight = jax.nn.one_hot(chosen, num, dtype=apart.dtype).sum(axis=1) / nearest  # [N, R]
  return jnp.einsum('nrhwc,nr->nhwc', apart, weight)


def enlarge(x: jax.Array, factor: int) -> jax.Array:
  """Repeats every pixel, [N, h, w, C] -> [N, factor * h, factor * w, C] (nearest neighbour).

  >>> enlarge(jnp.arange(2.0).reshape(1, 1, 2, 1), 2)[0, :, :, 0].tolist()
  [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]
  """
  return x if factor == 1 else x.repeat(factor, axis=1).repeat(factor, axis=2)
