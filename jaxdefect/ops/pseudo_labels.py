"""Labels for pictures that nobody labelled: what two classifiers agree on.

Shape legend: N pictures, K classes.
"""

import chex
import jax
import jax.numpy as jnp


def agreed_labels(
  first: jax.Array, second: jax.Array, *, confidence: float = 0.0
) -> tuple[jax.Array, jax.Array]:
  r"""The class that both classifiers name, where both are sure enough.

  .. math:: \hat y_n = \arg\max_k p^1_{nk}, \qquad
    a_n = [\arg\max_k p^2_{nk} = \hat y_n]\;
          [\min(p^1_{n \hat y_n}, p^2_{n \hat y_n}) \ge t]

  with the softmax p of the scores and the confidence t.

  Args:
    first: [N, K] scores of one classifier.
    second: [N, K] scores of the other.
    confidence: t, in [0, 1]; 0 asks for agreement alone.

  Returns:
    The labels [N] int32 and whether they hold [N] bool. No gradient passes.

  Raises:
    ValueError: confidence outside what is allowed.

  >>> first = jnp.array([[4.0, 0.0], [4.0, 0.0], [0.4, 0.0]])
  >>> second = jnp.array([[3.0, 0.0], [0.0, 3.0], [3.0, 0.0]])
  >>> labels, agreed = agreed_labels(first, second, confidence=0.9)
  >>> agreed.tolist()  # sure of the same; of different classes; one is not sure
  [True, False, False]
  """
  first, second = (jax.lax.stop_gradient(jnp.asarray(one)) for one in (first, second))
  chex.assert_rank([first, second], 2)
  chex.assert_equal_shape([first, second])
  if not 0 <= confidence <= 1:
    raise ValueError(f'confidence is {confidence}; it must be in [0, 1].')
  label = first.argmax(axis=1)
  surest = jnp.minimum(jax.nn.softmax(first).max(axis=1), jax.nn.softmax(second).max(axis=1))
  return label.astype(jnp.int32), (second.argmax(axis=1) == label) & (surest >= confidence)
