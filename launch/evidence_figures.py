"""The figures of tables E1 and E3: what views add, and where a head overtakes PatchCore."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from jaxdefect.explain import figures

_ERROR = {'linestyle': 'none', 'elinewidth': 1.1, 'markersize': 3.8, 'capsize': 0}


def gains(reports: Mapping[str, Mapping[tuple[str, str], dict]]) -> Figure:
  """A panel for each data set, a line for each kind of view, a mark for each network.

  Args:
    reports: data set -> (network, views) -> report of table E1 with a gain.

  Returns:
    The figure; bars are the reports' intervals.
  """
  figure, panels = figures.panels((3.6 * len(reports), 3.9), title='', columns=len(reports))
  # Every panel has the same lines and marks, whatever has not been run.
  pairs = [pair for cells in reports.values() for pair in cells]
  networks = list(dict.fromkeys(network for network, _ in pairs))
  views = list(dict.fromkeys(view for _, view in pairs))
  for axes, (name, cells) in zip(panels, reports.items()):
    for place, network in enumerate(networks):
      own = [(views.index(v), report) for (n, v), report in cells.items() if n == network]
      height = [at + 0.22 * (place - (len(networks) - 1) / 2) for at, _ in own]
      value = np.array([100 * report['metrics']['gain'] for _, report in own])
      ends = np.array([[100 * end for end in report['intervals']['gain']] for _, report in own])
      axes.errorbar(
        value, height, xerr=np.abs(ends.T - value), color=figures.SERIES[place],
        fmt=figures.MARKERS[place], label=network, **_ERROR,
      )  # fmt: skip
    axes.axvline(0, color=figures.QUIET, linewidth=0.9)
    figures.style(axes, title=name, x='AUROC with views minus without, points')
    axes.set_yticks(range(len(views)), views if axes is panels[0] else [''] * len(views))
    axes.invert_yaxis()
  marks, names = panels[0].get_legend_handles_labels()
  figure.legend(marks, names, frameon=False, fontsize=8, loc='outside upper left', ncols=len(names))
  return figure


def crossing(counts: Sequence[int], head: Sequence[float], other: Sequence[float]) -> float | None:
  """From how many samples on a head stays ahead, between the counts on a logarithmic scale.

  Args:
    counts: [k] of samples, ascending.
    head: [k] figure of the head, larger is better.
    other: [k] figure of what it is compared with.

  Returns:
    The count; the first one where the head is always ahead, None where it is not at the end.
  """
  ahead = np.subtract(head, other)
  if ahead[-1] <= 0:
    return None
  behind = np.flatnonzero(ahead <= 0)
  if not len(behind):
    return float(counts[0])
  at = int(behind[-1])
  share = -ahead[at] / (ahead[at + 1] - ahead[at])
  return float(np.exp(np.log(counts[at]) + share * np.log(counts[at + 1] / counts[at])))


def thirty(reports: Mapping[str, Mapping[int, Sequence[dict]]]) -> Figure:
  """Above, the head and PatchCore over the number of samples; below, what the rule does with them.

  Args:
    reports: data set -> number of samples -> reports of table E3, one per seed.

  Returns:
    The figure: points are seeds, lines their means; each title says where the lines cross.
  """
  figure, panels = figures.panels((4.6 * len(reports), 5.6), title='', rows=2, columns=len(reports))
  ranking = {'head': 'auroc/supervised', 'PatchCore': 'auroc/anomaly'}
  rule = {
    'defects passed': 'miss_rate',
    'good rejected': 'false_reject_rate',
    'good asked about': 'false_review_rate',
  }
  for column, (name, by_count) in enumerate(reports.items()):
    upper, lower = panels[column], panels[len(reports) + column]
    counts = sorted(by_count)
    means = [_lines(axes, by_count, shown) for axes, shown in ((upper, ranking), (lower, rule))]
    ahead = crossing(counts, means[0]['head'], means[0]['PatchCore'])
    found = f'leads from {ahead:.0f} on' if ahead else f'does not lead up to {counts[-1]}'
    figures.style(upper, title=f'{name}: the head {found}', y='AUROC' if not column else '')
    figures.style(
      lower,
      title=f'{name}: the rule, which changes at 30',
      x='confirmed defects',
      y='share' if not column else '',
    )
    lower.axvline(30, color=figures.QUIET, linewidth=0.9, linestyle=':')
    for axes in (upper, lower):
      axes.set_xscale('log')
      axes.set_xticks(counts, [str(count) for count in counts])
      axes.minorticks_off()
  panels[0].legend(frameon=False, fontsize=8, loc='best')
  panels[len(reports)].legend(frameon=False, fontsize=8, loc='best')
  return figure


def _lines(axes, by_count, shown: Mapping[str, str]) -> dict[str, list[float]]:
  """Draws the mean over seeds of each figure, and the seeds; returns the means."""
  counts, found = sorted(by_count), {}
  for place, (label, key) in enumerate(shown.items()):
    values = [[report['metrics'][key] for report in by_count[count]] for count in counts]
    found[label] = [float(np.mean(of_count)) for of_count in values]
    color, marker = figures.SERIES[place], figures.MARKERS[place]
    axes.plot(counts, found[label], color=color, linewidth=1.6, label=label)
    for count, of_count in zip(counts, values):
      axes.plot(
        [count] * len(of_count), of_count, color=color, marker=marker, markersize=4,
        linestyle='none', alpha=0.6,
      )  # fmt: skip
  return found
