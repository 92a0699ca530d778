"""Transposed convolutions: from a small map to a larger one.

Shape legend: N images, H x W pixels, C input channels, O output channels, k window, s stride,
p padding.
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.models import cpu_convolution
from jaxdefect.models.convolution import kaiming_fan_out


def conv_transpose2d(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  padding: int = 0,
  implementation: str | None = None,
) -> jax.Array:
  r"""Transposed convolution: the gradient of :func:`conv2d` to its input, as a layer of its own.

  .. math:: y_{n,\,sa+i-p,\,sb+j-p,\,o} \mathrel{+}= \sum_c x_{n,a,b,c}\; w_{i,j,o,c}

  over all a, b, i, j; what falls outside the map is dropped. It is PyTorch's ``conv_transpose2d``
  without output padding.

  Args:
    x: [N, H, W, C].
    kernel: [k, k, O, C], the kernel of the convolution from O to C channels that it transposes.
    stride: s, in pixels.
    padding: p, pixels that are cut from every side of the result.
    implementation: as in ``conv2d``. On two CPU cores XLA's own takes 120 ms for both gradients
      of a stride-2 layer from 16x4x4x256 to 128 channels and 290 ms from 16x16x16x64 to 32;
      ``'products'`` 9 and 30 ms. Forward they are the same.

  Returns:
    [N, s (H - 1) + k - 2p, s (W - 1) + k - 2p, O].

  Raises:
    ValueError: for an unknown implementation.

  >>> x = jnp.array([1.0, 10.0]).reshape(1, 1, 2, 1)
  >>> kernel = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(2, 2, 1, 1)
  >>> conv_transpose2d(x, kernel, stride=1)[0, ..., 0].tolist()
  [[1.0, 12.0, 20.0], [3.0, 34.0, 40.0]]
  """
  chex.assert_rank([x, kernel], 4)
  if implementation is None:
    implementation = 'products' if jax.default_backend() == 'cpu' else 'direct'
  if implementation not in ('direct', 'products'):
    raise ValueError(
      f"implementation must be 'direct', 'products' or None, got '{implementation}'."
    )
  window = kernel.shape[0]
  if implementation == 'products':
    height, width = (stride * (side - 1) + window - 2 * padding for side in x.shape[1:3])
    at = cpu_convolution.Geometry((height, width), window, stride, padding)
    return cpu_convolution.back(x, kernel, at)
  edge = window - 1 - padding
  return lax.conv_general_dilated(
    x,
    jnp.flip(kernel, (0, 1)).swapaxes(2, 3),
    window_strides=(1, 1),
    padding=((edge, edge), (edge, edge)),
    lhs_dilation=(stride, stride),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


class ConvTranspose(nn.Module):
  """A transposed convolution without bias.

  Attributes:
    features: O, number of output channels.
    kernel_size: k, in pixels.
    stride: s, in pixels.
    padding: p, in pixels.
    dtype: type of the computation; the kernel is float32.
    kernel_init: initialiser of the kernel.
  """

  features: int
  kernel_size: int
  stride: int = 1
  padding: int = 0
  dtype: Any = jnp.float32
  kernel_init: nn.initializers.Initializer = kaiming_fan_out

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[N, H, W, C] -> [N, s (H - 1) + k - 2p, s (W - 1) + k - 2p, O]."""
    shape = (self.kernel_size, self.kernel_size, self.features, x.shape[-1])
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    return conv_transpose2d(
      x.astype(self.dtype), kernel.astype(self.dtype), stride=self.stride, padding=self.padding
    )
