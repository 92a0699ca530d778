"""Cross-entropy on logits.

Shape legend: N examples, K classes.
"""

import chex
import jax
import jax.numpy as jnp


def softmax_cross_entropy(
  logits: jax.Array,
  labels: jax.Array,
  *,
  class_weights: jax.Array | None = None,
  label_smoothing: float = 0.0,
) -> jax.Array:
  r"""Cross-entropy of the softmax against integer labels, weighted by the label's class.

  .. math::
    L_n = -w_{y_n} \sum_k q_{nk} \log p_{nk}, \qquad
    q_{nk} = (1 - \epsilon) [k = y_n] + \epsilon / K

  Args:
    logits: [N, K].
    labels: [N] integers below K.
    class_weights: [K] non-negative weights w, or None for 1. Dividing the sum of the values by
      the sum of ``class_weights[labels]`` gives PyTorch's weighted mean (without smoothing).
    label_smoothing: epsilon in [0, 1).

  Returns:
    [N] values in nats, float32 or wider.

  Raises:
    ValueError: label_smoothing outside what is allowed.

  >>> print(softmax_cross_entropy(jnp.zeros((1, 4)), jnp.array([2])))  # log 4
  [1.3862944]
  """
  chex.assert_rank([logits, labels], [2, 1])
  chex.assert_equal(logits.shape[0], labels.shape[0])
  if class_weights is not None:
    chex.assert_shape(class_weights, (logits.shape[1],))
  if not 0 <= label_smoothing < 1:
    raise ValueError(f'label_smoothing is {label_smoothing}; it must be in [0, 1).')

  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  log_p = jax.nn.log_softmax(logits, axis=1)
  target = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
  # `where` and not a product: a class ruled out by a logit of -inf must not turn into NaN.
  values = -jnp.sum(jnp.where(target, log_p, 0), axis=1)
  if label_smoothing:
    values = (1 - label_smoothing) * values - label_smoothing * jnp.mean(log_p, axis=1)
  if class_weights is not None:
    values = values * jnp.asarray(class_weights, logits.dtype)[labels]
  return values
