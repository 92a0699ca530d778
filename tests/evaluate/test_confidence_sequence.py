"""Evidence about a rate that holds at all looks together."""

import math

import numpy as np
import pytest
import scipy.integrate

from jaxdefect.evaluate import confidence_sequence as sequence


def test_value_by_integration():
  for k, n, rate in ((3, 5, 0.4), (48, 50, 0.9), (0, 7, 0.1), (7, 7, 0.5)):
    ratio, _ = scipy.integrate.quad(
      lambda q, k=k, n=n, rate=rate: (q / rate) ** k * ((1 - q) / (1 - rate)) ** (n - k), rate, 1
    )
    expected = ratio / (1 - rate)
    assert math.exp(sequence.log_evidence(k, n, rate)) == pytest.approx(expected, rel=1e-6)


def test_is_a_fair_bet_at_the_edge_and_worse_below():
  # The expectation of the next evidence, given what was seen, is the evidence: by enumeration.
  for rate, true in ((0.8, 0.8), (0.8, 0.7)):
    for k, n in ((0, 0), (3, 4), (10, 12)):
      now = math.exp(sequence.log_evidence(k, n, rate))
      won = math.exp(sequence.log_evidence(k + 1, n + 1, rate))
      lost = math.exp(sequence.log_evidence(k, n + 1, rate))
      expected = true * won + (1 - true) * lost
      assert expected == pytest.approx(now) if true == rate else expected < now


def test_bounds_exclude_what_the_evidence_excludes():
  for k, n in ((5, 5), (40, 50), (1, 30), (0, 4)):
    low = sequence.lower_bound(k, n)
    if k:
      assert sequence.log_evidence(k, n, low) == pytest.approx(math.log(20), abs=1e-6)
      rates = np.linspace(low / 50, low * (1 - 1e-6), 50)
      assert all(sequence.log_evidence(k, n, rate) > math.log(20) for rate in rates)
    else:
      assert low == 0
    assert sequence.upper_bound(n - k, n) == pytest.approx(1 - low)
  assert sequence.lower_bound(0, 0) == 0
  assert sequence.upper_bound(0, 0) == 1


def test_holds_at_all_looks_together():
  outcomes = np.random.default_rng(0).random((2000, 500)) < 0.7
  looks = sequence.first_crossing(outcomes, rate=0.7, confidence=0.9)
  assert (looks > 0).mean() <= 0.1
  assert (looks > 0).mean() > 0.02  # not idle either
  line = int(np.flatnonzero(looks > 0)[0])
  n = int(looks[line])
  k = int(outcomes[line, :n].sum())
  assert sequence.log_evidence(k, n, 0.7) >= math.log(10)
  assert sequence.log_evidence(k - outcomes[line, n - 1], n - 1, 0.7) < math.log(10)


def test_trials_needed():
  assert sequence.trials_needed(90, 90, rate=0.95) == 0
  assert sequence.trials_needed(50, 60, rate=0.95) is None
  assert sequence.trials_needed(50, 60, rate=0.8, limit=10) is None
  more = sequence.trials_needed(20, 20, rate=0.95, expected=1.0)
  assert sequence.lower_bound(20 + more, 20 + more) >= 0.95
  assert sequence.lower_bound(19 + more, 19 + more) < 0.95


def test_bad_input():
  with pytest.raises(ValueError, match='successes is 3 of 2 trials'):
    sequence.log_evidence(3, 2, 0.5)
  with pytest.raises(ValueError, match='rate is 1; a number between 0 and 1'):
    sequence.log_evidence(1, 2, 1)
  with pytest.raises(ValueError, match='confidence is 0; a number between 0 and 1'):
    sequence.lower_bound(1, 2, confidence=0)
