"""Writes a fitted method as a PyTorch file that loads without JAX."""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from jaxdefect.convert import torch_modules, torch_params


def to_torch(family: str, arguments: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
  """Builds the PyTorch twin of a fitted method; the arguments are what ``deploy`` returns.

  Args:
    family: of ``torch_modules.FAMILIES``.
    arguments: JSON-able arguments of the family.
    arrays: ``params`` and ``batch_stats``; for a recogniser also ``memory`` with unit
      ``embeddings`` [M, D] and int ``labels`` [M]; for MeDetection also ``references``, uint8
      [R, H, W, 3], for PatchCore ``bank`` [M, D], and for a hybrid those of both parts.

  Returns:
    The module in evaluation mode, its weights loaded strictly.

  Raises:
    ValueError: the arrays do not fit the arguments.
  """
  module, _ = _build(family, arguments, arrays)
  return module


def write(
  path: str | pathlib.Path,
  family: str,
  arguments: Mapping[str, Any],
  arrays: Mapping[str, Any],
  *,
  check: Callable[[Any], Any] | None = None,
) -> None:
  """Writes ``{'family', 'arguments', 'state_dict', 'version'}``, whole or not at all.

  Args:
    path: the file to write; one that exists is replaced.
    family: as in ``to_torch``.
    arguments: as in ``to_torch``.
    arrays: as in ``to_torch``.
    check: called with the module as loaded from the finished file, before the file gets its
      name. If it raises, no file is left.

  Raises:
    ValueError: the arrays do not fit the arguments, or the folder does not exist.
  """
  path = pathlib.Path(path)
  if not path.parent.is_dir():
    raise ValueError(f'cannot write {path}: there is no folder {path.parent}')
  if path.is_dir():
    raise ValueError(f'cannot write {path}: it is a folder')
  module, arguments = _build(family, arguments, arrays)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}')  # same folder, so the rename is atomic
  try:
    torch.save(
      {
        'family': family,
        'arguments': arguments,
        'state_dict': dict(module.state_dict()),
        'version': torch_modules.FORMAT_VERSION,
      },
      temporary,
    )
    if check is not None:
      check(torch_modules.load(temporary))
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def _build(family: str, arguments: Mapping[str, Any], arrays: Mapping[str, Any]):
  arguments = dict(arguments)
  state = _state(family, arguments, arrays)
  module = torch_modules.make(family, arguments)
  tensors = {k: torch.from_numpy(np.array(v)) for k, v in state.items()}  # copies: ours are frozen
  try:
    module.load_state_dict(tensors)
  except RuntimeError as error:
    reason = ' '.join(str(error).split())
    raise ValueError(f'the parameters do not fit the family {family!r}: {reason}') from error
  return module, arguments


def _state(
  family: str, arguments: dict[str, Any], arrays: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """The weights by PyTorch's names; adds to the arguments what follows from the arrays."""
  if family == 'hybrid':
    state = {}
    for name in ('supervised', 'anomaly'):
      part = dict(arguments[name])
      own = _state(part['family'], part, arrays[name])
      state |= {f'{name}.{key}': value for key, value in own.items()}
      arguments[name] = part
    return state
  state = torch_params.to_state_dict({k: arrays.get(k, {}) for k in torch_params.COLLECTIONS})
  if family == 'recogniser':
    references, labels = _references(arguments, arrays.get('memory'))
    state['references'], state['reference_labels'] = references, labels
    arguments['num_references'] = len(labels)
  elif family == 'medetection':
    state['references'] = references = _reference_images(arguments, arrays.get('references'))
    arguments |= {'num_references': len(references), 'image_size': list(references.shape[1:3])}
  elif family == 'patchcore':
    state['bank'] = np.asarray(arrays['bank'], np.float32)
    arguments['num_patches'] = len(state['bank'])
  return state


def _references(
  arguments: Mapping[str, Any], memory: Mapping[str, Any] | None
) -> tuple[np.ndarray, np.ndarray]:
  if memory is None:
    raise ValueError('a recogniser without references cannot be exported: call adapt first')
  embeddings, labels = np.asarray(memory['embeddings']), np.asarray(memory['labels'], np.int64)
  if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
    raise ValueError(
      f'memory must hold embeddings [M, D] and labels [M], came as {embeddings.shape} '
      f'and {labels.shape}'
    )
  present = set(labels.tolist())
  if present != set(range(arguments['num_classes'])):
    raise ValueError(
      f'every one of the {arguments["num_classes"]} classes needs a reference; '
      f'the labels are {sorted(present)}'
    )
  return embeddings, labels


def _reference_images(arguments: Mapping[str, Any], images: Any) -> np.ndarray:
  if images is None:
    raise ValueError('MeDetection without reference images cannot be exported: call adapt first')
  images = np.asarray(images)
  if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
    raise ValueError(
      f'references must be uint8 [R, H, W, 3], came as {images.dtype} {list(images.shape)}'
    )
  size = arguments.get('image_size')
  if size is not None and tuple(size) != images.shape[1:3]:
    raise ValueError(
      f'references are {images.shape[1]} x {images.shape[2]} pixels, '
      f'image_size is {size[0]} x {size[1]}'
    )
  return images
