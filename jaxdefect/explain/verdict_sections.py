"""The parts of a page about verdicts, from the plain dict that ``explain.report`` describes."""

from jaxdefect.explain import page, sections
from jaxdefect.explain.page import Markup, tag


def applies(report: dict) -> bool:
  """Whether the report is about verdicts."""
  return 'verdicts' in report


def headline(report: dict) -> Markup:
  """What happens to defective parts and to good ones, with intervals."""
  cards = [
    sections.card(label, report, name, digits=digits, first=name == 'miss_rate')
    for name, label, digits in (
      ('miss_rate', 'Defective parts that pass', 1),
      ('rejected', 'Defective parts rejected', 1),
      ('asked', 'Defective parts asked about', 1),
      ('false_reject_rate', 'Good parts rejected', 1),
      ('false_review_rate', 'Good parts asked about', 1),
      ('auroc/supervised', 'AUROC of the head', 3),
      ('auroc/anomaly', 'AUROC of the anomaly method', 3),
    )
    if name in report['metrics']
  ]
  return tag('div', *cards, class_='cards')


def tables(report: dict) -> Markup:
  """Verdicts by class with the samples that the rule goes by, and rules by verdict."""
  verdicts = next(iter(report['verdicts'].values()))
  rows = [
    (name, f'{report.get("confirmed", {}).get(name, 0):,}', *(f'{counts[v]:,}' for v in verdicts))
    for name, counts in report['verdicts'].items()
  ]
  least = report.get('min_confirmed')
  caption = 'Test images of each class, by verdict.'
  if least:
    caption += f' A mode is rejected from {least} confirmed samples on.'
  by_class = page.table(('class', 'confirmed', *verdicts), rows, caption=caption)
  rules = next(iter(report['rules'].values()))
  rows = [(name, *(f'{counts[r]:,}' for r in rules)) for name, counts in report['rules'].items()]
  by_rule = page.table(('verdict', *rules), rows, caption='Which rule produced the verdicts.')
  return page.join((tag('h2', 'Verdicts'), by_class, by_rule))
