"""Boxes: area, overlap, clipping, and the coder of Faster R-CNN.

Shape legend: A and B boxes, ``...`` any leading axes; the last axis is (x0, y0, x1, y1).

Boxes are float edges in absolute pixels, 0 at the upper left corner of the image, so the area is
(x1 - x0)(y1 - y0) without any + 1. Half types and integers are computed in float32, float64 stays.
Boxes without area, as padding has, give finite values and finite gradients everywhere.
"""

import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

# The largest growth that a delta may ask for, as in torchvision: from 16 to 1000 pixels.
LARGEST_LOG_RATIO = math.log(1000.0 / 16)

# Unions below a millionth of a pixel, squared, count as empty: their square still fits float32.
_NO_AREA = 1e-12
# Sides below a thousandth of a pixel count as that where the coder divides by them.
_SHORTEST_SIDE = 1e-3


def box_area(boxes: jax.Array) -> jax.Array:
  """Area of each box, 0 where an edge lies on the wrong side of the other.

  Args:
    boxes: [..., 4] in pixels.

  Returns:
    [...] in square pixels.

  >>> box_area(jnp.array([1.0, 2.0, 4.0, 4.0])).item()
  6.0
  """
  (boxes,) = _raised(boxes)
  chex.assert_axis_dimension(boxes, -1, 4)
  extent = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)  # [..., 2]
  return extent[..., 0] * extent[..., 1]


def box_iou(a: jax.Array, b: jax.Array) -> jax.Array:
  r"""Intersection over union of every box of ``a`` with every box of ``b``.

  .. math:: \text{IoU}_{ij} = \frac{|a_i \cap b_j|}{|a_i| + |b_j| - |a_i \cap b_j|}

  and 0 where both boxes are empty.

  Args:
    a: [..., A, 4] in pixels.
    b: [..., B, 4] in pixels; the leading axes broadcast against those of ``a``.

  Returns:
    [..., A, B] in 0..1.

  >>> a, b = jnp.array([[0.0, 0.0, 2.0, 2.0]]), jnp.array([[1.0, 0.0, 3.0, 2.0]])
  >>> round(box_iou(a, b).item(), 4)
  0.3333
  """
  a, b = _raised(a, b)
  chex.assert_axis_dimension(a, -1, 4)
  chex.assert_axis_dimension(b, -1, 4)
  # One [..., A, B] plane per edge: XLA vectorises planes, not a trailing axis of two.
  rows = [a[..., :, None, k] for k in range(4)]  # [..., A, 1] each
  columns = [b[..., None, :, k] for k in range(4)]  # [..., 1, B] each
  width = jnp.minimum(rows[2], columns[2]) - jnp.maximum(rows[0], columns[0])
  height = jnp.minimum(rows[3], columns[3]) - jnp.maximum(rows[1], columns[1])
  intersection = jnp.maximum(width, 0) * jnp.maximum(height, 0)  # [..., A, B]
  union = box_area(a)[..., :, None] + box_area(b)[..., None, :] - intersection
  # The inner where keeps 0/0 out of the gradient too.
  some = union > _NO_AREA
  return jnp.where(some, intersection / jnp.where(some, union, 1), 0)


def clip_boxes(boxes: jax.Array, size: jax.Array | tuple[float, float]) -> jax.Array:
  """Moves the edges of boxes into an image.

  Args:
    boxes: [..., 4] in pixels.
    size: (height, width) in pixels, or an array with as many axes as ``boxes``, its last one
      (height, width), that broadcasts: ``batch['size'][:, None]`` for boxes [N, M, 4].

  Returns:
    [..., 4], with 0 <= x <= width and 0 <= y <= height.

  >>> clip_boxes(jnp.array([-3.0, 1.0, 90.0, 5.0]), (4, 60)).tolist()
  [0.0, 1.0, 60.0, 4.0]
  """
  (boxes,) = _raised(boxes)
  size = jnp.asarray(size, boxes.dtype)
  chex.assert_axis_dimension(boxes, -1, 4)
  chex.assert_axis_dimension(size, -1, 2)
  chex.assert_rank(size, {1, boxes.ndim})  # [N, 2] would broadcast against the wrong axis
  limit = size[..., jnp.array([1, 0, 1, 0])]  # (w, h, w, h)
  return jnp.minimum(jnp.maximum(boxes, 0), limit)


