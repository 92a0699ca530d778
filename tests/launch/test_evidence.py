"""Many small data sets out of one: drawn fairly, cross-validated, and held against the truth."""

import json

import jax
import numpy as np
import pytest

from jaxdefect.data.sources import synthetic_tasks
from jaxdefect.evaluate import delong, ridge_head
from launch import evidence, evidence_tables, reproduce, results_page, view_evidence
from launch.evidence_tables import Setting

classifier_folder = pytest.importorskip('configs.classifier_folder')
nearest_neighbor_bc = pytest.importorskip('configs.nearest_neighbor_bc')

pytest.importorskip('jaxdefect.methods.nearest_neighbor')

SETTING = Setting('defect', ('good',))


def problem(n=400, *, copies=2, shift=0.8, seed=0) -> evidence.Problem:
  """Two kinds of picture that overlap; every fourth part was photographed several times."""
  generator = np.random.default_rng(seed)
  times = np.where(np.arange(n) % 4 == 0, copies, 1)
  groups = np.repeat(np.arange(n), times)
  positive = np.repeat(generator.random(n) < 0.5, times)
  x = generator.normal(size=(n, 20))[groups] + 0.01 * generator.normal(size=(len(groups), 20))
  x[:, 0] += shift * np.where(positive, 1, -1)
  names = np.array([f'{i:04}.png' for i in range(len(groups))])
  return evidence.Problem(x, positive, groups, names)


def test_draws_whole_groups_and_every_picture_as_often():
  given = problem(120)
  every = np.arange(len(given.names))
  times = np.zeros(len(every))
  for seed in range(300):
    drawn = evidence.draw(given, (25, 25), seed, every)
    assert np.bincount(given.positive[drawn]).tolist() == [25, 25]
    assert not set(given.groups[drawn]) & set(given.groups[np.setdiff1d(every, drawn)])
    times[drawn] += 1
  pairs = np.bincount(given.groups)[given.groups] > 1
  # By the foremost of two pictures, pairs would be drawn nearly twice as often.
  assert times[pairs].mean() / times[~pairs].mean() == pytest.approx(1, abs=0.08)


def test_trial_says_what_each_scheme_says_and_the_truth():
  found = evidence.trial(problem(), SETTING, 3)
  assert set(found) == set(evidence_tables.SCHEMES.values())
  assert found['leave_one_out']['truth'] == found['k_fold']['truth'] != found['hold_out']['truth']
  for one in found.values():
    assert one['interval'][0] < one['said'] < one['interval'][1] or one['said'] in (0, 1)
    assert 0.6 < one['truth'] < 1
  assert found['k_fold_once']['split_sd'] == pytest.approx(
    found['k_fold']['split_sd'] * np.sqrt(20)
  )
  assert found['leave_one_out']['split_sd'] == 0
  alone = SETTING._replace(schemes=('torn',))
  assert evidence.trial(problem(), alone, 3) == {'torn': found['torn']}


