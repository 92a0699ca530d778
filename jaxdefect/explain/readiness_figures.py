"""Figures about readiness: how many lines are approved, part by part."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from jaxdefect.explain import figures


def approvals(
  curves: Mapping[str, Mapping[str, np.ndarray]], *, promised: float, target: float
) -> Figure:
  """A panel for each kind of line: the share that has been approved after so many parts.

  Args:
    curves: kind of line -> rule -> [n] share approved after 1 to n parts.
    promised: share of lines that may be approved wrongly.
    target: what is asked for, for the title.

  Returns:
    The figure.
  """
  title = f'Lines that are approved; {100 * target:g} % of defects are to be found'
  figure, panels = figures.panels((9.0, 3.2), title=title, columns=len(curves))
  for axes, (kind, rules) in zip(panels, curves.items()):
    for place, (name, share) in enumerate(rules.items()):
      parts = np.arange(1, len(share) + 1)
      axes.plot(parts, 100 * share, color=figures.SERIES[place], linewidth=1.8, label=name)
    axes.axhline(100 * promised, color=figures.INK, linewidth=1, linestyle='--')
    figures.style(axes, title=kind, x='seeded parts', y='lines approved (%)')
    axes.set_ylim(0, 100)
  figures.plain_text(panels[0].legend(frameon=False, fontsize=8, loc='upper left'))
  return figure
