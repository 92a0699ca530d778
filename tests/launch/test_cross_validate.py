"""Cross-validation from the command line, what it sets aside, and that nothing trains on it."""

import json
import pathlib
import shutil
import sys

import numpy as np
import pytest
from absl import flags as absl_flags
from PIL import Image

from jaxdefect.contracts import AnomalyMaps, ClassScores, Verdicts
from jaxdefect.data import folds, hold_out
from jaxdefect.data.samples import Samples
from jaxdefect.data.sources import synthetic_tasks
from launch import adapt, command, convert, cross_validate, evaluate, experiment, frozen, train
from launch.frozen_folds import ViewFolds
from launch.trained_folds import TrainedFolds, positive_scores

classifier_bc = pytest.importorskip('configs.classifier_bc')
classifier_folder = pytest.importorskip('configs.classifier_folder')
patchcore_bc = pytest.importorskip('configs.patchcore_bc')

pytest.importorskip('jaxdefect.methods.classifier')

CONFIG = f'{pathlib.Path(__file__).parent.parent.parent}/configs/classifier_folder.py:smoke'


def write_pictures(folder: pathlib.Path, *, num=8) -> pathlib.Path:
  product = {'texture': 'woven', 'mark': 'stain', 'tone': 'dark', 'size': 64}
  source = synthetic_tasks.make(num_good=num, num_defect=num, **product)
  for i, label in enumerate(source.labels):
    kind = source.classes[label]
    (folder / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(source.read(i)[..., 0]).save(folder / kind / f'{i:02}.png')
  return folder


@pytest.fixture
def pictures(tmp_path) -> pathlib.Path:
  return write_pictures(tmp_path / 'pictures')


def folder_config(pictures):
  config = classifier_folder.get_config('smoke')
  config.data.dir = str(pictures)
  return config


def sentence(launcher, arguments, monkeypatch, capsys) -> str:
  monkeypatch.setattr(sys, 'argv', ['launch', *map(str, arguments)])
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'unused')
  capsys.readouterr()
  with pytest.raises(SystemExit) as exit_:
    command.run(launcher.define, launcher.main)
  assert exit_.value.code == 2
  said = capsys.readouterr().err
  assert said.startswith('error: ')
  assert said.count('\n') == 1
  return said


def flags_of(launcher, **values) -> absl_flags.FlagValues:
  parsed = absl_flags.FlagValues()
  launcher.define(parsed)
  parsed(['program', *(f'--{name}={value}' for name, value in values.items())])
  return parsed


def test_a_replaced_picture_is_scored_anew(pictures, tmp_path, monkeypatch):
  scored = []
  monkeypatch.setattr(
    TrainedFolds, '_trained', lambda _, __, test: scored.append(test) or 0.0 * test
  )
  config = folder_config(pictures)

  def score():
    source = experiment.load_source(config.data)
    places = np.arange(len(source))
    made = {'positive': 'defect', 'directory': tmp_path / 'run', 'progress': False}
    TrainedFolds(config, source, places, **made).score(places[:-2], places[-2:])

  score()
  score()
  assert len(scored) == 1
  last = sorted(pictures.rglob('*.png'))[-1]
  Image.fromarray(255 - np.asarray(Image.open(last))).save(last)
  score()
  assert len(scored) == 2


def test_trains_every_fold_and_goes_on_where_it_stopped(pictures, tmp_path, monkeypatch):
  config = folder_config(pictures)
  settings = {'size': 4, 'schemes': ('leave_one_out', 'k_fold'), 'k': 3, 'progress': False}
  settings['look'] = True
  trained, calls = TrainedFolds._trained, []

  def killed(self, *parts):
    calls.append(parts)
    if len(calls) == 6:
      raise KeyboardInterrupt
    return trained(self, *parts)

  monkeypatch.setattr(TrainedFolds, '_trained', killed)
  with pytest.raises(KeyboardInterrupt):
    cross_validate.run(config, tmp_path / 'run', **settings)
  assert not (tmp_path / 'run' / 'report.json').exists()
  result = cross_validate.run(config, tmp_path / 'run', **settings)
  # 12 pictures one by one, 3 folds, and the model of all that meets the hold-out; 5 were done.
  assert len(calls) == 6 + (12 + 3 + 1 - 5)
  assert result['n'] == 12
  assert result['hold_out']['n'] == 4
  assert result['hold_out']['positives'] == 2
  assert result['interval_kinds']['auroc/leave_one_out'] in ('delong, doubled', 'guaranteed')
  assert {'detection_rate/hold_out', 'false_alarm_rate/hold_out'} <= result['metrics'].keys()
  page = (tmp_path / 'run' / 'report.html').read_text()
  assert 'leave-one-out' in page
  assert 'Found on the hold-out' in page
  rows = (tmp_path / 'run' / 'scores.csv').read_text().splitlines()
  assert rows[0] == 'image,class,group,score'
  assert len(rows) == 13
  # An uninterrupted run elsewhere finds the hold-out, and says the same.
  again = cross_validate.run(config, tmp_path / 'again', **settings)
  assert again['metrics'] == result['metrics']
  assert again['hold_out'] == result['hold_out']
  with pytest.raises(ValueError, match='holds a run of another config'):
    cross_validate.run(config, tmp_path / 'run', **{**settings, 'k': 2})


