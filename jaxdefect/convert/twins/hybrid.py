"""A supervised head, an anomaly method beside it, and who decides, in plain PyTorch.

Shape legend: N images, h x w pixels, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from jaxdefect.convert.twins.deployed import Deployed, Inspector, make

VERDICTS = ('ok', 'review', 'reject')
RULES = ('supervised', 'anomaly', 'few samples')


class Hybrid(Deployed, family='hybrid'):
  """The rule that says who decides (``ops.route``): an anomaly score never rejects.

  Args:
    head: says classes.
    beside: says how far a part is from good ones; its threshold flags.
    confirmed: K numbers, confirmed samples of each class.
    good: place of the good class.
    min_confirmed: samples of a mode from which on the head decides about it alone.
    settings: of ``Deployed``; means and deviations are the parts' own.
  """

  outputs = ('verdict', 'rule', 'scores', 'probabilities', 'anomaly', 'maps', 'p_values')
  confirmed: Tensor

  def __init__(
    self,
    head: Deployed,
    beside: Inspector,
    *,
    confirmed: Sequence[int],
    good: int,
    min_confirmed: int,
    **settings: Any,
  ):
    super().__init__(mean=(0, 0, 0), std=(1, 1, 1), **settings)
    self.supervised, self.anomaly = head, beside
    self.good, self.min_confirmed = good, min_confirmed
    self.register_buffer('confirmed', torch.tensor(list(confirmed)), persistent=False)

  @classmethod
  def build(
    cls, *, supervised: Mapping[str, Any], anomaly: Mapping[str, Any], **arguments: Any
  ) -> Deployed:
    """As of ``Deployed``; the parts are given by their arguments, with ``family``."""
    parts = []
    for part in (supervised, anomaly):
      settings = dict(part)
      parts.append(make(settings.pop('family'), settings))
    return cls(*parts, **arguments)

  def inspect(self, pixels: Tensor) -> tuple[Tensor, ...]:
    """[N, h, w, 3] -> verdict and rule [N], scores and probabilities [N, K], then the anomaly's.

    Verdicts count in ``VERDICTS``, rules in ``RULES``.
    """
    scores, probabilities = self.supervised.inspect(pixels)[:2]
    anomaly, maps, flagged, p_values = self.anomaly.inspect(pixels)
    modes = torch.arange(len(self.classes), device=scores.device) != self.good
    enough = ~modes | (self.confirmed >= self.min_confirmed)
    named = scores.argmax(1)
    defective = modes[named]
    asked = ~defective & ~enough.all() & flagged
    verdict = torch.where(defective, torch.where(enough[named], 2, 1), 0)
    rule = torch.where(defective & ~enough[named], 2, 0)
    verdict = torch.where(asked, 1, verdict)
    rule = torch.where(asked, 1, rule)
    return verdict, rule, scores, probabilities, anomaly, maps, p_values
