"""PatchCore, and a supervised head with PatchCore beside it, in plain PyTorch; runs without JAX.

Shape legend: N images, H x W pixels, h x w patches, D features of a patch, M patches of the bank,
K classes.
"""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jaxdefect.convert.torch_backbones import Backbone
from jaxdefect.convert.torch_deployed import Deployed

VERDICTS = ('ok', 'review', 'reject')
RULES = ('supervised', 'anomaly', 'few samples')
_CHUNK = 2**14  # patches of the bank that are compared at once


class PatchCore(Deployed):
  """How far every patch is from the nearest one of good parts (``methods.patchcore``).

  Args:
    network: a module from ``backbone``.
    num_patches: M.
    layers: stages whose maps describe a patch.
    neighbourhood: side of the window over which maps are averaged.
    reweight: whether the score is weighed by how rare the nearest patch is.
    neighbours: patches of the bank around it that are looked at.
    sigma: of the map's smoothing, pixels of the image.
    threshold: above which a part is flagged; None where none was set.
    mean: three numbers in 0..1, subtracted from pixels / 255.
    std: three numbers in 0..1, by which they are divided then.
    classes: names.
    image_size: (height, width) that images must have; None takes any.
  """

  bank: Tensor

  def __init__(
    self,
    network: Backbone,
    *,
    num_patches: int,
    layers: Sequence[int],
    neighbourhood: int,
    reweight: bool,
    neighbours: int,
    sigma: float,
    threshold: float | None,
    mean: Sequence[float],
    std: Sequence[float],
    classes: Sequence[str],
    image_size: Sequence[int] | None = None,
  ):
    super().__init__(classes=classes, mean=mean, std=std, image_size=image_size)
    self.backbone = network
    self.layers, self.neighbourhood = tuple(layers), neighbourhood
    self.reweight, self.neighbours, self.sigma = reweight, neighbours, float(sigma)
    self.threshold = threshold
    # Channels of the stages, from a picture of one place of the coarsest.
    with torch.no_grad():
      maps = network.eval().maps(torch.zeros(1, 3, 64, 64))
    size = sum(maps[k - 1].shape[1] for k in self.layers)
    self.register_buffer('bank', torch.zeros(num_patches, size))

  def features(self, images: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] -> [N, h, w, D]."""
    side = self.neighbourhood
    maps = self.backbone.maps(self.normalised(images))
    means = [nn.functional.avg_pool2d(maps[k - 1], side, 1, side // 2) for k in self.layers]
    grid = means[0].shape[2:]
    joined = [
      one
      if one.shape[2:] == grid
      else nn.functional.interpolate(one, grid, mode='bilinear', align_corners=False)
      for one in means
    ]
    return torch.cat(joined, dim=1).permute(0, 2, 3, 1)

  def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 [N, H, W, 3] -> scores [N] and maps [N, H, W], larger is more anomalous."""
    features = self.features(images)
    count, height, width, size = features.shape
    patches = features.reshape(count, height * width, size)
    distances, nearest = self._nearest(patches.reshape(-1, size))
    distances, nearest = distances.reshape(count, -1), nearest.reshape(count, -1)
    scores, worst = distances.max(1)
    if self.reweight and len(self.bank) > 1:
      rows = torch.arange(count, device=worst.device)
      scores = scores * self._rarity(patches[rows, worst], nearest[rows, worst])
    axes = [
      smoothing(have, want, self.sigma).to(distances)
      for have, want in ((height, images.shape[1]), (width, images.shape[2]))
    ]
    maps = axes[0] @ distances.reshape(count, height, width) @ axes[1].T
    return scores, maps

  def _nearest(self, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the nearest patch of the bank, and which it is; [Q] each."""
    best = torch.full((len(queries),), torch.inf).to(queries)
    found = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    for start in range(0, len(self.bank), _CHUNK):
      part = self.bank[start : start + _CHUNK]
      # The queries' own norm moves no minimum.
      half = 0.5 * part.square().sum(1) - queries @ part.T
      value, place = half.min(1)
      better = value < best
      best = torch.where(better, value, best)
      found = torch.where(better, place + start, found)
    return torch.linalg.norm(queries - self.bank[found], dim=1), found

  def _rarity(self, patches: Tensor, nearest: Tensor) -> Tensor:
    """1 where the nearest patch lies in the open, less where it has many like it; [N]."""
    own = self.bank[nearest]
    number = min(self.neighbours, len(self.bank))
    apart = torch.cdist(own, self.bank, compute_mode='donot_use_mm_for_euclid_dist')
    around = apart.topk(number, dim=1, largest=False)[1]
    distances = torch.linalg.norm(patches[:, None] - self.bank[around], dim=2)
    return distances.softmax(1)[:, 1:].sum(1)


@functools.lru_cache(maxsize=64)
def smoothing(have: int, want: int, sigma: float) -> Tensor:
  """[want, have] float64: bilinear enlargement of one axis, then a Gaussian with mirrored ends."""
  place = ((torch.arange(want, dtype=torch.float64) + 0.5) * have / want - 0.5).clamp(0, have - 1)
  low = place.floor().long()
  high = (low + 1).clamp(max=have - 1)
  part, rows = (place - low)[:, None], torch.arange(want)
  enlarge = torch.zeros(want, have, dtype=torch.float64)
  enlarge.index_put_((rows, low), 1 - part[:, 0], accumulate=True)
  enlarge.index_put_((rows, high), part[:, 0], accumulate=True)
  if not sigma:
    return enlarge
  radius = int(4 * sigma + 0.5)
  offset = torch.arange(-radius, radius + 1)
  weight = torch.exp(-0.5 * (offset.double() / sigma) ** 2)
  weight /= weight.sum()
  seen = (rows[:, None] + offset) % (2 * want)
  seen = torch.where(seen < want, seen, 2 * want - 1 - seen)
  smooth = torch.zeros(want, want, dtype=torch.float64)
  where = rows[:, None].expand_as(seen)
  smooth.index_put_((where, seen), weight.expand_as(seen), accumulate=True)
  return smooth @ enlarge


class Hybrid(nn.Module):
  """A supervised head, PatchCore beside it, and the rule that says who decides (``ops.route``).

  Args:
    head: a ``Classifier`` or ``Recogniser``.
    beside: a ``PatchCore``.
    confirmed: K numbers, confirmed samples of each class.
    good: place of the good class.
    min_confirmed: samples of a mode from which on the head decides about it alone.
  """

  confirmed: Tensor

  def __init__(
    self,
    head: Deployed,
    beside: PatchCore,
    *,
    confirmed: Sequence[int],
    good: int,
    min_confirmed: int,
  ):
    super().__init__()
    self.supervised, self.anomaly = head, beside
    self.classes, self.image_size = head.classes, head.image_size
    self.good, self.min_confirmed = good, min_confirmed
    self.register_buffer('confirmed', torch.tensor(list(confirmed)), persistent=False)

  def forward(self, images: Tensor) -> tuple[Tensor, ...]:
    """uint8 [N, H, W, 3] -> verdict and rule [N], scores and probabilities [N, K], [N], [N, H, W].

    Verdicts count in ``VERDICTS``, rules in ``RULES``; the last two are PatchCore's.
    """
    scores, probabilities = self.supervised(images)
    anomaly, maps = self.anomaly(images)
    modes = torch.arange(len(self.classes), device=scores.device) != self.good
    enough = ~modes | (self.confirmed >= self.min_confirmed)
    named = scores.argmax(1)
    defective = modes[named]
    threshold = math.inf if self.anomaly.threshold is None else self.anomaly.threshold
    asked = ~defective & ~enough.all() & (anomaly > threshold)
    verdict = torch.where(defective, torch.where(enough[named], 2, 1), 0)
    rule = torch.where(defective & ~enough[named], 2, 0)
    verdict = torch.where(asked, 1, verdict)
    rule = torch.where(asked, 1, rule)
    return verdict, rule, scores, probabilities, anomaly, maps
