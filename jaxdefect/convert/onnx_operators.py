"""Operators of the twins that PyTorch's exporter does not know, in terms of standard ONNX.

Shape legend: N images, n boxes, K classes.
"""

from collections.abc import Callable
from typing import Any

import torch

from jaxdefect.convert.twins import suppression


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
  """What ``torch.onnx.export`` takes as ``custom_translation_table``.

  Raises:
    ModuleNotFoundError: onnxscript is not installed.
  """
  import onnxscript

  op: Any = onnxscript.opset18

  def greedy_nms(boxes: Any, valid: Any, iou_threshold: float) -> Any:
    # The boxes come best first: scores that fall and do not tie keep that order.
    shape = op.Shape(valid)  # N, K, n
    number = op.Squeeze(op.Slice(shape, [2], [3]), [0])
    falling = op.Sub(number, op.Range(op.Constant(value_int=0), number, op.Constant(value_int=1)))
    scores = op.Where(valid, op.Cast(falling, to=1), op.Constant(value_float=-1.0))
    limits = [op.Constant(value_floats=[limit]) for limit in (iou_threshold, 0.0)]
    chosen = op.NonMaxSuppression(boxes, scores, op.Unsqueeze(number, [0]), *limits)
    # Its answer, [found, 3] indices, as the mask that it is.
    empty = op.Expand(op.Constant(value_int=0), shape)
    ones = op.Expand(op.Constant(value_int=1), op.Slice(op.Shape(chosen), [0], [1]))
    return op.Cast(op.ScatterND(empty, chosen, ones), to=9)

  def sort(
    values: Any, *, stable: bool | None = None, dim: int = -1, descending: bool = False
  ) -> Any:
    del stable  # TopK takes the first of equal ones anyway
    size = op.Slice(op.Shape(values), [dim], [dim + 1] if dim != -1 else [2**31 - 1])
    return op.TopK(values, size, axis=dim, largest=int(descending), sorted=1)

  return {
    suppression.GREEDY_NMS: greedy_nms,
    torch.ops.aten.sort.stable: sort,
  }
