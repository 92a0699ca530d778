"""The page of a cross-validation: what it leads with, and figures that show what they are given."""

import numpy as np
import pytest

from jaxdefect.data.samples import Samples
from jaxdefect.evaluate import cross_validation, ridge_head
from jaxdefect.explain import evidence_figures, evidence_sections, report


@pytest.fixture(scope='module')
def found():
  generator = np.random.default_rng(0)
  positive = np.arange(24) % 2 == 0
  x = generator.normal(size=(24, 5)) + 0.7 * positive[:, None]
  given = Samples(
    tuple(f'{i}' for i in range(24)), positive.astype(int), ('good', 'bent'), np.arange(24)
  )
  score = ridge_head.LeaveOut(x, positive, penalty=1.0)
  result = cross_validation.evaluate(score, given, positive='bent', repeats=3, num_resamples=50)
  result['schemes'] = list(cross_validation.SCHEMES)
  return result


def test_leads_with_the_least_biased(found):
  page = evidence_sections.headline(found)
  assert 'AUROC, bent against the rest, by leave-pair-out' in page
  assert f'{found["metrics"]["auroc/leave_pair_out"]:.3f}' in page
  without = {k: v for k, v in found['metrics'].items() if 'pair' not in k}
  assert 'by k-fold' in evidence_sections.headline({**found, 'metrics': without})


def test_shows_every_scheme_and_the_hold_out(found):
  held = {
    **found,
    'metrics': {**found['metrics'], 'auroc/hold_out': 0.75, 'detection_rate/hold_out': 0.5},
    'intervals': {**found['intervals'], 'detection_rate/hold_out': [0.2, 0.8]},
    'hold_out': {'n': 15, 'positives': 7},
  }
  page = report.html(held, title='Caps')
  for name in ('leave-one-out', 'leave-pair-out', 'k-fold', 'k-fold, pooled'):
    assert f'>{name}<' in page
  assert '15 pictures, 7 of them bent' in page
  assert '50.0 %' in page
  assert '20.0 to 80.0 %' in page
  assert '24 pictures (12 good, 12 bent) in 24 groups' in page


def test_figures_show_what_they_are_given(found):
  axes = evidence_figures.schemes(found).axes[0]
  labels = [label.get_text() for label in axes.get_yticklabels()]
  assert labels == ['leave-one-out', 'leave-pair-out', 'k-fold', 'k-fold, pooled']
  values = np.array([3.0, 1.0, 2.0])
  axes = evidence_figures.scores(values, np.array([True, False, True]), name='bent').axes[0]
  drawn = [sorted(line.get_xdata().tolist()) for line in axes.lines]
  assert drawn == [[2.0, 3.0], [1.0]]
  assert [text.get_text() for text in axes.texts] == ['bent (2)', 'the rest (1)']
