"""The head of the region proposal network.

Shape legend: N images, h x w pixels of a map, r anchors per pixel, A anchors of an image.

Joining the path of a parameter with dots gives torchvision's key behind ``rpn.head.``, but for the
last word: ``conv.0.0``, ``cls_logits`` and ``bbox_pred``.

Reference:
  Ren et al., `Faster R-CNN <https://arxiv.org/abs/1506.01497>`_, section 3.1.
"""

from collections.abc import Sequence
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.convolution import Conv


class RPNHead(nn.Module):
  """Says for every anchor whether it holds an object, and how to move it there.

  A 3x3 convolution with ReLU, then 1x1 convolutions; the same weights on every level.

  Attributes:
    num_anchors: r, anchors per pixel (its sizes times its ratios).
    dtype: type of the convolutions; parameters are float32, and so are the outputs, at least.
  """

  num_anchors: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, maps: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Reads the maps of a pyramid.

    Args:
      maps: [N, h, w, C] per level, finest first.

    Returns:
      objectness [N, A] logits and deltas [N, A, 4] (dx, dy, dw, dh), in the order of
      ``ops.grid_anchors``: level, row, column, anchor.
    """
    chex.assert_rank(list(maps), 4)
    settings: dict[str, Any] = {
      'dtype': self.dtype,
      'use_bias': True,
      'kernel_init': nn.initializers.normal(0.01),
    }
    convolution = Conv(maps[0].shape[-1], 3, padding=1, name='conv.0.0', **settings)
    cls_logits = Conv(self.num_anchors, 1, name='cls_logits', **settings)
    bbox_pred = Conv(4 * self.num_anchors, 1, name='bbox_pred', **settings)

    wide = jnp.promote_types(self.dtype, jnp.float32)
    objectness, deltas = [], []
    for x in maps:
      x = nn.relu(convolution(x))
      n, height, width, _ = x.shape
      num = height * width * self.num_anchors
      objectness.append(cls_logits(x).astype(wide).reshape(n, num))  # [N, h w r]
      deltas.append(bbox_pred(x).astype(wide).reshape(n, num, 4))  # [N, h w r, 4]
    return jnp.concatenate(objectness, axis=1), jnp.concatenate(deltas, axis=1)
