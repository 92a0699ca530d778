"""The loop from the command line: score, judge, take back, retrain, promote or not, go back."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict
from PIL import Image

from jaxdefect.data import hold_out, sources
from jaxdefect.data.sources import synthetic_tasks
from jaxdefect.review import Conflict, Targets
from launch import (
  experiment,
  finished_run,
  retraining,
  review,
  review_exchange,
  review_runs,
  review_scores,
  train,
)

classifier_folder = pytest.importorskip('configs.classifier_folder')

# JAXDEFECT_KILLS=20 takes two minutes; a suite that everybody runs should not.
KILLS = int(os.environ.get('JAXDEFECT_KILLS', '3'))
PRODUCT = {'texture': 'woven', 'mark': 'stain', 'tone': 'dark', 'size': 64}


def write_pictures(folder: pathlib.Path, places, *, classes=True) -> list[pathlib.Path]:
  source = synthetic_tasks.make(num_good=20, num_defect=20, **PRODUCT)
  paths = []
  for i in places:
    kind = source.classes[source.labels[i]] if classes else ''
    (folder / kind).mkdir(parents=True, exist_ok=True)
    paths.append(folder / kind / f'{i:02}.png')
    Image.fromarray(source.read(i)[..., 0]).save(paths[-1])
  return paths


def flag_values(**values) -> flags.FlagValues:
  parsed = flags.FlagValues()
  review.define(parsed)
  parsed(['program', *(f'--{name}={value}' for name, value in values.items())])
  return parsed


def prepare(folder: pathlib.Path) -> pathlib.Path:
  """A run on eight pictures of each kind, two of each held out."""
  known = [*range(8), *range(20, 28)]
  write_pictures(folder / 'pictures', known)
  source = sources.load('folder', dir=folder / 'pictures')
  held = hold_out.make(source, [0, 1, 8, 9], seed=0)
  hold_out.write(folder / 'pictures' / 'hold_out.json', held)
  config = classifier_folder.get_config('smoke')
  config.data.dir = str(folder / 'pictures')
  train.train_seed(config, 0, folder / 'run', progress=False)
  return folder / 'run'


@pytest.fixture
def run(tmp_path) -> pathlib.Path:
  return prepare(tmp_path)


def test_a_morning(run, tmp_path, capsys, monkeypatch):
  new = write_pictures(tmp_path / 'new', [10, 11, 12, 30, 31], classes=False)
  review.main(flag_values(workdir=run, images=tmp_path / 'new', queue=9))
  said = capsys.readouterr().out
  assert '5 different pictures scored by model 1, 5 of them are new in the queue' in said
  assert '5 pictures wait, 0 are judged' in said
  assert all(str(path) in said for path in new)

  missed = write_pictures(tmp_path / 'returned', [33], classes=False)
  review.main(flag_values(workdir=run, missed=tmp_path / 'returned', queue=1))
  assert f'MISSED {missed[0]}' in capsys.readouterr().out

  verdicts = f'{missed[0]}:defect,{new[0]}:good,{new[3]}:defect'
  review.main(flag_values(workdir=run, verdict=verdicts, reviewer='anna'))
  assert '3 pictures wait, 3 are judged' in capsys.readouterr().out
  review.main(flag_values(workdir=run, undo='true', reviewer='anna'))
  assert f'taken back: {new[3]} as defect' in capsys.readouterr().out
  review.main(flag_values(workdir=run, verdict=f'{new[3]}:defect', reviewer='anna'))
  with pytest.raises(Conflict, match='anna has judged it already: good'):
    review.main(flag_values(workdir=run, verdict=f'{new[0]}:defect', reviewer='ben'))
  with pytest.raises(ValueError, match="no class 'bent'; the model knows defect, good"):
    review.main(flag_values(workdir=run, verdict=f'{new[1]}:bent'))
  capsys.readouterr()

  # A new model that is as good on the seeded set is promoted, and can be taken back.
  alike = retraining.Seeded(2, 2, 0, 2)
  monkeypatch.setattr(retraining, 'on_seeded', lambda *_: alike)
  review.main(flag_values(workdir=run, retrain='true', progress='false', reviewer='anna'))
  assert 'promoted: on the seeded set it finds 2 of 2 defects' in capsys.readouterr().out
  with review.open_store(run, who='anna') as store:
    assert store.live()[0] == 2
    directory = run / store.live()[1]
    # What still waits was scored again.
    assert {store.model_of(one.prediction.image) for one in store.queue()} == {2}
    split = experiment.read_split(directory, experiment.read_config(directory))[1]
    assert len(split.train) == 4 + 3  # two of each class trained the first one
    assert split.report['verdicts'] == 3
    assert store.verdicts()[0].said in ('good', 'defect')
  review.main(flag_values(workdir=run, rollback='true'))
  assert 'live again: model 1' in capsys.readouterr().out

  # One that is worse is not.
  review.main(flag_values(workdir=run, verdict=f'{new[4]}:defect', reviewer='anna'))
  answers = iter([alike, alike._replace(found=1)])
  monkeypatch.setattr(retraining, 'on_seeded', lambda *_: next(answers))
  review.main(flag_values(workdir=run, retrain='true', progress='false', reviewer='anna'))
  assert 'not promoted: on the seeded set it finds 1 of 2 defects (before 2)' in (
    capsys.readouterr().out
  )
  review.main(flag_values(workdir=run, history='true'))
  assert 'model refused' in capsys.readouterr().out
  with review.open_store(run, who='anna') as store:
    assert store.live()[0] == 1
    assert [model['state'] for model in store.models()] == ['live', 'retired', 'refused']
  # Unless a person overrules that.
  review.main(flag_values(workdir=run, promote=3, reviewer='anna'))
  assert 'live now: model 3' in capsys.readouterr().out
  review.main(flag_values(workdir=run, rollback='true'))
  assert 'live again: model 1' in capsys.readouterr().out


def test_what_must_not_train_is_left_out(run, tmp_path, monkeypatch):
  new = write_pictures(tmp_path / 'new', [10, 11, 30], classes=False)
  seeded = write_pictures(tmp_path / 'new', [0, 1], classes=False)
  source = sources.load('folder', dir=tmp_path / 'pictures')
  held = {source.read(i).tobytes() for i in (0, 1, 8, 9)}
  review.main(flag_values(workdir=run, images=tmp_path / 'new'))
  for path, label in ((new[0], 'good'), (new[1], 'good'), (new[2], 'defect')):
    review.main(flag_values(workdir=run, verdict=f'{path}:{label}'))
  for path in seeded:
    review.main(flag_values(workdir=run, verdict=f'{path}:good'))
  Image.fromarray(np.zeros((64, 64), np.uint8)).save(new[0])
  new[1].unlink()
  with review.open_store(run, who='anna') as store:
    result = retraining.retrain(run, store, who='anna', progress=False)
  reasons = sorted(result.left_out)
  assert len([one for one in reasons if 'is held out' in one]) == len(
    [path for path in seeded if np.asarray(Image.open(path))[..., None].tobytes() in held]
  )
  assert any('has changed since it was judged' in one for one in reasons)
  assert any('is not there any more' in one for one in reasons)
  with (
    review.open_store(run, who='anna') as store,
    pytest.raises(Conflict, match='no such picture in the queue'),
  ):
    review.judge(store, run, new[0], 'good', reviewer='anna')


@pytest.mark.parametrize('kind', ['coco', 'label_studio'])
def test_verdicts_go_out_and_come_back(run, tmp_path, kind, capsys):
  new = write_pictures(tmp_path / 'new', [10, 11, 30], classes=False)
  review.main(flag_values(workdir=run, images=tmp_path / 'new'))
  verdicts = f'{new[0]}:good,{new[2]}:defect'
  review.main(flag_values(workdir=run, verdict=verdicts, reviewer='anna'))
  file = tmp_path / 'verdicts.json'
  review.main(flag_values(workdir=run, export=f'{kind}:{file}'))
  found = review_exchange.read(file)
  assert [(one.path, one.label, one.reviewer) for one in found] == [
    (str(new[0]), 'good', 'anna'),
    (str(new[2]), 'defect', 'anna'),
  ]
  # Taken over elsewhere, by the pixels; what is judged already stays as it is.
  review.main(flag_values(workdir=run, undo='true', reviewer='anna'))
  capsys.readouterr()
  review.main(flag_values(workdir=run, take=file))
  said = capsys.readouterr().out
  assert '1 of 2 verdicts taken over' in said
  assert f'left out: {new[0]}: anna has judged it already: good.' in said
  with review.open_store(run, who='anna') as store:
    assert [v.label for v in store.verdicts()] == ['good', 'defect']


def test_files_of_other_tools_are_read_with_care(tmp_path):
  def said(content) -> str:
    path = tmp_path / 'verdicts.json'
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=r'.') as error:
      review_exchange.read(path)
    return str(error.value)

  assert 'is no JSON' in said('{')
  assert 'is neither COCO' in said({'images': []})
  assert "lacks 'data'" in said([{'annotations': [{'result': [
    {'type': 'choices', 'value': {'choices': ['good']}}]}]}])  # fmt: skip
  image = {'images': [{'id': 1, 'file_name': 'a.png'}]}
  names = {'categories': [{'id': 1, 'name': 'good'}, {'id': 2, 'name': 'bent'}]}
  both = [{'image_id': 1, 'category_id': 1}, {'image_id': 1, 'category_id': 2}]
  assert 'a.png has the classes good and bent; a verdict is one class' in said(
    {**image, **names, 'annotations': both}
  )
  assert 'lacks 3' in said({**image, **names, 'annotations': [{'image_id': 1, 'category_id': 3}]})
  # Label Studio: cancelled and empty annotations give no verdict.
  path = tmp_path / 'tasks.json'
  good = {'type': 'choices', 'value': {'choices': ['good']}}
  tasks_ = [
    {'data': {'image': 'a.png'}, 'annotations': [{'result': [good]}]},
    {'data': {'image': 'b.png'}, 'annotations': [{'result': [good], 'was_cancelled': True}]},
    {'data': {'image': 'c.png'}, 'annotations': [{'result': []}]},
  ]
  path.write_text(json.dumps(tasks_))
  assert review_exchange.read(path) == [('a.png', 'good', '')]


def test_readiness_says_what_is_missing(run):
  with review.open_store(run, who='anna') as store:
    answer = review.readiness(run, store, Targets())
  assert answer.verdict == 'not yet'
  assert 'of 2 seeded defects were found' in answer.reason


def test_a_user_without_a_name_may_judge(monkeypatch):
  def nameless():
    raise KeyError('getpwuid(): uid not found: 4711')

  monkeypatch.setattr(review.getpass, 'getuser', nameless)
  assert flag_values().reviewer == 'reviewer'


def test_bad_input(run, tmp_path):
  with pytest.raises(ValueError, match='holds no run'):
    review.main(flag_values(workdir=tmp_path / 'nowhere'))
  with pytest.raises(ValueError, match='there is no verdict yet'):
    review.main(flag_values(workdir=run, retrain='true'))
  (tmp_path / 'text').mkdir()
  (tmp_path / 'text' / 'a.png').write_text('no picture')
  with pytest.raises(ValueError, match=r'a\.png'):
    review.main(flag_values(workdir=run, images=tmp_path / 'text'))
  (tmp_path / 'pictures' / 'hold_out.json').unlink()
  with pytest.raises(ValueError, match='nothing of folder is held out'):
    review.main(flag_values(workdir=run, readiness='true'))


_RETRAIN = """
import sys
import types
from launch import review, command
import jax
jax.config.update('jax_compilation_cache_dir', sys.argv[2])
sys.argv = ['review', '--workdir=' + sys.argv[1], '--retrain', '--noprogress', '--reviewer=anna']
command.run(review.define, review.main)
"""


def test_a_killed_retraining_leaves_the_live_model_and_goes_on(run, tmp_path):
  new = write_pictures(tmp_path / 'new', [10, 30], classes=False)
  review.main(flag_values(workdir=run, images=tmp_path / 'new'))
  verdicts = f'{new[0]}:good,{new[1]}:defect'
  review.main(flag_values(workdir=run, verdict=verdicts, reviewer='anna'))
  root = pathlib.Path(__file__).parent.parent.parent
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(root)}
  arguments = [sys.executable, '-c', _RETRAIN, str(run), str(root / '.jax_cache')]
  moments = random.Random(0)
  for _ in range(KILLS):
    seconds = moments.uniform(0.5, 9.0)
    child = subprocess.Popen(
      arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
      child.wait(seconds)
    except subprocess.TimeoutExpired:
      os.kill(child.pid, signal.SIGKILL)
      child.wait()
    with review.open_store(run, who='anna') as store:
      assert len(store.verdicts()) == 2
      finished_run.read_run(review_runs.live(store, run)[1])  # whole, whichever it is
  with review.open_store(run, who='anna') as store:
    result = retraining.retrain(run, store, who='anna', progress=False)
    assert (result.directory / 'report.json').exists()
    states = [model['state'] for model in store.models()]
    assert states.count('live') == 1
    assert len(states) == 2


def test_a_method_without_a_backbone_is_refused():
  config = ConfigDict({'method': {'name': 'casi_net'}})
  fitted = types.SimpleNamespace(params={'stem': {}}, model_state={})
  with pytest.raises(ValueError, match='a run of casi_net has no backbone'):
    review_scores._pooled(config, fitted)
