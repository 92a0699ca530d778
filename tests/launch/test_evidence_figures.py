"""What the figures of the evidence tables say about where a head leads, and that they are drawn."""

import json

import pytest
from PIL import Image

from launch import evidence_figures, results_page, table_figures, tables

COUNTS = (5, 10, 20, 40)


@pytest.mark.parametrize(
  ('head', 'found'),
  [
    ((0.6, 0.7, 0.8, 0.9), 10 * 2**0.5),  # halfway from 10 to 20, where each doubling is a step
    ((0.8, 0.7, 0.9, 0.9), 10 * 2**0.25),  # ahead, behind, and ahead for good
    ((0.8, 0.8, 0.8, 0.8), 5),
    ((0.9, 0.9, 0.9, 0.7), None),
    ((0.7, 0.7, 0.75, 0.9), 20),  # a tie is not ahead
  ],
)
def test_where_a_head_leads_from(head, found):
  said = evidence_figures.crossing(COUNTS, head, [0.75] * 4)
  assert said == (None if found is None else pytest.approx(found))


def write(folder, table, metrics, seeds):
  for seed in seeds:
    for cell in tables.TABLES[table].cells:
      path = results_page.path(folder, table, cell, seed)
      path.parent.mkdir(exist_ok=True)
      intervals = {key: [value - 0.1, value + 0.1] for key, value in metrics.items()}
      path.write_text(json.dumps({'metrics': metrics, 'intervals': intervals}))


@pytest.mark.parametrize(
  ('table', 'seeds', 'metrics'),
  [
    ('E1', (0,), ('gain',)),
    (
      'E3',
      (0, 2),
      ('auroc/supervised', 'auroc/anomaly', 'miss_rate', 'false_reject_rate', 'false_review_rate'),
    ),
  ],
)
def test_figures_come_from_the_reports(table, seeds, metrics, tmp_path):
  (figure,) = tables.TABLES[table].figures
  table_figures.draw(table, tmp_path, tmp_path / 'runs')
  assert not (tmp_path / table).exists()  # no run yet
  write(tmp_path, table, dict.fromkeys(metrics, 0.5), seeds)
  table_figures.draw(table, tmp_path, tmp_path / 'runs')
  with Image.open(tmp_path / table / figure) as drawn:
    assert drawn.size[0] > 800
