"""What was learned from other products is tried on shares of the target, and the target alone."""

import importlib.util
import pathlib

import numpy as np
import pytest

from launch import experiment, reporting, target_adaptation, train

pytest.importorskip('jaxdefect.methods.medetection')

ROOT = pathlib.Path(__file__).parent.parent.parent


def smoke_config():
  spec = importlib.util.spec_from_file_location('bc', ROOT / 'configs' / 'medetection_bc.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config('smoke')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  directory = tmp_path_factory.mktemp('runs') / 'run'
  config = smoke_config()
  # A picture of the target among the tasks: the target must leave them.
  name, held = next(iter(config.tasks.items()))
  config.tasks[f'{name}_target'] = {k: v for k, v in config.data.items() if k in held}
  report = train.train_seeds(config, directory, progress=False)
  return directory, report


def test_shares_of_the_target(run, monkeypatch):
  directory, own = run
  monkeypatch.setattr(target_adaptation, 'VALIDATION', 1 / 3)  # that of the run
  monkeypatch.setattr(target_adaptation, 'RELATIVE_SIZES', (0.75, 1.0))  # fewer programs
  report = target_adaptation.from_shares(directory, (0.3, 0.6))
  metrics = report['metrics']
  assert (metrics['support/30'], metrics['support/60']) == (6, 12)
  for name in (
    'auroc/30',
    'accuracy/60',
    'recall/defect/60',
    'published_protocol/auroc',
    'five_sizes/auroc',
  ):
    assert 0 <= metrics[name] <= 1, name
  assert metrics['movement'] > 0
  assert metrics['loss_drop'] < 1
  assert report['n'] == 8
  assert metrics['auroc/60'] == own['metrics']['auroc']  # the run's own share
  assert metrics['epoch/60'] == np.argmin(report['history']['60']['validation_loss'])


def test_a_share_that_reaches_into_the_test_part_is_refused(run):
  with pytest.raises(ValueError, match='reaches into its test part'):
    target_adaptation.from_shares(run[0], (0.9,))


def test_report_shows_the_views_of_the_target(run):
  directory, _ = run
  assert (directory / 'augmentation.png').exists()
  assert 'random views of it' in (directory / 'report.html').read_text()


def test_report_says_what_the_fine_tuning_and_the_masks_said(run):
  _, report = run
  assert 0 <= report['fine_tuning_epoch'] <= 2
  assert 0 <= report['localisation']['metrics']['pointing_game'] <= 1
  assert report['localisation']['n'] == 4


def test_target_leaves_the_tasks(run):
  config = experiment.read_config(run[0])
  source = experiment.load_source(config.data)
  everything = experiment.load_tasks(config, 'tasks')
  without = experiment.load_tasks(config, 'tasks', target=source.name)
  assert len(without) == len(everything) - 1
  assert all(task.name != source.name for task in without.values())


def test_rates_are_chosen_on_products_held_back():
  config = smoke_config()
  small = {'num_good': 8, 'num_defect': 8, 'size': 64}
  config.validation_tasks = {'held': {**next(iter(config.tasks.values())).to_dict(), **small}}
  made = experiment.build(config, 0)
  import jax

  state = made.method.init(jax.random.key(0), made.spec)
  figures = reporting.validation_tasks(made, jax.random.key(0), seed=0)(state)
  assert figures['auroc'] == figures['auroc/held']
  config.validation_tasks = {}
  assert reporting.validation_tasks(experiment.build(config, 0), jax.random.key(0), seed=0) is None
