"""Figures of tables show the runs of the tables, side by side on the same pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from launch import reproduce, results_page, table_figures, tables
from launch.grid import Cell, Table

pytest.importorskip('jaxdefect.methods.classifier')
pytest.importorskip('jaxdefect.methods.contrastive_margin')

ROWS = {'ours': 'contrastive_margin_synthetic:smoke', 'theirs': 'classifier_synthetic:smoke'}


@pytest.fixture
def table(monkeypatch):
  cells = tuple(Cell(row, 'few', config, {}) for row, config in ROWS.items())
  made = Table('Two', 'Of tiny runs.', 1, cells, figures=('gradcam.png',))
  monkeypatch.setitem(tables.TABLES, 'T1', made)
  return made


def test_evidence_of_both_methods_beside_each_other(table, tmp_path):
  table_figures.draw('T1', tmp_path / 'results', tmp_path / 'runs')
  assert not (tmp_path / 'results').exists()  # no run yet
  reports = [reproduce.run_cell(cell, 0, tmp_path / 'runs') for cell in table.cells]
  table_figures.draw('T1', tmp_path / 'results', tmp_path / 'runs')
  with Image.open(tmp_path / 'results' / 'T1' / 'gradcam.png') as drawn:
    sheet = np.asarray(drawn)
  classes = len(reports[0]['classes'])
  assert sheet.shape[0] > classes * 90
  assert sheet.shape[1] > 3 * 90  # the picture, and both
  # The log of a run is committed with its figures.
  assert [line['step'] for line in reports[0]['log']][-1] == reports[0]['config']['steps']


def test_recall_over_epochs_comes_from_the_reports(monkeypatch, tmp_path):
  cells = tuple(Cell(row, 'caps', '', {}) for row in ('MAML', 'random'))
  monkeypatch.setitem(tables.TABLES, 'T2', Table('', '', 1, cells, figures=('recall.png',)))
  for cell in cells:
    path = results_page.path(tmp_path, 'T2', cell, 0)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({'history': {'70': {'validation_recall': [0.1, 0.5, 0.9]}}}))
  table_figures.draw('T2', tmp_path, tmp_path / 'runs')
  with Image.open(tmp_path / 'T2' / 'recall.png') as drawn:
    assert drawn.size[0] > 400


def test_every_figure_can_be_drawn():
  for name, table in tables.TABLES.items():
    for figure in table.figures:
      assert figure in table_figures._DRAWN, name
