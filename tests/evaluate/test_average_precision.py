"""Average precision by hand, against pycocotools, and in every corner."""

import json

import numpy as np
import pytest

from jaxdefect.contracts import Detections
from jaxdefect.evaluate import (
  average_precision,
  classification,
  coco_matches,
  intervals,
  weighted_precision,
)

CLASSES = ('a', 'b', 'c')


def _detections(rows, depth: int | None = None) -> Detections:
  """Rows of (box, score, label) lists per image; padding is filled with nonsense."""
  depth = max(map(len, rows), default=0) if depth is None else depth
  boxes = np.full((len(rows), depth, 4), np.nan, np.float32)
  scores = np.full((len(rows), depth), np.nan, np.float32)
  labels = np.full((len(rows), depth), -7, np.int32)
  valid = np.zeros((len(rows), depth), bool)
  for i, row in enumerate(rows):
    for j, (box, score, label) in enumerate(sorted(row, key=lambda one: -one[1])):
      boxes[i, j], scores[i, j], labels[i, j], valid[i, j] = box, score, label, True
  return Detections(boxes, scores, labels, valid)


def _truth(rows, depth: int | None = None, scale: float = 1.0) -> dict:
  """Rows of (box, label) lists per image."""
  depth = max(map(len, rows), default=0) if depth is None else depth
  boxes = np.full((len(rows), depth, 4), np.nan, np.float32)
  label = np.full((len(rows), depth), 99, np.int32)
  valid = np.zeros((len(rows), depth), bool)
  for i, row in enumerate(rows):
    for j, (box, k) in enumerate(row):
      boxes[i, j], label[i, j], valid[i, j] = box, k, True
  scales = np.full(len(rows), scale, np.float32)
  return {'boxes': boxes, 'box_label': label, 'box_valid': valid, 'scale': scales}


def _random(seed: int = 0, n: int = 25) -> tuple[Detections, dict]:
  """Boxes near the truth and boxes anywhere; scores tie between images, not inside one."""
  generator = np.random.default_rng(seed)
  found, true = [], []
  for _ in range(n):
    corner = generator.uniform(0, 150, (12, 2))
    edges = np.concatenate([corner, corner + generator.uniform(20, 60, corner.shape)], axis=1)
    labels, scores = generator.integers(3, size=12), generator.permutation(20) / 20
    count = generator.integers(5)
    true.append(list(zip(edges[:count], labels)))
    near = edges[:count] + generator.normal(size=(count, 4)) * 3
    kept = generator.random(count) < 0.8
    row = list(zip(near[kept], 0.05 + 0.9 * scores[:count][kept], labels[:count][kept]))
    others = slice(count, count + generator.integers(8))
    row += list(zip(edges[others], 0.6 * scores[others], labels[others]))
    found.append(row)
  return _detections(found), _truth(true)


BOX, SHIFTED, FAR = (0, 0, 100, 100), (0, 0, 100, 80), (200, 200, 300, 300)


def test_value_by_hand():
  # Two true boxes. By falling score: hit (IoU 1), miss, hit (IoU 0.8).
  found = _detections([[(BOX, 0.9, 0), (FAR, 0.8, 0)], [(SHIFTED, 0.7, 0)]])
  true = _truth([[(BOX, 0)], [(BOX, 0)]])
  report = average_precision.evaluate(found, true, ('a',), num_resamples=20)
  # Precision 1 up to recall 0.5 (51 levels), then 2/3 (50 levels); IoU 0.8 reaches .50 to .80.
  ap50 = (51 + 50 * 2 / 3) / 101
  assert report['metrics']['map50'] == pytest.approx(ap50)
  assert report['metrics']['map75'] == pytest.approx(ap50)
  assert report['metrics']['map'] == pytest.approx((7 * ap50 + 3 * 51 / 101) / 10)
  assert report['metrics']['ap/a'] == report['metrics']['map']
  assert report['metrics']['average_recall_100'] == pytest.approx((7 * 1 + 3 * 0.5) / 10)
  # 0.1 and 0.5 allow 0 and 1 false positives among two images.
  assert report['metrics']['recall_at_0.1_fp'] == 0.5
  assert report['metrics']['recall_at_0.5_fp'] == 1.0
  assert report['metrics']['recall_at_1_fp'] == 1.0
  assert report['support'] == {'a': 2}
  assert report['n'] == 2
  curve = report['precision_recall']
  assert curve['precision']['a'][50] == pytest.approx(1.0)
  assert curve['precision']['a'][51] == pytest.approx(2 / 3)
  assert curve['score']['a'][50] == pytest.approx(0.9)
  assert curve['score']['a'][100] == pytest.approx(0.7)