def test_a_folder_of_another_run_says_which_setting_differs(tmp_path):
  config = classifier_folder.get_config('smoke')
  config.split.max_test = None  # has no value, and none to compare
  experiment.write_config(config, tmp_path)
  experiment.write_config(config, tmp_path)
  config.steps = 7
  with pytest.raises(ValueError, match=r'\(steps is 2 there and 7 here\); choose another'):
    experiment.write_config(config, tmp_path)


def test_the_least_biased_figure_is_told_first(capsys):
  metrics = {'auroc/leave_one_out': 0.5, 'auroc/k_fold': 0.75, 'auroc/hold_out': 0.25}
  intervals = dict.fromkeys(metrics, (0.125, 1.0))
  told = {'metrics': metrics, 'intervals': intervals, 'positive': 'cut', 'n': 9, 'method': 'm'}
  cross_validate._tell(told)
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].startswith('cut against the rest, 9 pictures; m,')
  assert [line.split(':')[0] for line in lines[1:]] == [
    *('auroc/k_fold', 'auroc/leave_one_out', 'auroc/hold_out')
  ]
  assert [line.endswith('the figure to tell: its bias is the least') for line in lines[1:]] == [
    *(True, False, False)
  ]


def test_what_is_held_out_never_trains(pictures, tmp_path, monkeypatch, capsys):
  config = folder_config(pictures)
  settings = {'size': 4, 'schemes': ('k_fold',), 'k': 2, 'progress': False}
  cross_validate.run(config, tmp_path / 'run', **settings)
  assert (
    len(list((tmp_path / 'run' / 'folds').iterdir())) == 2
  )  # none for each picture, none to look
  held = hold_out.read(pictures / 'hold_out.json')
  source = experiment.load_source(config.data)
  assert held.images.keys().isdisjoint(source.names)
  report = train.train_seed(config, 0, tmp_path / 'trained', progress=False)
  split = json.loads((tmp_path / 'trained' / 'split.json').read_text())
  for part in ('train', 'validation', 'test', 'references'):
    assert held.images.keys().isdisjoint(split[part])
  assert report['n'] == 12 - 4  # two of each class train

  out = tmp_path / 'held.json'
  scored = flags_of(evaluate, workdir=tmp_path / 'trained', hold_out='true', out=out)
  evaluate.main(scored)
  assert json.loads(out.read_text())['n'] == 4

  first = next(iter(held.images))
  shutil.copy(pictures / first, pictures / 'good' / 'renamed.png')
  flags = [f'--config={CONFIG}', f'--config.data.dir={pictures}', f'--workdir={tmp_path / "new"}']
  for launcher in (train, cross_validate):
    text = sentence(launcher, flags, monkeypatch, capsys)
    assert f'renamed.png of folder is the same picture as {first}, which is held out' in text
    assert not (tmp_path / 'new').exists()
  (pictures / 'good' / 'renamed.png').unlink()

  offered = tmp_path / 'offered' / 'good'
  offered.mkdir(parents=True)
  shutil.copy(pictures / first, offered / 'tomorrow.png')
  flags = [f'--workdir={tmp_path / "trained"}', f'--references={offered.parent}']
  text = sentence(adapt, [*flags, f'--out={tmp_path / "more"}'], monkeypatch, capsys)
  assert f'tomorrow.png of {offered.parent} is the same picture as {first}' in text
  assert not (tmp_path / 'more').exists()


