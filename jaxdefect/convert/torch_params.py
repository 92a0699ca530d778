"""Parameter trees to PyTorch state dicts and back, without losing a bit.

The path of a parameter joined with dots is its key, but for the last word, and kernels change
their axes (H x W window, I inputs, O outputs):

============= ============== =====================================
here          there          axes
============= ============== =====================================
``kernel``    ``weight``     [H,W,I,O] -> [O,I,H,W], [I,O] -> [O,I]
``scale``     ``weight``     [C]
``bias``      ``bias``       [C]
``mean``      ``running_mean`` [C], from ``batch_stats``
``var``       ``running_var``  [C], from ``batch_stats``
============= ============== =====================================

The kernel of a transposed convolution from I to O channels is here that of the convolution from O
to I which it transposes, [H,W,O,I]; the table's rule makes PyTorch's [I,O,H,W] of it.

``gamma``, ``cls_token``, ``register_tokens`` and ``pos_embed`` of a vision transformer are called
the same there, and have the same axes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

COLLECTIONS = ('params', 'batch_stats')

_WORDS = {
  'params': {
    **{'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'gamma': 'gamma'},
    **{name: name for name in ('cls_token', 'pos_embed', 'register_tokens')},
  },
  'batch_stats': {'mean': 'running_mean', 'var': 'running_var'},
}


def torch_key(collection: str, path: tuple[str, ...]) -> str:
  """The state-dict key of one parameter.

  Args:
    collection: ``'params'`` or ``'batch_stats'``.
    path: names from the root of the collection to the parameter.

  Returns:
    The key.

  Raises:
    ValueError: the last word is none of the table's.

  >>> torch_key('batch_stats', ('layer2.0', 'downsample.1', 'mean'))
  'layer2.0.downsample.1.running_mean'
  """
  words = _WORDS[collection]
  if path[-1] not in words:
    raise ValueError(
      f'{collection} {"/".join(path)} has no name in PyTorch: '
      f'the last word must be one of {", ".join(words)}'
    )
  return '.'.join((*path[:-1], words[path[-1]]))


def to_torch_axes(path: tuple[str, ...], array: Any) -> np.ndarray:
  """Reorders one array of ours for PyTorch; [H,W,I,O] -> [O,I,H,W] and [I,O] -> [O,I]."""
  array = np.asarray(array)
  if path[-1] != 'kernel':
    return array
  return np.ascontiguousarray(array.transpose(_kernel_axes(path, array.ndim, (3, 2, 0, 1))))


def from_torch_axes(path: tuple[str, ...], array: Any) -> np.ndarray:
  """Reorders one array of PyTorch's for us; the inverse of ``to_torch_axes``."""
  array = np.asarray(array)
  if path[-1] != 'kernel':
    return array
  return np.ascontiguousarray(array.transpose(_kernel_axes(path, array.ndim, (2, 3, 1, 0))))


def torch_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
  """The shape that a parameter of ours has in PyTorch."""
  if path[-1] != 'kernel':
    return tuple(shape)
  return tuple(shape[axis] for axis in _kernel_axes(path, len(shape), (3, 2, 0, 1)))


def leaves(variables: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...], Any]]:
  """Goes through a tree ``{'params': ..., 'batch_stats': ...}``: (collection, path, leaf)."""
  for collection in variables:
    if collection not in COLLECTIONS:
      raise ValueError(
        f'variables holds the collection {collection!r}: only {" and ".join(COLLECTIONS)} '
        'have a place in a state dict'
      )
  for collection in COLLECTIONS:
    yield from ((collection, path, leaf) for path, leaf in _walk(variables.get(collection, {})))


def to_state_dict(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Turns our variables into a PyTorch state dict of numpy arrays.

  Args:
    variables: ``{'params': tree, 'batch_stats': tree}``, either of them optional.

  Returns:
    Key -> array with PyTorch's axes, without ``num_batches_tracked`` (which PyTorch fills in).

  Raises:
    ValueError: a parameter without a name in PyTorch, or two with the same key.

  >>> state = to_state_dict({'params': {'fc': {'kernel': np.zeros((5, 2)), 'bias': np.zeros(2)}}})
  >>> {key: value.shape for key, value in state.items()}
  {'fc.weight': (2, 5), 'fc.bias': (2,)}
  """
  state: dict[str, np.ndarray] = {}
  for collection, path, leaf in leaves(variables):
    key = torch_key(collection, path)
    if key in state:
      raise ValueError(f'two parameters would have the key {key!r}; the second is {"/".join(path)}')
    state[key] = to_torch_axes(path, leaf)
  return state


def from_state_dict(
  template: Mapping[str, Any], state: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
  """Turns a PyTorch state dict into variables with the structure of ``template``.

  Args:
    template: ``{'params': tree, 'batch_stats': tree}`` of anything with a ``shape``, such as the
      result of ``jax.eval_shape``.
    state: key -> array or CPU tensor; ``num_batches_tracked`` is ignored.

  Returns:
    The same structure with numpy arrays, of the dtype that ``state`` holds.

  Raises:
    ValueError: a key is missing, left over, or has another shape.
  """
  left = {key for key in state if not key.endswith('num_batches_tracked')}
  variables: dict[str, dict[str, Any]] = {collection: {} for collection in template}
  for collection, path, leaf in leaves(template):
    key = torch_key(collection, path)
    if key not in state:
      raise ValueError(f'the state dict holds no {key!r}')
    array, shape = np.asarray(state[key]), torch_shape(path, leaf.shape)
    if array.shape != shape:
      raise ValueError(f'the state dict holds {key!r} with shape {array.shape}, not {shape}')
    insert(variables[collection], path, from_torch_axes(path, array))
    left.discard(key)
  if left:
    raise ValueError(f'the state dict holds {min(left)!r}, which has no place in the network')
  return variables


def insert(tree: dict[str, Any], path: tuple[str, ...], leaf: Any) -> None:
  """Puts a leaf into nested dicts, which are made on the way."""
  for name in path[:-1]:
    tree = tree.setdefault(name, {})
  tree[path[-1]] = leaf


def _walk(
  tree: Mapping[str, Any], prefix: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
  for name, value in tree.items():
    if isinstance(value, Mapping):
      yield from _walk(value, (*prefix, name))
    else:
      yield (*prefix, name), value


def _kernel_axes(path: tuple[str, ...], rank: int, convolution: tuple[int, ...]) -> tuple[int, ...]:
  if rank == 2:
    return (1, 0)
  if rank == 4:
    return convolution
  raise ValueError(
    f'kernel {"/".join(path)} must have 2 axes (dense) or 4 (convolution), has {rank}'
  )
