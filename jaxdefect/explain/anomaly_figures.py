"""Figures of an anomaly method: scores, ROC curve, and maps over pictures on one colour scale.

Shape legend: N images, H x W pixels, h x w cells of a map.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from jaxdefect.explain import figures, overlays

_MOST_BINS = 40


@dataclass(frozen=True, eq=False)
class DrawnMap:
  """A picture with its map, ready to print.

  Attributes:
    image: [H,W,3] uint8, the picture.
    overlay: [H,W,3] uint8, the map over it; None for a method without maps.
    title: in bold.
    reason: a few words.
    name: where the picture comes from, for example its path in the data set.
  """

  image: np.ndarray
  overlay: np.ndarray | None
  title: str
  reason: str
  name: str = ''


def overlay(image: np.ndarray, heat: np.ndarray, *, floor: float, ceiling: float) -> np.ndarray:
  """Lays a map over a picture: nothing up to the floor, the strongest colour from the ceiling on.

  Args:
    image: [H,W], [H,W,1] or [H,W,3], uint8 or floats in 0..255.
    heat: [h,w] floats.
    floor: what a usual good part reaches; ``Fitted.calibration['map_floor']``.
    ceiling: ``Fitted.calibration['map_ceiling']``.

  Returns:
    [H,W,3] uint8.

  Raises:
    ValueError: the ceiling does not lie above the floor.
  """
  if not ceiling > floor:
    raise ValueError(f'map_ceiling is {ceiling:g}; it must lie above map_floor, {floor:g}.')
  return overlays.overlay(image, np.asarray(heat) - floor, ceiling=ceiling - floor)


def score_histogram(groups: Mapping[str, np.ndarray], *, threshold: float | None) -> Figure:
  """How the scores of each group spread, as shares of the group, and where the threshold lies.

  Args:
    groups: name -> scores; at most seven.
    threshold: above which a part is flagged; None draws none.

  Returns:
    The figure.
  """
  figure, (axes,) = figures.panels((6.6, 3.6), title='')
  every = np.concatenate([np.asarray(one, float) for one in groups.values()])
  marks = every if threshold is None else np.append(every, threshold)
  # A few far outliers would squeeze all others into one bar: they count in the last one.
  low, high = marks.min(), np.quantile(every, 0.995)
  high = max(high, low + 1e-6, marks[-1] if threshold is not None else high)
  smallest = min(len(scores) for scores in groups.values())
  bins = int(np.clip(smallest / 4, 10, _MOST_BINS))
  edges = np.linspace(low, high + 0.02 * (high - low), bins + 1)
  for place, (name, scores) in enumerate(groups.items()):
    clipped = np.minimum(np.asarray(scores, float), edges[-1])
    share = np.histogram(clipped, edges)[0] / max(len(scores), 1)
    color = figures.SERIES[place % len(figures.SERIES)]
    axes.stairs(100 * share, edges, color=color, linewidth=1.6, zorder=3)
    axes.stairs(
      100 * share,
      edges,
      color=color,
      fill=True,
      alpha=0.16,
      label=figures.label(f'{name} ({len(scores):,})'),
    )
  if threshold is not None:
    axes.axvline(
      threshold,
      color=figures.INK,
      linewidth=1.2,
      linestyle='--',
      label=f'threshold {threshold:.4g}',
    )
  figures.style(axes, x='score (the last bar holds all that is larger)', y='share of the group (%)')
  axes.set_ylim(bottom=0)
  _legend(figure)
  return figure


def roc_curve(
  scores: np.ndarray, positive: np.ndarray, *, threshold: float | None, auroc: float
) -> Figure:
  """Recall against the false-alarm rate over all thresholds, and where the threshold is.

  Args:
    scores: [N].
    positive: [N] bool, whether a part is defective; the others are good.
    threshold: above which a part is flagged; None marks none.
    auroc: for the legend.

  Returns:
    The figure.
  """
  figure, (axes,) = figures.panels((4.8, 4.0), title='')
  order = np.argsort(-scores, kind='stable')
  ends = np.flatnonzero(np.append(np.diff(scores[order]) < 0, True))
  recall = np.append(0, np.cumsum(positive[order])[ends]) / positive.sum()
  alarms = np.append(0, np.cumsum(~positive[order])[ends]) / (~positive).sum()
  axes.plot(
    100 * alarms, 100 * recall, color=figures.SERIES[0], linewidth=1.8, label=f'AUROC {auroc:.3f}',
    clip_on=False, zorder=3,
  )  # fmt: skip
  axes.plot([0, 100], [0, 100], color='#bdbdbd', linewidth=1, linestyle=':')
  if threshold is not None:
    flagged = scores > threshold
    axes.plot(
      [100 * flagged[~positive].mean()],
      [100 * flagged[positive].mean()],
      color=figures.SERIES[1],
      marker='o',
      markersize=7,
      linestyle='none',
      label='at the threshold',
      clip_on=False,
      zorder=4,
    )
  figures.style(axes, x='false-alarm rate (%)', y='recall (%)')
  axes.set_xlim(0, 100)
  axes.set_ylim(0, 101)
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_locator(MultipleLocator(20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
  _legend(figure)
  return figure


def _legend(figure: Figure) -> None:
  legend = figure.legend(
    loc='outside upper right', ncols=4, frameon=False, fontsize=8.5, labelcolor=figures.INK
  )
  figures.plain_text(legend)


def order_of_groups(names: Sequence[str]) -> list[str]:
  """Good first, defect last, what is neither between them."""
  return sorted(names, key=lambda name: (name == 'defect', name != 'good'))
