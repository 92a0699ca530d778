"""Classification by class prototypes, and how prototypes follow the features.

Shape legend: N examples, D dimensions of a feature, K classes.

The paper writes the class probability with cosines and its contrastive loss with dot products. The
two agree for unit vectors only. Here both are cosines, so that the loss is the negative logarithm
of the very probability that predicts: a long feature is not a more certain one, and a temperature
means the same for every network.
"""

import chex
import jax
import jax.numpy as jnp

from jaxdefect.losses.cosine import cosine_logits, unit_vectors
from jaxdefect.losses.cross_entropy import softmax_cross_entropy


def prototype_cross_entropy(
  features: jax.Array,
  prototypes: jax.Array,
  labels: jax.Array,
  *,
  temperature: float,
  class_weights: jax.Array | None = None,
) -> jax.Array:
  r"""Cross-entropy of the softmax over cosines to class prototypes.

  .. math::
    L_n = -w_{y_n} \log p(y_n \mid f_n), \qquad
    p(c \mid f) = \frac{e^{\cos(f, u_c) / \tau}}{\sum_{k} e^{\cos(f, u_k) / \tau}}

  A zero feature (or prototype) has cosine 0 with everything and a zero gradient.

  Args:
    features: [N, D] of any length.
    prototypes: [K, D], one row u per class, of any length.
    labels: [N] integers below K.
    temperature: tau > 0; cosines differ by 2 at most, so no probability falls below
      ``exp(-2 / tau) / K``.
    class_weights: [K] non-negative weights w, see :func:`balance_weights`. None for 1.

  Returns:
    [N] values in nats, float32 or wider.

  Raises:
    ValueError: temperature outside what is allowed.

  References:
    Xia & Long, sections 3.4 and 3.5; cosines in place of its dot products, see above.

  >>> value = prototype_cross_entropy(
  ...   jnp.array([[3.0, 0.0]]), jnp.eye(2), jnp.array([0]), temperature=1.0
  ... )
  >>> print(f'{value[0]:.4f}')  # log(e + 1) - 1
  0.3133
  """
  chex.assert_rank([features, prototypes, labels], [2, 2, 1])
  chex.assert_equal(features.shape[1], prototypes.shape[1])
  if isinstance(temperature, int | float) and not temperature > 0:
    raise ValueError(f'temperature is {temperature}; it must be larger than 0.')
  logits = cosine_logits(features, prototypes.T, scale=1 / temperature)  # [N, K]
  return softmax_cross_entropy(logits, labels, class_weights=class_weights)


def prototype_logits(
  features: jax.Array,
  prototypes: jax.Array,
  *,
  temperature: float,
  background: jax.Array | None = None,
  discriminants: jax.Array | None = None,
) -> jax.Array:
  r"""Logits whose softmax is the class probability, with classes that were added without training.

  Trained classes have :math:`z_c = \cos(f, u_c) / \tau`. An added class has the log-odds
  :math:`g_a = w_a \cdot \hat f + b_a` of a plane, against all that was known before:

  .. math:: z_a = g_a + \log \sum_c e^{z_c}, \qquad p(a) = \frac{e^{g_a}}{1 + \sum_k e^{g_k}}

  so that the trained classes keep their shares of what the added ones leave.

  Args:
    features: [N, D] of any length.
    prototypes: [K, D], one row u per class; the first is the background's.
    temperature: tau > 0.
    background: [N] logits in place of the first column.
    discriminants: [C, D + 1] weights w and offset b of the added classes, in their order, as
      ``ops.linear_discriminant`` gives them. None where there are none.

  Returns:
    [N, K + C], float32 or wider.

  >>> logits = prototype_logits(
  ...   jnp.array([[2.0, 0.0]]),
  ...   jnp.eye(2),
  ...   temperature=1.0,
  ...   discriminants=jnp.array([[3.0, 0.0, -3.0]]),
  ... )
  >>> [f'{float(p):.2f}' for p in jax.nn.softmax(logits)[0]]  # even odds for the added class
  ['0.37', '0.13', '0.50']
  """
  logits = cosine_logits(features, prototypes.T, scale=1 / temperature)  # [N, K]
  if background is not None:
    logits = logits.at[:, 0].set(background)
  if discriminants is None:
    return logits
  odds = jnp.matmul(unit_vectors(features), discriminants[:, :-1].T, precision='highest')
  rest = jax.nn.logsumexp(logits, axis=1, keepdims=True)
  return jnp.concatenate([logits, rest + odds + discriminants[:, -1]], axis=1)


