"""Nearest neighbours without a matrix of all distances (``ops.nearest_neighbors``), in PyTorch.

Shape legend: N images, P queries of an image, M vectors of the bank, B of a part of it, D features,
k neighbours.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

DISTANCES_HELD = 2**23  # of one image, at once: 32 MB


def nearest_neighbors(queries: Tensor, bank: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
  """The vectors of a bank that are nearest to each query, and how far they are.

  Args:
    queries: [N, P, D].
    bank: [M, D].
    count: k, at most M.

  Returns:
    Euclidean distances, rising, and places in the bank, [N, P, k] each.
  """
  parts = bank.split(vectors_held(queries))
  places = nearest_of_parts(queries, parts, count)
  distances = torch.linalg.norm(queries[:, :, None] - bank[places], dim=-1)
  if count > 1:
    distances, order = distances.topk(count, dim=-1, largest=False)
    places = places.gather(-1, order)
  return distances, places


def vectors_held(queries: Tensor) -> int:
  """How many vectors of a bank should be compared with [N, P, D] queries at once."""
  return max(1, DISTANCES_HELD // queries.shape[1])


def nearest_of_parts(queries: Tensor, parts: Iterable[Tensor], count: int) -> Tensor:
  """Which vectors of a bank are nearest, seen one part of the bank after the other.

  Squared distances come from products here, so of two vectors whose distances differ by less than
  the rounding of a squared norm either may be taken: compute distances anew as differences.

  Args:
    queries: [N, P, D].
    parts: the bank in pieces, [B, D], or [N, B, D] where every image has its own bank.
    count: k, at most the vectors of all parts.

  Returns:
    [N, P, k] places in the whole bank.
  """
  values, places, start = [], [], 0
  for part in parts:
    # Half the square of the distance, without the query's own norm: that moves no minimum.
    apart = 0.5 * part.square().sum(-1)[..., None, :] - queries @ part.mT
    found, at = _smallest_values(apart, count)
    values.append(found)
    places.append(at + start)
    start += part.shape[-2]
  best = _smallest_values(torch.cat(values, dim=-1), count)[1]
  return torch.cat(places, dim=-1).gather(-1, best)


def _smallest_values(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
  """The smallest of the last axis, up to ``count``, and where they are."""
  if count == 1:
    return values.min(-1, keepdim=True)
  return values.topk(min(count, values.shape[-1]), dim=-1, largest=False)
