r"""Coordinate attention: a weight for every row and every column of a feature map.

Shape legend: N images, H x W pixels, C channels, M channels of the bottleneck.

References:
  Hou et al., `Coordinate Attention for Efficient Mobile Network Design
  <https://arxiv.org/abs/2103.02907>`_, equations 4-8; Zhang et al. 2023, equation 6.
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.convolution import Conv
from jaxdefect.models.gsconv import Norm
from jaxdefect.models.normalization import BatchNorm


class CoordinateAttention(nn.Module):
  r"""Weighs a map by what its rows and its columns hold.

  .. math::
    z^h_{c}(i) = \frac{1}{W} \sum_j x_c(i, j), \qquad z^w_c(j) = \frac{1}{H} \sum_i x_c(i, j)

  .. math::
    [f^h, f^w] = \delta(\mathrm{BN}(F_1 [z^h, z^w])), \qquad
    a^h = \sigma(F_h f^h), \quad a^w = \sigma(F_w f^w), \qquad
    y_c(i, j) = x_c(i, j)\, a^h_c(i)\, a^w_c(j)

  with 1x1 convolutions :math:`F_1` to M = max(``least``, C / ``reduction``) channels (``conv1``,
  without a bias, as ``bn1`` follows) and :math:`F_h, F_w` back to C (``conv_h``, ``conv_w``), and
  :math:`\delta(u) = u \min(\max(u + 3, 0), 6) / 6` (h-swish). The names are those of the authors'
  PyTorch module.

  Attributes:
    reduction: C over M.
    least: M is never smaller.
    norm: makes ``bn1``, see ``gsconv.ConvNorm``.
    dtype: type of the computation; parameters are float32.
  """

  reduction: int = 32
  least: int = 8
  norm: Norm = BatchNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """Weighs.

    Args:
      x: [N, H, W, C].
      running: True normalises with the running statistics.
      valid: [N] bool, images that count in the statistics. None counts all.

    Returns:
      [N, H, W, C] in ``dtype``.
    """
    chex.assert_rank(x, 4)
    height, channels = x.shape[1], x.shape[3]
    x = x.astype(self.dtype)
    wide = x.astype(jnp.promote_types(self.dtype, jnp.float32))
    # Rows and columns side by side on one axis, so that one layer reads both.
    z = jnp.concatenate([wide.mean(axis=2), wide.mean(axis=1)], axis=1)  # [N, H + W, C]
    z = z.astype(self.dtype)[:, :, None]  # [N, H + W, 1, C]

    bottleneck = max(self.least, channels // self.reduction)
    f = Conv(bottleneck, 1, dtype=self.dtype, name='conv1')(z)
    f = self.norm(dtype=self.dtype, name='bn1')(f, use_running_average=running, valid=valid)
    f = nn.hard_swish(f)

    def weights(part: jax.Array, name: str) -> jax.Array:
      made = Conv(channels, 1, dtype=self.dtype, use_bias=True, name=name)(part)
      return nn.sigmoid(made)

    rows = weights(f[:, :height], 'conv_h')  # [N, H, 1, C]
    columns = weights(f[:, height:], 'conv_w').swapaxes(1, 2)  # [N, 1, W, C]
    return x * rows * columns