def test_too_few_groups_are_no_data_set():
  given = problem(40, copies=30)
  with pytest.raises(ValueError, match='cannot be drawn in whole groups'):
    evidence.trial(given._replace(groups=given.groups // 2), SETTING, 0)
  loose = SETTING._replace(fewer=True, schemes=('leave_one_out',))
  assert evidence.trial(given._replace(groups=given.groups // 20), loose, 0) == {}


def test_summary_counts_how_often_the_interval_holds():
  def one(said, truth, low, high):
    ends = [low, high]
    return {
      **{'said': said, 'truth': truth, 'interval': ends, 'fixed': ends, 'bootstrap': None},
      'split_sd': 0.02,
    }

  report = evidence.summary([one(0.9, 0.8, 0.7, 1), one(0.7, 0.8, 0.6, 0.75), one(1, 1, 0.5, 1)])
  metrics = report['metrics']
  assert metrics['coverage'] == metrics['coverage_fixed'] == pytest.approx(2 / 3)
  assert 'coverage_bootstrap' not in metrics
  assert metrics['bias'] == pytest.approx(0)
  assert metrics['error_sd'] == pytest.approx(0.1)
  assert metrics['no_pair_lost'] == pytest.approx(1 / 3)
  assert report['interval_kinds']['coverage'] == 'wilson'
  assert report['n'] == 3
  json.dumps(report, allow_nan=False)


@pytest.fixture
def stored(tmp_path):
  """A data set on disk whose features have been computed."""
  config = reproduce.load_config('nearest_neighbor_bc:smoke', {}, 0)
  config.data.num_good, config.data.num_defect = 120, 120
  source = evidence.experiment.load_source(config.data)
  given = problem(240, copies=1)
  positive = source.labels == source.class_number('defect')
  given.features[:, 0] = np.where(positive, 1, -1) + 1.5 * given.features[:, 1]
  np.savez(
    tmp_path / 'features.npz',
    features=given.features,
    groups=given.groups,
    names=np.array(source.names),
  )
  return config, tmp_path


def test_a_cell_is_run_once_and_compacted(stored, monkeypatch):
  config, directory = stored
  monkeypatch.setattr(evidence_tables, 'SEEDS', range(2))
  column = 'bottle caps, ResNet-18'
  report = reproduce.compact(evidence.of_cell('leave-pair-out', column, config, directory))
  assert 0 <= report['metrics']['coverage'] <= 1
  assert report['split']['seeds'] == [0, 1]
  assert str(directory) not in json.dumps(report)
  monkeypatch.setattr(evidence, 'from_resampled', None)
  again = evidence.of_cell('hold-out of 15', column, config, directory)
  assert again['n'] == 2


def test_features_of_other_pictures_are_refused(stored):
  config, directory = stored
  config.data.num_good = 119
  with pytest.raises(ValueError, match='has the features of other pictures; delete it'):
    evidence.load(config, SETTING, directory)


def test_features_need_weights(stored):
  config, directory = stored
  (directory / 'features.npz').unlink()
  with pytest.raises(ValueError, match='names no file; features need pretrained weights'):
    evidence.load(config, SETTING, directory)


def test_the_table_shows_coverage_with_its_interval(tmp_path):
  table = evidence_tables.TABLES['E2']
  cell = table.cells[0]
  path = results_page.path(tmp_path, 'E2', cell, 0)
  path.parent.mkdir()
  alone = SETTING._replace(schemes=('leave_one_out',))
  trials = [evidence.trial(problem(), alone, seed)['leave_one_out'] for seed in range(2)]
  shown = {'seconds': 6.0, 'versions': {'device': 'cpu', 'jax': '0'}}
  path.write_text(json.dumps({**evidence.summary(trials), **shown}))
  text = results_page.render(tmp_path)
  assert '| leave-one-out | bottle caps, ResNet-18 |' in text
  assert f'{len(table.cells) - 1} of {len(table.cells)} figures have not been run yet' in text


def test_views_help_only_where_they_tell_something():
  given = problem(300, copies=1, shift=0.6)
  generator = np.random.default_rng(1)
  true = given.features[:, None] + 0.3 * generator.normal(size=(*given.features.shape[:1], 4, 20))
  noise = generator.normal(size=true.shape)
  gains = {
    name: np.mean(
      [
        (found := view_evidence.trial(given, views, SETTING, seed))['with']['truth']
        - found['without']['truth']
        for seed in range(6)
      ]
    )
    for name, views in (('true', true), ('noise', noise), ('none', true[:, :0]))
  }
  assert gains['none'] == 0
  assert gains['noise'] < gains['true']


def test_truth_of_a_view_trial_is_that_of_a_plain_head():
  given = problem(300, copies=1)
  views = np.zeros((len(given.names), 0, 20))
  found = view_evidence.trial(given, views, SETTING, 4)['with']
  training, held = view_evidence.drawn(given, SETTING, 4)
  assert len(training) == 35
  assert len(held) == 15
  assert set(given.groups[training]).isdisjoint(given.groups[held])
  x = ridge_head.unit_vectors(given.features)
  head = ridge_head.fit(
    x[training], given.positive[training], penalty=ridge_head.spread(x[training])
  )
  rest = np.setdiff1d(np.arange(len(x)), np.concatenate([training, held]))
  true = delong.auroc(ridge_head.scores(head, x[rest]), given.positive[rest]).value
  assert found['truth'] == pytest.approx(true, abs=1e-9)


def test_hue_jitter_leaves_gray_and_turns_colour():
  generator = np.random.default_rng(0)
  gray = np.repeat(generator.integers(0, 256, (2, 8, 8, 1)), 3, axis=3).astype(np.uint8)
  arguments = jax.random.key(0), np.arange(2), np.zeros(2, int)
  turned = view_evidence.hue_jitter(arguments[0], gray, *arguments[1:])
  np.testing.assert_allclose(turned, gray, atol=0.3)
  colour = np.tile(np.uint8([140, 90, 90]), (2, 8, 8, 1))
  turned = np.asarray(view_evidence.hue_jitter(arguments[0], colour, *arguments[1:]))
  luma = turned @ np.array([0.299, 0.587, 0.114])
  np.testing.assert_allclose(luma, np.float32([140, 90, 90]) @ [0.299, 0.587, 0.114], atol=0.3)
  assert np.abs(turned - colour).max() > 10


def test_a_network_is_trained_on_35_and_tested_on_the_rest(tmp_path, monkeypatch):
  product = {'texture': 'woven', 'mark': 'stain', 'tone': 'dark', 'size': 64}
  source = synthetic_tasks.make(num_good=30, num_defect=30, **product)
  positive = source.labels == source.class_number('defect')
  names = np.array(source.names)[::-1]  # the problem's order is not the source's
  made = evidence.Problem(np.zeros((60, 2)), positive[::-1], np.arange(60), names)
  monkeypatch.setattr(evidence, 'load', lambda *_: made)
  monkeypatch.setattr(view_evidence.experiment, 'load_source', lambda _: source)
  config, training = nearest_neighbor_bc.get_config('smoke'), classifier_folder.get_config('smoke')
  seen = []
  monkeypatch.setattr(
    view_evidence.TrainedFolds,
    '_trained',
    lambda self, train, test: seen.append((train, test)) or self._source.labels[test] * 1.0,
  )
  row = next(iter(evidence_tables.TRAINED))
  found = view_evidence.of_trained_cell(row, 'bottle caps', config, training, tmp_path)
  assert found['metrics']['truth'] == 1  # scored by the labels of the right pictures
  assert found['n'] == len(evidence_tables.TRAINED_SEEDS[row]) == len(seen)
  for train, test in seen:
    assert len(train) == 35
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(60))
