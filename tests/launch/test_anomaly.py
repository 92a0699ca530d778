"""An anomaly method from good parts to verdicts: thresholds, pictures, maps, and a longer bank."""

import csv
import json
import pathlib
import sys

import jax
import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict, config_dict
from PIL import Image

from jaxdefect import train as training
from jaxdefect.data.sources import synthetic_tasks
from jaxdefect.evaluate import thresholds
from launch import (
  adapt,
  anomaly_tables,
  command,
  evaluate,
  experiment,
  finished_run,
  predict,
  reproduce,
  train,
)
from launch.grid import Cell

pytest.importorskip('jaxdefect.methods.nearest_neighbor')
pytest.importorskip('jaxdefect.methods.patchcore')

PRODUCT = {'texture': 'woven', 'mark': 'hole', 'tone': 'dark', 'size': 64}


def make_config() -> ConfigDict:
  c = ConfigDict()
  c.data = {
    **{'name': 'synthetic_tasks', **PRODUCT, 'num_good': 24, 'num_defect': 6},
    **{'image_size': (32, 32), 'interpolation': 'bilinear'},
  }
  c.split = {'kind': 'good_only', 'train': 0.4, 'validation': 0.4}
  c.split.max_test = config_dict.placeholder(int)
  c.calibration = {'kind': 'split', 'folds': 0, 'false_alarm_rate': 0.2}
  c.pretrained = {'weights': '', 'dir': '', 'stages': 2}
  c.method = {
    **{'name': 'patchcore', 'backbone': 'resnet18', 'stages': 2, 'layers': (1, 2)},
    **{'width': 8, 'coreset': 0.2, 'neighbours': 2, 'sigma': 1.0},
  }
  c.optimizer = {'name': 'adam', 'learning_rate': 1e-3}
  c.batch_size, c.steps, c.references_per_class, c.seeds, c.devices = 8, 0, 0, (0,), 1
  c.log_every, c.checkpoint_every, c.evaluate_every, c.best = 1, 1, 0, ''
  c.pictures, c.tensorboard = 4, False
  return c


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> pathlib.Path:
  directory = tmp_path_factory.mktemp('anomaly') / 'run'
  train.train_seeds(make_config(), directory, progress=False)
  return directory


def flag_values(define, **values) -> flags.FlagValues:
  parsed = flags.FlagValues()
  define(parsed)
  parsed(['program', *(f'--{name}={value}' for name, value in values.items())])
  return parsed


def write_pictures(folder: pathlib.Path, numbers, *, label=0) -> None:
  folder.mkdir(parents=True)
  source = synthetic_tasks.make(**PRODUCT, num_good=60, num_defect=20)
  for i in numbers:
    Image.fromarray(source.read(i + 60 * label)).save(folder / f'{i}.png')


def test_report_has_figures_threshold_and_cost(run):
  report = json.loads((run / 'report.json').read_text())
  for name in ('auroc', 'average_precision', 'false_alarm_rate', 'miss_rate', 'pixel_auroc', 'pro'):
    assert 0 <= report['metrics'][name] <= 1, name
  assert report['nominal_false_alarm_rate'] == 0.2
  assert report['support'] == {'good': 4, 'defect': 6}
  assert report['pixels']['images'] == 10
  fitted = training.load_fitted(run / 'fitted.safetensors')
  assert report['threshold'] == float(fitted.calibration['threshold'])
  assert len(fitted.calibration['scores']) == 10
  assert report['model_bytes'] > fitted.memory['bank'].nbytes
  for name in ('fit_seconds', 'ms_per_image', 'peak_bytes'):
    assert report[name] > 0
  text = (run / 'report.html').read_text()
  assert 'At the threshold' in text
  assert 'Good parts' in text
  assert 'one absolute colour scale' in text


def test_predict_writes_verdicts_overlays_and_raw_maps(run, tmp_path):
  write_pictures(tmp_path / 'new' / 'deep', range(30, 33))
  out = tmp_path / 'out'
  predict.main(flag_values(predict.define, workdir=run, images=tmp_path / 'new', out=out))
  rows = json.loads((out / 'predictions.json').read_text())
  assert [row['image'] for row in rows] == [f'deep/{i}.png' for i in range(30, 33)]
  for row in rows:
    assert row['verdict'] == ('flagged' if row['score'] > row['threshold'] else 'ok')
    assert (row['p_value'] <= 0.2) == (row['verdict'] == 'flagged')
    heat = np.load((out / 'maps' / row['image']).with_suffix('.npy'))
    assert heat.shape == (32, 32)
    with Image.open(out / 'overlays' / row['image']) as drawn:
      assert drawn.size == (64, 64)
    with Image.open((out / 'pictures' / row['image']).with_suffix('.jpg')) as plain:
      assert plain.size == (64, 64)
  with open(out / 'predictions.csv') as file:
    lines = list(csv.DictReader(file))
  assert list(lines[0]) == ['image', 'verdict', 'score', 'threshold', 'p_value']


