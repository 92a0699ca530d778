"""The parts of a report's page, each from the plain dict that ``explain.report`` describes."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from jaxdefect.evaluate import classification
from jaxdefect.explain import figures, page, plots
from jaxdefect.explain.mistakes import Mistake
from jaxdefect.explain.page import Markup, tag

# Keys that have a place of their own on the page.
_SHOWN = {
  *('metrics', 'intervals', 'interval_kinds', 'confidence', 'n', 'sd', 'n_seeds', 'per_seed'),
  *('support', 'classes', 'absent_classes', 'confusion_matrix', 'left_out', 'floor', 'split'),
  *('config', 'versions', 'warnings', 'title', 'precision_recall'),
  *('fit_seconds', 'ms_per_image', 'model_bytes', 'peak_bytes'),
  'likely_false_alarm_rate',
}
# Printed in percent.
_PERCENT = {
  *('accuracy', 'map', 'map50', 'map75'),
  *('recall_at_0.1_fp', 'recall_at_0.5_fp', 'recall_at_1_fp'),
  *('false_alarm_rate', 'miss_rate', 'rejected', 'asked'),
  *('false_reject_rate', 'false_review_rate'),
  *('detection_rate/hold_out', 'false_alarm_rate/hold_out'),
}
KINDS = {
  'wilson': 'Wilson',
  'bootstrap': 'bootstrap over images',
  'student': "Student's t over seeds",
  'delong': 'DeLong',
  'delong and refits': 'DeLong, and refits for the training pictures',
  'delong, doubled': "DeLong's variance doubled for the training pictures",
  'guaranteed': 'of a perfect figure the bound that is certain',
}
_NOTHING = 'n/a'
# Their intervals are in report.json alone.
_WITHOUT_INTERVAL = ('balanced_accuracy', 'precision')


def subtitle(report: dict) -> Markup:
  """How much was tested."""
  parts = []
  if 'n' in report:
    several = f' in {report["n_seeds"]} seeds' if report.get('n_seeds') else ''
    boxes = ''
    if 'precision_recall' in report:
      boxes = f' with {sum(report.get("support", {}).values()):,} boxes'
    parts.append(f'{report["n"]:,} test images{boxes}{several}')
  if report.get('classes'):
    parts.append(f'{len(report["classes"])} classes')
  return tag('p', ' · '.join(parts), class_='quiet')


def warnings(report: dict) -> Markup:
  """What the reader must know before the numbers."""
  sentences: list[str] = list(report.get('warnings') or ())
  if report.get('absent_classes'):
    what = 'box' if 'precision_recall' in report else 'image'
    sentences.append(f'No test {what} of: {", ".join(report["absent_classes"])}.')
  if not sentences:
    return Markup()
  listed = tag('ul', *(tag('li', sentence) for sentence in sentences))
  return tag('div', tag('strong', 'Please note'), listed, class_='warnings', role='note')


def headline(report: dict) -> Markup:
  """Accuracy with its interval, the floor beside it, macro F1 and AUROC."""
  metrics, floor = report['metrics'], report.get('floor')
  digits = 2 if report.get('n', 0) >= 1000 else 1
  cards = []
  if 'accuracy' in metrics:
    note = 'the figure to tell, with its interval'
    cards.append(card('Accuracy', report, 'accuracy', digits=digits, first=True, note=note))
  if floor and 'accuracy' in floor.get('metrics', {}):
    note = ''
    if 'accuracy' in metrics:
      # The difference of what is printed, so that the reader can check it.
      ours, theirs = (round(100 * m['accuracy'], digits) for m in (metrics, floor['metrics']))
      side = 'above' if ours >= theirs else 'below'
      note = f'the model is {abs(ours - theirs):.{digits}f} points {side}'
    name = f'Floor: {floor.get("name", "linear model on pixels")}'
    cards.append(card(name, floor, 'accuracy', digits=digits, note=note))
  for name, label in (('macro_f1', 'Macro F1'), ('auroc', 'AUROC, one against rest')):
    if name in metrics and not classification.adds_nothing(report, name):
      cards.append(card(label, report, name, digits=3))
  if not cards:
    return tag('p', 'There is no figure: nothing was evaluated.', class_='quiet')
  return tag('div', *cards, class_='cards')


def card(
  label: str, report: dict, name: str, *, digits: int, first: bool = False, note: str = ''
) -> Markup:
  """A number with its interval.

  Args:
    label: what the reader calls it.
    report: with the number among its ``metrics``.
    name: of the number.
    digits: after the point.
    first: whether it is the number that counts most.
    note: a line below.

  Returns:
    The card.
  """
  scale, unit = (100, ' %') if name in _PERCENT else (1, '')
  lines = []
  interval = report.get('intervals', {}).get(name)
  if interval and None not in interval:
    low, high = (f'{scale * share(end):.{digits}f}' for end in interval)
    lines += [f'{low} to {high}{unit}', f'{100 * report.get("confidence", 0.95):g} % interval']
  if report.get('n_seeds'):
    sd = report.get('sd', {}).get(name)
    spread = f', sd {scale * sd:.{digits}f}' if sd is not None else ''
    lines.append(f'mean of {report["n_seeds"]} seeds{spread}')
  elif first and 'n' in report:
    lines.append(f'n = {report["n"]:,} images')
  if note:
    lines.append(note)
  value = tag('b', f'{scale * report["metrics"][name]:.{digits}f}{unit}')
  small = (tag('small', line) for line in lines)
  return tag('div', label, value, *small, class_='card first' if first else 'card')


def per_class(report: dict) -> Markup:
  """A row per class: recall with its interval as numbers and as a bar, precision, F1, AUROC."""
  metrics, intervals = report['metrics'], report.get('intervals', {})
  rows = []
  # The bars begin at a round number below every interval: near 100 % is where it matters.
  lows = [share(ends[0]) for name, ends in intervals.items() if name.startswith('recall/')]
  start = math.floor(10 * min(lows, default=0.0)) / 10
  for name in report.get('classes', ()):
    if f'recall/{name}' not in metrics:
      continue
    recall, interval = metrics[f'recall/{name}'], intervals.get(f'recall/{name}')
    others = (metrics.get(f'{kind}/{name}') for kind in ('precision', 'f1', 'auroc'))
    rows.append(
      (
        name,
        f'{report.get("support", {}).get(name, 0):,}',
        f'{100 * recall:.1f} %',
        ' to '.join(f'{100 * share(end):.1f}' for end in interval) if interval else '',
        bar(start, recall, *(interval or (recall, recall))),
        *(_NOTHING if value is None else f'{value:.3f}' for value in others),
      )
    )
  if not rows:
    return Markup()
  kinds = report.get('interval_kinds', {})
  used = {KINDS[kind] for name, kind in kinds.items() if name.startswith('recall/')}
  # Of seeds that agree it is that of one of them, see evaluate.seeds.
  said = '; where the seeds agree, of one of them: '.join(
    sorted(used, key=lambda text: text != KINDS['student'])
  )
  head = ('class', 'images', 'recall', f'{100 * report.get("confidence", 0.95):g} % interval')
  caption = f'Recall: share of the images of a class that were found. Interval: {said or "none"}.'
  table = page.table(
    (*head, f'from {100 * start:.0f} to 100 %', 'precision', 'F1', 'AUROC'), rows, caption=caption
  )
  return page.join((tag('h2', 'Each class'), table))


def bar(start: float, value: float, low: float, high: float) -> Markup:
  """An interval and its value on a line from ``start`` to 1, all shares in 0..1."""
  title = f'{100 * share(low):.1f} to {100 * share(high):.1f} %'
  value, low, high = (
    100 * share((share(end) - start) / max(1 - start, 0.1)) for end in (value, low, high)
  )
  shade = tag('i', style=f'left:{low:.1f}%;width:{high - low:.1f}%')
  mark = tag('s', style=f'left:{value:.1f}%')
  return tag('span', shade, mark, class_='bar', title=title)


def share(value: float) -> float:
  """Student's interval may leave 0..1; a reader knows that no share does."""
  return min(max(value, 0.0), 1.0)


