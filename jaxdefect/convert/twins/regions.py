"""From anchors to proposals, pooled regions and detections, in plain PyTorch.

Shape legend: N images, h x w cells of a map, A anchors of a level, R regions, K classes,
P proposals, D detections, S x S bins of a region, C channels.

Boxes are edges (x0, y0, x1, y1) in pixels. Everything has a fixed size and a ``valid`` mask.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.suppression import suppressed

_LARGEST_LOG_RATIO = math.log(1000.0 / 16)  # that a box may grow
_PROPOSAL_OVERLAP, _PROPOSAL_SIDE = 0.7, 1e-3
_PAIRS = 400  # (region, class) pairs that enter suppression
_ROI_SAMPLES = 2  # per bin and axis
_CANONICAL_SIDE, _CANONICAL_LEVEL = 224.0, 4  # a square region of this side has stride 2**4


def anchor_shapes(sides: Sequence[float], ratios: Sequence[float]) -> Tensor:
  """Anchors about the origin: one side per map in pixels, height / width -> [maps, ratios, 4]."""
  root = torch.tensor(list(ratios), dtype=torch.float32).sqrt()
  square = torch.tensor(list(sides), dtype=torch.float32)[:, None]
  high, wide = root * square / 2, 1 / root * square / 2
  return torch.stack([-wide, -high, wide, high], dim=-1).round()


def grid_of_anchors(shapes: Tensor, size: tuple[int, int], stride: int) -> Tensor:
  """Puts the anchors of a map about the upper left corners of its cells.

  Args:
    shapes: [ratios, 4] pixels.
    size: (h, w).
    stride: pixels per cell.

  Returns:
    [A, 4] pixels: row, column, ratio.
  """
  y, x = (torch.arange(count, device=shapes.device) * stride for count in size)
  y, x = torch.meshgrid(y, x, indexing='ij')
  corner = torch.stack([x, y, x, y], dim=-1)
  return (corner.unsqueeze(2) + shapes).flatten(0, 2)


def decoded_boxes(deltas: Tensor, boxes: Tensor, weights: Sequence[float] | None = None) -> Tensor:
  """Moves boxes [..., 4] by what a regressor said [..., 4], see ``ops.decode_boxes``."""
  if weights is not None:
    deltas = deltas / torch.tensor(list(weights), dtype=deltas.dtype, device=deltas.device)
  size = boxes[..., 2:] - boxes[..., :2]
  centre = boxes[..., :2] + size / 2 + deltas[..., :2] * size
  size = size * deltas[..., 2:].clamp(max=_LARGEST_LOG_RATIO).exp()
  return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def clipped_boxes(boxes: Tensor, size: Tensor) -> Tensor:
  """Moves the edges of boxes [..., 4] into pictures of ``size`` [..., 2] (height, width)."""
  limit = size.flip(-1)
  return torch.minimum(boxes.clamp(min=0), torch.cat([limit, limit], dim=-1))


def proposed_regions(
  levels: Sequence[tuple[Tensor, Tensor]],
  anchors: Sequence[Tensor],
  size: Tensor,
  *,
  num_before: int,
  num_after: int,
) -> tuple[Tensor, Tensor]:
  """The best boxes of the region proposal network, suppressed within each level.

  Args:
    levels: logits [N, A] and deltas [N, A, 4] of every map.
    anchors: [A, 4] of every map.
    size: [N or 1, 2] (height, width) of the pictures, pixels.
    num_before: boxes per map that enter suppression.
    num_after: P.

  Returns:
    [N, P, 4] boxes by falling logit, [N, P] bool.
  """
  ranks, moves, starts = [], [], []
  for (logits, deltas), own in zip(levels, anchors):
    ranked, order = _ranked(logits, min(num_before, len(own)))
    ranks.append(ranked)
    moves.append(_rows_at(deltas, order))
    starts.append(own[order])
  scores = torch.cat(ranks, dim=1)
  boxes = decoded_boxes(torch.cat(moves, dim=1), torch.cat(starts, dim=1))
  boxes = clipped_boxes(boxes, size[:, None])
  large = (boxes[..., 2:] - boxes[..., :2]).amin(-1) >= _PROPOSAL_SIDE
  counts = [ranked.shape[1] for ranked in ranks]
  kept = [
    suppressed(own, valid[:, None], _PROPOSAL_OVERLAP)[:, 0]
    for own, valid in zip(boxes.split(counts, dim=1), large.split(counts, dim=1))
  ]
  scores = torch.where(torch.cat(kept, dim=1), scores, -torch.inf)
  missing = num_after - boxes.shape[1]
  if missing > 0:  # fewer anchors than proposals asked for
    boxes = nn.functional.pad(boxes, (0, 0, 0, missing))
    scores = nn.functional.pad(scores, (0, missing), value=-torch.inf)
  scores, best = _ranked(scores, num_after)
  return _rows_at(boxes, best), scores > -torch.inf


def best_detections(
  scores: Tensor,
  boxes: Tensor,
  valid: Tensor,
  *,
  score_threshold: float,
  iou_threshold: float,
  num_after: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
  """The best (region, class) pairs: threshold, suppression per class, the best D.

  Args:
    scores: [N, R, K] probabilities, background left out.
    boxes: [N, R, K, 4], or [N, R, 1, 4] where all classes of a region share its box.
    valid: [N, R] bool.
    score_threshold: a pair counts above this score.
    iou_threshold: of suppression.
    num_after: D.

  Returns:
    [N, D, 4] boxes, [N, D] scores by falling score, [N, D] labels, [N, D] bool.
  """
  count, classes = scores.shape[1:]
  counts = (scores > score_threshold) & valid[:, :, None]
  number = min(_PAIRS, count * classes)
  scores, order = _ranked(torch.where(counts, scores, 0.0).flatten(1), number)
  labels = order % classes
  boxes = _rows_at(boxes.flatten(1, 2), order // classes if boxes.shape[2] == 1 else order)
  own = torch.arange(classes, device=labels.device)[:, None] == labels[:, None]  # [N, K, number]
  own = own & counts.flatten(1).gather(1, order)[:, None]
  kept = suppressed(boxes, own, iou_threshold).any(1)
  keep, front = _ranked(kept.float(), min(num_after, number))
  keep = keep > 0
  boxes = torch.where(keep[..., None], _rows_at(boxes, front), 0.0)
  scores = torch.where(keep, scores.gather(1, front), 0.0)
  labels = torch.where(keep, labels.gather(1, front), 0)
  missing = max(num_after - number, 0)
  pad = nn.functional.pad
  return (
    pad(boxes, (0, 0, 0, missing)),
    pad(scores, (0, missing)),
    pad(labels, (0, missing)),
    pad(keep, (0, missing)),
  )


def pooled_regions(
  maps: Sequence[Tensor], boxes: Tensor, strides: Sequence[int], side: int
) -> Tensor:
  """RoIAlign on the map that suits each region's size (``ops.multiscale_roi_align``).

  Args:
    maps: [N, C, h, w], each half as fine as the one before.
    boxes: [N, R, 4] pixels.
    strides: pixels per cell of each map.
    side: S.

  Returns:
    [N * R, C, S, S].
  """
  # One table of all cells: image, level, row, column.
  table = torch.cat([one.flatten(2) for one in maps], dim=2).transpose(1, 2)
  own = table.shape[1]
  table = table.flatten(0, 1)
  grids, start = [], 0
  for one in maps:
    grids.append([start, one.shape[3], one.shape[2]])
    start += one.shape[2] * one.shape[3]

  extent = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
  length = extent.prod(-1).clamp(min=1e-12).sqrt()
  level = torch.floor(_CANONICAL_LEVEL + torch.log2(length / _CANONICAL_SIDE) + 1e-6)
  level = (level - math.log2(strides[0])).clamp(0, len(maps) - 1).long()  # [N, R]
  grid = torch.tensor(grids, device=boxes.device)[level]
  scale = torch.tensor([1 / stride for stride in strides], device=boxes.device)[level]
  cells, shares = _roi_cells(boxes * scale.unsqueeze(-1), grid[..., 1:], side)

  # Of every bin its rows and columns: [N, R, S, S, taps, taps].
  columns, rows = cells.unbind(2)
  column_shares, row_shares = shares.unbind(2)
  first = torch.arange(boxes.shape[0], device=boxes.device).unsqueeze(1) * own + grid[..., 0]
  rows = first[..., None, None] + rows * grid[..., 1, None, None]
  where = rows.unsqueeze(3).unsqueeze(-1) + columns.unsqueeze(2).unsqueeze(4)
  share = row_shares.unsqueeze(3).unsqueeze(-1) * column_shares.unsqueeze(2).unsqueeze(4)
  pooled = _weighted_rows(table, where.flatten(0, 3), share.flatten(0, 3))
  return pooled.unflatten(0, (-1, side, side)).permute(0, 3, 1, 2)


def _roi_cells(edges: Tensor, size: Tensor, bins: int) -> tuple[Tensor, Tensor]:
  """The cells about each sample of each bin along each axis, and their shares.

  Args:
    edges: [N, R, 4] in cells.
    size: [N, R, 2] (width, height) of the regions' maps.
    bins: S.

  Returns:
    [N, R, 2, S, taps] whole places (x, y), and what each contributes to the mean of the bin.
  """
  low, high = edges.split(2, dim=-1)
  step = (high - low).clamp(min=1) / (bins * _ROI_SAMPLES)
  middle = torch.arange(bins * _ROI_SAMPLES, dtype=low.dtype, device=low.device) + 0.5
  sample = low.unsqueeze(-1) + middle * step.unsqueeze(-1)  # [N, R, 2, S * samples]
  size = size.unsqueeze(-1)
  inside = (sample >= -1) & (sample <= size)
  sample = torch.minimum(sample.clamp(min=0), (size - 1).to(sample.dtype))
  lower = sample.floor()
  part = sample - lower
  lower = lower.long()
  cells = torch.stack([lower, torch.minimum(lower + 1, size - 1)], dim=-1)
  whole = torch.where(inside, 1.0 / _ROI_SAMPLES, 0.0)
  shares = torch.stack([whole * (1 - part), whole * part], dim=-1)
  taps = (bins, 2 * _ROI_SAMPLES)
  return cells.flatten(3).unflatten(3, taps), shares.flatten(3).unflatten(3, taps)


def _weighted_rows(table: Tensor, places: Tensor, weights: Tensor) -> Tensor:
  """The sum over k, l of weights[:, k, l] table[places[:, k, l]]; [T, C] -> [B, C]."""
  if not torch.compiler.is_compiling():
    # Many times as fast as any other way, and no cell is ever copied; but ONNX knows no such thing.
    return nn.functional.embedding_bag(
      places.flatten(1), table, per_sample_weights=weights.flatten(1), mode='sum'
    )
  found = weights[:, :1] @ table[places[:, 0]]
  for k in range(1, places.shape[1]):
    found = found + weights[:, k : k + 1] @ table[places[:, k]]
  return found[:, 0]


def _ranked(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
  """The largest of [N, A] and where they are, [N, count] each; of equal ones the first."""
  ranked, order = values.sort(dim=1, descending=True, stable=True)
  return ranked[:, :count], order[:, :count]


def _rows_at(rows: Tensor, places: Tensor) -> Tensor:
  """[N, A, 4] at [N, count] -> [N, count, 4]."""
  return rows.gather(1, places[..., None].expand(-1, -1, rows.shape[2]))
