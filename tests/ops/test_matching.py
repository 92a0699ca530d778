"""Matching boxes to targets, and drawing some of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import ops

match = jax.jit(ops.match_boxes, static_argnames=('high', 'low', 'allow_low_quality'))
sample = jax.jit(ops.sample_matches, static_argnames=('num', 'positive_fraction'))

RPN = {'high': 0.7, 'low': 0.3, 'allow_low_quality': True}


def _boxes(num, seed, dtype=np.float32):
  rng = np.random.default_rng(seed)
  corner, size = rng.uniform(0, 40, (num, 2)), rng.uniform(5, 25, (num, 2))
  return np.concatenate([corner, corner + size], axis=-1).astype(dtype)


def _plain(boxes, targets, *, high, low, allow_low_quality):
  """torchvision's Matcher as its documentation tells it, one pair at a time."""
  iou = np.asarray(ops.box_iou(boxes, targets))
  target, best = iou.argmax(axis=1), iou.max(axis=1)
  kind = np.full(len(boxes), -1)
  kind[best >= high] = 1
  kind[best < low] = 0
  if allow_low_quality:
    for m in range(len(targets)):
      for a in range(len(boxes)):
        if iou[a, m] > 0 and np.isclose(iou[a, m], iou[:, m].max(), rtol=1e-6, atol=0):
          kind[a] = 1
  return target, kind, best


def test_value_by_hand():
  targets = jnp.array([[0.0, 0, 10, 10], [20.0, 0, 30, 10]])
  boxes = jnp.array(
    [
      [0.0, 0, 10, 8],  # 0.8 of target 0: positive
      [0.0, 0, 10, 5],  # 0.5: ignored
      [0.0, 0, 10, 2],  # 0.2: negative
      [20.0, 0, 30, 4],  # 0.4 of target 1, its best: ignored, or low quality
      [20.0, 6, 30, 10],  # as good: both come back
      [50.0, 50, 60, 60],  # nothing
    ]
  )
  valid = jnp.array([True, True])
  strict = match(boxes, targets, valid, high=0.7, low=0.3)
  np.testing.assert_array_equal(strict.kind, [1, -1, 0, -1, -1, 0])
  np.testing.assert_allclose(strict.iou, [0.8, 0.5, 0.2, 0.4, 0.4, 0], rtol=1e-6)
  np.testing.assert_array_equal(strict.target, [0, 0, 0, 1, 1, 0])
  assert (strict.kind.dtype, strict.target.dtype) == (jnp.int8, jnp.int32)
  generous = match(boxes, targets, valid, **RPN)
  np.testing.assert_array_equal(generous.kind, [1, -1, 0, 1, 1, 0])


def test_low_quality_keeps_the_own_best_target():
  # The second target's best box lies better on the first target, and goes on learning that.
  targets = jnp.array([[0.0, 0, 10, 10], [0.0, 8, 10, 18]])
  boxes = jnp.array([[0.0, 0, 10, 10], [0.0, 2, 10, 12]])
  matches = match(
    boxes, targets, jnp.array([True, True]), high=0.9, low=0.1, allow_low_quality=True
  )
  np.testing.assert_array_equal(matches.kind, [1, 1])
  np.testing.assert_array_equal(matches.target, [0, 0])


@pytest.mark.parametrize('allow_low_quality', [False, True])
def test_matches_a_plain_loop(allow_low_quality):
  options = {'high': 0.4, 'low': 0.2, 'allow_low_quality': allow_low_quality}
  for seed in range(5):
    boxes, targets = _boxes(60, seed), _boxes(7, seed + 100)
    ours = match(boxes, targets, np.ones(7, bool), **options)
    target, kind, best = _plain(boxes, targets, **options)
    np.testing.assert_array_equal(ours.target, target)
    np.testing.assert_array_equal(ours.kind, kind)
    np.testing.assert_allclose(ours.iou, best, rtol=1e-6)
    assert set(kind) == {-1, 0, 1}


