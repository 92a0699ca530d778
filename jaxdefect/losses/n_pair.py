"""N-pair loss on cosines: pictures of a class attract each other, one view of each.

Shape legend: N images on this device, M on all devices, D dimensions of an embedding.
"""

import chex
import jax
import jax.numpy as jnp

from jaxdefect.losses.cosine import unit_vectors


def n_pair(
  embeddings: jax.Array,
  labels: jax.Array,
  *,
  temperature: float,
  valid: jax.Array | None = None,
  axis_name: str | None = None,
) -> jax.Array:
  r"""N-pair loss of every image against all images of the batch, itself among them.

  .. math::
    \ell_i = \frac{-1}{|P(i)|} \sum_{p \in P(i)} \log
      \frac{e^{\cos(z_i, z_p) / \tau}}{\sum_k e^{\cos(z_i, z_k) / \tau}}

  where k runs over all (valid) images of the batch and P(i) are those of the class of i. Unlike
  ``supervised_contrastive`` it takes one view of an image, and the image is a candidate of its own:
  one whose class the batch shows but once is still pushed away from the others. With |P| images of
  its class that all lie on one point, and the others infinitely far, the loss is log |P|.

  Args:
    embeddings: [N, D], any length.
    labels: [N] integers.
    temperature: tau > 0.
    valid: [N] bool; False marks padding, which is nobody's candidate and costs 0.
    axis_name: device axis over which embeddings and labels are gathered, as in ``nt_xent``.

  Returns:
    [N] values; padding costs 0.

  Raises:
    ValueError: a temperature outside what is allowed.

  References:
    Sohn 2016, 'Improved deep metric learning with multi-class N-pair loss objective', equation 6,
    with cosines in place of its products of vectors, as Nag et al. 2022 (WaferSegClassNet) take it.

  >>> print(n_pair(jnp.eye(3), jnp.arange(3), temperature=1.0).round(3))  # log(e + 1 + 1) - 1
  [0.551 0.551 0.551]
  """
  chex.assert_rank([embeddings, labels], [2, 1])
  chex.assert_equal_shape_prefix([embeddings, labels], 1)
  if isinstance(temperature, int | float) and not temperature > 0:
    raise ValueError(f'temperature is {temperature}; it must be larger than 0.')
  here = jnp.ones(labels.shape, bool) if valid is None else valid.astype(bool)
  # Whatever padding holds, NaN included, must reach neither values nor gradients.
  z = unit_vectors(jnp.where(here[:, None], embeddings, 0))
  others, all_labels, seen = z, labels, here
  if axis_name is not None:
    others, all_labels, seen = (
      jax.lax.all_gather(one, axis_name, tiled=True) for one in (z, labels, here)
    )
  logits = jnp.matmul(z, others.T, precision='highest') / temperature  # [N, M]
  # A row of padding takes part in itself alone and is thrown away: no row is empty.
  taking_part = seen | ~here[:, None]
  alike = taking_part & (labels[:, None] == all_labels)
  total = jax.nn.logsumexp(jnp.where(taking_part, logits, -jnp.inf), axis=1)
  attraction = jnp.where(alike, logits, 0).sum(1) / jnp.maximum(alike.sum(1), 1)
  return jnp.where(here, total - attraction, 0)
