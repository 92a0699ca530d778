"""docs/results.md says what the files of real runs say, and nothing else."""

import csv
import io
import json
import pathlib

import pytest

from jaxdefect import methods
from launch import metric_rows, reproduce, results_csv, results_page, tables
from launch.grid import Cell, Column, Table

ROOT = pathlib.Path(__file__).parent.parent.parent


def test_committed_page_is_generated():
  text = (ROOT / 'docs' / 'results.md').read_text()
  assert text == results_page.render(ROOT / 'docs' / 'results')


def test_csv_has_every_run_and_the_figures_of_the_page():
  folder = ROOT / 'docs' / 'results'
  text = (folder.parent / 'results.csv').read_text()
  assert text == results_csv.render(folder)
  lines = list(csv.DictReader(io.StringIO(text)))
  runs = {(line['table'], line['method'], line['setting'], line['seed']) for line in lines}
  assert len(runs) == len(list(folder.glob('*/*.json')))
  ours = [
    line
    for line in lines
    if (line['table'], line['method'], line['setting'], line['metric'])
    == ('B3', 'contrastive + margin', 'k = 10', 'accuracy')
  ]
  assert {line['paper'] for line in ours} == {'0.9839'}
  mean = sum(float(line['value']) for line in ours) / len(ours)
  assert (
    f'| contrastive + margin | k = 10 | 98.39 | {100 * mean:.2f} |'
    in (folder.parent / 'results.md').read_text()
  )


def test_every_committed_file_belongs_to_a_cell():
  folder = ROOT / 'docs' / 'results'
  wanted = {
    results_page.path(folder, name, cell, seed)
    for name, table in tables.TABLES.items()
    for cell in table.cells
    for seed in range(table.seeds)
  }
  assert set(folder.glob('*/*.json')) <= wanted


def test_every_cell_has_a_config_that_takes_its_overrides():
  for table in tables.TABLES.values():
    for cell in table.cells:
      if cell.shots == 'readiness':
        continue  # simulated: no config
      if not any(cell.config.startswith(f'{name}_') for name in methods.names()):
        continue  # its method was taken out; its results stay
      config = reproduce.load_config(cell.config, cell.overrides, 7)
      assert tuple(config.seeds) == (7,)


def test_page_shows_the_mean_and_what_is_missing(tmp_path):
  cell = tables.TABLES['B3'].cells[0]
  run = {'n': 600, 'seconds': 60.0, 'versions': {'device': 'cpu', 'jax': '0'}, 'split': {}}
  for seed, accuracy in enumerate((0.95, 0.97)):
    path = results_page.path(tmp_path, 'B3', cell, seed)
    path.parent.mkdir(exist_ok=True)
    floor = {'accuracy': 0.3}
    path.write_text(json.dumps({**run, 'metrics': {'accuracy': accuracy}, 'floor': floor}))
  text = results_page.render(tmp_path)
  assert f'| {cell.row} | {cell.column} | {cell.paper:.2f} | 96.00 |' in text
  assert '2 of 10' in text
  assert 'not run' in text


def test_one_seed_has_the_interval_of_its_run_and_copies_are_counted(tmp_path):
  cell = tables.TABLES['B3'].cells[0]
  path = results_page.path(tmp_path, 'B3', cell, 0)
  path.parent.mkdir()
  run = {
    **{'n': 600, 'seconds': 60.0, 'versions': {'device': 'cpu', 'jax': '0'}},
    **{'metrics': {'accuracy': 0.95}, 'intervals': {'accuracy': [0.93, 0.965]}},
    **{'floor': {'accuracy': 0.3}, 'split': {'groups_of_near_duplicates': 3}},
  }
  path.write_text(json.dumps(run))
  text = results_page.render(tmp_path)
  assert '| 95.00 | 93.00 to 96.50 |  | 1 of 10 |' in text
  assert text.count('(3 groups by perceptual hash)') == 1


def test_committed_reports_name_no_machine(tmp_path):
  report = {
    'metrics': {'accuracy': 1.0},
    'floor': {'metrics': {'accuracy': 0.5}},
    'config': {'data': {'dir': '/somewhere/NEU-DET'}, 'pretrained': {'dir': '/somewhere/weights'}},
    'split': {'seed': 0, 'near_duplicates': [['a', 'b']], 'left_out': ['b']},
  }
  kept = reproduce.compact(report)
  assert '/somewhere' not in json.dumps(kept)
  assert kept['split'] == {'seed': 0, 'groups_of_near_duplicates': 1}


def test_scores_are_filled_in(tmp_path):
  cell = tables.TABLES['B3'].cells[0]
  text = f'ours <!-- score: B3; {cell.row}; {cell.column} -->99 %<!-- end -->!'
  assert results_page.fill_scores(text, tmp_path).endswith('-->not run<!-- end -->!')
  for seed, accuracy in enumerate((0.95, 0.97)):
    path = results_page.path(tmp_path, 'B3', cell, seed)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({'metrics': {'accuracy': accuracy, 'auroc': 0.5}}))
  assert results_page.fill_scores(text, tmp_path).endswith('-->96.0 % (2 seeds)<!-- end -->!')
  other = f'<!-- score: B3; {cell.row}; {cell.column}; auroc --><!-- end -->'
  assert results_page.fill_scores(other, tmp_path).endswith('-->50.0 % (2 seeds)<!-- end -->')
  with pytest.raises(ValueError, match='no table has the cell B3; nothing; k = 3'):
    results_page.fill_scores('<!-- score: B3; nothing; k = 3 --><!-- end -->', tmp_path)


def test_committed_readme_has_the_measured_scores():
  text = (ROOT / 'README.md').read_text()
  assert text == results_page.fill_scores(text, ROOT / 'docs' / 'results')
  assert '<!-- score: ' in text


def test_inventory_counts_runs_and_says_what_is_missing(tmp_path):
  lines = results_page.inventory(tmp_path)
  for name, table in tables.TABLES.items():
    (line,) = [one for one in lines if one.startswith(f'{name} ')]
    assert line.endswith(table.title)
    runs = len(table.cells) * table.seeds
    assert (f'0 of {runs} runs' if runs else 'no data') in line
    if table.missing:
      assert lines[lines.index(line) + 1].strip() == table.missing
  assert all(bool(table.cells) != bool(table.missing) for table in tables.TABLES.values())


def test_means_over_products_where_all_of_them_were_run():
  cells = [Cell(row, name, '', {}) for row in ('all', 'one') for name in ('caps', 'tiles')]
  table = Table('', '', 2, tuple(cells), (Column('AUROC', 'auroc'),), averaged='auroc')

  def run(seed: int, auroc: float, n: int) -> dict:
    ends = (auroc - 0.1, auroc + 0.05)
    about = {'seed': seed, 'n': n, 'seconds': 60}
    return {**about, 'metrics': {'auroc': auroc}, 'intervals': {'auroc': ends}}

  runs = [[run(0, 0.9, 300), run(1, 0.8, 300)], [run(0, 0.7, 100)], [run(0, 0.9, 300)], []]
  lines = metric_rows.lines(table, list(zip(cells, runs)))
  # Seed 0 alone has both: 0.75 0.9 + 0.25 0.7, and 10 sqrt(0.75^2 + 0.25^2) below it.
  assert lines[-1] == '| all | 85.0 [77.1, 89.0] | 80.0 [72.9, 83.5] | 1 |'
  assert not any(line.startswith('| one | 9') for line in lines[-3:])
