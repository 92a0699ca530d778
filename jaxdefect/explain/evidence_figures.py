"""Figures of a cross-validation: what each scheme says, and how every picture was scored."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxdefect.explain import figures

NAMES = {
  'leave_one_out': 'leave-one-out',
  'leave_pair_out': 'leave-pair-out',
  'k_fold': 'k-fold',
  'k_fold_pooled': 'k-fold, pooled',
  'hold_out': 'hold-out',
}


def schemes(report: Mapping[str, Any]) -> Figure:
  """The AUROC of every scheme with its interval, one below the other.

  Args:
    report: of ``cross_validation.evaluate``, perhaps with ``auroc/hold_out`` among its metrics.

  Returns:
    The figure.
  """
  named = [name for name in NAMES if f'auroc/{name}' in report['metrics']]
  figure, (axes,) = figures.panels((6.6, 0.9 + 0.5 * len(named)), title='')
  lowest = 0.5
  for row, name in enumerate(named):
    value = report['metrics'][f'auroc/{name}']
    low, high = report['intervals'][f'auroc/{name}']
    lowest = min(lowest, low)
    color = figures.SERIES[1 if name == 'hold_out' else 0]
    axes.plot([low, high], [row, row], color=color, linewidth=2.2, solid_capstyle='butt')
    axes.plot([value], [row], color=color, marker='o', markersize=7)
    axes.annotate(
      f'{value:.3f}', (value, row), xytext=(0, 7), textcoords='offset points', ha='center',
      fontsize=8.5, color=figures.INK,
    )  # fmt: skip
    fixed = report.get('fixed_model_intervals', {}).get(f'auroc/{name}')
    if fixed:
      axes.plot(fixed, [row, row], color=color, linewidth=6, alpha=0.25, solid_capstyle='butt')
  figures.style(axes, x='AUROC (thick and pale: with the models taken as given)')
  axes.set_yticks(range(len(named)), [NAMES[name] for name in named])
  axes.set_ylim(len(named) - 0.4, -0.7)
  axes.set_xlim(max(0.0, np.floor(20 * lowest) / 20), 1.005)
  axes.axvline(0.5, color='#bdbdbd', linewidth=1, linestyle=':')
  return figure


def scores(values: np.ndarray, positive: np.ndarray, *, name: str) -> Figure:
  """Every picture as a dot, those of the positive class above the others.

  Args:
    values: [n] scores, larger for positives.
    positive: [n] bool.
    name: of the positive class.

  Returns:
    The figure.
  """
  figure, (axes,) = figures.panels((6.6, 2.2), title='')
  # Dots that would meet move apart, in an order that follows from the scores.
  for row, (kind, label) in enumerate(((positive, name), (~positive, 'the rest'))):
    own = np.sort(np.asarray(values, float)[kind])
    offset = 0.28 * (np.arange(len(own)) % 5 - 2) / 2
    axes.plot(
      own, row + offset, linestyle='none', marker=figures.MARKERS[row], markersize=5, alpha=0.75,
      color=figures.SERIES[1 - row], markeredgewidth=0,
    )  # fmt: skip
    axes.text(
      0.0, row - 0.42, f'{label} ({len(own):,})', transform=axes.get_yaxis_transform(),
      fontsize=8.5, color=figures.INK, va='center', parse_math=False, fontfamily=figures.fonts(),
    )  # fmt: skip
  figures.style(axes, x='score by a model that has not seen the picture')
  axes.set_yticks([])
  axes.set_ylim(1.5, -0.6)
  return figure
