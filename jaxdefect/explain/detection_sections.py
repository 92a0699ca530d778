"""The parts of a detector's page, each from the plain dict that ``explain.report`` describes."""

import math
from collections.abc import Sequence

from jaxdefect.explain import detection_figures, page, sections
from jaxdefect.explain.detection_figures import DrawnMistake
from jaxdefect.explain.page import Markup, tag

_RECALL = 'recall_at_{}_fp'


def applies(report: dict) -> bool:
  """Whether the report is a detector's."""
  return 'map50' in report['metrics'] or 'precision_recall' in report


def headline(report: dict) -> Markup:
  """mAP@0.5 with its interval, mAP, and the recall at one false positive per image."""
  metrics = report['metrics']
  if 'map50' not in metrics:
    return tag('p', 'There is no figure: no test image holds a box.', class_='quiet')
  others = [
    f'{100 * metrics[_RECALL.format(rate)]:.1f} % at {rate}'
    for rate in ('0.1', '0.5')
    if _RECALL.format(rate) in metrics
  ]
  labels = (('map50', 'mAP@0.5'), ('map', 'mAP, IoU 0.50 to 0.95'))
  cards = [
    sections.card(label, report, name, digits=1, first=name == 'map50')
    for name, label in labels
    if name in metrics
  ]
  if _RECALL.format(1) in metrics:
    label = 'Recall at 1 FP per image'
    note = 'FP: false positive. ' + ', '.join(others)
    cards.append(sections.card(label, report, _RECALL.format(1), digits=1, note=note))
  return tag('div', *cards, class_='cards')


def per_class(report: dict) -> Markup:
  """A row per class: AP@0.5 with its interval as numbers and as a bar, AP, and the boxes."""
  metrics, intervals = report['metrics'], report.get('intervals', {})
  names = [name for name in report.get('classes', ()) if f'ap50/{name}' in metrics]
  if not names:
    return Markup()
  lows = [sections.share(intervals[f'ap50/{n}'][0]) for n in names if f'ap50/{n}' in intervals]
  start = math.floor(10 * min(lows, default=0.0)) / 10
  rows = []
  for name in names:
    value, interval = metrics[f'ap50/{name}'], intervals.get(f'ap50/{name}')
    rows.append(
      (
        name,
        f'{report.get("support", {}).get(name, 0):,}',
        f'{100 * value:.1f} %',
        _ends(interval),
        sections.bar(start, value, *(interval or (value, value))),
        f'{100 * metrics[f"ap/{name}"]:.1f} %' if f'ap/{name}' in metrics else '',
        _ends(intervals.get(f'ap/{name}')),
      )
    )
  confidence = f'{100 * report.get("confidence", 0.95):g} % interval'
  kinds = report.get('interval_kinds', {}).values()
  kind = sections.KINDS['student' if 'student' in kinds else 'bootstrap']
  caption = (
    'AP: average precision, the mean precision over all recalls, at IoU 0.5 and as a mean over IoU '
    f'0.50 to 0.95. Interval: {kind}.'
  )
  bars = f'{100 * start:.0f} to 100 %'
  head = ('class', 'boxes', 'AP@0.5', confidence, bars, 'AP', confidence)
  return page.join((tag('h2', 'Each class'), page.table(head, rows, caption=caption)))


def _ends(interval: Sequence[float] | None) -> str:
  return ' to '.join(f'{100 * sections.share(end):.1f}' for end in interval) if interval else ''


def precision_recall(report: dict) -> Markup:
  """The curves, where there are any."""
  curves = report.get('precision_recall') or {}
  if not curves.get('precision'):
    return Markup()
  drawn = detection_figures.precision_recall(curves, report['metrics'], title='')
  mean = ''
  if report.get('n_seeds'):
    mean = f', mean of {report["n_seeds"]} seeds (0 where a seed does not get so far)'
  caption = (
    f'Each class at IoU {curves.get("iou", 0.5):g}{mean}, up to the largest recall that it reaches.'
  )
  return page.join((tag('h2', 'Precision against recall'), sections.figure(drawn, caption)))


def mistakes(heading: str, order: str, worst: Sequence[DrawnMistake]) -> Markup:
  """Pictures of misses or false alarms.

  Args:
    heading: of the part.
    order: a sentence that says what comes first.
    worst: from ``detection_figures.illustrate``.

  Returns:
    The part; empty without pictures.
  """
  if not worst:
    return Markup()
  shown = []
  for one in worst:
    caption = [tag('b', one.title), tag('div', one.reason)]
    if one.name:
      caption.append(tag('div', one.name, class_='name'))
    picture = page.photo(one.image, alt=f'{one.title}: {one.reason}', max_side=480)
    shown.append(tag('figure', picture, tag('figcaption', *caption)))
  sentence = (
    f'{order} True boxes are white and dashed; detections are drawn in the colour of their class, '
    f'if they score {worst[0].min_score:g} or more. The thick box is what the picture is about.'
  )
  return page.join(
    (tag('h2', heading), tag('p', sentence, class_='quiet'), tag('div', *shown, class_='mistakes'))
  )
