"""A twin as an ONNX file: from decoded pixels of any size to verdicts, in one graph.

The file carries what it is (``described`` of ``model.json``) in its metadata, and ends with the
SHA-256 of all bytes before: in protobuf, an entry at the end of a file is one more entry of its
list of metadata.
"""

import json
import logging
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from jaxdefect.convert import onnx_file, onnx_operators

OPSET = 20


def write(
  path: str | pathlib.Path,
  module: Any,
  described: Mapping[str, Any],
  *,
  static: tuple[int, int, int] | None = None,
) -> None:
  """Writes one ONNX file, its weights inside.

  Args:
    path: the file to write; one that exists is replaced.
    module: a twin in evaluation mode.
    described: what ``model.json`` says.
    static: (N, H, W) of the pictures that the graph takes; None leaves all three open.

  Raises:
    ModuleNotFoundError: onnx or onnxscript is not installed.
  """
  path = pathlib.Path(path)
  batch, height, width = static or (2, 70, 90)  # an open side must not be 1 in the example
  images = torch.zeros(batch, height, width, 3, dtype=torch.uint8)
  shapes = None
  if static is None:
    names = ('batch', 'height', 'width')
    shapes = ({axis: torch.export.Dim(name, min=1) for axis, name in enumerate(names)},)
  program = _exported(module, images, shapes)
  own = program.model
  own.producer_name = 'jaxdefect'
  own.metadata_props[onnx_file.KEY] = json.dumps(
    {
      **described,
      'opset': OPSET,
      'input': {'name': 'images', 'type': 'uint8', 'axes': 'N H W 3', 'static': static},
    }
  )
  onnx_file.write_sealed(path, program.model_proto.SerializeToString())


def _exported(module: Any, images: torch.Tensor, shapes: Any) -> Any:
  logs = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript', 'onnx_ir')]
  before = [log.level for log in logs]
  for log in logs:
    log.setLevel(logging.ERROR)  # it tells of operators that torchvision would bring
  try:
    with warnings.catch_warnings(), torch.no_grad():
      warnings.simplefilter('ignore')
      return torch.onnx.export(
        module,
        (images,),
        dynamo=True,
        input_names=['images'],
        output_names=list(module.outputs),
        dynamic_shapes=shapes,
        opset_version=OPSET,
        custom_translation_table=onnx_operators.translations(),
        verbose=False,
      )
  finally:
    for log, level in zip(logs, before):
      log.setLevel(level)