def confusion(report: dict) -> Markup:
  """The confusion matrix, where there is one."""
  if not report.get('confusion_matrix'):
    return Markup()
  drawn = plots.confusion_matrix(report['confusion_matrix'], report['classes'], title='')
  seeds = f', summed over {report["n_seeds"]} seeds' if report.get('n_seeds') else ''
  caption = f'Numbers are images{seeds}; colour is the share of the true class.'
  return page.join((tag('h2', 'Confusion matrix'), figure(drawn, caption)))


def curves(records: Sequence, *, max_panels: int = 6) -> Markup:
  """The learning curves, where anything was logged."""
  if not records:
    return Markup()
  drawn = plots.learning_curves(records, title='', max_panels=max_panels)
  caption = (
    'Each point is a mean over the steps since the previous one. Training figures are of augmented '
    'pictures that the network learns from; the figures above are of others.'
  )
  return page.join((tag('h2', 'Learning curves'), figure(drawn, caption)))


def figure(drawn: Figure, caption: str) -> Markup:
  """A figure with its caption."""
  picture = page.picture(figures.to_png(drawn), alt=caption, scale=96 / figures.DPI)
  return tag('figure', picture, tag('figcaption', caption) if caption else '')


def mistakes(worst: Sequence[Mistake], ceiling: float | None) -> Markup:
  """Picture, evidence, what was said and what was true, for the worst mistakes.

  Of answers that were all right it says so.
  """
  if not worst:
    return Markup()
  heading, order, shown = 'Worst mistakes', 'the most confident errors first.', []
  if all(one.predicted == one.true for one in worst):
    heading = f'No mistakes: the least certain answers ({len(worst)})'
    order = 'the least probable first.'
  for one in worst:
    pictures = [page.photo(one.image, alt=f'picture of class {one.true}')]
    if one.overlay is not None:
      pictures.append(page.photo(one.overlay, alt=f'evidence for {one.predicted}'))
    caption = [tag('b', f'{one.predicted} {page.probability(one.probability)}')]
    other = f'true: {one.true} {page.probability(one.true_probability)}'
    if one.predicted == one.true:
      other = f'then {one.second} {page.probability(one.second_probability)}'
    elif one.second != one.true:
      other = f'then {one.second} {page.probability(one.second_probability)}, {other}'
    caption.append(tag('div', other))
    if one.name:
      caption.append(tag('div', one.name, class_='name'))
    pair = tag('div', *pictures, class_='pair')
    shown.append(tag('figure', pair, tag('figcaption', *caption)))
  sentence = f'In bold what was predicted and its probability; {order}'
  parts = [tag('h2', heading)]
  if ceiling is not None and any(one.overlay is not None for one in worst):
    sentence += (
      ' On the right what spoke for the predicted class rather than the others (Grad-CAM), on one '
      'absolute colour scale that was set on training pictures: a calm picture means little '
      'evidence.'
    )
    parts.append(figure(plots.color_scale(ceiling), ''))
  parts.insert(1, tag('p', sentence, class_='quiet'))
  return page.join((*parts, tag('div', *shown, class_='mistakes')))