def class_means(
  features: jax.Array,
  labels: jax.Array,
  num_classes: int,
  *,
  valid: jax.Array | None = None,
  axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array]:
  r"""Mean feature of every class over the valid examples of all devices.

  .. math:: \bar f_c = \frac{1}{n_c} \sum_{n: y_n = c} f_n

  Args:
    features: [N, D].
    labels: [N] integers; an example whose label is no class (-1, K, ...) belongs to none.
    num_classes: K.
    valid: [N] bool; False marks padding, whatever it holds. None counts all.
    axis_name: device axis over which sums and counts are added up.

  Returns:
    means [K, D], float32 or wider, zero for a class without examples; counts [K] of that type.

  >>> means, counts = class_means(jnp.array([[2.0], [4.0], [7.0]]), jnp.array([0, 0, 2]), 3)
  >>> means[:, 0].tolist(), counts.tolist()
  ([3.0, 0.0, 7.0], [2.0, 0.0, 1.0])
  """
  chex.assert_rank([features, labels], [2, 1])
  chex.assert_equal(features.shape[0], labels.shape[0])
  dtype = jnp.promote_types(features.dtype, jnp.float32)
  member = jax.nn.one_hot(labels, num_classes, dtype=dtype)  # [N, K]
  if valid is not None:
    chex.assert_shape(valid, labels.shape)
    member = jnp.where(valid[:, None], member, 0)
    # Not a product with zero: padding may hold NaN.
    features = jnp.where(valid[:, None], features, 0)
  sums = jnp.matmul(member.T, features.astype(dtype), precision='highest')  # [K, D]
  counts = jnp.sum(member, axis=0)
  if axis_name is not None:
    sums, counts = jax.lax.psum((sums, counts), axis_name)
  return sums / jnp.maximum(counts, 1)[:, None], counts


def centred_means(
  features: jax.Array, labels: jax.Array, num_classes: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Mean directions of the classes as seen from their common middle.

  Args:
    features: [N, D].
    labels: [N] integers.
    num_classes: K.

  Returns:
    means [K, D] of ``unit_vectors(features - center)``, zero for a class without examples; counts
    [K]; center [D], the mean over the classes that have examples.

  >>> means, _, center = centred_means(jnp.array([[1.0], [5.0], [5.0]]), jnp.array([0, 2, 2]), 3)
  >>> means[:, 0].tolist(), center.tolist()
  ([-1.0, 0.0, 1.0], [3.0])
  """
  means, counts = class_means(features, labels, num_classes)
  center = means.sum(axis=0) / (counts > 0).sum()
  means, _ = class_means(unit_vectors(features - center), labels, num_classes)
  return means, counts, center


def update_prototypes(
  prototypes: jax.Array,
  features: jax.Array,
  labels: jax.Array,
  *,
  momentum: float,
  valid: jax.Array | None = None,
  axis_name: str | None = None,
) -> jax.Array:
  r"""Moves prototypes towards the mean feature of their class in the batch.

  .. math:: u_c \leftarrow \alpha u_c + (1 - \alpha) \bar f_c

  Features enter as they are. :func:`prototype_cross_entropy` reads directions only; hand in
  ``unit_vectors(features)``, so that every example moves a prototype as far as any other.

  Args:
    prototypes: [K, D], one row per class.
    features: [N, D].
    labels: [N] integers; an example whose label is no class (-1, K, ...) moves nothing.
    momentum: alpha in [0, 1]; 0 takes the batch's mean, 1 keeps the prototypes.
    valid: [N] bool; False marks padding. None counts all.
    axis_name: device axis; means are taken over the batch of all devices, so that every device
      gets the same prototypes, and the same as one device that holds the whole batch.

  Returns:
    [K, D] in the type of ``prototypes``; the row of a class that the batch does not have is
    unchanged, bit for bit.

  Raises:
    ValueError: momentum outside what is allowed.

  References:
    Xia & Long, section 3.4.

  >>> moved = update_prototypes(
  ...   jnp.eye(2), jnp.array([[0.0, 1.0]]), jnp.array([0]), momentum=0.75
  ... )
  >>> moved.tolist()
  [[0.75, 0.25], [0.0, 1.0]]
  """
  chex.assert_rank([prototypes, features], 2)
  chex.assert_equal(prototypes.shape[1], features.shape[1])
  if isinstance(momentum, int | float) and not 0 <= momentum <= 1:
    raise ValueError(f'momentum is {momentum}; it must be in [0, 1].')
  means, counts = class_means(
    features, labels, prototypes.shape[0], valid=valid, axis_name=axis_name
  )
  moved = momentum * prototypes.astype(means.dtype) + (1 - momentum) * means
  return jnp.where(counts[:, None] > 0, moved.astype(prototypes.dtype), prototypes)
