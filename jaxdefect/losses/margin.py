"""Softmax losses with a margin between classes.

Shape legend: N examples, D dimensions of an embedding, K classes.
"""

import math

import chex
import jax
import jax.numpy as jnp

from jaxdefect.losses.cosine import cosine_logits
from jaxdefect.losses.cross_entropy import softmax_cross_entropy


def arcface(
  embeddings: jax.Array,
  class_weights: jax.Array,
  labels: jax.Array,
  *,
  margin: float,
  scale: float,
) -> jax.Array:
  r"""Cross-entropy over angles, with a margin added to the angle of the true class.

  .. math::
    L_n = -\log \frac{e^{s\,t(\theta_y)}}{e^{s\,t(\theta_y)} + \sum_{j \ne y} e^{s\cos\theta_j}},
    \qquad
    t(\theta) = \begin{cases} \cos(\theta + m) & \theta + m \le \pi \\
                              \cos\theta - m \sin m & \text{otherwise} \end{cases}

  The second branch keeps the penalty growing where :math:`\cos(\theta + m)` would fall back.
  :math:`\cos(\theta + m)` is written as :math:`\cos\theta\cos m - \sin\theta\sin m`, without
  arccos: at theta = 0 and pi, where the direction of steepest descent is undefined, the sine
  gets the slope 0, so values and gradients are finite over the whole circle.

  Args:
    embeddings: [N, D], any length.
    class_weights: [D, K], one column per class, any length.
    labels: [N] integers below K.
    margin: m, radians, in [0, pi).
    scale: s > 0, inverse temperature of the softmax.

  Returns:
    [N] values in nats, float32 or wider.

  Raises:
    ValueError: margin or scale outside what is allowed.

  References:
    Phuong et al. 2024, equation 4; Deng et al. 2019, https://arxiv.org/abs/1801.07698

  >>> value = arcface(jnp.eye(2), jnp.eye(2), jnp.array([0, 1]), margin=0.5, scale=1.0)
  >>> [f'{v:.4f}' for v in value]  # log(e^cos(0.5) + e^0) - cos(0.5)
  ['0.3477', '0.3477']
  """
  chex.assert_rank(labels, 1)
  chex.assert_equal(embeddings.shape[0], labels.shape[0])
  if not 0 <= margin < math.pi:
    raise ValueError(f'margin is {margin}; it must be in [0, pi) radians.')
  if not scale > 0:
    raise ValueError(f'scale is {scale}; it must be larger than 0.')

  cosine = cosine_logits(embeddings, class_weights)  # [N, K]
  is_target = jax.nn.one_hot(labels, cosine.shape[1], dtype=bool)

  square = 1 - jnp.square(cosine)
  # Below rounding the sine is noise and its slope, cos / sin, without bound.
  has_sine = square > jnp.finfo(cosine.dtype).eps
  sine = jnp.where(has_sine, jnp.sqrt(jnp.where(has_sine, square, 1)), 0)

  moved = cosine * math.cos(margin) - sine * math.sin(margin)
  beyond = cosine - margin * math.sin(margin)
  target = jnp.where(cosine >= -math.cos(margin), moved, beyond)
  logits = scale * jnp.where(is_target, target, cosine)
  return softmax_cross_entropy(logits, labels)
