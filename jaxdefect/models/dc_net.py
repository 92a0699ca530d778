"""DC-Net: five deformable convolutions and one logit per basic pattern.

Shape legend: N images, H x W pixels, C channels, B basic patterns.

A deformable convolution unit is ``conv.<k>`` (a 3x3 ``DeformConv`` of the first version, as the
paper has no masks), ``norm.<k>`` and ReLU. The last map is averaged over its pixels, and ``fc``
gives a logit per pattern. Number of units, strides and channels are those of the authors' published
program. There a unit moves every pixel of every channel once and convolves the moved map; here the
points under each tap move, as in the deformable convolution that the paper cites.

References:
  Wang et al., 'Deformable convolutional networks for efficient mixed-type wafer defect pattern
  recognition', IEEE Transactions on Semiconductor Manufacturing 33(4) (2020); Dai et al.,
  `Deformable Convolutional Networks <https://arxiv.org/abs/1703.06211>`_, equation 2.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.deform_conv import DeformConv
from jaxdefect.models.normalization import BatchNorm
from jaxdefect.models.pooling import global_average_pool
from jaxdefect.models.recogniser import Recognition

# (factor on the width, stride) of every unit.
UNITS = ((1, 2), (2, 2), (4, 2), (8, 1), (4, 2))


class DCNet(nn.Module):
  """Deformable units, global average pooling and a dense layer.

  Attributes:
    num_patterns: B.
    width: channels of the first unit; 32 is the authors' network.
    axis_name: device axis, for the batch statistics.
    dtype: type of the computation; parameters, offsets, pooling and logits are float32 at least.
  """

  num_patterns: int
  width: int = 32
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    train: bool = False,
    valid: jax.Array | None = None,
    tap: jax.Array | None = None,
  ) -> Recognition:
    """Recognises images.

    Args:
      x: [N, H, W, C] normalised images.
      train: True normalises with the statistics of the batch.
      valid: [N] bool, images that count in the statistics. None counts all.
      tap: added to the last map, so that its gradient is the map's. None adds nothing.

    Returns:
      A ``Recognition`` with ``logits`` [N, B] and no projection; the last map has a sixteenth of
      the image's sides, rounded up.
    """
    for index, (factor, stride) in enumerate(UNITS):
      conv = DeformConv(
        factor * self.width, 3, stride, 1, version='v1', dtype=self.dtype, name=f'conv.{index}'
      )
      norm = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=f'norm.{index}')
      x = nn.relu(norm(conv(x), use_running_average=not train, valid=valid))
    if tap is not None:
      x = x + tap
    features = global_average_pool(x)
    logits = nn.Dense(self.num_patterns, dtype=features.dtype, name='fc')(features)
    return Recognition(x, features, logits, None)
