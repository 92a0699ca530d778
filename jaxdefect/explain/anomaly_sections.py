"""The parts of an anomaly method's page, from the plain dict that ``explain.report`` describes."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxdefect.explain import page, plots, sections
from jaxdefect.explain.anomaly_figures import DrawnMap
from jaxdefect.explain.page import Markup, tag


class Gallery(NamedTuple):
  """Pictures of one kind.

  Attributes:
    heading: of the part.
    sentence: what is seen, and in which order.
    pictures: of the part.
  """

  heading: str
  sentence: str
  pictures: Sequence[DrawnMap]


def applies(report: dict) -> bool:
  """Whether the report is an anomaly method's."""
  return 'average_precision' in report['metrics'] or 'threshold' in report


def headline(report: dict) -> Markup:
  """AUROC, false alarms and misses at the threshold, with their intervals."""
  metrics, cards = report['metrics'], []
  nominal = report.get('nominal_false_alarm_rate')
  asked = ''
  if nominal is not None:
    asked = f'{100 * nominal:g} % asked for'
  if report.get('likely_false_alarm_rate'):
    low, high = (100 * end for end in report['likely_false_alarm_rate'])
    asked += f'; the good parts that set the threshold leave {low:.1f} to {high:.1f} % possible'
  for name, label, digits, note in (
    ('auroc', 'AUROC, good against defective', 3, ''),
    ('false_alarm_rate', 'False alarms among good parts', 1, asked),
    ('miss_rate', 'Misses among defective parts', 1, ''),
    ('average_precision', 'Average precision', 3, ''),
    ('f1', 'F1 at the threshold', 3, ''),
  ):
    if name in metrics:
      cards.append(sections.card(label, report, name, digits=digits, first=not cards, note=note))
  if not cards:
    return tag('p', 'There is no figure: nothing was evaluated.', class_='quiet')
  return tag('div', *cards, class_='cards')


def at_the_threshold(report: dict) -> Markup:
  """A row per class and per kind of defect: how many were flagged."""
  metrics, intervals = report['metrics'], report.get('intervals', {})
  rows = []

  def row(label: str, count: int, name: str, ranked: str = '') -> None:
    if name not in metrics:
      return
    value, interval = metrics[name], intervals.get(name)
    ends = ' to '.join(f'{100 * sections.share(end):.1f}' for end in interval) if interval else ''
    drawn = sections.bar(0.0, value, *(interval or (value, value)))
    auroc = f'{metrics[ranked]:.3f}' if ranked in metrics else ''
    rows.append((label, f'{count:,}', f'{100 * value:.1f} %', ends, drawn, auroc))

  support = report.get('support', {})
  row('good', support.get('good', 0), 'false_alarm_rate')
  for name, count in support.items():
    row(name, count, f'flagged/{name}', f'auroc/{name}')
  row('defect', support.get('defect', 0), 'recall', 'auroc')
  for kind, count in report.get('kinds', {}).items():
    row(f'defect: {kind}', count, f'recall/{kind}')
  if not rows:
    return Markup()
  caption = 'Flagged is what scores above the threshold'
  if 'threshold' in report:
    caption += f', {report["threshold"]:.5g}'
  confidence = f'{100 * report.get("confidence", 0.95):g} % interval'
  head = ('class', 'images', 'flagged', confidence, '0 to 100 %', 'AUROC against good')
  table = page.table(head, rows, caption=f'{caption}. Interval: {sections.KINDS["wilson"]}.')
  return page.join((tag('h2', 'At the threshold'), table))


def pixels(found: dict | None) -> Markup:
  """How well the maps find the marked pixels, where there are masks."""
  if not found or not found.get('metrics'):
    return Markup()
  labels = {'pixel_auroc': 'AUROC of pixels', 'pro': 'PRO up to 30 % false-positive pixels'}
  rows = [
    [label, f'{found["metrics"][name]:.3f}']
    for name, label in labels.items()
    if name in found['metrics']
  ]
  note = (
    f'Maps against the masks of {found["images"]:,} test images with {found["regions"]:,} marked '
    'regions, at the size of the masks. PRO: per-region overlap, in which a small region counts as '
    'much as a large one.'
  )
  return page.join(
    (tag('h2', 'Where the defects are'), tag('p', note, class_='quiet'), page.table((), rows))
  )


def cost(report: dict) -> Markup:
  """Seconds, milliseconds and megabytes."""
  rows = []
  for name, label, factor, unit in (
    ('fit_seconds', 'fitting, with training', 1, 's'),
    ('ms_per_image', 'prediction, per image', 1, 'ms'),
    ('model_bytes', 'what is stored', 1e-6, 'MB'),
    ('peak_bytes', 'largest memory of the run', 1e-6, 'MB'),
  ):
    if report.get(name) is not None:
      value = factor * report[name]
      rows.append([label, f'{value:.3g} {unit}' if value < 100 else f'{value:,.0f} {unit}'])
  return page.join((tag('h2', 'Cost'), page.table((), rows))) if rows else Markup()


def galleries(parts: Sequence[Gallery], scale: tuple[float, float] | None) -> Markup:
  """The pictures with their maps.

  Args:
    parts: in the order of the page; empty ones are left out.
    scale: (floor, ceiling) of the maps' colours; None without maps.

  Returns:
    The parts, below the legend of the colours.
  """
  shown = [part for part in parts if part.pictures]
  if not shown:
    return Markup()
  pieces = [tag('h2', 'Pictures')]
  if scale is not None:
    sentence = (
      'On the right the map on one absolute colour scale, set by good parts that calibrated: what '
      'is usual for a good part has no colour, in any picture.'
    )
    legend = plots.color_scale(scale[1], floor=scale[0], label='anomaly map')
    pieces += [tag('p', sentence, class_='quiet'), sections.figure(legend, '')]
  for part in shown:
    cells = []
    for one in part.pictures:
      pictures = [page.photo(one.image, alt=one.title)]
      if one.overlay is not None:
        pictures.append(page.photo(one.overlay, alt=f'map of {one.title}'))
      caption = [tag('b', one.title), tag('div', one.reason)]
      if one.name:
        caption.append(tag('div', one.name, class_='name'))
      box = tag('div', *pictures, class_='pair') if len(pictures) > 1 else pictures[0]
      cells.append(tag('figure', box, tag('figcaption', *caption)))
    pieces += [
      tag('h3', part.heading),
      tag('p', part.sentence, class_='quiet'),
      tag('div', *cells, class_='mistakes'),
    ]
  return page.join(pieces)
