"""Runs an ONNX file that ``launch.convert`` wrote; needs onnxruntime and numpy, not PyTorch or JAX.

Shape legend: N images, H x W native pixels.
"""

import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np

KEY = 'jaxdefect'
FORMAT = 2
_SEAL = b'jaxdefect.sha256'


def seal(digest: str) -> bytes:
  """One more entry of ``ModelProto.metadata_props`` (field 14): what the bytes before sum up to."""
  value = digest.encode()
  entry = b'\x0a' + bytes([len(_SEAL)]) + _SEAL + b'\x12' + bytes([len(value)]) + value
  return b'\x72' + bytes([len(entry)]) + entry


def write_sealed(path: pathlib.Path, graph: bytes) -> None:
  """Writes a serialized ONNX model with its sum behind it, whole or not at all."""
  partial = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    partial.write_bytes(graph + seal(hashlib.sha256(graph).hexdigest()))
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


class OnnxModel:
  """An exported model, ready to run.

  Args:
    path: the file.
    threads: that one picture may use; None lets onnxruntime choose.

  Attributes:
    described: what the file says about itself, as ``model.json`` does.
    outputs: names of what a call returns.
    classes: names of the classes.

  Raises:
    ValueError: the file is missing, damaged, none of ours, or of another version.
    ModuleNotFoundError: onnxruntime is not installed.
  """

  def __init__(self, path: str | pathlib.Path, *, threads: int | None = None):
    try:
      import onnxruntime
    except ModuleNotFoundError as error:
      raise ModuleNotFoundError(f'{error}: pip install onnxruntime') from None
    stored = _checked(pathlib.Path(path))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
      options.intra_op_num_threads = threads
    try:
      self.session = onnxruntime.InferenceSession(
        stored, options, providers=['CPUExecutionProvider']
      )
      told = self.session.get_modelmeta().custom_metadata_map[KEY]
    except Exception as error:  # onnxruntime has a class for every reason
      reason = ' '.join(str(error).split())
      raise ValueError(f'{path} is not an ONNX file that can be run: {reason}') from None
    self.described: dict[str, Any] = json.loads(told)
    version = self.described.get('format')
    if version != FORMAT:
      raise ValueError(
        f'{path} has format {version}, this code reads {FORMAT}: convert the run again'
      )
    self.outputs = tuple(self.described['outputs'])
    self.classes = tuple(self.described['classes'])

  def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
    """uint8 [N, H, W, 3] -> the ``outputs``."""
    said: Any = self.session.run(list(self.outputs), {'images': images})
    return tuple(said)


def _checked(path: pathlib.Path) -> bytes:
  if not path.is_file():
    raise ValueError(f'exported model {path} does not exist')
  stored = path.read_bytes()
  end = len(seal('0' * 64))
  own, last = stored[:-end], stored[-end:]
  if _SEAL not in last:
    raise ValueError(f'{path} is damaged, or no ONNX file of ours: it does not end with its sum')
  if last != seal(hashlib.sha256(own).hexdigest()):
    raise ValueError(f'{path} is damaged: it is not the file that was exported (sha256 differs)')
  return stored
