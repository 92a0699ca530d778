"""Where a deformable convolution looks: its sampling points, drawn on the picture.

Shape legend: h x w output cells of the layer, G offset groups, kh x kw taps, P cells to show.

Cells and points are (y, x). A cell of a feature map of stride s covers the pixel that is s times
its number: with the padding of a ResNet, cell 0 is centred on the first pixel. Points are given in
edge coordinates like the boxes, 0 at the corner of the picture, so that the centre of pixel 0 is
0.5.
"""

import math
from collections.abc import Sequence

import chex
import numpy as np
from PIL import Image, ImageDraw

from jaxdefect.explain import detections, overlays


def sampling_points(
  offsets: np.ndarray,
  cell: tuple[int, int],
  *,
  input_stride: float,
  kernel_size: int | tuple[int, int] = 3,
  stride: int = 1,
  padding: int = 1,
  dilation: int = 1,
) -> np.ndarray:
  r"""The points of the picture that one output of a deformable layer is made of.

  With the output cell :math:`c`, tap :math:`k` and offset :math:`\Delta`, all (y, x) in cells of
  the layer's input,

  .. math:: q = s\,c - p + d\,k + \Delta_{c,k}, \qquad
            \text{point} = q \cdot \text{input stride} + \tfrac12

  Args:
    offsets: [h, w, 2*G*kh*kw] of one picture, ordered group, row, column, (y, x), as
      ``models.DeformConv`` sows them.
    cell: (y, x) of the output.
    input_stride: pixels of the picture per cell of the layer's input.
    kernel_size: of the layer, one number or (kh, kw).
    stride: of the layer.
    padding: of the layer.
    dilation: of the layer.

  Returns:
    [G, kh*kw, 2] points (y, x) in pixels of the picture; some may lie outside of it.

  Raises:
    ValueError: if the last axis holds no whole number of groups, or the cell lies outside.

  >>> points = sampling_points(np.zeros((4, 4, 18)), (1, 2), input_stride=8)
  >>> points[0, 0].tolist(), points[0, 4].tolist()
  ([0.5, 8.5], [8.5, 16.5])

  Dai et al., ICCV 2017, equation 2.
  """
  offsets = np.asarray(offsets, np.float64)
  rows, columns = (kernel_size,) * 2 if isinstance(kernel_size, int) else kernel_size
  steps = _by_tap(offsets, rows * columns)
  height, width = offsets.shape[:2]
  if not (0 <= cell[0] < height and 0 <= cell[1] < width):
    raise ValueError(f'cell is {tuple(cell)}; the layer has {height} x {width} cells.')
  taps = np.array([(i, j) for i in range(rows) for j in range(columns)])  # [kh*kw, 2]
  regular = np.asarray(cell) * stride - padding + dilation * taps
  return (regular + steps[cell[0], cell[1]]) * input_stride + 0.5


def _by_tap(offsets: np.ndarray, taps: int) -> np.ndarray:
  """[h, w, 2*G*kh*kw] -> [h, w, G, kh*kw, 2]."""
  chex.assert_rank(offsets, 3)
  channels = offsets.shape[-1]
  if channels == 0 or channels % (2 * taps):
    raise ValueError(
      f'offsets has {channels} channels; a multiple of {2 * taps} is needed for {taps} taps.'
    )
  return offsets.reshape(*offsets.shape[:2], -1, taps, 2)


def cells_in_box(
  box: Sequence[float], size: tuple[int, int], *, output_stride: float, limit: int = 3
) -> list[tuple[int, int]]:
  """Cells spread evenly over a box: the centres of ``limit`` x ``limit`` equal parts of it.

  Args:
    box: edges (x0, y0, x1, y1) in pixels of the picture.
    size: (h, w), cells of the layer's output.
    output_stride: pixels of the picture per cell of the layer's output.
    limit: at most so many cells along each side.

  Returns:
    Different cells (y, x), row by row; at least one, also for a box smaller than a cell.

  >>> cells_in_box((0, 0, 32, 16), (8, 8), output_stride=8, limit=2)
  [(0, 1), (0, 3), (1, 1), (1, 3)]
  """
  sides = []
  for low, high, count in ((box[1], box[3], size[0]), (box[0], box[2], size[1])):
    pixels = low + (high - low) * (np.arange(limit) + 0.5) / limit - 0.5
    cells = np.clip(np.rint(pixels / output_stride), 0, count - 1).astype(int)
    sides.append(sorted(set(cells.tolist())))
  return [(y, x) for y in sides[0] for x in sides[1]]


