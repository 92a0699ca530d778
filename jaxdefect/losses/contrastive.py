"""NT-Xent, the three-view mean of it, and the supervised contrastive loss.

Shape legend: N images on this device, M on all devices, V views, D dimensions of an embedding.
A pair of views gives 2N anchors on this device and 2M candidates on all of them.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from jaxdefect.losses.cosine import unit_vectors


def nt_xent(
  z_a: jax.Array,
  z_b: jax.Array,
  *,
  temperature: float,
  valid: jax.Array | None = None,
  axis_name: str | None = None,
  anchors: str = 'both',
) -> jax.Array:
  r"""Normalised temperature-scaled cross-entropy between two views of the same images.

  .. math::
    \ell_i = -\log \frac{e^{\cos(z_i, z_{p(i)}) / \tau}}
                        {\sum_{k \ne i} e^{\cos(z_i, z_k) / \tau}}

  where k runs over both views of all (valid) images and p(i) is the other view of image i, so an
  anchor meets one positive and 2M - 2 negatives.

  An image alone has no negatives and costs 0. A zero vector has cosine 0 with everything.

  Args:
    z_a: [N, D] embeddings of the first view, any length.
    z_b: [N, D] embeddings of the second view, row by row the same images.
    temperature: tau > 0.
    valid: [N] bool; False marks padding, which is nobody's negative and costs 0.
    axis_name: device axis over which negatives are gathered. The gradient of the *sum* over
      devices of the values is then right on every device; ``optim.gradient_step`` takes it so.
    anchors: ``'both'`` (usual NT-Xent, each of the 2N embeddings is an anchor) or ``'first'``
      (only those of ``z_a``: equation 1 as equation 2 of the paper uses it).

  Returns:
    [2N] values, first the anchors of ``z_a``, then those of ``z_b``; [N] for ``'first'``.

  Raises:
    ValueError: temperature or anchors outside what is allowed.

  References:
    Phuong et al. 2024, equation 1; Chen et al. 2020 (SimCLR), https://arxiv.org/abs/2002.05709

  >>> z = jnp.eye(2)
  >>> print(nt_xent(z, z, temperature=1.0).round(3))  # log(e + 1 + 1) - 1
  [0.551 0.551 0.551 0.551]
  """
  _check([z_a, z_b], temperature, valid, anchors)
  view_a, view_b = (_gather(z, valid, axis_name) for z in (z_a, z_b))
  return _pair(view_a, view_b, temperature, _gather_valid(z_a, valid, axis_name), anchors)


def three_view_nt_xent(
  z: jax.Array,
  z_i: jax.Array,
  z_j: jax.Array,
  *,
  temperature: float,
  valid: jax.Array | None = None,
  axis_name: str | None = None,
  anchors: str = 'both',
) -> jax.Array:
  r"""Mean NT-Xent over the three pairs that an image and two views of it make.

  .. math::
    L_n = \tfrac13 \left( \ell(x_n, x_i) + \ell(x_n, x_j) + \ell(x_i, x_j) \right),
    \qquad L_{con} = \tfrac1N \sum_n L_n

  Each pair has its own pool of candidates: the two views that it is made of.

  Args:
    z: [N, D] embeddings of the images.
    z_i: [N, D] embeddings of the first view.
    z_j: [N, D] embeddings of the second view.
    temperature: tau > 0.
    valid: [N] bool; False marks padding.
    axis_name: device axis over which negatives are gathered.
    anchors: ``'both'`` takes the mean of the two directions of a pair; ``'first'`` the first
      direction only, which is equation 2 to the letter.

  Returns:
    [N] values; padding costs 0.

  Raises:
    ValueError: temperature or anchors outside what is allowed.

  References:
    Phuong et al. 2024, equation 2.

  >>> z = jnp.eye(2)
  >>> print(three_view_nt_xent(z, z, z, temperature=1.0).round(3))
  [0.551 0.551]
  """
  _check([z, z_i, z_j], temperature, valid, anchors)
  views = [_gather(view, valid, axis_name) for view in (z, z_i, z_j)]
  gathered_valid = _gather_valid(z, valid, axis_name)

  total = jnp.zeros(z.shape[0], views[0][0].dtype)
  for first, second in ((0, 1), (0, 2), (1, 2)):
    values = _pair(views[first], views[second], temperature, gathered_valid, anchors)
    if anchors == 'both':
      values = jnp.mean(values.reshape(2, -1), axis=0)  # [N]
    total = total + values
  return total / 3


def supervised_contrastive(
  views: Sequence[jax.Array],
  labels: jax.Array,
  *,
  temperature: float,
  valid: jax.Array | None = None,
  axis_name: str | None = None,
) -> jax.Array:
  r"""Supervised contrastive loss: all views of all images of a class attract each other.

  .. math::
    \ell_i = \frac{-1}{|P(i)|} \sum_{p \in P(i)} \log
      \frac{e^{\cos(z_i, z_p) / \tau}}{\sum_{k \ne i} e^{\cos(z_i, z_k) / \tau}}

  where k runs over all views of all (valid) images, and P(i) are those among them that show a
  picture of the class of i, its own other views included. Labels that are all different make it
  NT-Xent over V views. The future work of Phuong et al. 2024.

  Args:
    views: V arrays [N, D], row by row the same images; 2 or more, of any length.
    labels: [N] integers.
    temperature: tau > 0.
    valid: [N] bool; False marks padding, which attracts nobody and costs 0.
    axis_name: device axis over which views and labels are gathered, as in :func:`nt_xent`.

  Returns:
    [N] values, each the mean over the V anchors of an image; padding costs 0.

  Raises:
    ValueError: fewer than two views, or a temperature outside what is allowed.

  References:
    Khosla et al. 2020, equation 2, https://arxiv.org/abs/2004.11362

  >>> z = jnp.eye(2)
  >>> print(supervised_contrastive([z, z], jnp.arange(2), temperature=1.0).round(3))
  [0.551 0.551]
  """
  if len(views) < 2:
    raise ValueError(f'views are {len(views)}; it takes 2 or more.')
  _check(list(views), temperature, valid, 'both')
  chex.assert_shape(labels, views[0].shape[:1])
  here, everywhere, start = _gather_valid(views[0], valid, axis_name)
  own, others = zip(*(_gather(z, valid, axis_name) for z in views))
  all_labels = labels if axis_name is None else jax.lax.all_gather(labels, axis_name, tiled=True)

  num, num_all, count = labels.shape[0], all_labels.shape[0], len(views)
  logits = jnp.matmul(jnp.concatenate(own), jnp.concatenate(others).T, precision='highest')
  logits /= temperature  # [VN, VM]
  place = (jnp.arange(count)[:, None] * num_all + start + jnp.arange(num)).reshape(-1)  # [VN]
  seen = jnp.tile(everywhere, count) & (jnp.arange(count * num_all) != place[:, None])
  alike = jnp.tile(labels, count)[:, None] == jnp.tile(all_labels, count)
  # Padding takes part in its own row, which is thrown away: no row is empty.
  seen |= ~jnp.tile(here, count)[:, None]
  positive = seen & alike
  total = jax.nn.logsumexp(jnp.where(seen, logits, -jnp.inf), axis=1)
  attraction = jnp.where(positive, logits, 0).sum(1) / positive.sum(1)
  values = (total - attraction).reshape(count, num).mean(0)
  return jnp.where(here, values, 0)


def _check(views, temperature, valid, anchors) -> None:
  chex.assert_rank(views, 2)
  chex.assert_equal_shape(views)
  if valid is not None:
    chex.assert_shape(valid, (views[0].shape[0],))
  if isinstance(temperature, int | float) and not temperature > 0:
    raise ValueError(f'temperature is {temperature}; it must be larger than 0.')
  if anchors not in ('both', 'first'):
    raise ValueError(f"anchors is {anchors!r}; it must be 'both' or 'first'.")


def _gather(z, valid, axis_name):
  """Unit vectors of this device [N, D] and of all devices [M, D]; padding is zeroed."""
  if valid is not None:
    # Whatever padding holds, NaN included, must reach neither values nor gradients.
    z = jnp.where(valid[:, None], z, 0)
  z = unit_vectors(z)
  if axis_name is None:
    return z, z
  return z, jax.lax.all_gather(z, axis_name, tiled=True)


def _gather_valid(z, valid, axis_name):
  """[N] valid rows here, [M] on all devices, and where this device's rows start among them."""
  num = z.shape[0]
  here = jnp.ones(num, bool) if valid is None else valid.astype(bool)
  if axis_name is None:
    return here, here, 0
  everywhere = jax.lax.all_gather(here, axis_name, tiled=True)
  return here, everywhere, jax.lax.axis_index(axis_name) * num


