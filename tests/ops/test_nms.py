"""Non-maximum suppression against torchvision's results and a plain double loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import ops

nms = jax.jit(ops.nms, static_argnames='max_outputs')
nms_per_class = jax.jit(ops.nms_per_class, static_argnames='max_outputs')

SETS, BOXES = 1000, 20


@pytest.fixture(scope='module')
def golden(golden_dir):
  return np.load(golden_dir / 'boxes.npz')


def _random_sets():
  """Sets full of ties: whole coordinates, six scores, IoUs that are exactly the threshold."""
  rng = np.random.default_rng(0)
  corner = rng.integers(0, 4, (SETS, BOXES, 2))
  size = rng.integers(0, 5, (SETS, BOXES, 2))  # some boxes have no area
  boxes = np.concatenate([corner, corner + size], axis=-1).astype(np.float32)
  scores = (rng.integers(0, 6, (SETS, BOXES)) / 5).astype(np.float32)
  labels = rng.integers(0, 3, (SETS, BOXES)).astype(np.int32)
  valid = rng.uniform(size=(SETS, BOXES)) < rng.uniform(size=(SETS, 1))
  thresholds = rng.choice(np.array([0.1, 0.25, 0.5], np.float32), SETS)
  return boxes, scores, labels, valid, thresholds


def _plain(boxes, scores, labels, valid, threshold):
  """The double loop, by falling score."""
  area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
  kept = []
  for i in np.argsort(-scores, kind='stable'):
    if not valid[i]:
      continue
    for j in kept:
      width = max(min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0]), 0)
      height = max(min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1]), 0)
      shared = width * height
      union = area[i] + area[j] - shared
      if labels[i] == labels[j] and union > 0 and shared / union > threshold:
        break
    else:
      kept.append(i)
  return kept


def _found(result):
  indices, valid = (np.asarray(part) for part in result)
  assert indices.dtype == np.int32
  assert not np.diff(valid.astype(int)).max(initial=0) > 0  # padding comes last
  assert not indices[~valid].any()
  return indices[valid].tolist()


@pytest.mark.parametrize(('threshold', 'name'), [(0.5, 'nms_keep_05'), (0.7, 'nms_keep_07')])
def test_matches_golden(golden, threshold, name):
  result = nms(golden['boxes'], golden['scores'], iou_threshold=threshold, max_outputs=310)
  assert _found(result) == golden[name].tolist()


def test_per_class_matches_golden(golden):
  boxes, scores, labels = (golden[name] for name in ('boxes', 'scores', 'labels'))
  result = nms_per_class(boxes, scores, labels, iou_threshold=0.5, max_outputs=300)
  assert _found(result) == golden['batched_nms_keep_05'].tolist()


def test_equals_a_plain_loop_on_random_sets_with_ties():
  boxes, scores, labels, valid, thresholds = _random_sets()

  @jax.jit
  @jax.vmap
  def both(boxes, scores, labels, valid, threshold):
    run = functools.partial(
      ops.nms_per_class, boxes, scores, iou_threshold=threshold, max_outputs=BOXES + 2, valid=valid
    )
    plain = ops.nms(boxes, scores, iou_threshold=threshold, max_outputs=BOXES + 2, valid=valid)
    return plain, run(labels)

  plain, per_class = jax.device_get(both(boxes, scores, labels, valid, thresholds))
  suppressed = 0
  for n in range(SETS):
    sets = boxes[n], scores[n]
    expected = _plain(*sets, np.zeros(BOXES), valid[n], thresholds[n])
    assert _found((plain[0][n], plain[1][n])) == expected
    suppressed += valid[n].sum() - len(expected)
    expected = _plain(*sets, labels[n], valid[n], thresholds[n])
    assert _found((per_class[0][n], per_class[1][n])) == expected
  assert suppressed > 2 * SETS  # the sets are no trivial ones


def test_a_suppressed_box_suppresses_nobody():
  # A chain: each overlaps the next by more than half, so every second one stays.
  x = np.arange(12, dtype=np.float32)
  boxes = np.stack([x, 0 * x, x + 3.5, 0 * x + 1], axis=-1)
  result = nms(boxes, -x, iou_threshold=0.5, max_outputs=12)
  assert _found(result) == [0, 2, 4, 6, 8, 10]


def test_at_the_threshold_a_box_stays():
  boxes = np.array([[0, 0, 4, 2], [0, 0, 4, 1], [0, 0, 4, 2]], np.float32)  # IoU 0.5 and 1
  scores = np.array([0.9, 0.8, 0.7], np.float32)
  assert _found(nms(boxes, scores, iou_threshold=0.5, max_outputs=3)) == [0, 1]
  assert _found(nms(boxes, scores, iou_threshold=0.4, max_outputs=3)) == [0]
  assert _found(nms(boxes, scores, iou_threshold=1.0, max_outputs=3)) == [0, 1, 2]


def test_max_outputs_cuts_the_worst(golden):
  boxes, scores = golden['boxes'], golden['scores']
  result = nms(boxes, scores, iou_threshold=0.5, max_outputs=7)
  assert _found(result) == golden['nms_keep_05'][:7].tolist()


def test_permuting_boxes_permutes_what_is_kept(golden):
  boxes, scores = golden['boxes'][:60], golden['scores'][:60]
  order = np.random.default_rng(0).permutation(60)
  kept = _found(nms(boxes, scores, iou_threshold=0.3, max_outputs=60))
  again = _found(nms(boxes[order], scores[order], iou_threshold=0.3, max_outputs=60))
  assert order[again].tolist() == kept


def test_padding_is_invisible(golden):
  boxes, scores, labels = (golden[name][:60] for name in ('boxes', 'scores', 'labels'))
  valid = np.arange(90) < 60
  # Padding may hold anything: copies of good boxes with the best scores, zeros, NaN.
  padded = np.concatenate([boxes, boxes[:10], np.zeros((10, 4)), np.full((10, 4), np.nan)])
  high = np.concatenate([scores, np.full(20, 9.0), np.full(10, np.nan)]).astype(np.float32)
  padded = padded.astype(np.float32)
  options = {'iou_threshold': 0.3, 'max_outputs': 60}
  kept = _found(nms(boxes, scores, **options))
  assert _found(nms(padded, high, valid=valid, **options)) == kept
  kept = _found(nms_per_class(boxes, scores, labels, **options))
  labels = np.concatenate([labels, np.zeros(30, int)])
  assert _found(nms_per_class(padded, high, labels, valid=valid, **options)) == kept


def test_jit_matches_eager(golden):
  boxes, scores = golden['boxes'][:60], golden['scores'][:60]
  eager = ops.nms(boxes, scores, iou_threshold=0.5, max_outputs=60)
  assert _found(eager) == _found(nms(boxes, scores, iou_threshold=0.5, max_outputs=60))


def test_no_boxes():
  none = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
  assert _found(nms(*none, iou_threshold=0.5, max_outputs=3)) == []
  some = np.ones((4, 4), np.float32), np.ones(4, np.float32)
  result = nms(*some, iou_threshold=0.5, max_outputs=3, valid=np.zeros(4, bool))
  assert _found(result) == []
  assert nms(*some, iou_threshold=0.5, max_outputs=0)[0].shape == (0,)


def test_half_scores_and_equal_scores_keep_the_order():
  boxes = np.arange(12, dtype=np.float32)[:, None] * 10 + np.array([0, 0, 5, 5], np.float32)
  scores = jnp.ones(12, jnp.bfloat16)
  assert _found(nms(boxes, scores, iou_threshold=0.5, max_outputs=12)) == list(range(12))


def test_rejects_bad_shape():
  boxes, scores = np.zeros((3, 4), np.float32), np.zeros(3, np.float32)
  with pytest.raises(AssertionError):
    ops.nms(boxes, scores[:2], iou_threshold=0.5, max_outputs=3)
  with pytest.raises(AssertionError):
    ops.nms_per_class(boxes, scores, np.zeros((3, 1), int), iou_threshold=0.5, max_outputs=3)
  with pytest.raises(ValueError, match='max_outputs must not be negative'):
    ops.nms(boxes, scores, iou_threshold=0.5, max_outputs=-1)