def test_predict_keeps_pictures_apart_that_differ_by_their_ending(run, tmp_path):
  write_pictures(tmp_path / 'new', range(30, 32))
  with Image.open(tmp_path / 'new' / '30.png') as picture:
    picture.save(tmp_path / 'new' / '30.bmp')
  out = tmp_path / 'out'
  predict.main(flag_values(predict.define, workdir=run, images=tmp_path / 'new', out=out))
  for folder, ending in (('overlays', 'png'), ('maps', 'npy')):
    names = sorted(path.name for path in (out / folder).iterdir())
    assert names == [f'30.bmp.{ending}', f'30.png.{ending}', f'31.{ending}']


def test_predict_finishes_what_can_be_read_and_names_the_rest(run, tmp_path, capsys):
  write_pictures(tmp_path / 'new', range(30, 33))
  for name in ('30.png', 'empty.png'):
    (tmp_path / 'new' / name).write_bytes(b'')
  out = tmp_path / 'out'
  with pytest.raises(SystemExit) as exit_:
    predict.main(flag_values(predict.define, workdir=run, images=tmp_path / 'new', out=out))
  assert exit_.value.code == 1
  assert 'cannot be read: 2 (30.png, empty.png)' in capsys.readouterr().err
  with open(out / 'unreadable.csv') as file:
    lines = list(csv.DictReader(file))
  assert [line['image'] for line in lines] == ['30.png', 'empty.png']
  assert all('no bytes' in line['reason'] for line in lines)
  rows = json.loads((out / 'predictions.json').read_text())
  assert [row['image'] for row in rows] == ['31.png', '32.png']
  assert {path.name for path in (out / 'overlays').iterdir()} == {'31.png', '32.png'}
  page = (out / 'predictions.html').read_text()
  assert page.count('src="overlays/') == 2
  assert 'empty.png cannot be read' in page
  with Image.open(out / 'legend.png') as legend:
    assert legend.width > 100

  alone = {'images': tmp_path / 'new' / '31.png', 'out': tmp_path / 'one'}
  predict.main(flag_values(predict.define, workdir=run, **alone))
  assert json.loads((tmp_path / 'one' / 'predictions.json').read_text()) == rows[:1]
  assert not (tmp_path / 'one' / 'unreadable.csv').exists()

  none = {'images': tmp_path / 'new' / 'empty.png', 'out': tmp_path / 'none'}
  with pytest.raises(ValueError, match=r'None of the 1 images can be read\. .*empty\.png'):
    predict.main(flag_values(predict.define, workdir=run, **none))
  assert not (tmp_path / 'none').exists()


def test_threshold_changes_after_training(run, tmp_path):
  found = {}
  for rate in (None, 0.5):
    out = tmp_path / f'{rate}.json'
    values = {'workdir': run, 'out': out} | ({} if rate is None else {'false_alarm_rate': rate})
    evaluate.main(flag_values(evaluate.define, **values))
    found[rate] = json.loads(out.read_text())
  assert found[0.5]['threshold'] < found[None]['threshold']
  assert found[0.5]['nominal_false_alarm_rate'] == 0.5
  assert found[0.5]['metrics']['auroc'] == found[None]['metrics']['auroc']
  assert found[0.5]['metrics']['miss_rate'] <= found[None]['metrics']['miss_rate']
  values = flag_values(evaluate.define, workdir=run, false_alarm_rate=0.01)
  with pytest.raises(ValueError, match='needs 99 good parts that are held out, but there are 10'):
    evaluate.main(values)


def test_adapt_extends_and_forgets(run, tmp_path, capsys):
  write_pictures(tmp_path / 'more' / 'good', range(40, 44))
  first, second = tmp_path / 'first', tmp_path / 'second'
  values = {'workdir': run, 'references': tmp_path / 'more', 'out': first}
  adapt.main(flag_values(adapt.define, **values))
  assert 'kept' in capsys.readouterr().out
  old, new = (finished_run.read_run(one).fitted for one in (run, first))
  images = [set(np.asarray(one.memory['image']).tolist()) for one in (old, new)]
  added = json.loads((first / 'added.json').read_text())
  assert set(added) == {f'more/good/{i}.png' for i in range(40, 44)}
  numbers = {number for number, _ in added.values()}
  assert min(numbers) > max(images[0])  # no number means two pictures
  assert images[1] - images[0] <= numbers
  assert images[1] - images[0]
  assert float(new.calibration['threshold']) == float(old.calibration['threshold'])

  split = json.loads((run / 'split.json').read_text())
  name = next(iter(split['train']))
  gone = f'good/40.png,{name}'
  adapt.main(flag_values(adapt.define, workdir=first, out=second, forget=gone))
  left = finished_run.read_run(second).fitted
  assert not set(np.asarray(left.memory['image']).tolist()) & {added['more/good/40.png'][0], 0}
  assert 'more/good/40.png' not in json.loads((second / 'added.json').read_text())
  out = tmp_path / 'out'  # the new run is a run
  predict.main(flag_values(predict.define, workdir=second, images=tmp_path / 'more', out=out))