def _pair(view_a, view_b, temperature, gathered_valid, anchors):
  """[2N] or [N] values of one pair of gathered views."""
  (z_a, all_a), (z_b, all_b) = view_a, view_b
  valid, all_valid, start = gathered_valid
  num, num_all = z_a.shape[0], all_a.shape[0]

  candidates = jnp.concatenate([all_a, all_b])  # [2M, D]
  own = start + jnp.arange(num)  # where an image's first view stands among the candidates
  if anchors == 'both':
    z = jnp.concatenate([z_a, z_b])
    own, positive = (
      jnp.concatenate([own, own + num_all]),
      jnp.concatenate([own + num_all, own]),
    )
    valid = jnp.concatenate([valid, valid])
  else:
    z, positive = z_a, own + num_all

  logits = jnp.matmul(z, candidates.T, precision='highest') / temperature  # [2N, 2M]
  attraction = jnp.take_along_axis(logits, positive[:, None], axis=1)[:, 0]

  # The positive always takes part, so no row is empty and log-sum-exp stays finite.
  column = jnp.arange(2 * num_all)
  seen = jnp.concatenate([all_valid, all_valid]) & (column != own[:, None])
  seen = seen | (column == positive[:, None])
  values = jax.nn.logsumexp(jnp.where(seen, logits, -jnp.inf), axis=1) - attraction
  return jnp.where(valid, values, 0)