def test_bad_input(pictures, tmp_path, monkeypatch, capsys):
  def said(*arguments):
    flags = [f'--config={CONFIG}', f'--config.data.dir={pictures}', f'--workdir={tmp_path / "r"}']
    text = sentence(cross_validate, [*flags, *arguments], monkeypatch, capsys)
    assert not (tmp_path / 'r').exists()
    assert not (pictures / 'hold_out.json').exists()
    return text

  assert 'folder has no class' in said('--positive=scratch')
  assert 'needs 9 different images of every class' in said('--hold_out=0', '--k=9')
  assert "takes 8 of the 8 images of class 'defect'" in said('--hold_out=15')
  assert "schemes has 'loo'" in said('--schemes=loo', '--hold_out=0')
  assert '--views is for --frozen' in said('--views=3')
  assert 'features need pretrained weights' in said('--frozen', '--hold_out=4')
  named = f'--config.data.hold_out={tmp_path / "none.json"}'
  assert 'which does not exist' in said(named, '--hold_out=0')
  lots = tmp_path / 'lots.csv'
  lots.write_text('image,lot\ngood/00.png,a\n')
  assert 'have no lot: defect/' in said(f'--config.data.lots={lots}')
  for path in (pictures / 'defect').iterdir():
    path.unlink()
  assert 'holds no images' in said()
  (pictures / 'defect').rmdir()
  assert '--positive=CLASS is needed: which of good' in said()


def test_made_data_need_a_file_for_the_hold_out(tmp_path, monkeypatch):
  config = classifier_bc.get_config('smoke')
  settings = {'size': 4, 'schemes': ('k_fold',), 'k': 2, 'progress': False}
  with pytest.raises(ValueError, match='no folder that could keep a hold-out; name a file by'):
    cross_validate.run(config, tmp_path / 'run', **settings)
  config.data.hold_out = str(tmp_path / 'kept' / 'held.json')
  with pytest.raises(ValueError, match=r'held\.json, which does not exist; launch\.cross_validate'):
    experiment.load_source(config.data)  # to all others it must be there
  monkeypatch.setattr(TrainedFolds, '_trained', lambda self, training, test: test % 5 - 2.0)
  result = cross_validate.run(config, tmp_path / 'run', **settings)
  held = hold_out.read(config.data.hold_out)
  assert 'hold_out' not in result  # nobody has looked
  assert result['held_out'] == len(held.images) == 4
  assert held.images.keys().isdisjoint(experiment.load_source(config.data).names)
  again = cross_validate.run(config, tmp_path / 'again', look=True, **settings)
  assert again['hold_out']['scores'].keys() == held.images.keys()
  assert again['metrics']['auroc/k_fold'] == result['metrics']['auroc/k_fold']


def test_a_finished_run_is_converted_though_its_pictures_are_held_out_now(
  pictures, tmp_path, monkeypatch, capsys
):
  config = folder_config(pictures)
  flags = [f'--config={CONFIG}', f'--config.data.dir={pictures}', f'--workdir={tmp_path / "run"}']
  monkeypatch.setattr(sys, 'argv', ['launch', *flags])
  command.run(train.define, train.main)
  split = json.loads((tmp_path / 'run' / 'split.json').read_text())
  source = experiment.load_source(config.data)
  held = [source.names.index(next(iter(split[part]))) for part in ('train', 'test')]
  hold_out.write(pictures / 'hold_out.json', hold_out.make(source, held, seed=0))
  convert.convert(tmp_path / 'run', tmp_path / 'exported', targets=('torch',))
  assert (tmp_path / 'exported' / 'model.safetensors').exists()
  # Scored it is not; and the command that trained it says that it is finished.
  text = sentence(evaluate, [f'--workdir={tmp_path / "run"}'], monkeypatch, capsys)
  assert 'train anew in another --workdir' in text
  monkeypatch.setattr(sys, 'argv', ['launch', *flags])
  command.run(train.define, train.main)
  said = capsys.readouterr().out.splitlines()[0]
  now = len(split['train']) + len(split['test']) - 2
  assert f'({now + 2} then, {now} now); another --workdir trains anew' in said
  (pictures / 'hold_out.json').unlink()
  command.run(train.define, train.main)
  said = capsys.readouterr().out.splitlines()[0]
  assert said.endswith('run was finished before; another --workdir trains anew')


