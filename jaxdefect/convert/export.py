"""From what a fitted method deploys to its PyTorch twin, and to a folder that stands alone.

``deploy`` gives ``(family, arguments, arrays)``: the name of a twin, its JSON-able arguments, and
``{'params': tree, 'batch_stats': tree, 'memory': {name: array}}``; those of a hybrid are of its two
parts, by name.
"""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch

from jaxdefect.convert import examples, standalone, torch_params, twins


class Deployment(NamedTuple):
  """What a method deploys, with all that a line needs besides."""

  family: str
  arguments: dict[str, Any]
  arrays: Mapping[str, Any]


def complete(
  deployed: tuple[str, Mapping[str, Any], Mapping[str, Any]],
  *,
  image_size: tuple[int, int],
  interpolation: str = 'bilinear',
  calibration: Mapping[str, Any] | None = None,
) -> Deployment:
  """Adds what no method knows: how pictures reach the network, and what is too anomalous.

  Args:
    deployed: what ``Method.deploy`` returns.
    image_size: (height, width) of the network's images.
    interpolation: ``'bilinear'`` or ``'nearest'``.
    calibration: of the ``Fitted``: ``threshold``, and ``scores`` of good parts; or None.

  Returns:
    The ``Deployment``.
  """
  family, arguments, arrays = deployed
  arguments = {
    **arguments,
    'image_size': [int(side) for side in image_size],
    'interpolation': interpolation,
  }
  if calibration is None:
    return Deployment(family, arguments, arrays)
  own = {'threshold': float(calibration['threshold'])}
  scores = {'good_scores': np.asarray(calibration['scores'], np.float32)}
  if family == 'hybrid':
    arguments['anomaly'] = {**arguments['anomaly'], **own}
    part = arrays['anomaly']
    part = {**part, 'memory': {**part['memory'], **scores}}
    return Deployment(family, arguments, {**arrays, 'anomaly': part})
  if issubclass(twins.FAMILIES[family], twins.Inspector):
    memory = {**arrays.get('memory', {}), **scores}
    return Deployment(family, {**arguments, **own}, {**arrays, 'memory': memory})
  return Deployment(family, arguments, arrays)


def to_torch(family: str, arguments: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
  """Builds the PyTorch twin of a fitted method.

  Args:
    family: of ``twins.FAMILIES``.
    arguments: of ``twins.make``, but for the shapes of the memory, which follow from ``arrays``.
    arrays: see the top of this file.

  Returns:
    The module in evaluation mode, its weights loaded strictly.

  Raises:
    ValueError: the arrays do not fit the arguments, or something is missing that ``adapt`` makes.
  """
  return _build(family, arguments, arrays)[0]


def write(
  directory: str | pathlib.Path,
  family: str,
  arguments: Mapping[str, Any],
  arrays: Mapping[str, Any],
  *,
  details: Mapping[str, Any] | None = None,
  add: Callable[[pathlib.Path, Any, dict[str, Any]], None] | None = None,
) -> None:
  """Writes a model's folder, whole or not at all; an export that is there already is replaced.

  ``model.py`` (torch alone), ``model.safetensors``, ``model.json`` and ``example.py``.

  Args:
    directory: the folder to write; its parent must exist.
    family: as in ``to_torch``.
    arguments: as in ``to_torch``.
    arrays: as in ``to_torch``.
    details: further entries of ``model.json``.
    add: called with the unfinished folder, the module as loaded from it and its description, before
      the folder gets its name: checks it, and adds files. If it raises, nothing is left.

  Raises:
    ValueError: the arrays do not fit the arguments, or the folder cannot be written.
  """
  directory = pathlib.Path(directory)
  if not directory.parent.is_dir():
    raise ValueError(f'cannot write {directory}: there is no folder {directory.parent}')
  if directory.exists() and not (directory / 'model.json').is_file():
    raise ValueError(f'cannot write {directory}: it is there already, and is no exported model')
  module, arguments = _build(family, arguments, arrays)
  partial = directory.with_name(f'.{directory.name}.{os.getpid()}')  # beside it: one rename
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir()
  try:
    weights = partial / 'model.safetensors'
    state = {key: value.contiguous() for key, value in module.state_dict().items()}
    safetensors.torch.save_file(state, weights)
    weights.chmod(0o644)  # it comes as 0600
    described = {
      'format': twins.FORMAT,
      'family': family,
      'arguments': arguments,
      'outputs': list(module.outputs),
      'classes': list(module.classes),
      **(details or {}),
      'weights': {
        'file': weights.name,
        'sha256': hashlib.sha256(weights.read_bytes()).hexdigest(),
      },
    }
    (partial / 'model.json').write_text(json.dumps(described, indent=1) + '\n', encoding='utf-8')
    (partial / 'model.py').write_text(standalone.source(module), encoding='utf-8')
    (partial / 'example.py').write_text(examples.TORCH, encoding='utf-8')
    if add is not None:
      add(partial, twins.load(partial), described)
    if directory.exists():
      shutil.rmtree(directory)
    os.replace(partial, directory)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def _build(
  family: str, arguments: Mapping[str, Any], arrays: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
  arguments, state = _with_shapes(family, dict(arguments), arrays)
  module = twins.make(family, arguments)
  tensors = {k: torch.from_numpy(np.array(v)) for k, v in state.items()}  # copies: ours are frozen
  try:
    module.load_state_dict(tensors)
  except RuntimeError as error:
    reason = ' '.join(str(error).split())
    raise ValueError(f'the parameters do not fit the family {family!r}: {reason}') from error
  return module, arguments


def _with_shapes(
  family: str, arguments: dict[str, Any], arrays: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Arguments with the shapes of the memory, and the weights by PyTorch's names."""
  if family == 'hybrid':
    state = {}
    for name in ('supervised', 'anomaly'):
      part = dict(arguments[name])
      arguments[name], own = _with_shapes(part['family'], part, arrays[name])
      state |= {f'{name}.{key}': value for key, value in own.items()}
    return arguments, state
  state = torch_params.to_state_dict({k: arrays.get(k, {}) for k in torch_params.COLLECTIONS})
  memory = {name: np.asarray(value) for name, value in (arrays.get('memory') or {}).items()}
  shapes = {name: [value.dtype.name, list(value.shape)] for name, value in memory.items()}
  return {**arguments, 'memory': shapes}, {**state, **memory}
