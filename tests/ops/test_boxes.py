"""Boxes and their coder: by hand, against torchvision, and with padding in sight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import ops

WEIGHTS = (10.0, 10.0, 5.0, 5.0)

iou = jax.jit(ops.box_iou)
encode = jax.jit(ops.encode_boxes)
decode = jax.jit(ops.decode_boxes)


@pytest.fixture(scope='module')
def golden(golden_dir):
  return np.load(golden_dir / 'boxes.npz')


def _boxes(shape, seed=0, dtype=np.float32):
  rng = np.random.default_rng(seed)
  corner, size = rng.uniform(0, 50, (*shape, 2)), rng.uniform(1, 30, (*shape, 2))
  return np.concatenate([corner, corner + size], axis=-1).astype(dtype)


def test_value_by_hand():
  a = jnp.array([[0.0, 0, 4, 2], [1.0, 1, 1, 5], [3.0, 0, 2, 9]])
  np.testing.assert_array_equal(ops.box_area(a), [8, 0, 0])  # empty, inverted
  b = jnp.array([[2.0, 0, 6, 2], [4.0, 0, 5, 2], [0.0, 0, 4, 2]])
  np.testing.assert_allclose(iou(a[:1], b), [[1 / 3, 0, 1]], rtol=1e-6)
  clipped = ops.clip_boxes(jnp.array([[-2.0, -3, 70, 90], [5.0, 6, 7, 8]]), (40, 60))
  np.testing.assert_array_equal(clipped, [[0, 0, 60, 40], [5, 6, 7, 8]])
  deltas = encode(jnp.array([2.0, 0, 6, 8]), jnp.array([0.0, 0, 4, 4]), WEIGHTS)
  np.testing.assert_allclose(deltas, [5, 5, 0, 5 * np.log(2)], rtol=1e-6)


def test_matches_golden(golden):
  boxes = golden['boxes']
  ours = iou(boxes[:50], boxes[50:100])
  np.testing.assert_allclose(ours, golden['iou_first50'], rtol=1e-6, atol=1e-7)
  weights = tuple(float(w) for w in golden['encode_weights'])
  proposals = golden['encode_proposals']
  encoded = encode(golden['encode_reference'], proposals, weights)
  np.testing.assert_allclose(encoded, golden['encoded'], rtol=1e-5, atol=2e-5)
  decoded = decode(golden['decode_deltas'], proposals, weights)
  np.testing.assert_allclose(decoded, golden['decoded'], rtol=1e-5, atol=1e-4)


def test_decode_inverts_encode():
  reference, proposals = _boxes((20,), 1), _boxes((20,), 2)
  deltas = encode(reference, proposals, WEIGHTS)
  np.testing.assert_allclose(decode(deltas, proposals, WEIGHTS), reference, rtol=1e-4)


def test_growth_is_clipped():
  box = jnp.array([0.0, 0, 16, 16])
  wide = decode(jnp.array([0.0, 0, 1e4, -1e4]), box, WEIGHTS)
  np.testing.assert_allclose(wide, [8 - 500, 8, 8 + 500, 8], rtol=1e-5)


def test_leading_axes_broadcast():
  a, b = _boxes((3, 4), 1), _boxes((3, 5), 2)
  together = iou(a, b)
  for n in range(3):
    np.testing.assert_array_equal(together[n], iou(a[n], b[n]))
  deltas = np.random.default_rng(3).normal(size=(4, 6, 4)).astype(np.float32)
  per_class = decode(deltas, a[0][:, None], WEIGHTS)  # [R, K, 4] of regions [R, 1, 4]
  np.testing.assert_allclose(per_class[:, 2], decode(deltas[:, 2], a[0], WEIGHTS), rtol=1e-6)
  size = jnp.array([[10.0, 20], [30.0, 40], [50.0, 5]])
  clipped = ops.clip_boxes(a, size[:, None])
  for n in range(3):
    np.testing.assert_array_equal(clipped[n], ops.clip_boxes(a[n], tuple(size[n])))


def test_permuting_boxes_permutes_overlaps():
  a, b = _boxes((7,), 1), _boxes((5,), 2)
  p, q = np.random.default_rng(0).permutation(7), np.random.default_rng(1).permutation(5)
  np.testing.assert_array_equal(iou(a[p], b[q]), iou(a, b)[p][:, q])


def test_boxes_without_area_are_finite():
  boxes = jnp.array([[0.0, 0, 0, 0], [5.0, 5, 5, 9], [9.0, 9, 3, 3], [0.0, 0, 1e-20, 1e-20]])
  other = jnp.concatenate([boxes, jnp.array([[0.0, 0, 8, 8]])])

  def total(boxes):
    deltas = ops.encode_boxes(boxes[:, None], other, WEIGHTS)
    moved = ops.decode_boxes(deltas, boxes[:, None], WEIGHTS)
    return ops.box_iou(boxes, other).sum() + ops.box_area(boxes).sum() + deltas.sum() + moved.sum()

  value, gradient = jax.jit(jax.value_and_grad(total))(boxes)
  assert jnp.isfinite(value)
  assert jnp.isfinite(gradient).all()
  np.testing.assert_array_equal(iou(boxes, boxes), np.zeros((4, 4)))


def test_gradient_matches_numeric():
  with jax.enable_x64(True):
    a, b = _boxes((4,), 1, np.float64), _boxes((4,), 2, np.float64)
    weight = np.random.default_rng(3).normal(size=(4, 4))

    def total(a, b):
      deltas = ops.encode_boxes(a, b, WEIGHTS)
      moved = ops.decode_boxes(deltas / 3, b, WEIGHTS)
      return (weight * (ops.box_iou(a, b) + deltas + moved)).sum()

    jax.test_util.check_grads(jax.jit(total), (a, b), order=1, modes=('rev',), eps=1e-6)


def test_jit_matches_eager():
  a, b = _boxes((4,), 1), _boxes((5,), 2)
  np.testing.assert_allclose(iou(a, b), ops.box_iou(a, b), rtol=1e-6)
  deltas = encode(a, b[:4], WEIGHTS)
  np.testing.assert_allclose(deltas, ops.encode_boxes(a, b[:4], WEIGHTS), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
    decode(deltas, b[:4], WEIGHTS), ops.decode_boxes(deltas, b[:4], WEIGHTS), rtol=1e-5
  )


def test_half_types_are_raised_and_float64_stays():
  boxes = jnp.asarray(_boxes((3,)), jnp.bfloat16)
  assert iou(boxes, boxes).dtype == jnp.float32
  assert encode(boxes, boxes, WEIGHTS).dtype == jnp.float32
  assert ops.clip_boxes(jnp.array([[0, 0, 9, 9]]), (5, 5)).dtype == jnp.float32
  with jax.enable_x64(True):
    boxes = _boxes((3,), dtype=np.float64)
    assert iou(boxes, boxes).dtype == jnp.float64
    assert decode(boxes, boxes, WEIGHTS).dtype == jnp.float64


def test_no_boxes():
  none, some = np.zeros((0, 4), np.float32), _boxes((3,))
  assert iou(none, some).shape == (0, 3)
  assert iou(some, none).shape == (3, 0)
  assert encode(none, none, WEIGHTS).shape == (0, 4)


def test_rejects_bad_shape():
  boxes = _boxes((3,))
  with pytest.raises(AssertionError):
    ops.box_iou(boxes[:, :3], boxes)
  with pytest.raises(AssertionError):
    ops.box_area(boxes[:, :3])
  with pytest.raises(AssertionError):
    ops.clip_boxes(_boxes((2, 3)), jnp.ones((2, 2)))  # would broadcast against the wrong axis
  with pytest.raises(ValueError, match='weights must be 4 numbers'):
    ops.encode_boxes(boxes, boxes, (1.0, 1.0))