def test_without_targets_everything_is_negative():
  boxes = _boxes(5, 0)
  for targets in (np.zeros((0, 4), np.float32), _boxes(3, 1), np.zeros((2, 4), np.float32)):
    for low_quality in (False, True):
      matches = match(
        boxes,
        targets,
        np.zeros(len(targets), bool),
        high=0.5,
        low=0.5,
        allow_low_quality=low_quality,
      )
      np.testing.assert_array_equal(matches.kind, np.zeros(5))
      np.testing.assert_array_equal(matches.iou, np.zeros(5))
      np.testing.assert_array_equal(matches.target, np.zeros(5))
  none = match(np.zeros((0, 4), np.float32), _boxes(3, 1), np.ones(3, bool), **RPN)
  assert none.kind.shape == (0,)


def test_a_target_that_nothing_overlaps_brings_back_nothing():
  boxes = jnp.array([[0.0, 0, 5, 5], [10.0, 0, 15, 5]])
  targets = jnp.array([[50.0, 50, 60, 60], [3.0, 3, 3, 3]])  # far away; without area
  matches = match(boxes, targets, jnp.array([True, True]), **RPN)
  np.testing.assert_array_equal(matches.kind, [0, 0])


def test_padding_is_invisible():
  boxes, targets = _boxes(40, 0), _boxes(4, 1)
  alone = match(boxes, targets, np.ones(4, bool), **RPN)
  # Padding that would fit boxes perfectly, in front and behind.
  padded = np.concatenate([boxes[:3], targets, boxes[3:6]])
  among = match(boxes, padded, np.array([False] * 3 + [True] * 4 + [False] * 3), **RPN)
  np.testing.assert_array_equal(among.kind, alone.kind)
  np.testing.assert_array_equal(among.iou, alone.iou)
  np.testing.assert_array_equal(among.target, alone.target + 3)


def test_permuting_boxes_permutes_matches():
  boxes, targets = _boxes(40, 0), _boxes(4, 1)
  order = np.random.default_rng(0).permutation(40)
  matches = match(boxes, targets, np.ones(4, bool), **RPN)
  again = match(boxes[order], targets, np.ones(4, bool), **RPN)
  for part, permuted in zip(matches, again):
    np.testing.assert_array_equal(permuted, np.asarray(part)[order])


def test_jit_and_vmap_match_eager():
  boxes, targets = _boxes(20, 0), np.stack([_boxes(3, 1), _boxes(3, 2)])
  valid = np.array([[True, True, False], [False, True, True]])
  together = jax.vmap(lambda t, v: ops.match_boxes(boxes, t, v, **RPN))(targets, valid)
  for n in range(2):
    eager = ops.match_boxes(boxes, targets[n], valid[n], **RPN)
    for part, other in zip(eager, together):
      np.testing.assert_array_equal(part, other[n])


def test_float64_stays():
  with jax.enable_x64(True):
    boxes = _boxes(5, 0, np.float64)
    assert match(boxes, boxes, np.ones(5, bool), high=0.7, low=0.3).iou.dtype == jnp.float64
  half = jnp.asarray(_boxes(5, 0), jnp.bfloat16)
  assert match(half, half, jnp.ones(5, bool), high=0.7, low=0.3).iou.dtype == jnp.float32


def _kinds(positives, negatives, ignored, seed=0):
  kind = np.repeat(np.array([1, 0, -1], np.int8), [positives, negatives, ignored])
  return np.random.default_rng(seed).permutation(kind)


