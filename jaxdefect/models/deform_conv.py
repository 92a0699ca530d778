"""A convolution layer that learns where to look.

Shape legend: N images, H x W pixels, C input channels, O output channels, G offset groups,
k window.

References:
  Dai et al., `Deformable Convolutional Networks <https://arxiv.org/abs/1703.06211>`_ (v1);
  Zhu et al., `Deformable ConvNets v2 <https://arxiv.org/abs/1811.11168>`_ (v2);
  Xia & Long, section 3.2, equation 2.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.convolution import Conv, kaiming_fan_out
from jaxdefect.ops.deform_conv import deform_conv2d


class DeformConv(nn.Module):
  r"""A convolution whose sampling points are moved by offsets that it reads from its input.

  .. math:: y(p) = \sum_{n} w_n \; m_n(p) \; x(s p + p_n + \Delta p_n(p))

  The offsets :math:`\Delta p` and, in v2, the masks :math:`m = 2 \sigma(\cdot)` come from an
  ordinary convolution of the same window, ``offset``, which starts at zero. So the layer starts as
  the plain convolution with the same ``kernel``: the factor 2 makes the masks of v2 start at 1,
  where the sigmoid alone would halve pretrained responses.

  Parameters are ``kernel``, at the place and of the shape of ``Conv``'s, and ``offset / kernel``
  and ``offset / bias``, with ``2 G k k`` output channels in v1 and ``3 G k k`` in v2. Offsets are
  customarily trained at 0.1 of the learning rate: their paths are those with ``'offset'`` in them
  (``optim.scale_by_group``).

  ``offsets`` [N, H', W', 2 G k k] (ordered group, row, column, (y, x), in pixels of the input) and
  ``masks`` [N, H', W', G k k] are sown into ``'intermediates'``.

  Attributes:
    features: O, number of output channels.
    kernel_size: k, side of the square window in pixels.
    stride: s, step of the window in pixels.
    padding: zeros added on every side in pixels.
    version: ``'v1'`` (offsets) or ``'v2'`` (offsets and masks).
    offset_groups: G; channels are split into G groups with sampling points of their own.
    dtype: type of the computation; parameters are float32, and sampling points are in float32 at
      least.
  """

  features: int
  kernel_size: int
  stride: int = 1
  padding: int = 0
  version: str = 'v2'
  offset_groups: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[N, H, W, C] -> [N, H', W', O]."""
    if self.version not in ('v1', 'v2'):
      raise ValueError(f"version must be 'v1' or 'v2', got '{self.version}'.")
    size, taps = self.kernel_size, self.offset_groups * self.kernel_size**2
    # The kernel is made first: it then starts with the numbers of the plain layer.
    shape = (size, size, x.shape[-1], self.features)
    kernel = self.param('kernel', kaiming_fan_out, shape, jnp.float32)
    x = x.astype(self.dtype)
    predicted = Conv(
      (2 if self.version == 'v1' else 3) * taps,
      size,
      self.stride,
      self.padding,
      dtype=self.dtype,
      use_bias=True,
      kernel_init=nn.initializers.zeros,
      name='offset',
    )(x)
    predicted = predicted.astype(jnp.promote_types(self.dtype, jnp.float32))
    offsets, masks = predicted[..., : 2 * taps], None
    self.sow('intermediates', 'offsets', offsets)
    if self.version == 'v2':
      masks = 2 * nn.sigmoid(predicted[..., 2 * taps :])
      self.sow('intermediates', 'masks', masks)
    return deform_conv2d(
      x,
      offsets,
      kernel.astype(self.dtype),
      masks,
      stride=self.stride,
      padding=self.padding,
    ).astype(self.dtype)