def encode_boxes(reference: jax.Array, proposals: jax.Array, weights: Sequence[float]) -> jax.Array:
  r"""What a regressor has to say to move proposals onto reference boxes.

  With centre x, y and size w, h of the proposal, and :math:`\hat{}` those of the reference:

  .. math:: t = \left(k_0 \frac{\hat x - x}{w},\ k_1 \frac{\hat y - y}{h},\
            k_2 \log\frac{\hat w}{w},\ k_3 \log\frac{\hat h}{h}\right)

  Sides shorter than 1e-3 pixels count as 1e-3, so that padding stays finite.

  Ren et al., "Faster R-CNN", 2015, equation 2; the weights are torchvision's.

  Args:
    reference: [..., 4] boxes to reach (ground truth), in pixels.
    proposals: [..., 4] boxes to start from (anchors, regions), in pixels; the leading axes
      broadcast.
    weights: (k0, k1, k2, k3), (1, 1, 1, 1) for a region proposal network, (10, 10, 5, 5) for the
      box head of torchvision.

  Returns:
    [..., 4] deltas (dx, dy, dw, dh), without unit.

  >>> box = jnp.array([0.0, 0.0, 10.0, 10.0])
  >>> encode_boxes(box + 5, box, (1, 1, 1, 1)).tolist()
  [0.5, 0.5, 0.0, 0.0]
  """
  reference, proposals = _raised(reference, proposals)
  chex.assert_axis_dimension(reference, -1, 4)
  chex.assert_axis_dimension(proposals, -1, 4)
  factors = _four_weights(weights, proposals.dtype)
  target_centre, target_size = _centre_and_size(reference)
  centre, size = _centre_and_size(proposals)
  target_size = jnp.maximum(target_size, _SHORTEST_SIDE)
  size = jnp.maximum(size, _SHORTEST_SIDE)
  shift = (target_centre - centre) / size
  growth = jnp.log(target_size / size)
  return factors * jnp.concatenate([shift, growth], axis=-1)


def decode_boxes(deltas: jax.Array, proposals: jax.Array, weights: Sequence[float]) -> jax.Array:
  """Moves proposals by what a regressor said: the inverse of :func:`encode_boxes`.

  dw and dh, after division by their weights, are clipped from above at log(1000/16), so that an
  untrained regressor cannot overflow.

  Args:
    deltas: [..., 4] as :func:`encode_boxes` returns.
    proposals: [..., 4] boxes in pixels; the leading axes broadcast, so deltas [R, K, 4] of K
      classes take proposals [R, 1, 4].
    weights: the four numbers that encoded.

  Returns:
    [..., 4] boxes in pixels; not clipped to the image.

  >>> box = jnp.array([0.0, 0.0, 10.0, 10.0])
  >>> decode_boxes(jnp.array([5.0, 5.0, 0.0, 0.0]), box, (10, 10, 5, 5)).tolist()
  [5.0, 5.0, 15.0, 15.0]
  """
  deltas, proposals = _raised(deltas, proposals)
  chex.assert_axis_dimension(deltas, -1, 4)
  chex.assert_axis_dimension(proposals, -1, 4)
  deltas = deltas / _four_weights(weights, deltas.dtype)
  centre, size = _centre_and_size(proposals)
  centre = centre + deltas[..., :2] * size
  size = size * jnp.exp(jnp.minimum(deltas[..., 2:], LARGEST_LOG_RATIO))
  return jnp.concatenate([centre - size / 2, centre + size / 2], axis=-1)


def _centre_and_size(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(x, y) and (w, h) of boxes, [..., 2] each."""
  size = boxes[..., 2:] - boxes[..., :2]
  return boxes[..., :2] + size / 2, size


def _four_weights(weights: Sequence[float], dtype) -> jax.Array:
  if len(weights) != 4:
    raise ValueError(f'weights must be 4 numbers (dx, dy, dw, dh), came as {len(weights)}.')
  return jnp.asarray(weights, dtype)


def _raised(*arrays) -> list[jax.Array]:
  """Arrays of one floating type, at least float32."""
  dtype = jnp.result_type(*(jnp.asarray(a) for a in arrays), jnp.float32)
  return [jnp.asarray(a, dtype) for a in arrays]
