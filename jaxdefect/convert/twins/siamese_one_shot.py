"""The Siamese one-shot recogniser in plain PyTorch, its references included.

Shape legend: N images, H x W pixels, C channels, D embedding size, M references, K classes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.deployed import Deployed


class SiameseOneShot(Deployed, family='siamese_one_shot'):
  r"""Mean similarity of an image to the references of every class.

  With embeddings h, s a sigmoid, and :math:`d = \lVert h_1 - h_2 \rVert / 2`, the similarity is
  :math:`m^2 / 4 - d^2` (``'distance'``) or :math:`\beta + \sum_k w_k |s(h_1)_k - s(h_2)_k|`
  (``'weighted_l1'``), positive for the same class. A class is added by longer ``references`` (what
  is compared: h, or s(h)) and ``reference_labels``; nothing is trained.

  Args:
    channels: of the convolutions.
    widths: of the dense layers; the last is D.
    pool: whether a 2x2 max pool follows every convolution.
    flattened: numbers in the last map; it follows from the size of the images.
    comparison: ``'distance'`` or ``'weighted_l1'``.
    margin: m.
    settings: of ``Deployed``; ``memory`` holds ``references`` [M, D] and ``reference_labels`` [M].
  """

  outputs = ('scores', 'probabilities')
  keeps = ('references', 'reference_labels')
  references: Tensor
  reference_labels: Tensor

  def __init__(
    self,
    *,
    channels: Sequence[int],
    widths: Sequence[int],
    pool: bool,
    flattened: int,
    comparison: str,
    margin: float,
    **settings: Any,
  ):
    super().__init__(**settings)
    if comparison not in ('distance', 'weighted_l1'):
      raise ValueError(f"comparison must be 'distance' or 'weighted_l1', got {comparison!r}")
    self.conv, self.fc = nn.ModuleList(), nn.ModuleList()
    for inputs, outputs in zip((3, *channels), channels):
      self.conv.append(nn.Conv2d(inputs, outputs, 3, padding=1))
    for inputs, outputs in zip((flattened, *widths), widths):
      self.fc.append(nn.Linear(inputs, outputs))
    self.pool, self.margin = pool, margin
    self.same = nn.Linear(widths[-1], 1) if comparison == 'weighted_l1' else None

  def embed(self, pixels: Tensor) -> Tensor:
    """[N, H, W, 3] -> what is compared, [N, D]."""
    x = self.normalised(pixels)
    for conv in self.conv:
      x = conv(x).relu()
      x = nn.functional.max_pool2d(x, 2) if self.pool else x
    x = x.permute(0, 2, 3, 1).flatten(1)  # channels last, as it was trained
    for place, layer in enumerate(self.fc):
      x = layer(x.relu() if place else x)
    return x if self.same is None else x.sigmoid()

  def similarity(self, vectors: Tensor) -> Tensor:
    """[N, D] -> [N, M], positive for the same class."""
    apart = vectors[:, None] - self.references  # [N, M, D]
    if self.same is None:
      return self.margin**2 / 4 - apart.square().sum(-1) / 4
    return self.same(apart.abs())[..., 0]

  def inspect(self, pixels: Tensor) -> tuple[Tensor, ...]:
    """[N, H, W, 3] -> mean similarities and their softmax, [N, K] each."""
    classes = torch.arange(len(self.classes), device=self.references.device)
    member = (self.reference_labels[:, None] == classes).to(self.references.dtype)  # [M, K]
    scores = self.similarity(self.embed(pixels)) @ (member / member.sum(0).clamp(min=1))
    return scores, scores.softmax(-1)