def test_a_tie_is_accepted_or_refused_as_a_whole():
  found = _detections([[(BOX, 0.5, 0), (FAR, 0.5, 0)]])
  report = average_precision.evaluate(found, _truth([[(BOX, 0)]]), ('a',))
  assert report['metrics']['recall_at_0.5_fp'] == 0.0
  assert report['metrics']['recall_at_1_fp'] == 1.0


def test_boxes_are_compared_in_original_pixels():
  # IoU does not see a common scale, but each image has its own; sizes go to COCO undivided.
  found, true = _random()
  scale = np.linspace(0.5, 3.0, len(found.boxes)).astype(np.float32)
  larger = found._replace(boxes=found.boxes * scale[:, None, None])
  scaled = {**true, 'boxes': true['boxes'] * scale[:, None, None], 'scale': scale}
  boxes = coco_matches.in_original_pixels(larger, scaled, CLASSES)
  np.testing.assert_allclose(
    boxes.true[boxes.true_kept], true['boxes'][true['box_valid']], rtol=1e-6
  )
  np.testing.assert_allclose(boxes.found[boxes.kept], found.boxes[found.valid], rtol=1e-5)


def test_unit_weights_match_coco():
  found, true = _random(n=60)
  found = found._replace(scores=np.round(found.scores, 1))  # ties, inside an image too
  coco = coco_matches.match(coco_matches.in_original_pixels(found, true, CLASSES), 3)
  official, ranked = coco_matches.accumulate(coco), coco_matches.rank(coco)
  precision, recall = weighted_precision.average_precisions(ranked, np.ones((1, 60), int))
  np.testing.assert_allclose(precision[0], official['precision'].mean(axis=1), atol=1e-12)
  np.testing.assert_allclose(recall[0], official['recall'], atol=1e-12)
  assert 0.2 < precision[0, 0].min() < precision[0, 0].max() < 0.99


