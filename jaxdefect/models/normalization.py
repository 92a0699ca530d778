"""Batch normalisation that agrees with PyTorch's, ignores padding and spans devices; and group
normalisation, which needs no batch.

Shape legend: N images (padding included), H x W pixels, C channels.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.ops.ordering import stored


def batch_moments(
  x: jax.Array,
  *,
  shift: jax.Array,
  valid: jax.Array | None = None,
  axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  r"""Mean and variance per channel over the valid images of all devices.

  With :math:`d = x - s` one pass over the data gives

  .. math::
    \mu = s + \frac{1}{n}\sum d, \qquad
    \sigma^2 = \frac{1}{n}\sum d^2 - \Bigl(\frac{1}{n}\sum d\Bigr)^2,

  for any shift s; a shift near the mean (the running mean) keeps the difference of the two
  terms from losing digits.

  Args:
    x: [N, H, W, C] values.
    shift: [C] any numbers near the means.
    valid: [N] bool; images that count. None counts all.
    axis_name: device axis to sum over.

  Returns:
    mean [C], biased variance [C], number of values per channel (scalar), in at least float32.
  """
  dtype = jnp.promote_types(x.dtype, jnp.float32)
  shift = lax.stop_gradient(shift).astype(dtype)
  deviation = x.astype(dtype) - shift
  count = jnp.asarray(x.shape[0], dtype)
  if valid is not None:
    deviation = jnp.where(valid[:, None, None, None], deviation, 0)
    count = jnp.sum(valid, dtype=dtype)
  total = jnp.sum(deviation, axis=(0, 1, 2))
  total_square = jnp.sum(deviation * deviation, axis=(0, 1, 2))
  # Their gradients reach every pixel: XLA on a CPU would make them again there, channel by channel.
  total, total_square = stored(jnp.stack([total, total_square]))
  count = count * (x.shape[1] * x.shape[2])
  if axis_name is not None:
    total, total_square, count = lax.psum((total, total_square, count), axis_name)
  divisor = jnp.maximum(count, 1)
  offset = total / divisor
  variance = jnp.maximum(total_square / divisor - offset * offset, 0)
  return shift + offset, variance, count


class BatchNorm(nn.Module):
  r"""Batch normalisation, :math:`y = \gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta`.

  In training :math:`\mu, \sigma^2` are the moments of the batch, and the running statistics move
  by ``1 - momentum`` towards them, the variance towards its unbiased estimate
  :math:`\sigma^2 n / (n - 1)`; otherwise the running statistics are used. Statistics are in
  float32 at least, whatever ``dtype`` is.

  Attributes:
    momentum: weight of the old running statistics (PyTorch's 0.1 is 0.9 here).
    epsilon: added to the variance.
    axis_name: device axis over which the batch is spread.
    dtype: type of the output.

  Reference:
    Ioffe, Szegedy, `Batch Normalization <https://arxiv.org/abs/1502.03167>`_, algorithm 1.
  """

  momentum: float = 0.9
  epsilon: float = 1e-5
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, *, use_running_average: bool, valid: jax.Array | None = None
  ) -> jax.Array:
    """Normalises [N, H, W, C] over all axes but the last.

    Args:
      x: [N, H, W, C] values.
      use_running_average: True normalises with the running statistics and leaves them alone.
      valid: [N] bool, images that count in the statistics. None counts all.

    Returns:
      [N, H, W, C] in ``dtype``.
    """
    channels = (x.shape[-1],)
    scale = self.param('scale', nn.initializers.ones, channels, jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, channels, jnp.float32)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, channels, jnp.float32)
    running_var = self.variable('batch_stats', 'var', jnp.ones, channels, jnp.float32)
    mean, variance = running_mean.value, running_var.value
    if not use_running_average:
      # The axis is not bound while the parameters are made.
      axis_name = None if self.is_initializing() else self.axis_name
      mean, variance, count = batch_moments(
        x, shift=running_mean.value, valid=valid, axis_name=axis_name
      )
      if not self.is_initializing() and self.is_mutable_collection('batch_stats'):
        unbiased = variance * (count / jnp.maximum(count - 1, 1))
        # A batch without any valid image changes nothing.
        step = jnp.where(count > 0, 1 - self.momentum, 0)
        for running, new in ((running_mean, mean), (running_var, unbiased)):
          old = running.value
          running.value = (old + step * lax.stop_gradient(new - old)).astype(old.dtype)
    factor = scale * lax.rsqrt(variance + self.epsilon)
    return (x * factor + (bias - mean * factor)).astype(self.dtype)


class GroupNorm(nn.Module):
  r"""Group normalisation, :math:`y = \gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta`.

  :math:`\mu, \sigma^2` (biased) are the moments of one image over its pixels and over a group of
  ``group_size`` neighbouring channels: no other image, no device and no running statistics take
  part, so training on two images at a time computes what prediction computes.

  Attributes:
    group_size: channels of a group; fewer channels than that are one group.
    epsilon: added to the variance.
    dtype: type of the output.

  Reference:
    Wu, He, `Group Normalization <https://arxiv.org/abs/1803.08494>`_, equation 7; 16 channels per
    group are as good as 32 groups there (table 3).
  """

  group_size: int = 16
  epsilon: float = 1e-5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, *, use_running_average: bool, valid: jax.Array | None = None
  ) -> jax.Array:
    """Normalises every image by itself.

    Args:
      x: [N, H, W, C] values.
      use_running_average: changes nothing here, see ``BatchNorm``.
      valid: changes nothing here.

    Returns:
      [N, H, W, C] in ``dtype``.

    Raises:
      ValueError: C is larger than ``group_size`` and no multiple of it.
    """
    del use_running_average, valid
    n, channels = x.shape[0], x.shape[-1]
    size = min(self.group_size, channels)
    if channels % size:
      raise ValueError(f'{channels} channels do not make groups of {size}.')
    scale = self.param('scale', nn.initializers.ones, (channels,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (channels,), jnp.float32)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    # Means over the pixels first: as they are laid out, that is one pass over contiguous rows.
    groups = (n, channels // size, size)
    mean = wide.mean((1, 2)).reshape(groups).mean(-1, keepdims=True)
    mean = jnp.broadcast_to(mean, groups).reshape(n, 1, 1, channels)
    square = jnp.square(wide - mean).mean((1, 2)).reshape(groups).mean(-1, keepdims=True)
    variance = jnp.broadcast_to(square, groups).reshape(n, 1, 1, channels)
    factor = scale * lax.rsqrt(variance + self.epsilon)
    return (wide * factor + (bias - mean * factor)).astype(self.dtype)
