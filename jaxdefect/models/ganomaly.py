"""The networks of GANomaly: encoder, decoder, encoder again; and the discriminator.

Shape legend: N images, S x S pixels (S a power of two), C channels, Z latent size, W width.

The encoder is DCGAN's discriminator, the decoder its generator: 4x4 windows at stride 2, batch
normalisation, no biases, kernels drawn from N(0, 0.02). Between a 4x4 map and the latent vector
stands a 4x4 (transposed) convolution, which on a map of that size is a product with one matrix.

References:
  Akcay et al., `GANomaly <https://arxiv.org/abs/1805.06725>`_, section 3.2 and figure 3; Radford
  et al., `DCGAN <https://arxiv.org/abs/1511.06434>`_.
"""

from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.convolution import Conv
from jaxdefect.models.normalization import BatchNorm
from jaxdefect.models.transposed_convolution import ConvTranspose

SMALLEST = 4  # side of the last map
SLOPE = 0.2  # of the leaky ReLU
dcgan_normal = nn.initializers.normal(0.02)


class Reconstruction(NamedTuple):
  """What a ``Generator`` gives.

  Attributes:
    image: [N, S, S, C] in -1..1, the reconstruction.
    latent: [N, Z] of the image.
    latent_again: [N, Z] of the reconstruction.
  """

  image: jax.Array
  latent: jax.Array
  latent_again: jax.Array


class Judgement(NamedTuple):
  """What a ``Discriminator`` gives.

  Attributes:
    logit: [N], larger means more like a real image.
    features: [N, 4, 4, F] the last map.
  """

  logit: jax.Array
  features: jax.Array


class LatentEncoder(nn.Module):
  """Halves the map down to 4x4 and then gives a vector.

  The channels are W at S/2 and double with every further halving: W S / 8 at 4x4.

  Attributes:
    latent: Z.
    width: W.
    axis_name: device axis, for the batch statistics.
    dtype: type of the computation; parameters are float32.
  """

  latent: int
  width: int = 64
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, *, running: bool, valid: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """[N, S, S, C] -> [N, Z] and the last map [N, 4, 4, F], both in float32 at least."""
    chex.assert_rank(x, 4)
    features = self.width
    for k in range(num_halvings(x.shape[1:3])):
      x = Conv(
        features,
        4,
        stride=2,
        padding=1,
        kernel_init=dcgan_normal,
        dtype=self.dtype,
        name=f'conv.{k}',
      )(x)
      if k:
        norm = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=f'norm.{k}')
        x = norm(x, use_running_average=running, valid=valid)
      x = nn.leaky_relu(x, SLOPE)
      features *= 2
    dense = nn.Dense(
      self.latent, use_bias=False, kernel_init=dcgan_normal, dtype=self.dtype, name='latent'
    )
    z = dense(x.reshape(x.shape[0], -1))  # [N, 16 F]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return z.astype(wide), x.astype(wide)


class Decoder(nn.Module):
  """The way back: from a vector to 4x4, and doubling up to an image.

  Attributes:
    size: S, the side of the image in pixels.
    channels: C of the image.
    width: W; W S / 8 channels at 4x4, W at S/2, as in the encoder.
    axis_name: device axis, for the batch statistics.
    dtype: type of the computation; parameters are float32.
  """

  size: int
  channels: int
  width: int = 64
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """[N, Z] -> [N, S, S, C] in -1..1, in float32 at least."""
    chex.assert_rank(z, 2)
    doublings = num_halvings((self.size, self.size))
    features = self.width << (doublings - 1)
    x = nn.Dense(
      SMALLEST * SMALLEST * features,
      use_bias=False,
      kernel_init=dcgan_normal,
      dtype=self.dtype,
      name='map',
    )(z)
    x = x.reshape(-1, SMALLEST, SMALLEST, features)  # [N, 4, 4, F]
    for k in range(doublings):
      norm = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=f'norm.{k}')
      x = nn.relu(norm(x, use_running_average=running, valid=valid))
      features //= 2
      x = ConvTranspose(
        self.channels if k == doublings - 1 else features,
        4,
        stride=2,
        padding=1,
        kernel_init=dcgan_normal,
        dtype=self.dtype,
        name=f'up.{k}',
      )(x)
    return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


class Generator(nn.Module):
  """Encoder, decoder and a second encoder of its own parameters (``encoder_again``).

  Attributes:
    latent: Z; 100 in the paper.
    width: W; 64 in the paper.
    axis_name: device axis, for the batch statistics.
    dtype: type of the computation; parameters are float32.
  """

  latent: int = 100
  width: int = 64
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, *, running: bool, valid: jax.Array | None = None
  ) -> Reconstruction:
    """Reconstructs images.

    Args:
      x: [N, S, S, C] in -1..1.
      running: True normalises with the running statistics.
      valid: [N] bool, images that count in the statistics. None counts all.

    Returns:
      A ``Reconstruction``.

    Raises:
      ValueError: the images are not square, or their side is no power of two from 8 on.
    """
    settings: Any = {'width': self.width, 'axis_name': self.axis_name, 'dtype': self.dtype}
    here: Any = {'running': running, 'valid': valid}
    z, _ = LatentEncoder(self.latent, **settings, name='encoder')(x, **here)
    image = Decoder(x.shape[1], x.shape[3], **settings, name='decoder')(z, **here)
    again, _ = LatentEncoder(self.latent, **settings, name='encoder_again')(image, **here)
    return Reconstruction(image, z, again)


class Discriminator(nn.Module):
  """An encoder whose vector is one number.

  Attributes:
    width: W.
    axis_name: device axis, for the batch statistics.
    dtype: type of the computation; parameters are float32.
  """

  width: int = 64
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> Judgement:
    """[N, S, S, C] in -1..1 -> ``Judgement``."""
    encoder = LatentEncoder(
      1, self.width, axis_name=self.axis_name, dtype=self.dtype, name='encoder'
    )
    logit, features = encoder(x, running=running, valid=valid)
    return Judgement(logit[:, 0], features)


def num_halvings(size: tuple[int, ...]) -> int:
  """How often an image is halved down to 4x4.

  >>> num_halvings((64, 64))
  4
  """
  height, width = size
  if height != width or height < 2 * SMALLEST or height & (height - 1):
    raise ValueError(
      f'the images are {height}x{width}; GANomaly takes square ones whose side is a power of two '
      f'from {2 * SMALLEST} on.'
    )
  return (height // SMALLEST).bit_length() - 1
