"""Non-maximum suppression: exact and greedy, in plain PyTorch.

How many rounds it takes depends on the boxes, which no exported graph can say. So it is an operator
of its own, ``jaxdefect::greedy_nms``, one node of such a graph; in ONNX it is the standard's
``NonMaxSuppression``.

Shape legend: N images, n boxes, K classes (or other groups that do not suppress each other).
"""

import torch
from torch import Tensor

_NO_AREA = 1e-12  # unions below a millionth of a pixel, squared, count as empty


def suppressed(boxes: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
  """Keeps a box unless it overlaps a better one of its class that was kept.

  Args:
    boxes: [N, n, 4] pixels, best first.
    valid: [N, K, n] bool, the class of every box; one of none neither is kept nor suppresses.
    iou_threshold: overlap that two kept boxes of a class may have.

  Returns:
    [N, K, n] bool.
  """
  return GREEDY_NMS(boxes, valid, iou_threshold)


def _greedy_nms(boxes: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
  rows, columns = boxes[:, :, None].unbind(-1), boxes[:, None].unbind(-1)
  width = torch.minimum(rows[2], columns[2]) - torch.maximum(rows[0], columns[0])
  height = torch.minimum(rows[3], columns[3]) - torch.maximum(rows[1], columns[1])
  shared = width.clamp(min=0) * height.clamp(min=0)  # [N, n, n]
  area = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)
  union = area[:, :, None] + area[:, None] - shared
  overlap = torch.where(union > _NO_AREA, shared / union.clamp(min=_NO_AREA), 0.0)
  earlier = (overlap > iou_threshold).triu(1).float()  # who would suppress whom
  # Each round settles at least one more box for good, from the best on, so what stays the same is
  # the greedy answer.
  kept = valid.clone()
  while True:
    again = valid & (kept.float() @ earlier == 0)
    if torch.equal(again, kept):
      return kept
    kept = again


# Several files of exported models in one process share it.
if not hasattr(torch.ops.jaxdefect, 'greedy_nms'):
  torch.library.custom_op('jaxdefect::greedy_nms', _greedy_nms, mutates_args=())
  torch.library.register_fake(
    'jaxdefect::greedy_nms', lambda boxes, valid, iou_threshold: torch.empty_like(valid)
  )
GREEDY_NMS = torch.ops.jaxdefect.greedy_nms.default