def test_weights_match_coco_on_repeated_images():
  found, true = _random(n=30)
  coco = coco_matches.match(coco_matches.in_original_pixels(found, true, CLASSES), 3)
  ranked = coco_matches.rank(coco)
  drawn = np.random.default_rng(3).multinomial(30, np.full(30, 1 / 30), size=6)
  precision, recall = weighted_precision.average_precisions(ranked, drawn)
  shares = weighted_precision.recall_at(ranked, drawn, (0.1, 0.5, 1.0))
  for i, weights in enumerate(drawn):
    rows = np.repeat(np.arange(30), weights)
    again = Detections(*(part[rows] for part in found))
    repeated = {key: value[rows] for key, value in true.items()}
    other = coco_matches.match(coco_matches.in_original_pixels(again, repeated, CLASSES), 3)
    official = coco_matches.accumulate(other)
    np.testing.assert_allclose(precision[i], official['precision'].mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(recall[i], official['recall'], atol=1e-12)
    exact = average_precision.evaluate(again, repeated, CLASSES, num_resamples=0)['metrics']
    names = [f'recall_at_{rate}_fp' for rate in ('0.1', '0.5', '1')]
    np.testing.assert_allclose(shares[i], [exact[name] for name in names], atol=1e-12)


def test_blocks_of_resamples_do_not_show(monkeypatch):
  found, true = _random()
  whole = average_precision.evaluate(found, true, CLASSES, num_resamples=50)
  monkeypatch.setattr(weighted_precision, '_BLOCK_ELEMENTS', 150)
  assert average_precision.evaluate(found, true, CLASSES, num_resamples=50) == whole


def test_intervals_hold_their_metrics_and_repeat():
  found, true = _random(n=40)
  report = average_precision.evaluate(found, true, CLASSES, num_resamples=200)
  assert set(report['intervals']) == set(report['metrics']) == set(report['interval_kinds'])
  for name, (low, high) in report['intervals'].items():
    assert 0 <= low <= report['metrics'][name] <= high <= 1, name
    assert low < high, name
  assert report == average_precision.evaluate(found, true, CLASSES, num_resamples=200)
  wide, narrow = (
    average_precision.evaluate(found, true, CLASSES, confidence=c)['intervals']['map']
    for c in (0.95, 0.5)
  )
  assert narrow[1] - narrow[0] < wide[1] - wide[0]


def test_interval_is_the_reflected_quantiles_of_resamples():
  found, true = _random(n=40)
  report = average_precision.evaluate(found, true, CLASSES, num_resamples=300, seed=4)
  coco = coco_matches.match(coco_matches.in_original_pixels(found, true, CLASSES), 3)
  weights = np.random.default_rng(4).multinomial(40, np.full(40, 1 / 40), size=300)
  precision, _ = weighted_precision.average_precisions(coco_matches.rank(coco), weights)
  values, exact = precision[:, 0].mean(axis=1), report['metrics']['map50']
  low, high = intervals.percentile_interval(values)
  assert report['intervals']['map50'] == pytest.approx([2 * exact - high, 2 * exact - low])


def test_padding_is_invisible():
  found, true = _random(n=12)
  rows = [
    [
      (found.boxes[i, j], found.scores[i, j], found.labels[i, j])
      for j in range(20)
      if j < found.valid.shape[1] and found.valid[i, j]
    ]
    for i in range(12)
  ]
  padded = _detections(rows, depth=30)
  more = _truth(
    [
      [
        (true['boxes'][i, j], true['box_label'][i, j])
        for j in range(true['boxes'].shape[1])
        if true['box_valid'][i, j]
      ]
      for i in range(12)
    ],
    depth=9,
  )
  kwargs = {'num_resamples': 30}
  assert average_precision.evaluate(padded, more, CLASSES, **kwargs) == average_precision.evaluate(
    found, true, CLASSES, **kwargs
  )


def test_order_of_images_and_boxes_is_invisible():
  found, true = _random(n=15)
  distinct = np.random.default_rng(0).permutation(found.scores.size) / found.scores.size
  found = found._replace(scores=distinct.reshape(found.scores.shape))  # ties have an order
  rows = np.random.default_rng(1).permutation(15)
  columns = np.random.default_rng(2).permutation(true['boxes'].shape[1])
  moved = {key: value[rows] for key, value in true.items()}
  moved |= {key: moved[key][:, columns] for key in ('boxes', 'box_label', 'box_valid')}
  other = Detections(*(part[rows] for part in found))
  one = average_precision.evaluate(found, true, CLASSES, num_resamples=0)['metrics']
  two = average_precision.evaluate(other, moved, CLASSES, num_resamples=0)['metrics']
  assert one == pytest.approx(two, abs=1e-12)


def test_absent_class_is_left_out_and_named():
  found = _detections([[(BOX, 0.9, 0), (FAR, 0.95, 1)], [(BOX, 0.8, 2)]])
  true = _truth([[(BOX, 0)], [(BOX, 2)]])
  report = average_precision.evaluate(found, true, CLASSES)
  assert report['absent_classes'] == ['b']
  assert report['support'] == {'a': 1, 'b': 0, 'c': 1}
  assert not [name for name in report['metrics'] if name.endswith('/b')]
  assert list(report['precision_recall']['precision']) == ['a', 'c']
  assert report['metrics']['map'] == pytest.approx(1.0)
  # What names an absent class is a false alarm all the same.
  assert report['metrics']['recall_at_0.1_fp'] == 0.0
  assert report['metrics']['recall_at_0.5_fp'] == 1.0


def test_no_detection_scores_zero():
  true = _truth([[(BOX, 0)], [(BOX, 1)], []])
  for depth in (0, 5):
    report = average_precision.evaluate(_detections([[], [], []], depth), true, CLASSES)
    assert report['metrics']
    assert set(report['metrics'].values()) == {0.0}
    assert report['intervals']['map'] == [0.0, 0.0]
    assert report['n'] == 3


def test_negatives_alone_have_no_metric():
  for depth in (0, 4):
    found = _detections([[(BOX, 0.9, 0)], []])
    report = average_precision.evaluate(found, _truth([[], []], depth), CLASSES)
    assert report['metrics'] == {}
    assert report['intervals'] == {}
    assert report['n'] == 2
    assert report['absent_classes'] == list(CLASSES)


def test_no_image_gives_no_metric():
  report = average_precision.evaluate(_detections([], 3), _truth([], 2), CLASSES)
  assert report['metrics'] == {}
  assert report['n'] == 0


def test_negative_images_count_for_the_false_positive_rate():
  # The same false alarm is 1 per image alone, and 0.1 among ten images.
  found, true = [[(BOX, 0.8, 0), (FAR, 0.9, 0)]], [[(BOX, 0)]]
  alone = average_precision.evaluate(_detections(found), _truth(true), ('a',))
  among = average_precision.evaluate(_detections(found + [[]] * 9), _truth(true + [[]] * 9), ('a',))
  assert alone['metrics']['recall_at_0.1_fp'] == 0.0
  assert among['metrics']['recall_at_0.1_fp'] == 1.0
  assert alone['metrics']['map'] == among['metrics']['map']


def test_nothing_is_printed(capfd):
  average_precision.evaluate(*_random(), CLASSES, num_resamples=2)
  assert capfd.readouterr() == ('', '')


def test_report_is_plain_json_and_aggregates():
  reports = [average_precision.evaluate(*_random(s), CLASSES, num_resamples=5) for s in range(3)]
  assert json.loads(json.dumps(reports[0], allow_nan=False)) == reports[0]
  summary = classification.aggregate(reports)
  assert json.loads(json.dumps(summary, allow_nan=False)) == summary
  values = [report['metrics']['map50'] for report in reports]
  assert summary['metrics']['map50'] == pytest.approx(np.mean(values))
  assert summary['per_seed']['map50'] == values
  assert summary['support']['a'] == sum(report['support']['a'] for report in reports)
  assert summary['n'] == 75
  assert 'confusion_matrix' not in summary
  curves = [report['precision_recall']['precision']['a'] for report in reports]
  np.testing.assert_allclose(summary['precision_recall']['precision']['a'], np.mean(curves, axis=0))
  assert 'score' not in summary['precision_recall']


def test_aggregate_leaves_out_what_a_seed_lacks():
  found = _detections([[(BOX, 0.9, 0)]])
  reports = [
    average_precision.evaluate(found, _truth([[(BOX, k)]]), ('a', 'b'), num_resamples=2)
    for k in (0, 1)
  ]
  summary = classification.aggregate(reports)
  assert summary['left_out'] == ['ap/a', 'ap/b', 'ap50/a', 'ap50/b']
  assert summary['absent_classes'] == []
  assert summary['precision_recall']['precision']['a'][0] == pytest.approx(1.0)


@pytest.mark.parametrize(
  ('change', 'word'),
  [
    ({'box_label': np.array([[3]])}, 'truth holds a box of class 3'),
    ({'box_label': np.array([[-1]])}, 'truth holds a box of class -1'),
    ({'boxes': np.array([[[5.0, 5, 5, 9]]])}, 'positive area'),
    ({'boxes': np.array([[[5.0, np.nan, 7, 9]]])}, 'positive area'),
    ({'scale': np.array([0.0])}, 'scale'),
  ],
)
def test_rejects_bad_truth(change, word):
  true = _truth([[(BOX, 0)]]) | change
  with pytest.raises(ValueError, match=word):
    average_precision.evaluate(_detections([[(BOX, 0.9, 0)]]), true, CLASSES)


def test_rejects_bad_predictions():
  found, true = _detections([[(BOX, 0.9, 0)]]), _truth([[(BOX, 0)]])
  cases = {
    'predictions holds a box of class 1': ({'labels': np.array([[1]])}, ('a',)),
    'not finite': ({'boxes': np.full((1, 1, 4), np.inf)}, ('a',)),
    'may occur once': ({}, ('a', 'a')),
  }
  for word, (change, classes) in cases.items():
    with pytest.raises(ValueError, match=word):
      average_precision.evaluate(found._replace(**change), true, classes)
  with pytest.raises(ValueError, match='scale is needed'):
    average_precision.evaluate(found, {k: v for k, v in true.items() if k != 'scale'}, ('a',))


def test_rejects_bad_shape():
  with pytest.raises(AssertionError):
    average_precision.evaluate(_detections([[], []], 1), _truth([[(BOX, 0)]]), CLASSES)
