"""A ``Fitted`` as one safetensors file: what prediction, review and export load.

Arrays are stored under their path in the tree (``params/backbone/conv1/kernel``), class names and
the format's version in the metadata. No code is stored, so opening a stranger's file is safe.
"""

import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jaxdefect.contracts import Fitted

_FORMAT = 'jaxdefect-fitted-1'
_FIELDS = ('params', 'model_state', 'memory', 'calibration')


def save_fitted(path: str | os.PathLike, fitted: Fitted) -> None:
  """Writes ``fitted`` whole or not at all.

  Args:
    path: the file; replaced in one step if it exists.
    fitted: its trees are nested dicts of arrays.

  Raises:
    ValueError: a tree holds something else, or a name contains '/'.
  """
  path = pathlib.Path(path)
  arrays: dict[str, np.ndarray] = {}
  for field in _FIELDS:
    _flatten(getattr(fitted, field), (field,), arrays)
  # One entry only: safetensors does not promise an order, and equal models should be equal files.
  metadata = {_FORMAT: json.dumps({'classes': list(fitted.classes)})}
  partial = path.with_name(path.name + '.tmp')
  try:
    partial.write_bytes(safetensors.numpy.save(arrays, metadata=metadata))
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


def load_fitted(path: str | os.PathLike) -> Fitted:
  """Reads what ``save_fitted`` wrote.

  Args:
    path: the file.

  Returns:
    The ``Fitted``; trees are nested dicts of jax arrays, empty ones are None.

  Raises:
    ValueError: the file is missing, damaged or of another kind.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise ValueError(f'{path} does not exist: the run has not finished training')
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      metadata = file.metadata() or {}
      arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except safetensors.SafetensorError as error:
    raise ValueError(f'{path} is not a fitted model: {error}') from None
  if _FORMAT not in metadata:
    raise ValueError(f'{path} is not a fitted model of format {_FORMAT}')
  tree: dict[str, Any] = {}
  for name, value in arrays.items():
    *parents, leaf = name.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[leaf] = jnp.asarray(value)
  return Fitted(
    params=tree.get('params', {}),
    model_state=tree.get('model_state', {}),
    memory=tree.get('memory'),
    calibration=tree.get('calibration'),
    classes=tuple(json.loads(metadata[_FORMAT])['classes']),
  )


def _flatten(tree: Any, path: tuple[str, ...], arrays: dict[str, np.ndarray]) -> None:
  if tree is None:
    return
  if isinstance(tree, dict):
    for name, value in tree.items():
      if '/' in name:
        raise ValueError(f'the name {name!r} in {"/".join(path)} must not contain /')
      _flatten(value, (*path, name), arrays)
  elif isinstance(tree, jax.Array | np.ndarray):
    # safetensors stores the buffer as it lies: a transposed view must be laid out first.
    # C order: safetensors writes memory as it lies (ascontiguousarray gives a scalar an axis).
    arrays['/'.join(path)] = np.asarray(tree, order='C')
  else:
    raise ValueError(f'{"/".join(path)} is a {type(tree).__name__}; only arrays can be stored')
