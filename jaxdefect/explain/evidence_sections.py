"""The parts of a cross-validation's page, from the plain dict that ``explain.report`` describes."""

from jaxdefect.evaluate.cross_validation import LEAST_BIASED_FIRST
from jaxdefect.explain import page, sections
from jaxdefect.explain.evidence_figures import NAMES
from jaxdefect.explain.page import Markup, tag


def applies(report: dict) -> bool:
  """Whether the report is a cross-validation's."""
  return 'stability' in report


def headline(report: dict) -> Markup:
  """The least biased AUROC, and what the hold-out says."""
  metrics = report['metrics']
  first = next(name for name in LEAST_BIASED_FIRST if f'auroc/{name}' in metrics)
  label = f'AUROC, {report["positive"]} against the rest, by {NAMES[first]}'
  cards = [sections.card(label, report, f'auroc/{first}', digits=3, first=True)]
  held = report.get('hold_out', {})
  count = f'{held.get("n", 0)} pictures, {held.get("positives", 0)} of them {report["positive"]}'
  for name, label in (
    ('auroc/hold_out', 'AUROC on the hold-out'),
    ('detection_rate/hold_out', 'Found on the hold-out'),
    ('false_alarm_rate/hold_out', 'False alarms on the hold-out'),
  ):
    if name in metrics:
      digits = 3 if name.startswith('auroc') else 1
      cards.append(sections.card(label, report, name, digits=digits, note=count))
  return tag('div', *cards, class_='cards')


def schemes(report: dict) -> Markup:
  """A row per scheme: what it says, how sure, of how many models, and how stable it is."""
  rows = []
  for name in report['schemes']:
    key = f'auroc/{name}'
    stability = report['stability'][name]
    rows.append(
      (
        NAMES[name],
        f'{report["metrics"][key]:.3f}',
        _ends(report['intervals'][key]),
        _ends(report['fixed_model_intervals'][key]),
        _ends(report['bootstrap_intervals'][key]),
        f'{report["models"][name]:,}',
        f'{report["pairs"][name]:,}',
        f'{stability["split_sd"]:.3f}',
        f'{stability["largest_step"]:.3f}',
      )
    )
  head = ('scheme', 'AUROC', 'interval', 'models as given', 'bootstrap', 'models', 'pairs')
  head += ('sd over splits', 'largest step')
  support = ', '.join(f'{count:,} {name}' for name, count in report['support'].items())
  note = (
    f'{report["n"]:,} pictures ({support}) in {report["groups"]:,} groups that stay together. '
    'Interval: for the model that all these pictures train; it counts that other pictures would '
    'have trained another model. "Models as given" and "bootstrap" do not, and are too narrow. '
    'Leave-one-out ranks scores of different models and is biased low. "Sd over splits": what '
    'another draw of the folds would change. "Largest step": by how much one picture, or group, '
    'moves the figure when it is struck off.'
  )
  return page.join((tag('h2', 'Schemes'), tag('p', note, class_='quiet'), page.table(head, rows)))


def _ends(interval: list) -> str:
  low, high = interval
  return f'{low:.3f} to {high:.3f}'
