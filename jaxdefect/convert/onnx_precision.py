"""A smaller ONNX file: weights in half precision, or convolutions in 8 bits.

``'float16'`` stores weights in half the bytes and computes as before: onnxruntime widens them when
it loads the file. ``'int8'`` also computes convolutions and dense layers in 8 bits, with ranges
measured on pictures; distances, similarities and what follows them stay in float32.
"""

import logging
import pathlib
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxdefect.convert import onnx_file

PRECISIONS = ('float16', 'int8')
_SMALL = 256  # numbers; a tensor below that is no weight worth its node


def reduce(path: str | pathlib.Path, precision: str, pictures: Iterable[np.ndarray]) -> None:
  """Rewrites a file of ``to_onnx.write`` in another precision.

  Args:
    path: the file.
    precision: of ``PRECISIONS``.
    pictures: uint8 [H, W, 1 or 3] each, on which the ranges of ``'int8'`` are measured.

  Raises:
    ValueError: an unknown precision, or no picture.
    ModuleNotFoundError: onnx is not installed.
  """
  import onnx

  path = pathlib.Path(path)
  if precision not in PRECISIONS:
    raise ValueError(f'precision is {precision!r}; it can be {", ".join(PRECISIONS)}')
  model = onnx.load(str(path))
  told = [entry for entry in model.metadata_props if entry.key == onnx_file.KEY]
  del model.metadata_props[:]  # among them the sum of the old file
  model = _half(model) if precision == 'float16' else _eight_bits(model, pictures)
  del model.metadata_props[:]
  model.metadata_props.extend(told)
  onnx.checker.check_model(model)
  onnx_file.write_sealed(path, model.SerializeToString())


def _half(model: Any) -> Any:
  """Large float32 initializers become float16, each widened by a Cast of its own."""
  import onnx
  from onnx import helper, numpy_helper

  graph, casts = model.graph, []
  for tensor in graph.initializer:
    if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < _SMALL:
      continue
    name = tensor.name
    values = numpy_helper.to_array(tensor)
    largest = float(np.finfo(np.float16).max)
    narrow = np.clip(values, -largest, largest).astype(np.float16)
    tensor.CopyFrom(numpy_helper.from_array(narrow, f'{name}.float16'))
    casts.append(helper.make_node('Cast', [f'{name}.float16'], [name], to=onnx.TensorProto.FLOAT))
  nodes = [*casts, *graph.node]
  del graph.node[:]
  graph.node.extend(nodes)
  return model


def _eight_bits(model: Any, pictures: Iterable[np.ndarray]) -> Any:
  """Convolutions and dense layers between QuantizeLinear and DequantizeLinear."""
  import onnx
  from onnxruntime import quantization

  class Pictures(quantization.CalibrationDataReader):
    def __init__(self):
      self.rest = iter(pictures)

    def get_next(self) -> dict[str, np.ndarray] | None:
      one = next(self.rest, None)
      if one is None:
        return None
      return {'images': np.repeat(one, 3 // one.shape[2], axis=2)[None]}

  with tempfile.TemporaryDirectory() as folder:
    before, after = pathlib.Path(folder) / 'before.onnx', pathlib.Path(folder) / 'after.onnx'
    onnx.save(model, str(before))
    logging.getLogger().addFilter(_no_advice)  # onnxruntime writes to the root logger
    quantization.quantize_static(
      str(before),
      str(after),
      Pictures(),
      quant_format=quantization.QuantFormat.QDQ,
      op_types_to_quantize=['Conv', 'Gemm'],
      per_channel=True,
      activation_type=quantization.QuantType.QUInt8,
      weight_type=quantization.QuantType.QInt8,
    )
    logging.getLogger().removeFilter(_no_advice)
    return onnx.load(str(after))


def _no_advice(record: logging.LogRecord) -> bool:
  return 'pre-processing' not in record.getMessage()
