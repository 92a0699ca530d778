"""Anchors: the boxes that a region proposal network starts from.

Shape legend: L pyramid levels, h x w cells of a level, A anchors over all levels.
"""

from collections.abc import Sequence

import numpy as np


def grid_anchors(
  feature_sizes: Sequence[tuple[int, int]],
  *,
  strides: Sequence[int],
  sizes: Sequence[float | Sequence[float]],
  ratios: Sequence[float],
) -> np.ndarray:
  r"""Anchors of a feature pyramid, in the order level, row, column, ratio (then size).

  The anchors of ratio r and size s have height :math:`s\sqrt r` and width :math:`s/\sqrt r`. As
  in torchvision, their edges about the origin are rounded to whole pixels (halves to even), and
  the anchors of cell (row, column) lie about (row * stride, column * stride), the upper left
  corner of the cell and not its centre. They may reach out of the image.

  Everything is known before tracing, so the anchors are a constant of the compiled program.

  Args:
    feature_sizes: (h, w) of each level.
    strides: pixels per cell of each level. torchvision takes image size // feature size, which
      is not a power of two where the sizes do not divide: pass that to be equal to it.
    sizes: the side of the square anchor of each level, in pixels, or several per level.
    ratios: height / width.

  Returns:
    [A, 4] float32, edges (x0, y0, x1, y1) in pixels.

  Raises:
    ValueError: if the levels of the arguments differ in number, or a number is not positive.

  >>> grid_anchors([(1, 2)], strides=[8], sizes=[16], ratios=[1.0]).tolist()
  [[-8.0, -8.0, 8.0, 8.0], [0.0, -8.0, 16.0, 8.0]]
  """
  levels = len(feature_sizes)
  if len(strides) != levels or len(sizes) != levels:
    raise ValueError(
      f'strides and sizes must have one entry for each of the {levels} feature_sizes, '
      f'came with {len(strides)} and {len(sizes)}.'
    )
  per_level = [np.atleast_1d(np.asarray(size, np.float32)) for size in sizes]
  for name, values in (
    ('strides', strides),
    ('ratios', ratios),
    *(('sizes', s) for s in per_level),
  ):
    if not all(value > 0 for value in values):
      raise ValueError(f'{name} must be positive, came as {[float(v) for v in values]}.')

  root = np.sqrt(np.asarray(ratios, np.float32))
  anchors = [np.zeros((0, 4), np.float32)]
  for (height, width), stride, level_sizes in zip(feature_sizes, strides, per_level):
    half_height = np.outer(root, level_sizes).ravel() / 2  # ratio outermost
    half_width = np.outer(1 / root, level_sizes).ravel() / 2
    cell = np.round(np.stack([-half_width, -half_height, half_width, half_height], axis=-1))
    x, y = np.meshgrid(np.arange(width) * stride, np.arange(height) * stride)  # [h, w]
    corner = np.stack([x, y, x, y], axis=-1)[:, :, None]  # [h, w, 1, 4]
    anchors.append((corner + cell).astype(np.float32).reshape(-1, 4))
  return np.concatenate(anchors)
