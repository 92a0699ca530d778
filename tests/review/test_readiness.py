"""Ready, not yet, drifted: with the reason, and wrongly approved at most as often as promised."""

import numpy as np
import pytest
import scipy.stats

from jaxdefect.evaluate import confidence_sequence, intervals
from jaxdefect.review import Targets, assess, drift

LINES, PARTS = 1000, 400


def test_reasons_in_words():
  ready = assess(found=88, defects=88, rejected=0, good=250)
  assert ready.verdict == 'ready'
  assert 'At least 95.0 % of defects are found (88 of 88 seeded ones)' in ready.reason
  assert ready.more_defects == ready.more_good == 0
  few = assess(found=15, defects=15, rejected=0, good=250)
  assert few.verdict == 'not yet'
  assert few.reason == (
    '15 of 15 seeded defects were found, which shows at least 74.5 %, and 95 % are asked for: '
    'about 935 more at this rate, 73 if all of them are found.'
  )
  bad = assess(found=50, defects=60, rejected=20, good=250)
  assert (bad.verdict, bad.more_defects, bad.more_good) == ('not yet', None, None)
  assert 'no number of further parts would show it at this rate, find more first' in bad.reason
  assert 'reject fewer first' in bad.reason
  early = assess(found=3, defects=3, rejected=0, good=7)
  assert early.more_good is None
  assert '95 % are asked for: at least 85 more, if all of them are found.' in early.reason
  assert '2 % are allowed: at least 217 more, if none of them is rejected.' in early.reason
  nothing = assess(found=0, defects=0, rejected=0, good=0)
  assert (nothing.verdict, nothing.detection, nothing.false_rejects) == ('not yet', 0, 1)


def test_a_line_that_has_changed_is_not_ready():
  generator = np.random.default_rng(0)
  changed = drift(generator.normal(size=80), generator.normal(size=200) + 2)
  answer = assess(found=200, defects=200, rejected=0, good=500, drift=changed)
  assert answer.verdict == 'drifted'
  assert 'larger than those that calibrated' in answer.reason
  calm = drift(generator.normal(size=80), generator.normal(size=200))
  assert assess(found=200, defects=200, rejected=0, good=500, drift=calm).verdict == 'ready'


def test_says_how_many_more_are_needed():
  for found, defects in ((15, 15), (40, 40), (99, 100)):
    few = assess(found=found, defects=defects, rejected=0, good=10_000)
    rate = (found + 0.5) / (defects + 1)
    more = few.more_defects
    then = confidence_sequence.log_evidence(found + rate * more, defects + more, 0.95)
    before = confidence_sequence.log_evidence(found + rate * (more - 1), defects + more - 1, 0.95)
    assert before < np.log(20) <= then


@pytest.mark.parametrize('side', ['detection', 'false rejects'])
def test_approves_wrongly_at_most_as_often_as_promised(side):
  # Lines just at the edge, looked at after every part: where a fixed interval fails worst.
  targets = Targets(detection_rate=0.9, false_reject_rate=0.1, confidence=0.95)
  edge = np.random.default_rng(1).random((LINES, PARTS)) < 0.9
  good = np.random.default_rng(2).random((LINES, PARTS)) < 0.999
  defects, kept = (edge, good) if side == 'detection' else (good, edge)
  looks = [
    confidence_sequence.first_crossing(one, rate=0.9, confidence=0.95) for one in (defects, kept)
  ]
  approved = (looks[0] > 0) & (looks[1] > 0)
  assert approved.mean() <= intervals.wilson(0.05 * LINES, LINES)[1]
  # The exact bound for one look, looked at every ten parts, approves far more of them.
  looked = np.arange(10, PARTS, 10)
  counts = np.cumsum(edge, axis=1)[:, looked - 1]
  naive = scipy.stats.beta.ppf(0.05, counts, looked - counts + 1) > 0.9
  assert naive.any(axis=1).mean() > 0.1
  # What was simulated is what assess says.
  for line, n in zip(range(40), np.linspace(5, PARTS, 40).astype(int)):
    found, not_rejected = int(defects[line, :n].sum()), int(kept[line, :n].sum())
    answer = assess(found=found, defects=n, rejected=n - not_rejected, good=n, targets=targets)
    shown = [confidence_sequence.log_evidence(k, n, 0.9) for k in (found, not_rejected)]
    assert (answer.verdict == 'ready') == (min(shown) >= -np.log(0.05))


def test_approves_good_lines():
  good = np.random.default_rng(3).random((LINES, PARTS)) < 0.99
  looks = confidence_sequence.first_crossing(good, rate=0.95)
  assert (looks > 0).mean() > 0.95
  assert np.median(looks[looks > 0]) < 200


def test_bad_input():
  with pytest.raises(ValueError, match='found is 16 of 15; it can be 0 to 15'):
    assess(found=16, defects=15, rejected=0, good=1)
  with pytest.raises(ValueError, match=r'targets.detection_rate is 1.0; a number between 0 and 1'):
    assess(found=1, defects=1, rejected=0, good=1, targets=Targets(detection_rate=1.0))
