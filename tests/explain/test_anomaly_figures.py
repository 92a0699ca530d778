"""Pictures of an anomaly method: one colour scale for all of them, and what the page says."""

import numpy as np
import pytest

from jaxdefect.explain import anomaly_figures, anomaly_sections, report

REPORT = {
  'metrics': {
    **{'auroc': 0.951, 'average_precision': 0.94, 'false_alarm_rate': 0.04, 'miss_rate': 0.25},
    **{'recall': 0.75, 'recall/hole': 0.5, 'recall/stain': 1.0, 'f1': 0.83},
    **{'flagged/grey': 0.3, 'auroc/grey': 0.6},
  },
  'intervals': {'false_alarm_rate': [0.02, 0.08]},
  'n': 40,
  'classes': ['good', 'grey', 'defect'],
  'support': {'good': 25, 'grey': 10, 'defect': 8},
  'kinds': {'hole': 4, 'stain': 4},
  'threshold': 1.25,
  'nominal_false_alarm_rate': 0.05,
  'likely_false_alarm_rate': [0.017, 0.1],
  'pixels': {'metrics': {'pixel_auroc': 0.9, 'pro': 0.8}, 'images': 8, 'regions': 11},
  'ms_per_image': 12.5,
}


def test_what_a_good_part_reaches_has_no_colour():
  image = np.full((6, 8), 90, np.uint8)
  heat = np.full((6, 8), 2.0)
  heat[0, 0], heat[5, 7] = 1.0, 8.0
  drawn = anomaly_figures.overlay(image, heat, floor=2.0, ceiling=5.0)
  assert (drawn.reshape(-1, 3)[:-1] == 90).all()  # at the floor and below it
  assert (drawn[5, 7] != 90).any()
  clipped = anomaly_figures.overlay(image, np.minimum(heat, 5.0), floor=2.0, ceiling=5.0)
  np.testing.assert_array_equal(drawn, clipped)  # the scale is absolute
  with pytest.raises(ValueError, match='map_ceiling is 2; it must lie above map_floor, 2'):
    anomaly_figures.overlay(image, heat, floor=2.0, ceiling=2.0)


def test_histogram_holds_every_score():
  groups = {'good': np.array([0.0, 1.0, 2.0]), 'defect': np.array([3.0, 1e9])}
  figure = anomaly_figures.score_histogram(groups, threshold=2.5)
  axes = figure.axes[0]
  sums = [patch.get_data().values.sum() for patch in axes.patches]
  np.testing.assert_allclose(sums, 100)
  assert axes.lines[0].get_xdata()[0] == 2.5


def test_roc_curve_passes_through_the_threshold():
  scores, positive = np.array([0.0, 1.0, 2.0, 3.0]), np.array([False, True, False, True])
  figure = anomaly_figures.roc_curve(scores, positive, threshold=1.5, auroc=0.75)
  curve, _, point = figure.axes[0].lines
  np.testing.assert_allclose(curve.get_xydata(), [(0, 0), (0, 50), (50, 50), (50, 100), (100, 100)])
  assert point.get_xydata().tolist() == [[50, 50]]


def test_groups_are_drawn_from_good_to_defective():
  names = anomaly_figures.order_of_groups(('defect', 'grey', 'good'))
  assert names == ['good', 'grey', 'defect']


def test_page_says_what_the_threshold_does():
  image = np.zeros((4, 4, 3), np.uint8)
  drawn = anomaly_figures.DrawnMap(image, image, 'score <2>', 'threshold 1.25', 'a.png')
  galleries = [anomaly_sections.Gallery('Worst misses', 'First.', [drawn])]
  page = report.html(REPORT, title='x', galleries=galleries, map_scale=(1.0, 2.0))
  for text in (
    *('False alarms among good parts', '4.0 %', '5 % asked for'),
    *(
      'leave 1.7 to 10.0 % possible',
      'defect: hole',
      '>grey<',
      '11 marked',
      '12.5 ms',
    ),
    *('Worst misses', 'score &lt;2&gt;', 'one absolute colour scale'),
  ):
    assert text in page, text
  assert 'Worst misses' not in report.html(REPORT, title='x')


def test_page_without_defects_has_the_false_alarms_first():
  metrics = {'false_alarm_rate': 0.04}
  page = report.html({**REPORT, 'metrics': metrics, 'pixels': None}, title='x')
  assert 'class="card first">False alarms' in page
  assert 'AUROC of pixels' not in page