def localisation(found: dict | None) -> Markup:
  """Whether the evidence lies on the marked defects, where there are masks."""
  if not found or not found.get('metrics'):
    return Markup()
  rows = []
  for name, label in (
    ('pointing_game', 'largest evidence on the defect (pointing game)'),
    ('pixel_auroc', 'AUROC of pixels, mean over images'),
  ):
    low, high = (100 * end for end in found['intervals'][name])
    value = 100 * found['metrics'][name]
    rows.append([label, f'{value:.1f} %', f'{low:.1f} to {high:.1f}'])
  rows.append(['pointing at random', f'{100 * found["metrics"]["chance"]:.1f} %', ''])
  note = f'Grad-CAM against the masks of {found["n"]} test images.'
  return page.join(
    (
      tag('h2', 'Where the evidence lies'),
      tag('p', note, class_='quiet'),
      page.table(['', 'measured', '95 % interval'], rows),
    )
  )


def split(made: dict | None) -> Markup:
  """How the images were divided: settings, counts per class, near-copies, what was left out."""
  if not made:
    return Markup()
  groups, left_out = made.get('near_duplicates') or [], made.get('left_out') or []
  others = {k: v for k, v in made.items() if k not in ('counts', 'near_duplicates', 'left_out')}
  settings = [(_words(name), _value(value)) for name, value in page.flat(others)]
  settings.append(('groups of near-identical images', str(len(groups))))
  settings.append(('images left out with their group', str(len(left_out))))
  parts = [tag('h2', 'How the data were split')]
  counts = {part: of for part, of in (made.get('counts') or {}).items() if any(of.values())}
  if counts:
    names = dict.fromkeys(name for part in counts.values() for name in part)
    rows = [[name, *(f'{part.get(name, 0):,}' for part in counts.values())] for name in names]
    sums = [f'{sum(part.values()):,}' for part in counts.values()]
    rows.append([tag('strong', cell) for cell in ('all', *sums)])
    parts.append(page.table(('images of class', *counts), rows))
  parts.append(page.fold('How it was drawn', page.table((), settings, class_='text')))
  if groups:
    items = tag('ul', *(tag('li', _value(group)) for group in groups))
    parts.append(page.fold(f'Groups of near-identical images: {len(groups)}', items))
  if left_out:
    parts.append(page.fold(f'Images left out: {len(left_out)}', tag('p', _value(left_out))))
  return page.join(parts)


