"""Cross-validation says how good the model trained on all images is, and how sure that is."""

import json

import numpy as np
import pytest

from jaxdefect.data.samples import Samples
from jaxdefect.evaluate import cross_validation, delong, ridge_head

CLASSES = ('good', 'defect')


def samples(positive, groups=None):
  n = len(positive)
  groups = np.arange(n) if groups is None else groups
  return Samples(tuple(f'{i}.png' for i in range(n)), positive.astype(np.int32), CLASSES, groups)


def problem(n=50, *, shift=1.0, features=60, seed=0, share=0.5):
  generator = np.random.default_rng(seed)
  positive = np.arange(n) < round(share * n)
  x = generator.normal(size=(n, features))
  x[:, 0] += shift * np.where(positive, 1, -1)
  return x, positive


def run(x, positive, penalty=30.0, groups=None, **settings):
  score = ridge_head.LeaveOut(x, positive, penalty=penalty)
  given = samples(positive, groups)
  settings = {'repeats': 5, 'num_resamples': 100, **settings}
  return cross_validation.evaluate(score, given, positive='defect', **settings)


def test_report_has_every_scheme_and_is_json():
  x, positive = problem(share=0.3)
  report = run(x, positive)
  names = {f'auroc/{scheme}' for scheme in cross_validation.SCHEMES}
  for part in ('metrics', 'intervals', 'interval_kinds'):
    assert set(report[part]) == names
  for name in names:
    (low, high), (fixed_low, fixed_high) = (
      report[part][name] for part in ('intervals', 'fixed_model_intervals')
    )
    assert 0 <= low < fixed_low < report['metrics'][name] < fixed_high < high <= 1
    assert report['interval_kinds'][name] == 'delong and refits'
  assert report['support'] == {'good': 35, 'defect': 15}
  assert report['n'] == report['groups'] == 50
  assert report['pairs']['leave_one_out'] == report['pairs']['leave_pair_out'] == 15 * 35
  assert report['models'] == {
    **{'leave_one_out': 50, 'leave_pair_out': 15 * 35},
    **{'k_fold': 25, 'k_fold_pooled': 25},
  }
  assert report['training_sd'] > 0
  json.dumps(report, allow_nan=False)


def test_leave_one_out_of_a_fixed_model_is_its_auroc():
  scores, positive = np.random.default_rng(0).normal(size=30), np.arange(30) % 2 == 0
  report = cross_validation.evaluate(
    cross_validation.one_by_one(lambda train, test: scores[test]),
    samples(positive),
    positive='defect',
    k=3,
    repeats=2,
    num_resamples=50,
  )
  expected = delong.auroc(scores, positive)
  for scheme in ('leave_one_out', 'leave_pair_out', 'k_fold_pooled'):
    assert report['metrics'][f'auroc/{scheme}'] == pytest.approx(expected.value)
    # Nothing depends on the training images, so nothing is added to DeLong's variance.
    assert report['intervals'][f'auroc/{scheme}'] == pytest.approx([expected.low, expected.high])
  assert report['training_sd'] == 0


def test_one_by_one_equals_the_closed_form():
  x, positive = problem(20)

  def fit_and_score(train, test):
    return ridge_head.scores(ridge_head.fit(x[train], positive[train], penalty=30.0), x[test])

  report = cross_validation.evaluate(
    cross_validation.one_by_one(fit_and_score),
    samples(positive),
    positive='defect',
    repeats=5,
    num_resamples=100,
  )
  fast = run(x, positive)
  assert report['metrics'] == pytest.approx(fast['metrics'], abs=1e-9)
  assert report['training_sd'] == pytest.approx(fast['training_sd'])


def test_pooled_leave_one_out_is_biased_low_and_leave_pair_out_is_not():
  """Where there is nothing to learn the figure is a half, but the pooled one says less."""
  pooled, pairs, folds = [], [], []
  for seed in range(40):
    report = run(*problem(24, shift=0.0, seed=seed), 600.0, training='assumed', repeats=1)
    pooled.append(report['metrics']['auroc/leave_one_out'])
    pairs.append(report['metrics']['auroc/leave_pair_out'])
    folds.append(report['metrics']['auroc/k_fold'])
  assert np.mean(pooled) < 0.2
  assert abs(np.mean(pairs) - 0.5) < 3 * np.std(pairs) / np.sqrt(40)
  assert abs(np.mean(folds) - 0.5) < 3 * np.std(folds) / np.sqrt(40)


