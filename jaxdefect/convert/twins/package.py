"""A model's folder, read back: ``model.json`` says what it is, ``model.safetensors`` what it knows.

Nothing but PyTorch is needed: a safetensors file is the length of a JSON header, the header, and
the numbers one after the other.
"""

import hashlib
import json
import pathlib
import sys
from typing import Any

import torch
from torch import Tensor

from jaxdefect.convert.twins.deployed import FAMILIES, make

FORMAT = 2
_STORED = {
  'F64': torch.float64,
  'F32': torch.float32,
  'F16': torch.float16,
  'I64': torch.int64,
  'I32': torch.int32,
  'U8': torch.uint8,
  'BOOL': torch.bool,
}


def load(directory: str | pathlib.Path) -> Any:
  """Loads a folder that ``launch.convert`` wrote.

  Args:
    directory: the folder, with ``model.json`` and ``model.safetensors``.

  Returns:
    The module in evaluation mode, on the CPU; ``module.described`` is what ``model.json`` says.

  Raises:
    ValueError: a file is missing, damaged, of a version that this code does not know, or of
      another architecture.
  """
  folder = pathlib.Path(directory)
  described = read_description(folder)
  family, weights = described['family'], described['weights']
  if family not in FAMILIES:
    raise ValueError(
      f'{folder / "model.json"} describes the family {family!r}; '
      f'this code has {", ".join(sorted(FAMILIES))}'
    )
  module = make(family, described['arguments'])
  state = read_weights(folder / weights['file'], sha256=weights['sha256'])
  try:
    module.load_state_dict(state)
  except RuntimeError as error:
    reason = ' '.join(str(error).split())
    raise ValueError(
      f'{folder / weights["file"]} holds weights that do not fit its network: {reason}'
    ) from error
  module.described = described
  return module


def read_description(folder: pathlib.Path) -> dict[str, Any]:
  """Reads ``model.json``; complains where it is none of ours, or of another version."""
  path = folder / 'model.json'
  if not path.is_file():
    raise ValueError(f'{folder} holds no exported model: there is no model.json in it')
  try:
    described = json.loads(path.read_text(encoding='utf-8'))
    version = described['format']
  except (ValueError, KeyError, TypeError):
    raise ValueError(f'{path} is not the description of an exported model') from None
  if version != FORMAT:
    raise ValueError(
      f'{path} has format {version}, this code reads {FORMAT}: convert the run again'
    )
  missing = [key for key in ('family', 'arguments', 'weights') if key not in described]
  if missing:
    raise ValueError(f'{path} lacks {missing[0]!r}')
  return described


def read_weights(path: pathlib.Path, *, sha256: str) -> dict[str, Tensor]:
  """Reads a safetensors file whole; complains where it is not the one that was written."""
  if not path.is_file():
    raise ValueError(f'the weights {path} do not exist')
  stored = path.read_bytes()
  if hashlib.sha256(stored).hexdigest() != sha256:
    raise ValueError(f'{path} is damaged: it is not the file that was exported (sha256 differs)')
  if sys.byteorder != 'little':
    raise ValueError(f'{path} holds little-endian numbers; this machine is {sys.byteorder}-endian')
  start = 8 + int.from_bytes(stored[:8], 'little')
  buffer = torch.frombuffer(bytearray(stored[start:]) or bytearray(1), dtype=torch.uint8)
  state = {}
  for name, entry in json.loads(stored[8:start]).items():
    if name != '__metadata__':
      first, end = entry['data_offsets']
      values = buffer[first:end].clone()  # aligned
      state[name] = values.view(_STORED[entry['dtype']]).reshape(entry['shape'])
  return state