def run(report: dict) -> Markup:
  """Everything else that is plain, the configuration and the versions."""
  others = [(k, v) for k, v in report.items() if k not in _SHOWN and not isinstance(v, dict)]
  parts = [tag('h2', 'Run')]
  rows = [(_words(name), _value(value)) for name, value in others]
  kinds = _interval_kinds(report)
  rows += [('intervals' if line == kinds[0] else '', line) for line in kinds]
  if rows:
    parts.append(page.table((), rows, class_='text'))
  for key, heading in (('config', 'Configuration'), ('versions', 'Versions')):
    if report.get(key):
      rows = [(tag('code', name), tag('code', _value(v))) for name, v in page.flat(report[key])]
      parts.append(page.fold(heading, page.table((), rows, class_='text')))
  return page.join(parts) if len(parts) > 1 else Markup()


def _interval_kinds(report: dict) -> list[str]:
  """A line per kind of interval, and which figures have it."""
  figures: dict[str, dict[str, None]] = {}
  for name, kind in report.get('interval_kinds', {}).items():
    figure, _, of = name.partition('/')
    shown = figure not in _WITHOUT_INTERVAL and not classification.adds_nothing(report, name)
    if shown and name in report.get('intervals', {}):
      # recall/scratch and recall/dent are one figure of two classes.
      told = figure if of in report.get('classes', ()) else name
      figures.setdefault(kind, {})[_words(told)] = None
  return [f'{", ".join(names)}: {KINDS.get(kind, kind)}' for kind, names in figures.items()]


def _words(name: str) -> str:
  return name.replace('_', ' ')


def _value(value: Any) -> str:
  if isinstance(value, list):
    return ', '.join(map(_value, value)) or 'none'
  if value is None or value == '':
    return _NOTHING
  return f'{value:.6g}' if isinstance(value, float) else str(value)
