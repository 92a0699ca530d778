"""Convolutions with explicit padding, on NHWC arrays.

Shape legend: N images, H x W pixels, C input channels, O output channels, G groups.

The padding is always written out, because frameworks disagree about ``'SAME'``: at stride 2 flax
pads (0, 1) where PyTorch pads (1, 1), and the same weights then give other numbers.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# Gaussian with variance 2 / (kh kw O / groups), the torchvision initialisation of both families.
kaiming_fan_out = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def conv2d(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  padding: int = 0,
  groups: int = 1,
) -> jax.Array:
  """Two-dimensional cross-correlation, as in every deep learning library."""
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=((padding, padding), (padding, padding)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


class Conv(nn.Module):
  """A convolution layer without bias (a BatchNorm follows every one).

  Attributes:
    features: O, number of output channels.
    kernel_size: side of the square window in pixels.
    stride: step of the window in pixels.
    padding: zeros added on every side in pixels.
    groups: G; ``groups == C`` is a depthwise convolution.
    dtype: type of the computation; the kernel is kept in float32.
  """

  features: int
  kernel_size: int
  stride: int = 1
  padding: int = 0
  groups: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[N, H, W, C] -> [N, H', W', O]."""
    shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
    kernel = self.param('kernel', kaiming_fan_out, shape, jnp.float32)
    return conv2d(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      stride=self.stride,
      padding=self.padding,
      groups=self.groups,
    )
