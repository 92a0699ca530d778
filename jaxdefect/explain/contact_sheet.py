"""A contact sheet: one picture of each class, and beside it what is made of it.

Shape legend: V views, H x W pixels, C channels.
"""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from jaxdefect.explain import figures, overlays

# Longest side of a picture on the sheet, in pixels; the smaller one where there are many classes.
_SIDES, _MANY = (160, 96), 12
_GAP, _WIDE_GAP = 6, 24  # pixels
_NAME_WIDTH = 18  # characters


class Row(NamedTuple):
  """One class.

  Attributes:
    name: of the class.
    original: [H, W, C], the picture as it trains.
    views: [V, H, W, C], random views of it, or evidence laid over it.
    note: a line below the name.
  """

  name: str
  original: np.ndarray
  views: np.ndarray
  note: str = ''


def contact_sheet(
  rows: Sequence[Row], *, headings: Sequence[str] = ('original', 'random views')
) -> Figure:
  """Draws one row per class: the original, then its views.

  Args:
    rows: one per class, all pictures of one size, pixels 0..255.
    headings: what stands above the first columns.

  Returns:
    The figure.

  Raises:
    ValueError: if there is no row.
  """
  if not rows:
    raise ValueError('rows is empty; a picture of at least one class is needed.')
  side = _SIDES[len(rows) > _MANY]
  tiles = [[_tile(one, side) for one in (row.original, *row.views)] for row in rows]
  height, width, _ = tiles[0][0].shape
  lefts = np.arange(len(tiles[0])) * (width + _GAP)
  lefts[1:] += _WIDE_GAP - _GAP  # the original stands apart
  tops = np.arange(len(rows)) * (height + _GAP)
  sheet = np.full((tops[-1] + height, lefts[-1] + width, 3), 255, np.uint8)
  for top, line in zip(tops, tiles):
    for left, tile in zip(lefts, line):
      sheet[top : top + height, left : left + width] = tile

  # The figure is the pictures; what is written beside them is kept when it is saved.
  figure = figures.empty((sheet.shape[1] / figures.DPI, sheet.shape[0] / figures.DPI))
  axes = figure.add_axes((0, 0, 1, 1))
  axes.imshow(sheet, interpolation='none', aspect='auto')
  axes.set_axis_off()
  font = {'fontsize': 8, 'fontfamily': figures.fonts(), 'parse_math': False}
  for left, text in zip(lefts, headings):
    axes.text(left, -8, textwrap.fill(text, _NAME_WIDTH), color=figures.QUIET, va='bottom', **font)
  for top, row in zip(tops, rows):
    name = '\n'.join(textwrap.wrap(row.name, _NAME_WIDTH))
    place = {'x': -12, 'y': top + height / 2, 'ha': 'right', **font}
    axes.text(s=name, color=figures.INK, va='bottom' if row.note else 'center', **place)
    if row.note:
      place['y'] += 4
      axes.text(s=row.note, color=figures.QUIET, va='top', **place)
  return figure


def _tile(image: np.ndarray, side: int) -> np.ndarray:
  """[h, w, 3] uint8 whose longest side is ``side``; enlarged pixels stay square."""
  picture = Image.fromarray(np.ascontiguousarray(overlays.as_rgb(image)))
  factor = side / max(picture.size)
  width, height = (max(1, round(factor * length)) for length in picture.size)
  kind = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
  return np.asarray(picture.resize((width, height), kind))