def test_the_interval_holds_the_auroc_of_the_very_model():
  generator = np.random.default_rng(5)
  held, fixed = [], []
  for seed in range(40):
    x, positive = problem(30, shift=0.6, seed=100 + seed)
    report = run(x, positive, schemes=('leave_pair_out',))
    weights = ridge_head.fit(x, positive, penalty=30.0).weights
    # The scores of the two kinds differ by 1.2 w_0 and spread by |w|.
    scores = 0.6 * weights[0] * np.array([1, -1])[:, None]
    scores = scores + np.linalg.norm(weights) * generator.normal(size=(2, 4000))
    truth = delong.auroc(scores.ravel(), np.arange(8000) < 4000).value
    for found, part in ((held, 'intervals'), (fixed, 'fixed_model_intervals')):
      low, high = report[part]['auroc/leave_pair_out']
      found.append(low <= truth <= high)
  assert np.mean(held) >= 0.9
  assert np.mean(fixed) < np.mean(held)


def test_copies_on_both_sides_flatter_and_groups_do_not():
  x, positive = problem(24, shift=0.0)
  again = np.repeat(np.arange(24), 2)
  torn = run(x[again], positive[again], schemes=('leave_pair_out',))
  whole = run(x[again], positive[again], groups=again, schemes=('leave_pair_out',))
  assert torn['metrics']['auroc/leave_pair_out'] > 0.95
  assert whole['metrics']['auroc/leave_pair_out'] < 0.7
  assert (whole['n'], whole['groups']) == (48, 24)


def test_stability_is_what_the_split_and_one_image_do():
  report = run(*problem(), repeats=10)
  stability = report['stability']
  assert stability['leave_one_out']['split_sd'] == stability['leave_pair_out']['split_sd'] == 0
  spread = np.std(report['per_repeat']['auroc/k_fold'], ddof=1)
  assert spread > 0
  assert stability['k_fold']['split_sd'] == pytest.approx(spread)
  assert 0 < stability['leave_one_out']['largest_step'] <= 1 / 25


def test_a_draw_of_the_pairs_says_how_much_it_matters():
  settings = {'training': 'assumed', 'schemes': ('leave_pair_out',)}
  reports = [run(*problem(), pair_limit=100, seed=seed, **settings) for seed in range(30)]
  assert reports[0]['models'] == reports[0]['pairs'] == {'leave_pair_out': 100}
  assert reports[0]['interval_kinds'] == {'auroc/leave_pair_out': 'delong, doubled'}
  values = [report['metrics']['auroc/leave_pair_out'] for report in reports]
  said = np.mean([report['stability']['leave_pair_out']['split_sd'] for report in reports])
  assert 0.7 < said / np.std(values) < 1.4


def test_where_no_pair_is_lost_the_interval_is_the_guaranteed_one():
  report = run(*problem(shift=20.0), schemes=('leave_one_out',))
  assert report['metrics'] == {'auroc/leave_one_out': 1.0}
  assert report['intervals']['auroc/leave_one_out'] == pytest.approx([0.025 ** (1 / 25), 1.0])
  assert report['interval_kinds']['auroc/leave_one_out'] == 'guaranteed'


@pytest.mark.parametrize(
  ('settings', 'said'),
  [
    ({'schemes': ('leave_some_out',)}, "schemes has 'leave_some_out'; there are leave_one_out"),
    ({'training': 'guessed'}, "training has 'guessed'; there are measured, assumed"),
    ({'pair_limit': 9}, "training='measured' needs the models of all"),
    ({'k': 30}, "Class 'good' has 25 images, but 30 folds needs 30"),
  ],
)
def test_bad_input_is_a_sentence(settings, said):
  with pytest.raises(ValueError, match=said):
    run(*problem(), **settings)
