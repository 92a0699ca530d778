"""The look that all figures share, and how they become files.

Figures are made without pyplot, so that nothing global changes and threads do not meet. Colours
are Okabe and Ito's, which stay apart with any colour vision; series also differ in their markers.
"""

import functools
import io
import os
import pathlib
import warnings

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend

SERIES = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X')
INK, QUIET, GRID = '#222222', '#6b6b6b', '#e3e3e3'
DPI = 150


def empty(size: tuple[float, float], *, constrained: bool = False) -> Figure:
  """A white figure.

  Args:
    size: (width, height) in inches.
    constrained: whether matplotlib places the panels.

  Returns:
    The figure, with a canvas of its own.
  """
  figure = Figure(
    figsize=size, dpi=DPI, facecolor='white', layout='constrained' if constrained else None
  )
  FigureCanvasAgg(figure)
  return figure


def panels(
  size: tuple[float, float], *, title: str, rows: int = 1, columns: int = 1
) -> tuple[Figure, list[Axes]]:
  """A figure of equal panels.

  Args:
    size: (width, height) in inches.
    title: of the figure; empty for none.
    rows: of panels.
    columns: of panels.

  Returns:
    The figure and its panels, row by row.
  """
  figure = empty(size, constrained=True)
  axes = figure.subplots(rows, columns, squeeze=False)
  if title:
    figure.suptitle(title, x=0.012, ha='left', **title_font())
  return figure, list(axes.ravel())


def title_font() -> dict:
  """Text properties of a figure's title."""
  return {
    'fontsize': 11.5,
    'color': INK,
    'fontweight': 'bold',
    'fontfamily': fonts(),
    'parse_math': False,
  }


def style(axes: Axes, *, title: str = '', x: str = '', y: str = '') -> None:
  """Quiet axes with a light grid.

  Args:
    axes: the panel.
    title: of the panel.
    x: label of the horizontal axis, with its unit.
    y: label of the vertical axis, with its unit.
  """
  axes.set_title(title, fontsize=9.5, color=INK, loc='left', parse_math=False, family=fonts())
  axes.set_xlabel(x, fontsize=8.5, color=QUIET)
  axes.set_ylabel(y, fontsize=8.5, color=QUIET)
  axes.tick_params(labelsize=8, colors=QUIET, length=3)
  axes.grid(True, color=GRID, linewidth=0.7)
  axes.set_axisbelow(True)
  for side, spine in axes.spines.items():
    spine.set(visible=side in ('left', 'bottom'), color='#b5b5b5', linewidth=0.8)


def label(name: str) -> str:
  """A name for a legend, which leaves out what begins with an underscore."""
  return f' {name}' if name.startswith('_') else name


def plain_text(legend: Legend) -> Legend:
  """The legend, with names as they are written: a dollar sign begins no formula."""
  for text in legend.get_texts():
    text.set(parse_math=False, fontfamily=fonts())
  return legend


@functools.cache
def _installed() -> tuple[str, ...]:
  wide = (
    *('Noto Sans CJK SC', 'Noto Sans CJK JP', 'WenQuanYi Zen Hei', 'Microsoft YaHei'),
    *('Yu Gothic', 'Malgun Gothic', 'PingFang SC', 'Arial Unicode MS'),
  )
  there = {font.name for font in font_manager.fontManager.ttflist}
  return tuple(name for name in wide if name in there)


def fonts() -> list[str]:
  """The default font, and after it whatever is installed for other scripts."""
  return [*matplotlib.rcParams['font.family'], *_installed()]


def to_png(figure: Figure) -> bytes:
  """A figure as the bytes of a PNG file."""
  buffer = io.BytesIO()
  with warnings.catch_warnings():
    # Class names may be in a script that no installed font has: boxes, but no failure.
    warnings.filterwarnings('ignore', message='Glyph .* missing from')
    figure.savefig(
      buffer,
      format='png',
      dpi=DPI,
      bbox_inches='tight',
      pad_inches=0.08,
      metadata={'Software': None},
    )
  return buffer.getvalue()


def save(path: str | os.PathLike[str], figure: Figure) -> None:
  """Writes a figure as PNG; nothing is left behind when it fails.

  Args:
    path: the file.
    figure: any figure.
  """
  path = pathlib.Path(path)
  partial = path.with_name(path.name + '.partial')
  partial.write_bytes(to_png(figure))
  os.replace(partial, path)
