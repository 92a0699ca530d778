"""The promised false-alarm rate is kept, can be changed, and is refused where it cannot be kept."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect.contracts import AnomalyMaps, Fitted, Method, References
from jaxdefect.evaluate import cross_calibration, thresholds

CLASSES = ('good', 'defect')


@pytest.mark.parametrize(('n', 'rate'), [(30, 0.05), (99, 0.05), (47, 0.1), (9, 0.37)])
def test_mean_false_alarm_rate_over_1000_calibrations(n, rate):
  """The rate of one calibration is Beta distributed about floor((n + 1) a) / (n + 1)."""
  generator = np.random.default_rng([0, n])
  rates = []
  for _ in range(1000):
    scores = generator.standard_normal(n)
    threshold = thresholds.conformal_threshold(scores, false_alarm_rate=rate)
    rates.append(0.5 * math.erfc(threshold / math.sqrt(2)))  # exact, of all further good parts
  expected = math.floor((n + 1) * rate) / (n + 1)
  assert abs(np.mean(rates) - expected) < 2 * np.std(rates, ddof=1) / math.sqrt(1000)


def test_threshold_by_hand():
  scores = np.array([5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 8.0, 7.0, 6.0])  # k = ceil(10 (1 - a))
  for rate, threshold in ((0.1, 9), (0.19, 9), (0.2, 8), (0.3, 7), (0.9, 1)):
    assert thresholds.conformal_threshold(scores, false_alarm_rate=rate) == threshold
  assert thresholds.conformal_threshold(np.ones(19), false_alarm_rate=0.05) == 1  # none is above


def test_p_values_say_what_the_threshold_says():
  generator = np.random.default_rng(0)
  calibration, scores = generator.integers(0, 30, 60) / 7, generator.integers(0, 35, 500) / 7
  values = thresholds.p_values(scores, calibration)
  brute = [(1 + sum(c >= s for c in calibration)) / 61 for s in scores]
  np.testing.assert_array_equal(values, brute)
  for rate in (0.02, 0.05, 0.1, 0.5):
    threshold = thresholds.conformal_threshold(calibration, false_alarm_rate=rate)
    np.testing.assert_array_equal(scores > threshold, values <= rate)


def test_rejects_what_cannot_be_promised():
  with pytest.raises(ValueError, match=r'0\.05 needs 19 good parts .* but there are 18'):
    thresholds.conformal_threshold(np.arange(18.0), false_alarm_rate=0.05)
  with pytest.raises(ValueError, match=r'0\.3 needs 3 good parts'):
    thresholds.conformal_threshold(np.arange(2.0), false_alarm_rate=0.3)
  for rate in (0.0, 1.0):
    with pytest.raises(ValueError, match='between 0 and 1'):
      thresholds.conformal_threshold(np.arange(99.0), false_alarm_rate=rate)
  with pytest.raises(ValueError, match='1 of the 20 scores'):
    thresholds.conformal_threshold(np.r_[np.arange(19.0), np.nan], false_alarm_rate=0.05)


def predict(fitted, batch):
  """Distance of the mean gray level from that of the good parts; maps of single pixels."""
  gray = batch['image'].astype(jnp.float32).mean(axis=3)
  maps = jnp.abs(gray - fitted.memory['mean'])
  return AnomalyMaps(maps.max(axis=(1, 2)), maps)


def adapt(key, fitted, references):
  del key
  rows = [
    batch['image'][row].mean()
    for batch in references.batches
    for row in np.flatnonzero(batch['valid'])
  ]
  memory = {'mean': jnp.float32(np.mean(rows)), 'count': jnp.int32(len(rows))}
  return fitted.replace(memory=memory)


def refuse(*_, **__):
  raise AssertionError


METHOD = Method(init=refuse, prepare=refuse, step=refuse, adapt=adapt, predict=predict)


def batches(values, *, size=4, label=0):
  """One flat picture per gray level, in batches of ``size`` with padding."""
  found = []
  for start in range(0, len(values), size):
    here = np.asarray(values[start : start + size])
    image = np.full((size, 3, 3, 3), 77, np.uint8)
    image[: len(here)] = here[:, None, None, None]
    index = np.where(np.arange(size) < len(here), start + np.arange(size), -1)
    found.append(
      {
        'image': image,
        'label': np.full(size, label, np.int32),
        'valid': index >= 0,
        'index': index.astype(np.int32),
      }
    )
  return found


def fitted(mean=100.0):
  return Fitted(params={}, model_state={}, memory={'mean': jnp.float32(mean)}, classes=CLASSES)


def test_calibrate_by_hand():
  found = thresholds.calibrate(
    predict, fitted(), batches([101, 103, 102, 110, 100]), false_alarm_rate=0.4
  )
  stored = found.calibration
  np.testing.assert_allclose(stored['scores'], [0, 1, 2, 3, 10], atol=1e-5)
  assert float(stored['threshold']) == stored['scores'][3]  # k = 6 - floor(2.4) = 4
  assert float(stored['map_floor']) == pytest.approx(2, abs=1e-5)
  high = np.quantile([0, 1, 2, 3, 10], 0.95)
  assert float(stored['map_ceiling']) == pytest.approx(2 + thresholds.SCALE * (high - 2))
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(stored))


def test_padding_is_invisible():
  values = [101, 103, 102, 110, 100, 90, 95]
  one = thresholds.calibrate(predict, fitted(), batches(values, size=7), false_alarm_rate=0.25)
  two = thresholds.calibrate(predict, fitted(), batches(values, size=4), false_alarm_rate=0.25)
  jax.tree.map(np.testing.assert_array_equal, one.calibration, two.calibration)


def test_one_picture_of_each_part_calibrates():
  values, groups = [101, 101, 101, 103, 110, 110], np.array([0, 0, 0, 1, 2, 2])
  found = thresholds.calibrate(
    predict, fitted(), batches(values), false_alarm_rate=0.3, groups=groups
  )
  np.testing.assert_allclose(found.calibration['scores'], [1, 3, 10], atol=1e-5)
  with pytest.raises(ValueError, match=r'0\.2 needs 4 good parts .* but there are 3'):
    thresholds.calibrate(predict, fitted(), batches(values), false_alarm_rate=0.2, groups=groups)


def test_pictures_of_new_parts_alarm_as_promised():
  """Parts with very different numbers of pictures, all alike in what they score."""
  generator = np.random.default_rng(4)
  sizes = np.array([1] * 30 + [30])  # as one tile photographed on and on
  groups = np.repeat(np.arange(31), sizes)  # 60 pictures
  rates = {'one of each': [], 'all': []}
  for _ in range(1000):
    scores = (3 * generator.standard_normal(31))[groups] + generator.standard_normal(60)
    for name, own in (('one of each', thresholds.one_of_each(groups)), ('all', np.arange(60))):
      threshold = thresholds.conformal_threshold(scores[own], false_alarm_rate=0.1)
      rates[name].append(0.5 * math.erfc(threshold / math.sqrt(20)))
  expected = math.floor(32 * 0.1) / 32
  found = np.array(rates['one of each'])
  assert abs(found.mean() - expected) < 2 * found.std(ddof=1) / math.sqrt(1000)
  assert np.mean(rates['all']) > 1.5 * expected  # the one tile speaks for thirty


def test_rate_changes_without_pictures():
  found = thresholds.calibrate(
    predict, fitted(), batches(list(range(100, 140))), false_alarm_rate=0.05
  )
  changed = thresholds.with_false_alarm_rate(found, 0.2)
  again = thresholds.calibrate(
    predict, fitted(), batches(list(range(100, 140))), false_alarm_rate=0.2
  )
  jax.tree.map(np.testing.assert_array_equal, changed.calibration, again.calibration)
  assert float(changed.calibration['threshold']) < float(found.calibration['threshold'])
  with pytest.raises(ValueError, match='needs 99 good parts'):
    thresholds.with_false_alarm_rate(found, 0.01)
  with pytest.raises(ValueError, match='no scores of held-out good parts'):
    thresholds.with_false_alarm_rate(fitted(), 0.1)


def test_rejects_defects_among_what_calibrates():
  with pytest.raises(ValueError, match="a picture of 'defect' is among"):
    thresholds.calibrate(predict, fitted(), batches([100] * 9, label=1), false_alarm_rate=0.2)


def test_leave_one_out_scores_each_part_without_itself():
  values = np.array([90.0, 100, 110, 104, 96])
  known = References(('good',), batches(values))
  start = Fitted(params={}, model_state={}, classes=CLASSES)
  found = cross_calibration.calibrate(
    METHOD, jax.random.key(0), start, fitted(), known, false_alarm_rate=0.3
  )
  expected = [abs(v - np.delete(values, i).mean()) for i, v in enumerate(values)]
  np.testing.assert_allclose(found.calibration['scores'], np.sort(expected), atol=1e-4)
  assert float(found.memory['mean']) == 100  # the fit to all of them


def test_groups_stay_in_one_fold():
  values = np.array([90.0, 90, 110, 104, 96, 97])
  groups = np.array([7, 7, 1, 2, 3, 4])
  known = References(('good',), batches(values))
  start = Fitted(params={}, model_state={}, classes=CLASSES)
  found = cross_calibration.calibrate(
    METHOD, jax.random.key(0), start, fitted(), known, false_alarm_rate=0.3, groups=groups
  )
  expected = [abs(v - values[groups != g].mean()) for v, g in zip(values, groups)][1:]  # 7 once
  np.testing.assert_allclose(found.calibration['scores'], np.sort(expected), atol=1e-4)
  folds = cross_calibration._folds(groups, 2)
  assert folds[0] == folds[1]
  assert sorted(np.bincount(folds)) == [3, 3]


def test_cross_calibration_rejects_trained_methods_and_single_groups():
  known = References(('good',), batches([90, 100, 110]))
  settings = {'method': METHOD, 'key': jax.random.key(0), 'start': fitted(), 'fitted': fitted()}
  with pytest.raises(ValueError, match='trained on for 40 steps'):
    cross_calibration.calibrate(**settings, references=known, false_alarm_rate=0.5, steps=40)
  with pytest.raises(ValueError, match='make 1 groups of near-copies'):
    cross_calibration.calibrate(
      **settings, references=known, false_alarm_rate=0.5, groups=np.zeros(3, int)
    )
