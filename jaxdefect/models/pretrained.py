"""The variables that a network starts from: fresh ones, with pretrained ones laid over them."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

PyTree = Any


def initial_variables(
  key: jax.Array, network: nn.Module, image: Any, *, pretrained: PyTree = None
) -> Any:
  """Initialises a network that is called on images.

  Args:
    key: typed PRNG key.
    network: called as ``network(x)`` on [N, H, W, C] float32.
    image: array or ``jax.ShapeDtypeStruct`` [N, H, W, C], for its shape.
    pretrained: as ``merge_pretrained`` takes it; None leaves all variables fresh.

  Returns:
    ``{'params': ..., 'batch_stats': ...}``.

  Raises:
    ValueError: as ``merge_pretrained``.
  """
  variables = network.init(key, jnp.zeros((1, *image.shape[1:]), jnp.float32))
  return variables if pretrained is None else merge_pretrained(variables, pretrained)


def merge_pretrained(
  variables: PyTree, pretrained: PyTree, *, under: tuple[str, ...] = ()
) -> PyTree:
  """Replaces variables by pretrained ones of the same path and shape.

  Args:
    variables: ``{'params': ..., 'batch_stats': ...}`` as made by ``init``.
    pretrained: a part of such a tree; every path in it must exist in ``variables`` with the same
      shape. Variables that it does not name stay as they are.
    under: names between the collection and the root of ``pretrained``, for example
      ``('backbone',)`` for a ``Recogniser``.

  Returns:
    A tree like ``variables``, with its dtypes.

  Raises:
    ValueError: for a path that does not exist or has another shape.
  """

  def merge(fresh: PyTree, given: PyTree, path: tuple[str, ...]) -> PyTree:
    if isinstance(given, Mapping):
      if not isinstance(fresh, Mapping):
        raise ValueError(f"pretrained has a tree at '{'/'.join(path)}', the model an array.")
      for name in given:
        if name not in fresh:
          place = '/'.join((*path, name))
          raise ValueError(f"pretrained has '{place}', which the model does not have.")
      return {
        name: merge(value, given[name], (*path, name)) if name in given else value
        for name, value in fresh.items()
      }
    place = '/'.join(path)
    if isinstance(fresh, Mapping):
      raise ValueError(f"pretrained has an array at '{place}', the model a tree.")
    if jnp.shape(given) != jnp.shape(fresh):
      raise ValueError(
        f"pretrained '{place}' has shape {jnp.shape(given)}, the model needs {jnp.shape(fresh)}."
      )
    return jnp.asarray(given, dtype=jax.dtypes.result_type(fresh))

  for name in reversed(under):
    pretrained = {collection: {name: tree} for collection, tree in pretrained.items()}
  return merge(variables, pretrained, ())
