"""Convolutions with explicit padding, on NHWC arrays.

Shape legend: N images, H x W pixels, C input channels, O output channels, G groups.

The padding is always written out, because frameworks disagree about ``'SAME'``: at stride 2 flax
pads (0, 1) where PyTorch pads (1, 1), and the same weights then give other numbers.
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models import cpu_convolution
from jaxdefect.models.cpu_convolution import direct

# Gaussian with variance 2 / (kh kw O / groups), the torchvision initialisation of both families.
kaiming_fan_out = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def conv2d(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  padding: int = 0,
  groups: int = 1,
  implementation: str | None = None,
) -> jax.Array:
  r"""Two-dimensional convolution (cross-correlation, as everywhere in deep learning).

  .. math:: y_{n,a,b,o} = \sum_{i,j,c} x_{n,\,sa+i-p,\,sb+j-p,\,c}\; w_{i,j,c,o}

  Args:
    x: [N, H, W, C].
    kernel: [k, k, C/G, O].
    stride: s, in pixels.
    padding: p, zeros on every side in pixels.
    groups: G; ``G == C == O`` is a depthwise convolution.
    implementation: ``'direct'`` is XLA's own convolution, right for GPU and TPU; ``'products'``
      is written for XLA on a CPU (see ``cpu_convolution``), equal up to rounding. None takes
      ``'products'`` where JAX's default backend, asked while tracing, is a CPU. (Choosing when the
      program is lowered would keep the residuals of both in every gradient.) ``'products'`` has
      reverse mode of any order but, where it is dense, no forward mode.

  Returns:
    [N, (H + 2p - k) // s + 1, (W + 2p - k) // s + 1, O].

  Raises:
    ValueError: for an unknown implementation.
  """
  chex.assert_rank([x, kernel], 4)
  if implementation is None:
    implementation = 'products' if jax.default_backend() == 'cpu' else 'direct'
  if implementation not in ('direct', 'products'):
    raise ValueError(
      f"implementation must be 'direct', 'products' or None, got '{implementation}'."
    )
  convolve = cpu_convolution.convolve if implementation == 'products' else direct
  return convolve(x, kernel, stride=stride, padding=padding, groups=groups)


class Conv(nn.Module):
  """A convolution layer, without bias where a BatchNorm follows it.

  Attributes:
    features: O, number of output channels.
    kernel_size: side of the square window in pixels.
    stride: step of the window in pixels.
    padding: zeros added on every side in pixels.
    groups: G; ``groups == C`` is a depthwise convolution.
    dtype: type of the computation; parameters are kept in float32.
    use_bias: adds a bias, zero at the start.
    kernel_init: initialiser of the kernel.
  """

  features: int
  kernel_size: int
  stride: int = 1
  padding: int = 0
  groups: int = 1
  dtype: Any = jnp.float32
  use_bias: bool = False
  kernel_init: nn.initializers.Initializer = kaiming_fan_out

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[N, H, W, C] -> [N, H', W', O]."""
    shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    y = conv2d(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      stride=self.stride,
      padding=self.padding,
      groups=self.groups,
    )
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
      y = y + bias.astype(self.dtype)
    return y