def test_adapt_sets_the_threshold_again(run, tmp_path):
  write_pictures(tmp_path / 'more' / 'good', range(40, 42))
  write_pictures(tmp_path / 'held' / 'good', range(45, 52))
  out = tmp_path / 'out'
  values = {'workdir': run, 'references': tmp_path / 'more', 'held_out': tmp_path / 'held'}
  adapt.main(flag_values(adapt.define, **values, out=out))
  stored = finished_run.read_run(out).fitted.calibration
  assert len(stored['scores']) == 7
  again = thresholds.conformal_threshold(np.asarray(stored['scores']), false_alarm_rate=0.2)
  assert float(stored['threshold']) == again


def test_adapt_rejects_in_one_sentence(run, tmp_path, monkeypatch, capsys):
  write_pictures(tmp_path / 'more' / 'good', range(40, 42))
  write_pictures(tmp_path / 'bad' / 'defect', range(10, 12), label=1)
  write_pictures(tmp_path / 'both' / 'good', range(40, 52))
  out = tmp_path / 'out'

  def said(**values):
    arguments = [f'--{name}={value}' for name, value in {'workdir': run, **values}.items()]
    monkeypatch.setattr(sys, 'argv', ['launch', *arguments, f'--out={out}'])
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'unused')
    capsys.readouterr()
    with pytest.raises(SystemExit):
      command.run(adapt.define, adapt.main)
    assert not out.exists()
    return capsys.readouterr().err

  assert 'there is nothing to change' in said()
  assert "bad has no class 'good'" in said(references=tmp_path / 'bad')
  held = {'references': tmp_path / 'more', 'held_out': tmp_path / 'bad'}
  assert 'bad holds the classes defect; only good parts' in said(**held)
  assert "was not fitted to a picture 'x.png'" in said(forget='x.png')
  both = {'references': tmp_path / 'more', 'held_out': tmp_path / 'both'}
  assert 'is the same picture as more/good/40.png' in said(**both)
  assert 'holds no run' in said(workdir=tmp_path, references=tmp_path / 'more')


def test_cross_calibration_needs_no_held_out_parts(tmp_path):
  config = make_config()
  config.split.train, config.split.validation = 0.6, 0.0
  config.calibration.update({'kind': 'cross', 'folds': 3})
  report = train.train_seeds(config, tmp_path / 'run', progress=False)
  assert len(training.load_fitted(tmp_path / 'run/fitted.safetensors').calibration['scores']) == 14
  assert report['metrics']['auroc'] >= 0


def test_thresholds_that_cannot_be_kept_are_refused_before_training(tmp_path):
  config = make_config()
  config.calibration.false_alarm_rate = 0.05
  with pytest.raises(ValueError, match='needs 19 good parts that are held out, but there are 10'):
    train.train_seeds(config, tmp_path / 'run')
  config.calibration.kind = 'cross'
  config.steps = 3
  with pytest.raises(ValueError, match='for methods without training, but steps is 3'):
    train.train_seeds(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_a_run_gives_its_backbone(run, tmp_path):
  config = make_config()
  config.pretrained.weights = str(run)
  variables, name = experiment.load_pretrained(config)
  assert name == f'backbone of the run {run.parent.name}/run'
  made = experiment.build(config, 0, split_file=run / 'split.json')
  state = made.method.init(jax.random.key(5), made.spec, variables)
  theirs = training.load_fitted(run / 'fitted.safetensors').params['backbone']
  for path in ('conv1', 'layer1.0'):
    np.testing.assert_array_equal(
      *(leaves(tree[path]) for tree in (state.params['backbone'], theirs))
    )
  config.method.layers = (1,)
  del config.method.stages
  with pytest.raises(ValueError, match=r"pretrained has 'params/backbone/layer2\.0'"):
    train.train_seeds(config, tmp_path / 'other')
  assert not (tmp_path / 'other').exists()
  config.method.width = 16
  with pytest.raises(ValueError, match=r'method\.width = 8, but this run has 16'):
    experiment.load_pretrained(config)
  config.pretrained.weights = str(tmp_path)
  with pytest.raises(ValueError, match='has not finished training'):
    experiment.load_pretrained(config)


def test_a_table_makes_the_run_that_its_weights_come_from(tmp_path, monkeypatch):
  monkeypatch.setattr(reproduce, '_train', train.train_seed)  # in this process
  overrides = {
    **{'pretrained.weights': f'{anomaly_tables.RUN}nearest_neighbor_bc:smoke'},
    **{'method.stages': 1, 'method.layers': (1,)},
  }
  cell = Cell('PatchCore', 'x', 'patchcore_bc:smoke', overrides, 'auroc')
  kept = reproduce.run_cell(cell, 0, tmp_path)
  assert (tmp_path / 'nearest_neighbor_bc-smoke' / 'seed_0' / 'report.json').exists()
  assert kept['start_weights'] == 'backbone of the run nearest_neighbor_bc-smoke/seed_0'
  assert kept['config']['pretrained']['weights'] == 'nearest_neighbor_bc-smoke/seed_0'
  assert str(tmp_path) not in json.dumps(kept)
  for column in anomaly_tables.TABLES['D1'].metrics:
    assert column.metric in {**kept, **kept['metrics']}


def leaves(tree) -> np.ndarray:
  return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
