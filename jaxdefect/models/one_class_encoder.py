"""The encoder of deep one-class classification: nothing in it can be constant and not zero.

Shape legend: N images, H x W pixels, C channels, D embedding size.

A layer is a convolution (``conv.<k>``), a batch normalisation without scale and shift
(``norm.<k>``), a leaky ReLU and a 2x2 max pool; one dense layer (``embedding``) follows. No layer
has a bias and no activation is bounded: with either of them a network could map every image to
the centre by ignoring it (propositions 2 and 3 of the paper). Without any kernel the embedding is
the zero vector, which is no centre.

Reference:
  Ruff et al., Deep One-Class Classification, ICML 2018, section 3.3; the LeNet for CIFAR-10 of
  section 4.2 and of the authors' code has the channels (32, 64, 128).
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.conv4 import halve
from jaxdefect.models.convolution import Conv
from jaxdefect.models.normalization import BatchNorm

# The gain of a leaky ReLU of slope 0.01 is within 1e-4 of that of a ReLU, 2.
he_uniform = nn.initializers.variance_scaling(2.0, 'fan_avg', 'uniform')
glorot_uniform = nn.initializers.xavier_uniform()


class OneClassEncoder(nn.Module):
  """Convolutions without biases, then one dense layer.

  Attributes:
    channels: of every layer; each layer halves the map.
    kernel_size: side of the windows in pixels, odd.
    embedding: D.
    slope: of the leaky ReLU below zero.
    axis_name: device axis, for the batch statistics.
    dtype: type of the computation; parameters are float32.
  """

  channels: tuple[int, ...] = (32, 64, 128)
  kernel_size: int = 5
  embedding: int = 128
  slope: float = 0.01
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """Embeds images.

    Args:
      x: [N, H, W, C], images or the feature maps of another network.
      running: True normalises with the running statistics.
      valid: [N] bool, images that count in the statistics. None counts all.

    Returns:
      [N, D], in float32 at least.

    Raises:
      ValueError: an even window, or a map too small for so many layers.
    """
    chex.assert_rank(x, 4)
    if self.kernel_size % 2 == 0:
      raise ValueError(f'kernel_size is {self.kernel_size}; it must be odd.')
    x = x.astype(self.dtype)
    for k, features in enumerate(self.channels):
      x = Conv(
        features,
        self.kernel_size,
        padding=self.kernel_size // 2,
        kernel_init=he_uniform,
        dtype=self.dtype,
        name=f'conv.{k}',
      )(x)
      norm = self._norm(features)(
        epsilon=1e-4, axis_name=self.axis_name, dtype=self.dtype, name=f'norm.{k}'
      )
      x = halve(nn.leaky_relu(norm(x, use_running_average=running, valid=valid), self.slope))
    x = x.reshape(x.shape[0], -1)  # [N, h * w * C]
    x = nn.Dense(
      self.embedding,
      use_bias=False,
      kernel_init=glorot_uniform,
      dtype=self.dtype,
      name='embedding',
    )(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))

  @nn.nowrap
  def _norm(self, features: int) -> Any:
    """Batch normalisation whose scale is held at 1 and whose shift is held at 0."""
    held = {
      'params': {
        'scale': jnp.ones((features,), jnp.float32),
        'bias': jnp.zeros((features,), jnp.float32),
      }
    }
    return nn.map_variables(BatchNorm, 'params', trans_in_fn=lambda _: held)
