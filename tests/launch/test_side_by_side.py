"""Cells run beside each other, where memory and folders allow, and a failed one is named."""

import json
import pathlib

import pytest
from absl import flags

from launch import reproduce, results_page, side_by_side, tables
from tests.launch import side_tasks


def tasks(folder: pathlib.Path, *named: str, seconds: float = 0) -> list[side_by_side.Task]:
  """'a/1' and 'a/2' write into the same folder."""
  return [
    side_by_side.Task(
      name,
      frozenset({folder / name.split('/')[0]}),
      folder / 'logs' / f'{name.replace("/", "-")}.log',
      (folder / name.replace('/', '-'), seconds),
    )
    for name in named
  ]


def test_two_at_a_time_but_never_in_one_folder(tmp_path):
  made = tasks(tmp_path, 'a/1', 'a/2', 'b/1', seconds=3)
  events = list(side_by_side.run(side_tasks.write, made, 2, settle=0))
  assert [(task.name, event) for task, event in events[:2]] == [
    ('a/1', 'started'),
    ('b/1', 'started'),
  ]
  assert sorted(task.name for task, event in events if event == 'ended') == ['a/1', 'a/2', 'b/1']
  began, ended = {}, {}
  for task in made:
    name = task.name.replace('/', '-')
    began[name], ended[name] = map(float, (tmp_path / name).read_text().split())
    assert f'at work on {name}' in task.log.read_text()
  assert began['b-1'] < ended['a-1']
  assert began['a-2'] >= ended['a-1']


def test_none_starts_beside_others_without_memory(tmp_path, monkeypatch):
  """The first one takes 6 of 8 GB: 2 are left, and a second would need 6."""
  free = iter([8 << 30])
  monkeypatch.setattr(side_by_side, 'free_memory', lambda: next(free, 2 << 30))
  events = side_by_side.run(side_tasks.write, tasks(tmp_path, 'a', 'b'), 2, settle=0)
  assert [(task.name, event) for task, event in events] == [
    ('a', 'started'),
    ('a', 'ended'),
    ('b', 'started'),
    ('b', 'ended'),
  ]


def test_a_failed_one_is_named_with_its_log_and_no_other_starts(tmp_path):
  made = tasks(tmp_path, 'bad', 'c')
  with pytest.raises(ValueError, match=r'1 of 2 did not end well: bad: see .*bad\.log'):
    list(side_by_side.run(side_tasks.write, made, 1, settle=0))
  assert 'this one cannot be done' in made[0].log.read_text()
  assert not (tmp_path / 'c').exists()


def test_cells_of_one_run_share_its_folder():
  pytest.importorskip('jaxdefect.methods.contrastive_margin')
  pytest.importorskip('jaxdefect.methods.patchcore')
  pytest.importorskip('jaxdefect.methods.nearest_neighbor')  # it trains the features
  cells = tables.TABLES['B4'].cells
  first, *others = (reproduce._folders(cell, 0, pathlib.Path('runs')) for cell in cells)
  assert any(first == one for one in others)  # k = 1 and k = 3 of one network
  start = [c for c in tables.TABLES['D2'].cells if 'self-supervised' in c.row]
  folders = [reproduce._folders(cell, 0, pathlib.Path('runs')) for cell in start]
  assert all(len(one) == 2 for one in folders)  # its own, and that of the features


@pytest.fixture
def run(tmp_path):
  """``launch.reproduce`` with these flags."""

  def start(*arguments: str) -> None:
    values = flags.FlagValues()
    reproduce.define(values)
    values(['reproduce', f'--docs={tmp_path / "docs"}', f'--workdir={tmp_path}', *arguments])
    (tmp_path / 'docs').mkdir(exist_ok=True)
    reproduce.main(values)

  return start


@pytest.mark.parametrize(
  ('arguments', 'sentence'),
  [
    (('--rows=basline',), r"no cell of A4 has a row with 'basline' .*; rows are Faster R-CNN, "),
    (('--columns=10 boxes',), r"the column '10 boxes'; .* columns rare scratches"),
    (('--seeds=1',), r'--seeds=1: NEU-DET with a rare class.* has 0 to 0'),
    (('--seeds=first',), '--seeds=first are no whole numbers'),
    (('--jobs=0',), '--jobs=0 is no number of processes'),
  ],
)
def test_a_choice_that_means_nothing_is_a_sentence(run, tmp_path, arguments, sentence):
  with pytest.raises(ValueError, match=sentence):
    run('--table=A4', *arguments)
  assert list(tmp_path.iterdir()) == [tmp_path / 'docs']


def test_figures_of_a_table_arrive_on_the_page(run, tmp_path, monkeypatch, capsys):
  """Through processes; simulated cells, which train nothing."""
  cells = [cell for cell in tables.TABLES['R1'].cells if cell.shots == 'readiness'][:1]
  if not cells:
    pytest.fail('R1 has no simulated cell any more: choose another quick one')
  run('--table=R1', f'--rows={cells[0].row}', f'--columns={cells[0].column}', '--jobs=2')
  path = results_page.path(tmp_path / 'docs' / 'results', 'R1', cells[0], 0)
  assert json.loads(path.read_text())['metrics']
  assert 'R1' in (tmp_path / 'docs' / 'results.csv').read_text()
  said = capsys.readouterr().out
  assert f'R1 {cells[0].row}, {cells[0].column}, seed 0: started, see {tmp_path}/logs/R1/' in said
