"""The confusion matrix as a figure that stays readable from 2 to 40 classes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from jaxdefect.explain import figures

# Width of one letter of a label, in inches per point of font size.
_LETTER = 0.0088


def confusion_matrix(
  counts: Sequence[Sequence[int]] | np.ndarray,
  classes: Sequence[str],
  *,
  title: str = 'Confusion matrix',
) -> Figure:
  """Counts as numbers, shares of the true class as colour; empty cells stay white.

  The colour grows with the square root of the share, so that rare confusions can be seen.

  Args:
    counts: [K, K] images, rows are true classes, columns predicted ones.
    classes: K names.
    title: of the figure; empty for none.

  Returns:
    The figure, as large as K names need.

  Raises:
    ValueError: if the shapes do not fit.
  """
  table = np.asarray(counts)
  size = len(classes)
  if table.shape != (size, size) or size == 0:
    raise ValueError(
      f'counts has the shape {table.shape} for {size} classes; a square of at least one is needed.'
    )
  total = table.sum(axis=1, keepdims=True)
  share = np.divide(table, total, out=np.zeros(table.shape), where=total > 0)

  # Cells keep their size in inches; the figure grows with the number of classes.
  digits = len(str(int(table.max())))
  cell = min(0.75, max(0.27, 4.5 / size, 0.085 * digits + 0.06))
  font = 9.0 if size <= 12 else 7.5
  longest = max(map(len, classes)) * _LETTER * font
  upright = longest > 0.95 * cell
  extent = cell * size
  left, bottom = longest + 0.6, (longest if upright else 0.2) + 0.5
  width, height = left + extent + 1.0, bottom + extent + (0.5 if title else 0.15)
  figure = figures.empty((width, height))
  axes = figure.add_axes((left / width, bottom / height, extent / width, extent / height))
  figures.style(axes, x='predicted class', y='true class')

  shown = np.ma.masked_where(table == 0, share)
  picture = axes.imshow(shown, cmap='Blues', norm=PowerNorm(0.5, 0, 1), aspect='auto')
  number = min(font, 62 * cell / max(digits, 2))
  for i, j in zip(*np.nonzero(table)):
    color = 'white' if share[i, j] > 0.35 else figures.INK
    label = f'{table[i, j]}'
    axes.text(j, i, label, ha='center', va='center', fontsize=number, color=color)
  for i in np.flatnonzero(total == 0):
    hatched = {'hatch': '////', 'facecolor': 'none', 'edgecolor': figures.GRID, 'linewidth': 0}
    axes.add_patch(Rectangle((-0.5, i - 0.5), size, 1, **hatched))

  names = {'fontsize': font, 'parse_math': False, 'fontfamily': figures.fonts()}
  axes.set_xticks(range(size), classes, rotation=90 if upright else 0, **names)
  axes.set_yticks(range(size), classes, **names)
  axes.set_xticks(np.arange(1, size) - 0.5, minor=True)
  axes.set_yticks(np.arange(1, size) - 0.5, minor=True)
  axes.tick_params(which='both', length=0)
  axes.grid(False)
  axes.grid(which='minor', color=figures.GRID, linewidth=0.6)
  for spine in axes.spines.values():
    spine.set(visible=True, color=figures.GRID)
  if title:
    figure.text(left / width, 1 - 0.1 / height, title, ha='left', va='top', **figures.title_font())

  tall = min(extent, 2.6)
  place = (left + extent + 0.18, bottom + extent - tall, 0.13, tall)
  bar = figure.add_axes((place[0] / width, place[1] / height, place[2] / width, place[3] / height))
  scale = figure.colorbar(picture, cax=bar)
  bar.yaxis.set_major_locator(FixedLocator([0.01, 0.1, 0.25, 0.5, 1]))
  bar.yaxis.set_minor_locator(NullLocator())
  bar.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{100 * value:.0f}'))
  bar.tick_params(labelsize=8, colors=figures.QUIET, length=2)
  scale.set_label('share of the true class (%)', fontsize=8.5, color=figures.QUIET)
  for spine in bar.spines.values():
    spine.set_visible(False)
  return figure
