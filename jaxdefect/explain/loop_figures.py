"""Figures about the review loop: how fast verdicts teach."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from jaxdefect.explain import figures


def curves(shown: Mapping[str, Mapping[str, np.ndarray]], *, counts: Sequence[int]) -> Figure:
  """A panel for each data set: the mean over seeds, with all seeds in the band.

  Args:
    shown: data set -> how pictures are chosen -> [seeds, len(counts)] AUROC.
    counts: labelled pictures.

  Returns:
    The figure.
  """
  figure, panels = figures.panels((4.4 * len(shown), 3.4), title='', columns=len(shown))
  for axes, (name, rows) in zip(panels, shown.items()):
    for place, (row, values) in enumerate(rows.items()):
      color = figures.SERIES[place]
      axes.fill_between(
        counts, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, linewidth=0
      )
      axes.plot(
        counts, values.mean(axis=0), color=color, linewidth=1.8, label=row,
        marker=figures.MARKERS[place], markersize=3.5,
      )  # fmt: skip
    figures.style(axes, title=name, x='labelled pictures', y='AUROC')
  figures.plain_text(panels[0].legend(frameon=False, fontsize=8, loc='lower right'))
  return figure
