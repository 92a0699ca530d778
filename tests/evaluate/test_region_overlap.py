"""PRO and the AUROC of pixels, by hand and against a loop over thresholds."""

import numpy as np
import pytest
import scipy.ndimage
from sklearn.metrics import roc_auc_score

from jaxdefect.evaluate import region_overlap


def brute_force(pairs, limit):
  """The curve at every threshold, by counting."""
  values = np.unique(np.concatenate([heat.ravel() for heat, _ in pairs]))[::-1]
  xs, ys = [0.0], [0.0]
  normal = sum(int((mask == 0).sum()) for _, mask in pairs)
  for threshold in values:
    false = sum(int(((heat >= threshold) & (mask == 0)).sum()) for heat, mask in pairs)
    overlaps = []
    for heat, mask in pairs:
      labels, count = scipy.ndimage.label(mask, structure=np.ones((3, 3)))
      overlaps += [(heat >= threshold)[labels == k].mean() for k in range(1, count + 1)]
    xs.append(false / normal)
    ys.append(np.mean(overlaps))
  grid = np.linspace(0, limit, 200_001)
  return np.trapezoid(np.interp(grid, xs, ys), grid) / limit


def made(seed, images=6, size=(17, 23)):
  generator = np.random.default_rng(seed)
  pairs = []
  for i in range(images):
    mask = np.zeros(size, np.uint8)
    for _ in range(i % 3):  # every third image is good
      y, x = generator.integers(0, 12, 2)
      mask[y : y + generator.integers(1, 5), x : x + generator.integers(1, 9)] = 1
    heat = generator.normal(0, 1, size) + 0.8 * mask
    pairs.append((np.round(heat, 1).astype(np.float32), mask))
  return pairs


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('limit', [0.3, 1.0])
def test_matches_a_loop_over_thresholds(seed, limit):
  pairs = made(seed)
  report = region_overlap.evaluate(iter(pairs), max_false_positive_rate=limit)
  assert report['metrics']['pro'] == pytest.approx(brute_force(pairs, limit), abs=1e-4)
  heat = np.concatenate([heat.ravel() for heat, _ in pairs])
  mask = np.concatenate([mask.ravel() for _, mask in pairs])
  assert report['metrics']['pixel_auroc'] == pytest.approx(roc_auc_score(mask, heat), abs=1e-9)
  assert report['images'] == 6


def test_value_by_hand():
  """Two regions, of four pixels and of one; the large one is found first."""
  mask = np.zeros((4, 5))
  mask[0, :4] = 1
  mask[3, 4] = 1
  heat = np.zeros((4, 5))
  heat[0, :4] = 3
  heat[1] = 2  # 5 of the 15 good pixels come before the small region
  heat[3, 4] = 1
  report = region_overlap.evaluate([(heat, mask)])
  assert report['regions'] == 2
  # From f = 0 to 1/3 the overlap is one half, so up to 0.3 it is as well.
  assert report['metrics']['pro'] == pytest.approx(0.5)
  whole = region_overlap.evaluate([(heat, mask)], max_false_positive_rate=1.0)
  assert whole['metrics']['pro'] == pytest.approx(1 / 3 * 0.5 + 2 / 3 * 1.0)
  # Pairs of a defective and a good pixel: 4 x 15 and 10 are in order, of 75.
  assert report['metrics']['pixel_auroc'] == pytest.approx(70 / 75)


def test_corners_connect_and_negative_scores_are_in_order():
  mask = np.eye(3)
  heat = np.where(mask > 0, -1.0, -2.0)
  report = region_overlap.evaluate([(heat, mask)])
  assert report['regions'] == 1
  assert report['metrics'] == {'pixel_auroc': 1.0, 'pro': 1.0}
  worst = region_overlap.evaluate([(-heat, mask)])
  assert worst['metrics'] == {'pixel_auroc': 0.0, 'pro': 0.0}


def test_without_a_defect_there_is_no_figure():
  assert region_overlap.evaluate([(np.ones((2, 2)), np.zeros((2, 2)))])['metrics'] == {}
  assert region_overlap.evaluate([])['metrics'] == {}


def test_rejects_maps_that_do_not_fit():
  with pytest.raises(ValueError, match=r'a map has \(2, 3\) pixels, its mask \(3, 3\)'):
    region_overlap.evaluate([(np.ones((2, 3)), np.ones((3, 3)))])
  with pytest.raises(ValueError, match='not finite'):
    region_overlap.evaluate([(np.full((2, 2), np.nan), np.ones((2, 2)))])
  with pytest.raises(ValueError, match='at most 1 is needed'):
    region_overlap.evaluate([], max_false_positive_rate=0)
