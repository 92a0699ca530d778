"""Which parameters are trained, and how fast: optimisers over parts of a tree.

A parameter's path is the tuple of the names that lead to it, for example
``('backbone', 'layer3', 'conv1', 'kernel')``.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

Path = tuple[str, ...]


def map_by_path(function: Callable[[Path], Any], tree: Any) -> Any:
  """Replaces every leaf by a function of its path.

  >>> map_by_path('/'.join, {'head': {'bias': 0.0}})
  {'head': {'bias': 'head/bias'}}
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, _: function(tuple(jax.tree_util.keystr((key,), simple=True) for key in path)),
    tree,
  )


def freeze(
  optimizer: optax.GradientTransformation, frozen: Callable[[Path], bool]
) -> optax.GradientTransformation:
  """Keeps the frozen parameters as they are, and keeps no moments for them.

  Clipping and weight decay inside ``optimizer`` see the trained parameters alone. Hand the same
  ``frozen`` to :func:`jaxdefect.optim.gradient_step`, so that the frozen part of the backward
  pass is not computed either.

  Args:
    optimizer: moves the other parameters.
    frozen: path -> True where the parameter stays.

  Returns:
    An optax transformation.
  """

  def labels(params):
    return map_by_path(lambda path: 'frozen' if frozen(path) else 'trained', params)

  return optax.partition({'trained': optimizer, 'frozen': optax.set_to_zero()}, labels)


def scale_by_group(
  optimizer: optax.GradientTransformation, multiplier: Callable[[Path], float]
) -> optax.GradientTransformation:
  """Multiplies the learning rate of each parameter, say 0.1 for a pretrained backbone.

  The multiplier acts on the finished update, so it also scales decoupled weight decay, and it
  does not change what is clipped.

  Args:
    optimizer: any optax transformation.
    multiplier: path -> factor on the learning rate, 0 or more.

  Returns:
    An optax transformation with the state of ``optimizer``.
  """

  def update(updates, state, params=None, **extra):
    updates, state = inner.update(updates, state, params, **extra)
    factors = map_by_path(multiplier, updates)
    return jax.tree.map(lambda u, factor: u * factor, updates, factors), state

  inner = optax.with_extra_args_support(optimizer)
  return optax.GradientTransformationExtraArgs(inner.init, update)


def stop_frozen(params: Any, frozen: Callable[[Path], bool]) -> Any:
  """Cuts the gradient of the frozen parameters, so their backward pass is not computed."""
  return jax.tree.map(
    lambda leaf, stays: jax.lax.stop_gradient(leaf) if stays else leaf,
    params,
    map_by_path(frozen, params),
  )