def offset_lengths(
  offsets: np.ndarray, *, input_stride: float = 1.0, inside: np.ndarray | None = None
) -> dict[str, float]:
  """How far the points moved: a summary of the Euclidean lengths of the offsets.

  Args:
    offsets: [h, w, 2*G*kh*kw], of any number of taps.
    input_stride: pixels per cell of the layer's input; 1 gives lengths in cells.
    inside: [h, w] bool, cells to look at, for example those within boxes; None takes all.

  Returns:
    ``mean``, ``median``, ``p95`` (95th percentile) and ``max``; empty where no cell is chosen.

  >>> offset_lengths(np.full((1, 1, 2), [[[3.0, 4.0]]]), input_stride=2)['mean']
  10.0
  """
  steps = _by_tap(np.asarray(offsets, np.float64), 1)
  if inside is not None:
    chex.assert_shape(inside, steps.shape[:2])
    steps = steps[np.asarray(inside, bool)]
  lengths = input_stride * np.hypot(steps[..., 0], steps[..., 1])
  if not lengths.size:
    return {}
  median, high = np.quantile(lengths, [0.5, 0.95])
  return {
    'mean': float(lengths.mean()),
    'median': float(median),
    'p95': float(high),
    'max': float(lengths.max()),
  }


def draw(
  image: np.ndarray,
  centers: np.ndarray,
  points: np.ndarray,
  *,
  weights: np.ndarray | None = None,
  box: Sequence[float] | None = None,
  min_side: int = 480,
) -> np.ndarray:
  """Draws the sampling points of several output cells, one colour per cell.

  A cross marks the centre of a cell, a line leads from it to each of its points, and a disc is the
  point. Points outside of the picture read zeros and are not drawn.

  Args:
    image: [H,W], [H,W,1] or [H,W,3], uint8 or floats in 0..255.
    centers: [P, 2] centres (y, x) of the cells, in pixels of ``image``: the cell times the stride
      of the layer's output, plus 0.5.
    points: [P, ..., 2] points (y, x) in pixels of ``image``, from ``sampling_points``; points in
      pixels of a network's input are divided by ``batch['scale']`` for the picture as it was read.
    weights: [P, ...] masks of v2 (the sown ``masks`` at the cells); the area of a disc grows with
      its mask, which is one where the layer started. None draws all alike.
    box: a box to draw beside them, edges (x0, y0, x1, y1).
    min_side: the longer side of the drawing is at least so many pixels.

  Returns:
    [h,w,3] uint8.

  Raises:
    ValueError: if there are not as many weights as points.
  """
  centers = np.asarray(centers, np.float64)
  points = np.asarray(points, np.float64)
  chex.assert_shape(centers, (None, 2))
  chex.assert_shape(points, (len(centers), ..., 2))
  taps = math.prod(points.shape[1:-1])
  points = points.reshape(-1, taps, 2)  # [P, n, 2]
  masks = np.ones(points.shape[:2]) if weights is None else np.asarray(weights, np.float64)
  if masks.size != len(centers) * taps:
    raise ValueError(f'weights has {masks.size} entries for {len(centers) * taps} points.')
  masks = masks.reshape(-1, taps)  # [P, n]
  picture = overlays.as_rgb(image)
  height, width = picture.shape[:2]
  zoom = max(1.0, min_side / max(height, width))
  # Drawn at twice the size and reduced, so that discs are round.
  size = (round(width * zoom), round(height * zoom))
  canvas = Image.fromarray(np.ascontiguousarray(picture))
  canvas = canvas.resize((2 * size[0], 2 * size[1]), Image.Resampling.BICUBIC)
  pen = ImageDraw.Draw(canvas)
  unit, zoom = 2 * (max(size) / 480) ** 0.5, 2 * zoom
  if box is not None:
    x0, y0, x1, y1 = (zoom * edge for edge in box)
    pen.rectangle((x0 - 2, y0 - 2, x1 + 2, y1 + 2), outline=detections.BLACK, width=round(5 * unit))
    pen.rectangle((x0, y0, x1, y1), outline=detections.WHITE, width=round(2 * unit))

  inside = np.asarray(((points >= 0) & (points <= (height, width))).all(axis=-1))  # [P, n]
  kept = [(zoom * where[here]).tolist() for where, here in zip(points, inside)]
  colors = detections.class_colors(len(centers))
  for p, (y, x) in enumerate((zoom * centers).tolist()):
    for py, px in kept[p]:
      pen.line((x, y, px, py), fill=colors[p], width=max(round(unit), 1))
  # All crosses and discs lie above all lines.
  for p, (y, x) in enumerate((zoom * centers).tolist()):
    for (py, px), weight in zip(kept[p], masks[p, inside[p]].tolist()):
      radius = 3.6 * unit * max(weight, 0.05) ** 0.5
      area = (px - radius, py - radius, px + radius, py + radius)
      pen.ellipse(area, fill=colors[p], outline=detections.BLACK, width=max(round(unit), 1))
    _cross(pen, x, y, 7 * unit, colors[p], unit)
  return np.asarray(canvas.resize(size, Image.Resampling.LANCZOS))


def _cross(pen, x: float, y: float, arm: float, color: detections.Color, unit: float) -> None:
  for tone, width in ((detections.BLACK, 5 * unit), (color, 2.4 * unit)):
    pen.line((x - arm, y, x + arm, y), fill=tone, width=round(width))
    pen.line((x, y - arm, x, y + arm), fill=tone, width=round(width))
