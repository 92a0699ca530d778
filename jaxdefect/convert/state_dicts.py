"""Reads weight files: ``.safetensors``, and PyTorch's ``.pth``, ``.pt``, ``.bin``.

A state dict here is ``dict[str, np.ndarray]``: the file's own keys, the file's own axes.
"""

import hashlib
import pathlib
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

TORCH_SUFFIXES = ('.pth', '.pt', '.bin')
SUFFIXES = ('.safetensors', *TORCH_SUFFIXES)

# What training scripts wrap around the weights: {'state_dict': ..., 'epoch': ...}.
_WRAPPERS = ('state_dict', 'model')


def read(path: str | pathlib.Path, *, only: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
  """Reads a weight file, with half-precision arrays raised to float32.

  Counters (``num_batches_tracked``) are left out; a prefix ``module.`` on every key
  (``torch.nn.DataParallel``) is removed.

  Args:
    path: a file that ends in one of ``SUFFIXES``.
    only: what keys must begin with, where not all are wanted.

  Returns:
    Key -> array, in the file's order and with the file's axes; floats are float32.

  Raises:
    ValueError: the file is missing, unreadable, no state dict, or holds numbers that are not
      finite; one sentence that names the file.
    ModuleNotFoundError: the file is PyTorch's and torch is not installed.
  """
  path = pathlib.Path(path)
  if path.suffix not in SUFFIXES:
    raise ValueError(f'{path} is no weight file: its name must end in one of {", ".join(SUFFIXES)}')
  if not path.is_file():
    raise ValueError(f'weight file {path} does not exist')
  if path.suffix == '.safetensors':
    state = _read_safetensors(path)
  else:
    state = _read_torch(path)
  if state and all(key.startswith('module.') for key in state):
    state = {key.removeprefix('module.'): value for key, value in state.items()}
  state = {k: v for k, v in state.items() if not k.endswith('num_batches_tracked')}
  if only:
    state = {key: value for key, value in state.items() if key.startswith(only)}
  if not state:
    raise ValueError(f'{path} holds no weights' + (f' below {" or ".join(only)}' if only else ''))
  return {key: _as_float32(path, key, value) for key, value in state.items()}


def sha256(path: str | pathlib.Path) -> str:
  """The SHA-256 of a file, as 64 hexadecimal digits."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    return safetensors.numpy.load_file(path)
  except (safetensors.SafetensorError, OSError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f'{path} is not a readable safetensors file: {error}') from error


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    import torch
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      f'{path} is a PyTorch file, and torch is not installed: pip install "jaxdefect[torch]", '
      'or save the weights as .safetensors'
    ) from error
  try:
    loaded = torch.load(path, map_location='cpu', weights_only=True)
  except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    raise ValueError(f'{path} is not a PyTorch file of plain tensors: {reason}') from error
  return {k: _to_numpy(path, k, v) for k, v in _unwrap(path, loaded).items()}


def _unwrap(path: pathlib.Path, loaded: Any) -> Mapping[str, Any]:
  if not isinstance(loaded, Mapping):
    raise ValueError(f'{path} holds a {type(loaded).__name__}, not a state dict')
  for wrapper in _WRAPPERS:
    if isinstance(loaded.get(wrapper), Mapping):
      return loaded[wrapper]
  return loaded


def _to_numpy(path: pathlib.Path, key: str, value: Any) -> np.ndarray:
  import torch

  if not isinstance(value, torch.Tensor):
    raise ValueError(
      f'{path} holds a {type(value).__name__} at {key!r}: a state dict holds tensors only, '
      "or wraps them under 'state_dict'"
    )
  if value.dtype == torch.bfloat16:  # numpy has no such type
    value = value.float()
  return value.detach().numpy()


def _as_float32(path: pathlib.Path, key: str, value: np.ndarray) -> np.ndarray:
  # bfloat16 is of numpy's kind 'V', float16 to float64 of kind 'f'.
  if value.dtype.kind != 'f' and value.dtype.name != 'bfloat16':
    raise ValueError(f'{path} holds {value.dtype.name} at {key!r}: weights are floating-point')
  value = value.astype(np.float32)
  if not np.isfinite(value).all():
    raise ValueError(f'{path} holds numbers at {key!r} that are not finite')
  return value