@pytest.mark.parametrize(
  ('positives', 'negatives', 'expected'),
  [
    (50, 50, (4, 12)),  # plenty of both: a quarter of 16
    (2, 50, (2, 14)),  # few positives: negatives fill up
    (50, 5, (4, 5)),  # few negatives: padding
    (0, 50, (0, 16)),
    (50, 0, (4, 0)),
    (0, 0, (0, 0)),
  ],
)
def test_sample_counts(positives, negatives, expected):
  kind = _kinds(positives, negatives, 120 - positives - negatives)
  drawn = sample(jax.random.key(0), kind, num=16, positive_fraction=0.25)
  indices, positive, valid = (np.asarray(part) for part in drawn)
  assert (positive.sum(), (valid & ~positive).sum()) == expected
  assert valid.sum() == sum(expected)
  assert (kind[indices[positive]] == 1).all()
  assert (kind[indices[valid & ~positive]] == 0).all()
  assert len(set(indices[valid])) == valid.sum()  # without replacement
  assert not indices[~valid].any()
  assert indices.dtype == np.int32


def test_sample_is_random_and_determined_by_the_key():
  kind = _kinds(40, 40, 40)

  def draw(number):
    indices = sample(jax.random.key(number), kind, num=16, positive_fraction=0.5).indices
    return np.asarray(indices).tolist()

  assert draw(0) == draw(0)
  assert draw(0) != draw(1)


def test_every_box_is_drawn_equally_often():
  kind = jnp.array([1, 0, 0, 1, 0, -1, 0, 1, 0, 0])
  keys = jax.random.split(jax.random.key(0), 3000)
  drawn = jax.vmap(lambda key: ops.sample_matches(key, kind, num=4, positive_fraction=0.5))(keys)
  times = np.bincount(np.asarray(drawn.indices).ravel(), minlength=10) / 3000
  expected = np.where(kind == 1, 2 / 3, np.where(kind == 0, 2 / 6, 0))
  np.testing.assert_allclose(times, expected, atol=0.05)  # over five standard deviations


def test_sample_padding_is_invisible():
  kind = _kinds(10, 20, 10)
  alone = sample(jax.random.key(3), kind, num=16, positive_fraction=0.25)
  more = np.concatenate([kind, np.tile(np.array([1, 0], np.int8), 30)])
  valid = np.arange(100) < 40
  padded = sample(jax.random.key(3), more, num=16, positive_fraction=0.25, valid=valid)
  for part, other in zip(alone, padded):
    np.testing.assert_array_equal(part, other)


def test_sample_more_than_there_are():
  kind = np.array([0, 1, -1], np.int8)
  drawn = sample(jax.random.key(0), kind, num=6, positive_fraction=0.5)
  np.testing.assert_array_equal(drawn.indices, [1, 0, 0, 0, 0, 0])
  np.testing.assert_array_equal(drawn.valid, [True, True] + [False] * 4)
  empty = sample(jax.random.key(0), kind[:0], num=2, positive_fraction=0.5)
  np.testing.assert_array_equal(empty.valid, [False, False])
  assert sample(jax.random.key(0), kind, num=0, positive_fraction=0.5).indices.shape == (0,)
  no_positives = sample(jax.random.key(0), kind, num=2, positive_fraction=0.0)
  np.testing.assert_array_equal(no_positives.positive, [False, False])


def test_rejects_bad_input():
  boxes = _boxes(3, 0)
  with pytest.raises(ValueError, match='low must be above 0 and at most high'):
    ops.match_boxes(boxes, boxes, np.ones(3, bool), high=0.3, low=0.7)
  with pytest.raises(AssertionError):
    ops.match_boxes(boxes, boxes, np.ones(2, bool), high=0.7, low=0.3)
  kind = np.zeros(3, np.int8)
  with pytest.raises(ValueError, match=r'positive_fraction must lie in 0\.\.1'):
    ops.sample_matches(jax.random.key(0), kind, num=2, positive_fraction=1.5)
  with pytest.raises(ValueError, match='num must not be negative'):
    ops.sample_matches(jax.random.key(0), kind, num=-2, positive_fraction=0.5)
  with pytest.raises(AssertionError):
    ops.sample_matches(jax.random.key(0), kind, num=2, positive_fraction=0.5, valid=np.ones(2))
