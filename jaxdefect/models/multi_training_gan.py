"""The two networks of a categorised GAN: a generator that is told a class, a judge that names one.

Shape legend: N images, S x S pixels (S a power of two), C channels, K classes, Z latent size,
W width.

Both are DCGAN's (4x4 windows at stride 2, batch normalisation, kernels drawn from N(0, 0.02)), the
layers of ``models.ganomaly``. The generator's latent vector is the noise with the class behind it,
one-hot; the discriminator's last layer has one score per class. That a picture was made is a
further class whose score is always 0, so p(class k) = exp(l_k) / (1 + sum_j exp(l_j)): K + 1
scores would have one to spare.

References:
  Radford et al., `DCGAN <https://arxiv.org/abs/1511.06434>`_; Odena, `Semi-Supervised Learning with
  GANs <https://arxiv.org/abs/1606.01583>`_, section 2; Salimans et al., `Improved Techniques
  <https://arxiv.org/abs/1606.03498>`_, section 5.
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.ganomaly import Decoder, LatentEncoder


class ClassGenerator(nn.Module):
  """Makes an image of a class out of noise.

  Attributes:
    size: S, 8 or a larger power of two.
    num_classes: K.
    channels: C of the image.
    width: W; W S / 8 channels at 4x4, W at S/2 (DCGAN, figure 1: 128 at 64 pixels).
    axis_name: device axis, for the batch statistics.
    dtype: type of the computation; parameters are float32.
  """

  size: int
  num_classes: int
  channels: int = 3
  width: int = 64
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    noise: jax.Array,
    label: jax.Array,
    *,
    running: bool,
    valid: jax.Array | None = None,
  ) -> jax.Array:
    """Makes images.

    Args:
      noise: [N, Z] standard normal.
      label: [N] integers below K, what the images shall show.
      running: True normalises with the running statistics.
      valid: [N] bool, images that count in the statistics. None counts all.

    Returns:
      [N, S, S, C] in -1..1, in float32 at least.
    """
    chex.assert_rank([noise, label], [2, 1])
    told = jax.nn.one_hot(label, self.num_classes, dtype=noise.dtype)
    decoder = Decoder(
      self.size,
      self.channels,
      self.width,
      axis_name=self.axis_name,
      dtype=self.dtype,
      name='decoder',
    )
    return decoder(jnp.concatenate([noise, told], axis=1), running=running, valid=valid)


class ClassDiscriminator(nn.Module):
  """Names the class of an image, or says with scores below 0 that it was made.

  Attributes:
    num_classes: K.
    width: W; W channels at S/2, W S / 8 at 4x4.
    axis_name: device axis, for the batch statistics.
    dtype: type of the computation; parameters are float32.
  """

  num_classes: int
  width: int = 64
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """[N, S, S, C] in -1..1 -> [N, K] scores, in float32 at least; that of 'made' is 0."""
    encoder = LatentEncoder(
      self.num_classes, self.width, axis_name=self.axis_name, dtype=self.dtype, name='encoder'
    )
    return encoder(x, running=running, valid=valid)[0]
