"""Complete IoU loss: overlap, distance of the centres and shape of two boxes in one number.

Shape legend: ... any axes; the last axis of a box is (x0, y0, x1, y1).
"""

import math

import chex
import jax
import jax.numpy as jnp

# Lengths below a thousandth of a pixel, and areas below its square, count as that in a divisor.
_SHORTEST = 1e-3
_SMALLEST = _SHORTEST**2


def complete_iou(prediction: jax.Array, target: jax.Array) -> jax.Array:
  r"""One minus the IoU, plus how far the centres and the aspect ratios lie apart.

  With :math:`\rho` the distance of the centres and c the diagonal of the smallest box around both,

  .. math::
    \ell = 1 - \mathrm{IoU} + \frac{\rho^2}{c^2} + \alpha v, \qquad
    v = \frac{4}{\pi^2} \left(\arctan\frac{\hat w}{\hat h} - \arctan\frac{w}{h}\right)^2, \qquad
    \alpha = \frac{v}{(1 - \mathrm{IoU}) + v}

  in which alpha is a weight and no gradient passes through it. The paper leaves the divisor
  :math:`w^2 + h^2` of v's gradient out, for sides in 0..1; here sides are pixels and it stays.

  Args:
    prediction: [..., 4] boxes, pixels.
    target: [..., 4] boxes of the same shape, pixels.

  Returns:
    [...] values, 0 where the boxes are equal, float32 or wider; finite, with a finite gradient,
    for boxes without area too.

  References:
    Zheng et al., `Distance-IoU Loss <https://arxiv.org/abs/1911.08287>`_, 2020, equations 8 to 11.

  >>> a, b = jnp.array([0.0, 0.0, 2.0, 2.0]), jnp.array([1.0, 0.0, 3.0, 2.0])
  >>> round(complete_iou(a, b).item(), 4)  # 1 - 1/3 + 1/13
  0.7436
  """
  chex.assert_equal_shape([prediction, target])
  chex.assert_axis_dimension(prediction, -1, 4)
  dtype = jnp.promote_types(jnp.promote_types(prediction.dtype, target.dtype), jnp.float32)
  prediction, target = prediction.astype(dtype), target.astype(dtype)

  # One array per edge: XLA vectorises these, not a trailing axis of two.
  x0, y0, x1, y1 = (prediction[..., k] for k in range(4))
  tx0, ty0, tx1, ty1 = (target[..., k] for k in range(4))
  shared_width = jnp.maximum(jnp.minimum(x1, tx1) - jnp.maximum(x0, tx0), 0)
  shared_height = jnp.maximum(jnp.minimum(y1, ty1) - jnp.maximum(y0, ty0), 0)
  width, height, target_width, target_height = x1 - x0, y1 - y0, tx1 - tx0, ty1 - ty0
  shared = shared_width * shared_height
  union = width * height + target_width * target_height - shared
  iou = shared / jnp.maximum(union, _SMALLEST)

  around_width = jnp.maximum(x1, tx1) - jnp.minimum(x0, tx0)
  around_height = jnp.maximum(y1, ty1) - jnp.minimum(y0, ty0)
  diagonal = around_width * around_width + around_height * around_height
  apart_x, apart_y = x0 + x1 - tx0 - tx1, y0 + y1 - ty0 - ty1  # twice the distance
  distance = (apart_x * apart_x + apart_y * apart_y) / 4

  angle = jnp.arctan(width / jnp.maximum(height, _SHORTEST))
  target_angle = jnp.arctan(target_width / jnp.maximum(target_height, _SHORTEST))
  difference = target_angle - angle
  shape = 4 / math.pi**2 * difference * difference
  weight = jax.lax.stop_gradient(shape / jnp.maximum(1 - iou + shape, _SMALLEST))
  return 1 - iou + distance / jnp.maximum(diagonal, _SMALLEST) + weight * shape
