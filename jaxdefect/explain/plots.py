"""Figures of a run: learning curves, contact sheet, accuracy against k, the overlays' colours."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import FuncFormatter, MaxNLocator

from jaxdefect.explain import figures, overlays
from jaxdefect.explain.confusion import confusion_matrix
from jaxdefect.explain.figures import save, to_png

__all__ = [
  'color_scale',
  'confusion_matrix',
  'contact_sheet',
  'k_shot_curve',
  'learning_curves',
  'save',
  'to_png',
]

# What a line of metrics.jsonl holds beside the quantities worth a curve.
_NOT_CURVES = ('step', 'seconds', 'epoch', 'images_per_second', 'data_stall')
_SHARES = (
  *('accuracy', 'f1', 'auroc', 'recall', 'precision', 'map'),
  *('dice', 'exact_match', 'pseudo_labels'),
)
# Cross-entropies; what other losses are measured in differs from method to method.
_NATS = ('classification', 'contrastive', 'margin', 'distribution', 'rpn_objectness')
_UNITS = {
  **{'gradient_norm': 'Euclidean norm', 'learning_rate': 'step size'},
  'movement': 'of the parameters',
}
_TITLES = {
  'auroc': 'AUROC',
  **{'map': 'mAP', 'map50': 'mAP@0.5', 'map75': 'mAP@0.75', 'box': 'Boxes'},
  **{'rpn_box': 'RPN, boxes', 'rpn_objectness': 'RPN, objectness'},
  **{name: f'{name.capitalize()} loss' for name in ('classification', 'contrastive', 'margin')},
}


def learning_curves(
  records: Sequence[Mapping[str, Any]],
  *,
  names: Sequence[str] | None = None,
  title: str = 'Learning curves',
  x: str = 'step',
  max_panels: int = 6,
) -> Figure:
  """One panel per quantity of ``metrics.jsonl``, training and validation together.

  ``validation/accuracy`` is drawn into the panel of ``accuracy``; null values are left out.

  Args:
    records: lines of ``metrics.jsonl``, each with ``step``.
    names: quantities to draw, without prefix; None draws the loss, the accuracies, then the rest.
    title: of the figure.
    x: what ``step`` counts.
    max_panels: at most so many panels.

  Returns:
    The figure.
  """
  series = _series(records)
  if names is None:
    first = ('accuracy', 'map')
    names = sorted(
      series, key=lambda n: (n != 'loss', not any(word in n for word in first), n in _UNITS)
    )
  names = [name for name in names if name in series][:max_panels]
  columns = min(len(names), 3) or 1
  rows = -(-len(names) // columns) or 1
  size = (max(4.2 * columns, 4.8), 2.7 * rows + 0.45)
  figure, panels = figures.panels(size, title=title, rows=rows, columns=columns)

  parts = sorted({part for name in names for part in series[name]}, key=lambda p: p != 'training')
  lines = {}
  for axes, name in zip(panels, names):
    for part, (steps, values) in series[name].items():
      place = parts.index(part)
      (lines[part],) = axes.plot(
        steps,
        values,
        color=figures.SERIES[place % len(figures.SERIES)],
        marker=figures.MARKERS[place % len(figures.MARKERS)] if len(steps) <= 25 else None,
        markersize=4,
        linewidth=1.6,
        label=part,
      )
    share = any(word in name for word in _SHARES)
    unit = '%' if share else _UNITS.get(name, _loss_unit(name, series))
    label = _TITLES.get(name, name.replace('_', ' ').capitalize())
    if share and [*series[name]] == ['training']:
      label = f'Training {label.lower() if label[1:].islower() else label}'
    figures.style(axes, title=label, x=x, y=unit)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if share:
      axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{100 * value:g}'))
    else:
      axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
  for axes in panels[len(names) :]:
    axes.set_axis_off()
  if len(lines) > 1:
    handles = [lines[part] for part in parts]
    figure.legend(
      handles=handles, loc='outside upper right', ncols=len(parts), frameon=False, fontsize=9
    )
  if not names:
    panels[0].text(0.5, 0.5, 'nothing was logged', ha='center', color=figures.QUIET)
  return figure


def _loss_unit(name: str, series: Mapping[str, Any]) -> str:
  """What a loss is measured in; empty where its name does not say it."""
  if name == 'loss' and any('box' in one for one in series):
    return 'sum of the losses'
  if 'box' in name:
    return 'smooth L1' if 'rpn_box' in series else '1 - CIoU'
  return 'nats' if name in _NATS else ''


def _series(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, tuple[list, list]]]:
  """quantity -> part ('training', 'validation', ...) -> (steps, values)."""
  series: dict[str, dict[str, tuple[list, list]]] = {}
  for record in records:
    for name, value in record.items():
      part, _, quantity = name.rpartition('/')
      number = isinstance(value, int | float) and not isinstance(value, bool)
      if quantity in _NOT_CURVES or not number or not np.isfinite(value):
        continue
      steps, values = series.setdefault(quantity, {}).setdefault(part or 'training', ([], []))
      steps.append(int(record['step']))
      values.append(float(value))
  return series


def contact_sheet(
  images: Sequence[np.ndarray],
  captions: Sequence[str],
  *,
  columns: int = 6,
  title: str = '',
  width: float = 1.85,
) -> Figure:
  """Pictures side by side with a caption under each.

  Args:
    images: each [H,W], [H,W,1] or [H,W,3], uint8 or floats in 0..255; sizes may differ.
    captions: one per image; may hold line breaks.
    columns: pictures per row.
    title: of the figure.
    width: of one picture with its gap, in inches.

  Returns:
    The figure.

  Raises:
    ValueError: if there are not as many captions as images.
  """
  if len(images) != len(captions):
    raise ValueError(f'captions has {len(captions)} entries for {len(images)} images.')
  columns = max(1, min(columns, len(images)))
  rows = max(1, -(-len(images) // columns))
  lines = max((caption.count('\n') + 1 for caption in captions), default=1)
  size = (width * columns + 0.2, (width + 0.2 * lines - 0.08) * rows + (0.4 if title else 0.05))
  figure, panels = figures.panels(size, title=title, rows=rows, columns=columns)
  for axes in panels:
    axes.set_axis_off()
  for axes, image, caption in zip(panels, images, captions):
    axes.imshow(overlays.as_rgb(image), interpolation='nearest')
    axes.text(
      0.5,
      -0.07 / width,
      caption,
      transform=axes.transAxes,
      ha='center',
      va='top',
      fontsize=8,
      color=figures.INK,
      linespacing=1.25,
      parse_math=False,
      fontfamily=figures.fonts(),
    )
  return figure


def k_shot_curve(
  series: Mapping[str, Mapping[str, Sequence[float]]],
  *,
  title: str = 'Accuracy against training images per class',
  quantity: str = 'accuracy (%)',
  band: str = '',
) -> Figure:
  """Accuracy against k, with bands where there are intervals.

  Args:
    series: name -> ``{'k': [...], 'mean': [...], 'low': [...], 'high': [...]}``; shares in 0..1.
      Without ``low`` and ``high`` (published figures) the line is dashed and has no band.
    title: of the figure.
    quantity: label of the vertical axis.
    band: what the bands are, for example ``'95 % interval over 10 seeds'``.

  Returns:
    The figure.
  """
  figure, (axes,) = figures.panels((6.6, 4.4), title=title)
  for place, (name, one) in enumerate(series.items()):
    color = figures.SERIES[place % len(figures.SERIES)]
    ours = 'low' in one and 'high' in one
    if ours:
      low, high = (100 * np.asarray(one[end], float) for end in ('low', 'high'))
      axes.fill_between(one['k'], low, np.minimum(high, 100), color=color, alpha=0.16, linewidth=0)
    axes.plot(
      one['k'],
      100 * np.asarray(one['mean'], float),
      color=color,
      marker=figures.MARKERS[place % len(figures.MARKERS)],
      markersize=5.5,
      markerfacecolor=color if ours else 'white',
      linewidth=1.8,
      linestyle='-' if ours else (0, (4, 2.5)),
      label=figures.label(name),
      clip_on=False,
      zorder=3,
    )
  figures.style(axes, x='training images per class, k (logarithmic)', y=quantity)
  ticks = sorted({float(k) for one in series.values() for k in one['k']})
  if ticks and ticks[0] > 0:
    axes.set_xscale('log')
  axes.set_xticks(ticks, [f'{k:g}' for k in ticks])
  axes.set_xticks([], minor=True)
  axes.set_ylim(top=min(axes.get_ylim()[1], 100))
  if series:
    legend = figure.legend(
      loc='outside lower center', ncols=2, frameon=False, fontsize=8.5, labelcolor=figures.INK
    )
    figures.plain_text(legend)
    if band:
      legend.set_title(f'band: {band}', prop=FontProperties(size=8))
      legend.get_title().set_color(figures.QUIET)
  return figure


def color_scale(
  ceiling: float, *, floor: float = 0.0, label: str = 'evidence for the predicted class'
) -> Figure:
  """The legend of the overlays: which colour means how much, seen on gray as in the pictures.

  Args:
    ceiling: value of the strongest colour.
    floor: value up to which there is none.
    label: what is measured.

  Returns:
    A flat figure.
  """
  figure = figures.empty((4.2, 0.6))
  axes = figure.add_axes((0.02, 0.4, 0.96, 0.28))
  values = np.broadcast_to(np.linspace(0, 1, 256), (2, 256))
  ramp = overlays.overlay(np.full((2, 256), 140, np.uint8), values, ceiling=1.0)
  axes.imshow(ramp, aspect='auto', extent=(floor, ceiling, 0, 1))
  axes.set_yticks([])
  middle = (floor + ceiling) / 2
  least = f'{floor:.3g} and less' if floor else '0'
  axes.set_xticks([floor, middle, ceiling], [least, f'{middle:.3g}', f'{ceiling:.3g} and more'])
  axes.tick_params(labelsize=7.5, colors=figures.QUIET, length=2)
  for tick, side in zip(axes.get_xticklabels(), ('left', 'center', 'right')):
    tick.set_horizontalalignment(side)
  for spine in axes.spines.values():
    spine.set_visible(False)
  axes.set_title(label, fontsize=8, color=figures.INK, loc='left', pad=3)
  return figure
