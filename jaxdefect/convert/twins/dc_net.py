"""DC-Net in plain PyTorch (``methods.dc_net``).

Shape legend: N images, h x w pixels, u x v places of the last map, K classes, B basic patterns.
"""

from typing import Any

from torch import Tensor, nn

from jaxdefect.convert.twins.deform_conv import DeformConv
from jaxdefect.convert.twins.deployed import Deployed
from jaxdefect.convert.twins.recognition import lead_of_named

_DC_UNITS = ((1, 2), (2, 2), (4, 2), (8, 1), (4, 2))  # (factor on the width, stride)


class DCNet(Deployed, family='dc_net'):
  r"""Deformable convolutions, and the likelihood of every known combination of patterns.

  .. math:: s_k = \sum_b Y_{kb} l_b - \sum_b \log(1 + e^{l_b}), \qquad p = \operatorname{softmax}(s)

  of the logits l and the membership Y of patterns in classes. A combination of known patterns is
  added by one more row of ``membership``.

  Args:
    num_patterns: B.
    width: channels of the first unit.
    settings: of ``Deployed``; ``memory`` holds ``membership`` [K, B] of 0 and 1.
  """

  outputs = ('scores', 'probabilities', 'evidence')
  keeps = ('membership',)
  membership: Tensor

  def __init__(self, *, num_patterns: int, width: int, **settings: Any):
    super().__init__(**settings)
    self.conv, self.norm = nn.ModuleList(), nn.ModuleList()
    inputs = 3
    for factor, stride in _DC_UNITS:
      self.conv.append(DeformConv(inputs, factor * width, 3, stride, version='v1'))
      self.norm.append(nn.BatchNorm2d(factor * width))
      inputs = factor * width
    self.fc = nn.Linear(inputs, num_patterns)

  def inspect(self, pixels: Tensor) -> tuple[Tensor, ...]:
    """[N, h, w, 3] -> scores and probabilities, [N, K] each, and the evidence [N, u, v]."""
    x = self.normalised(pixels)
    for conv, norm in zip(self.conv, self.norm):
      x = norm(conv(x)).relu()
    logits = self.fc(x.mean((2, 3)))
    scores = logits @ self.membership.T - nn.functional.softplus(logits).sum(1, keepdim=True)
    # What all classes share is gone from the lead of one over the others.
    slope = lead_of_named(scores) @ self.membership @ self.fc.weight
    share = slope / (x.shape[2] * x.shape[3])
    return scores, scores.softmax(-1), (x * share[:, :, None, None]).sum(1).relu()