def test_a_second_hold_out_would_let_the_first_one_train(pictures, tmp_path):
  config = folder_config(pictures)
  made = hold_out.make(experiment.load_source(config.data), [0, 8], seed=0)
  hold_out.write(pictures / 'hold_out.json', made)
  config.data.hold_out = str(tmp_path / 'held.json')
  with pytest.raises(ValueError, match=r'pictures/hold_out\.json holds a hold-out already'):
    cross_validate.run(config, tmp_path / 'run', size=4, progress=False)
  assert not (tmp_path / 'held.json').exists()
  assert not (tmp_path / 'run').exists()


def test_an_anomaly_method_trains_on_good_parts(tmp_path):
  config = patchcore_bc.get_config('smoke')
  settings = {'size': 0, 'schemes': ('k_fold',), 'k': 2, 'progress': False}
  result = cross_validate.run(config, tmp_path / 'run', **settings)
  assert result['positive'] == 'defect'
  assert 'hold_out' not in result
  assert 0 <= result['metrics']['auroc/k_fold'] <= 1


def test_scores_of_every_kind_of_prediction():
  scores = np.array([[3.0, 1.0, 0.0], [0.0, 1.0, 4.0]])
  heads, maps = ClassScores(scores, scores), AnomalyMaps(scores[:, 0], scores[:, :1, None])
  both = Verdicts(np.zeros(2, int), np.zeros(2, int), heads, maps)
  classes = ('bent', 'good', 'stained')
  for one in (heads, both):
    assert positive_scores(one, classes, 'bent').tolist() == [2, -4]
  assert positive_scores(maps, ('good', 'defect'), 'defect').tolist() == [3, 0]
  with pytest.raises(ValueError, match='--positive cannot be good'):
    positive_scores(maps, ('good', 'defect'), 'good')


def test_views_are_left_out_with_their_picture():
  generator = np.random.default_rng(0)
  positive = np.arange(12) % 2 == 0
  features = generator.normal(size=(12, 4, 30)) + positive[:, None, None]
  given = Samples(
    tuple(f'{i}' for i in range(12)), positive.astype(int), ('good', 'defect'), np.arange(12)
  )
  score = ViewFolds(features, positive)
  ones = folds.leave_one_out(given)
  before = [one[0] for one in score(ones)]
  # A view of the picture itself would give it away; others' views do matter.
  changed = features.copy()
  changed[3, 1:] += 100 * generator.normal(size=(3, 30))
  after = [one[0] for one in ViewFolds(changed, positive, strength=1e-9)(ones)]
  plain = [one[0] for one in ViewFolds(features, positive, strength=1e-9)(ones)]
  assert after[3] == pytest.approx(plain[3], rel=1e-3)
  assert after[4] != pytest.approx(plain[4], rel=1e-3)
  assert np.mean([b > 0 for b in before] == positive) > 0.7


def test_frozen_on_real_weights(data_dir, tmp_path):
  config = classifier_folder.get_config()
  config.data.dir = str(write_pictures(tmp_path / 'pictures', num=12))
  config.data.image_size = (64, 64)
  config.pretrained.weights = 'resnet18-imagenet-layer3-bnfolded'
  config.pretrained.dir = str(data_dir / 'weights')
  result = cross_validate.run(config, tmp_path / 'run', frozen=True, views=2, size=6)
  assert result['interval_kinds']['auroc/leave_pair_out'] in ('delong and refits', 'guaranteed')
  low, high = result['intervals']['auroc/leave_pair_out']
  assert low <= result['metrics']['auroc/leave_pair_out'] <= high
  assert result['models'] == {'leave_one_out': 18, 'leave_pair_out': 81, 'k_fold': 100}
  # The same views each time, whatever else is in the batch.
  source = experiment.load_source(config.data)
  draw = frozen.random_views(config.method.augmentation.to_dict(), source.classes)
  both = frozen.features(config, source, [0, 5], draw=draw, views=2)
  alone = frozen.features(config, source, [5], draw=draw, views=2)
  np.testing.assert_allclose(both[1], alone[0], rtol=1e-4, atol=1e-5)
  assert np.abs(both[1, 0] - both[1, 1]).max() > 1e-3
