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

from jaxdefect.models.convolution import Conv, conv2d
from jaxdefect.models.rectifier import lean_relu


class Pointwise(nn.Module):
  """Kernel and bias of a layer of single pixels, which its owner multiplies with.

  Attributes:
    features: O, number of output channels.
  """

  features: int

  @nn.compact
  def __call__(self, channels: int) -> tuple[jax.Array, jax.Array]:
    """[1, 1, channels, O] and [O]."""
    shape = (1, 1, channels, self.features)
    kernel = self.param('kernel', nn.initializers.normal(0.01), shape, jnp.float32)
    return kernel, self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)


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
    # Both layers in one product: so their gradients to the widest map of the network are one array.
    count, channels = self.num_anchors, maps[0].shape[-1]
    kernels, biases = zip(
      Pointwise(count, name='cls_logits')(channels),
      Pointwise(4 * count, name='bbox_pred')(channels),
    )
    kernel, bias = (jnp.concatenate(part, axis=-1).astype(self.dtype) for part in (kernels, biases))

    wide = jnp.promote_types(self.dtype, jnp.float32)
    objectness, deltas = [], []
    for x in maps:
      y = (conv2d(lean_relu(convolution(x)), kernel) + bias).astype(wide)  # [N, h, w, 5 r]
      n, height, width, _ = y.shape
      objectness.append(y[..., :count].reshape(n, height * width * count))
      deltas.append(y[..., count:].reshape(n, height * width * count, 4))
    return jnp.concatenate(objectness, axis=1), jnp.concatenate(deltas, axis=1)
