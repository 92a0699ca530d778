"""The pictures of docs/performance.md: time and memory against size, efficiency against chips."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from jaxdefect.explain import figures
from launch import scaling_on_paper

OURS = 'jaxdefect'
UNITS = {'seconds': ('ms', 1e3), 'peak_bytes': ('MB', 1e-6)}
# Seconds of steps that nobody measured: a small and larger batches on a fast chip.
SHOWN_STEPS = (0.01, 0.03, 0.1, 0.3)


def by_axis(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
  """The cases of a scaling result, in the order of each axis."""
  rows: dict[str, list[dict[str, Any]]] = {}
  for case in report['cases'].values():
    rows.setdefault(case['axis'], []).append(case)
  return {axis: sorted(cases, key=lambda case: case['value']) for axis, cases in rows.items()}


def our_time(case: dict[str, Any]) -> float:
  """Median seconds."""
  return case['seconds'][OURS]['median']


def our_memory(case: dict[str, Any]) -> float:
  """Peak bytes."""
  return case['peak_bytes'][OURS]


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
  """The power p of ``values ~ sizes**p``, least squares in logarithms; 0 for a single size."""
  if len(sizes) < 2:
    return 0.0
  return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def save_scaling(path: pathlib.Path, report: dict[str, Any], *, key: str) -> None:
  """A panel for each axis, both scales logarithmic.

  Args:
    path: of the PNG.
    report: a result of ``benchmarks.scaling``.
    key: 'seconds' (of everyone) or 'peak_bytes' (ours).
  """
  rows = by_axis(report)
  unit, factor = UNITS[key]
  columns = min(3, len(rows))
  height = -(-len(rows) // columns)
  figure, panels = figures.panels(
    (3.6 * columns, 2.8 * height), title='', rows=height, columns=columns
  )
  contenders: dict[str, int] = {}  # name -> its colour, the same in every panel
  for axes, (axis, cases) in zip(panels, rows.items()):
    for name in dict.fromkeys(name for case in cases for name in case[key]):
      place = contenders.setdefault(name, len(contenders))
      values = [case[key][name] for case in cases]
      axes.plot(
        [case['value'] for case in cases],
        [factor * (value['median'] if key == 'seconds' else value) for value in values],
        color=figures.SERIES[place], linewidth=1.6, label=name,
        marker=figures.MARKERS[place], markersize=4,
      )  # fmt: skip
    figures.style(axes, title=axis, x=axis, y=unit)
    axes.set_xscale('log')
    axes.set_yscale('log')
    axes.set_xticks([case['value'] for case in cases])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    _plain_y(axes)
    if len(contenders) > 1 and len(axes.lines) > 1:
      axes.legend(frameon=False, fontsize=7)
  for axes in panels[len(rows) :]:
    axes.set_visible(False)
  figures.save(path, figure)


def save_efficiency(
  path: pathlib.Path, cases: dict[str, Any], steps: list[scaling_on_paper.Step]
) -> None:
  """Efficiency against the number of chips, for the first measured network, a panel per network.

  Args:
    path: of the PNG.
    cases: of ``collectives.json``.
    steps: measured ones; the first is drawn, beside steps of other lengths of the same network.
  """
  first = steps[0]
  sent = cases['benchmarks'][first.network]
  chips = [2**power for power in range(9)]
  networks = scaling_on_paper.NETWORKS
  figure, panels = figures.panels(
    (4.6 * len(networks), 3.4),
    title=f'A training step of {first.network} on many chips, predicted',
    columns=len(networks),
  )
  times = sorted({*SHOWN_STEPS, first.seconds})
  for axes, network in zip(panels, networks):
    for place, seconds in enumerate(times):
      measured = seconds == first.seconds
      shares = [
        100
        * scaling_on_paper.efficiency(
          seconds, scaling_on_paper.communication_time(sent, n, network)
        )
        for n in chips
      ]
      label = f'step of {1e3 * seconds:,.0f} ms'
      axes.plot(
        chips, shares, color=figures.SERIES[place], linewidth=1.6,
        linestyle='-' if measured else '--', marker=figures.MARKERS[place], markersize=4,
        label=f'{label}, measured ({first.report["device"]})' if measured else label,
      )  # fmt: skip
    figures.style(
      axes, title=network.name.partition(':')[0], x='chips', y='predicted efficiency, %'
    )
    axes.set_xscale('log', base=2)
    axes.set_xticks(chips)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:.0f}'))
    axes.set_ylim(0, 104)
  panels[0].legend(frameon=False, fontsize=7.5, loc='lower left')
  figures.save(path, figure)


def _plain_y(axes: Any) -> None:
  """Labels like 30 or 0.5 in place of powers of ten, and enough of them."""
  low, high = axes.get_ylim()
  # Within a factor of two or so nothing grows; a tenth more would look like a slope.
  if high / low < 4:
    middle = (low * high) ** 0.5
    axes.set_ylim(middle / 2, middle * 2)
  axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
  axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:,g}'))
  axes.yaxis.set_minor_locator(NullLocator())


def _short(value: float) -> str:
  for suffix, unit in (('M', 1e6), ('k', 1e3)):
    if value >= unit:
      return f'{value / unit:g}{suffix}'
  return f'{value:g}'
