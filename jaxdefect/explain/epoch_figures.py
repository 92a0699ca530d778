"""Figures over epochs: how fast one start becomes good, beside another."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from jaxdefect.explain import figures


def curves(shown: Mapping[str, Mapping[str, Sequence[float]]], *, y: str) -> Figure:
  """A panel for each data set, a line for each start.

  Args:
    shown: data set -> start -> a figure per epoch, the first before any training.
    y: what the figure is.

  Returns:
    The figure.

  Raises:
    ValueError: if there is no data set.
  """
  if not shown:
    raise ValueError('shown is empty; a curve of at least one data set is needed.')
  figure, panels = figures.panels((5.2 * len(shown), 3.4), title='', columns=len(shown))
  for axes, (name, rows) in zip(panels, shown.items()):
    for place, (row, values) in enumerate(rows.items()):
      axes.plot(
        range(len(values)), values, color=figures.SERIES[place % len(figures.SERIES)], label=row,
        linewidth=1.6, marker=figures.MARKERS[place % len(figures.MARKERS)], markersize=3,
        markevery=max(1, len(values) // 12),
      )  # fmt: skip
    figures.style(axes, title=name, x='epoch of fine-tuning', y=y)
    axes.set_ylim(-0.03, 1.03)
  figures.plain_text(panels[0].legend(frameon=False, fontsize=8, loc='lower right'))
  return figure
