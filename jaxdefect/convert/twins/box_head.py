"""What happens to one region of a detector, in plain PyTorch (``models.box_head``).

Shape legend: R regions, S x S cells of a pooled region, C channels, F features, K classes.

Keys of ``MLPBoxHead`` and ``BoxPredictor`` are torchvision's behind ``roi_heads.box_head.`` and
``roi_heads.box_predictor.``.
"""

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.gsconv import GSConv

_GS_HEAD = (256, 256)  # channels of its GSConvs
_GS_CELLS = 2  # rows and columns of which the means are taken


class MLPBoxHead(nn.Module):
  """Two dense layers with ReLU.

  Args:
    channels: C.
    side: S.
    width: F.
  """

  def __init__(self, channels: int, side: int, width: int):
    super().__init__()
    self.features = width
    self.fc6 = nn.Linear(channels * side**2, width)
    self.fc7 = nn.Linear(width, width)

  def forward(self, x: Tensor) -> Tensor:
    """[R, C, S, S] -> [R, F]."""
    return torch.relu(self.fc7(torch.relu(self.fc6(x.flatten(1)))))


class GSBoxHead(nn.Module):
  """GSConvs, the first of stride 2, and means over the quarters of what is left.

  Args:
    channels: C.
    norm: of ``GS_NORMS``.
  """

  def __init__(self, channels: int, *, norm: str):
    super().__init__()
    self.convs = nn.Sequential()
    for index, size in enumerate(_GS_HEAD):
      self.convs.append(GSConv(channels, size, 3, 2 if index == 0 else 1, norm=norm))
      channels = size
    self.features = channels * _GS_CELLS**2

  def forward(self, x: Tensor) -> Tensor:
    """[R, C, S, S] -> [R, F]; S is 7 or 8, so that 4 x 4 cells are left."""
    return nn.functional.avg_pool2d(self.convs(x), 4 // _GS_CELLS).flatten(1)


class BoxPredictor(nn.Module):
  """Class logits [R, K + 1], the background first, and box deltas [R, 4 (K + 1)]."""

  def __init__(self, features: int, num_classes: int):
    super().__init__()
    self.cls_score = nn.Linear(features, num_classes + 1)
    self.bbox_pred = nn.Linear(features, 4 * (num_classes + 1))

  def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
    """[R, F] -> logits and deltas."""
    return self.cls_score(x), self.bbox_pred(x)


class BoxEmbedder(nn.Module):
  """An embedding to compare with prototypes, and one box for all classes.

  Args:
    features: F.
    embedding: size of the embedding.
    background: also say how little there is to see, as one more number behind the embedding.
  """

  def __init__(self, features: int, embedding: int, *, background: bool):
    super().__init__()
    self.embedding = nn.Linear(features, embedding)
    self.background = nn.Linear(features, 1) if background else None
    self.bbox_pred = nn.Linear(features, 4)

  def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
    """[R, F] -> embeddings [R, embedding (+ 1)] and deltas [R, 4]."""
    described = self.embedding(x)
    if self.background is not None:
      described = torch.cat([described, self.background(x)], dim=1)
    return described, self.bbox_pred(x)
