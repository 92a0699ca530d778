"""RoIAlign against torchvision's values, by hand, and level by level."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import ops

STATIC = ('output_size', 'sampling_ratio', 'aligned')
roi_align = jax.jit(ops.roi_align, static_argnames=STATIC)
multiscale = jax.jit(ops.multiscale_roi_align, static_argnames=(*STATIC, 'strides'))

STRIDES = (4, 8, 16)


@pytest.fixture(scope='module')
def golden(golden_dir):
  return np.load(golden_dir / 'roi_align.npz')


def _golden_options(golden, aligned):
  return {
    'output_size': int(golden['output_size']),
    'spatial_scale': float(golden['spatial_scale']),
    'sampling_ratio': int(golden['sampling_ratio']),
    'aligned': aligned,
  }


def _pyramid(dtype=np.float32):
  rng = np.random.default_rng(0)
  return [rng.normal(size=(2, 64 // s, 96 // s, 3)).astype(dtype) for s in STRIDES]


def _regions(num=24, dtype=np.float32):
  """Boxes of all sizes, some of them partly and wholly outside, with their images."""
  rng = np.random.default_rng(1)
  corner, size = rng.uniform(-20, 90, (num, 2)), np.exp(rng.uniform(0, 4.5, (num, 2)))
  boxes = np.concatenate([corner, corner + size], axis=-1).astype(dtype)
  return boxes, rng.integers(0, 2, num).astype(np.int32)


@pytest.mark.parametrize('aligned', [False, True])
def test_matches_golden(golden, aligned):
  options = _golden_options(golden, aligned)
  with jax.enable_x64(True):
    boxes, index = jnp.asarray(golden['boxes_xyxy']), jnp.asarray(golden['batch_index'])

    def run(x):
      pooled = roi_align(x, boxes, index, **options)
      return (pooled**2).sum(), pooled

    (_, pooled), gradient = jax.value_and_grad(run, has_aux=True)(jnp.asarray(golden['x']))
    assert pooled.dtype == jnp.float64
  np.testing.assert_allclose(pooled, golden[f'aligned_{aligned}/y'], rtol=1e-9, atol=1e-12)
  expected = golden[f'aligned_{aligned}/grad_x_of_sum_sq']
  np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)


def test_float32_matches_golden(golden):
  options = _golden_options(golden, False)
  x, boxes = golden['x'].astype(np.float32), golden['boxes_xyxy'].astype(np.float32)
  pooled = roi_align(x, boxes, golden['batch_index'], **options)
  np.testing.assert_allclose(pooled, golden['aligned_False/y'], rtol=1e-4, atol=1e-5)


def test_value_by_hand():
  # A map whose value is 10 row + column; bilinear samples of it are exact.
  row, column = jnp.meshgrid(jnp.arange(6.0), jnp.arange(8.0), indexing='ij')
  ramp = (10 * row + column)[None, ..., None]
  box, image = jnp.array([[2.0, 4.0, 10.0, 8.0]]), jnp.array([0])
  options = {'output_size': 2, 'spatial_scale': 0.5}
  # In cells: x 1..5, y 2..4, so the bins' middles are x 2, 4 and y 2.5, 3.5.
  pooled = roi_align(ramp, box, image, **options)
  np.testing.assert_allclose(pooled[0, ..., 0], [[27, 29], [37, 39]], rtol=1e-6)
  pooled = roi_align(ramp, box, image, aligned=True, **options)
  np.testing.assert_allclose(pooled[0, ..., 0], [[21.5, 23.5], [31.5, 33.5]], rtol=1e-6)
  # A region without extent is made one cell wide and high, 2..3, unless aligned: then 1.5.
  point = jnp.array([[4.0, 4.0, 4.0, 4.0]])
  pooled = roi_align(ramp, point, image, **options)
  np.testing.assert_allclose(pooled[0, ..., 0], [[24.75, 25.25], [29.75, 30.25]], rtol=1e-6)
  pooled = roi_align(ramp, point, image, aligned=True, **options)
  np.testing.assert_allclose(pooled[0, ..., 0], np.full((2, 2), 16.5), rtol=1e-6)


def test_outside_counts_zero():
  ones = jnp.ones((1, 8, 8, 1))
  boxes = jnp.array([[20.0, 20, 30, 30], [-30.0, 0, -10, 8], [4.0, 2, 12, 6]])
  pooled = roi_align(ones, boxes, jnp.zeros(3, int), output_size=4, spatial_scale=1.0)
  np.testing.assert_array_equal(pooled[:2], np.zeros((2, 4, 4, 1)))
  # Samples in 4..8 (a cell beyond the last one, moved onto the edge) count, those beyond do not.
  np.testing.assert_array_equal(pooled[2, :, :, 0], np.tile([1.0, 1, 0, 0], (4, 1)))


@pytest.mark.parametrize('sampling_ratio', [1, 3])
def test_sampling_ratio_matches_a_plain_loop(sampling_ratio):
  x, (boxes, index) = _pyramid(np.float64)[1], _regions(6, np.float64)
  size = 2
  with jax.enable_x64(True):
    pooled = roi_align(
      x, boxes, index, output_size=size, spatial_scale=0.125, sampling_ratio=sampling_ratio
    )

  def at(image, y, w):
    height, width = image.shape[:2]
    if not (-1 <= y <= height and -1 <= w <= width):
      return np.zeros(image.shape[2])
    y, w = np.clip(y, 0, height - 1), np.clip(w, 0, width - 1)
    j, i = int(y), int(w)
    k, h = min(j + 1, height - 1), min(i + 1, width - 1)
    top = (1 - (w - i)) * image[j, i] + (w - i) * image[j, h]
    bottom = (1 - (w - i)) * image[k, i] + (w - i) * image[k, h]
    return (1 - (y - j)) * top + (y - j) * bottom

  for r, (box, n) in enumerate(zip(boxes / 8, index)):
    extent = np.maximum(box[2:] - box[:2], 1) / size
    for i in range(size):
      for j in range(size):
        steps = (np.arange(sampling_ratio) + 0.5) / sampling_ratio
        samples = [
          at(x[n], box[1] + (i + b) * extent[1], box[0] + (j + a) * extent[0])
          for b in steps
          for a in steps
        ]
        np.testing.assert_allclose(pooled[r, i, j], np.mean(samples, axis=0), atol=1e-12)


def test_gradient_matches_numeric():
  boxes, index = _regions(5, np.float64)
  with jax.enable_x64(True):
    weight = np.random.default_rng(2).normal(size=(5, 2, 2, 3))

    def total(features):
      pooled = multiscale(features, boxes, index, output_size=2, strides=STRIDES)
      return (weight * pooled**3).sum()

    # Twice: the gradient of the gradient is what meta-learning asks for.
    args = ([level[:, :3, :4] for level in _pyramid(np.float64)],)
    jax.test_util.check_grads(total, args, order=2, modes=('rev',), eps=1e-5)


def test_boxes_get_no_gradient():
  boxes, index = _regions(5)
  gradient = jax.grad(
    lambda b: multiscale(_pyramid(), b, index, output_size=2, strides=STRIDES).sum()
  )
  np.testing.assert_array_equal(gradient(jnp.asarray(boxes)), np.zeros((5, 4)))


def test_multiscale_equals_roi_align_on_each_level():
  features, (boxes, index) = _pyramid(), _regions()
  options = {'output_size': 3, 'aligned': True}
  canonical = {'canonical_size': 16.0, 'canonical_level': 3}
  pooled = multiscale(features, boxes, index, strides=STRIDES, **canonical, **options)
  area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
  level = np.clip(np.floor(3 + np.log2(np.sqrt(area) / 16) + 1e-6), 2, 4).astype(int) - 2
  assert set(level) == {0, 1, 2}
  for k, stride in enumerate(STRIDES):
    alone = roi_align(features[k], boxes, index, spatial_scale=1 / stride, **options)
    np.testing.assert_allclose(pooled[level == k], alone[level == k], rtol=1e-6, atol=1e-6)


def test_levels_by_hand():
  maps = [jnp.full((1, 512 // s, 512 // s, 1), float(k)) for k, s in enumerate(STRIDES)]
  sides = np.array([0, 1, 111.9, 112, 223.9, 224, 400, 500], np.float32)
  boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=-1)
  pooled = multiscale(maps, boxes, np.zeros(8, int), output_size=1, strides=STRIDES)
  np.testing.assert_allclose(pooled.ravel(), [0, 0, 0, 1, 1, 2, 2, 2], atol=1e-6)


def test_one_level_takes_every_region():
  features, (boxes, index) = _pyramid()[1], _regions()
  pooled = multiscale([features], boxes, index, output_size=2, strides=(8,))
  alone = roi_align(features, boxes, index, output_size=2, spatial_scale=0.125)
  np.testing.assert_allclose(pooled, alone, rtol=1e-6, atol=1e-6)


def test_permuting_regions_permutes_outputs():
  features, (boxes, index) = _pyramid(), _regions()
  order = np.random.default_rng(0).permutation(len(boxes))
  run = functools.partial(multiscale, features, output_size=2, strides=STRIDES)
  np.testing.assert_array_equal(run(boxes[order], index[order]), run(boxes, index)[order])


def test_padding_is_invisible():
  features, (boxes, index) = _pyramid(), _regions()
  run = functools.partial(multiscale, output_size=2, strides=STRIDES)
  alone = run(features, boxes, index)
  padded = np.concatenate([boxes, np.zeros((3, 4), np.float32)])
  more = run(features, padded, np.concatenate([index, np.zeros(3, np.int32)]))
  np.testing.assert_array_equal(more[: len(boxes)], alone)
  assert np.isfinite(more).all()
  # A further image behind changes nothing either, nor do regions that carry no weight.
  images = [np.concatenate([level, level[:1] + 5]) for level in features]
  np.testing.assert_array_equal(run(images, boxes, index), alone)
  weight = np.arange(len(boxes) + 3)[:, None, None, None] < len(boxes)
  gradient = jax.grad(lambda f: (run(f, boxes, index) ** 2).sum())(features)
  masked = jax.grad(lambda f: (weight * run(f, padded, np.append(index, [0, 0, 0])) ** 2).sum())(
    features
  )
  for expected, ours in zip(gradient, masked):
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_jit_matches_eager():
  features, (boxes, index) = _pyramid()[0], _regions(8)
  options = {'output_size': 2, 'spatial_scale': 0.25, 'sampling_ratio': 1}
  compiled = roi_align(features, boxes, index, **options)
  eager = ops.roi_align(features, boxes, index, **options)
  np.testing.assert_allclose(eager, compiled, rtol=1e-5, atol=1e-6)


def test_vmap_over_images():
  features, (boxes, _) = _pyramid()[0], _regions(8)
  options = {'output_size': 2, 'spatial_scale': 0.25, 'sampling_ratio': 1}
  weight = np.random.default_rng(0).normal(size=(8, 2, 2, 3)).astype(np.float32)

  def one(image, boxes, weight):
    pooled = ops.roi_align(image[None], boxes, jnp.zeros(4, int), **options)
    return (weight * pooled).sum(), pooled

  def flat(features):
    pooled = roi_align(features, boxes, np.repeat(np.arange(2), 4), **options)
    return (weight * pooled).sum(), pooled

  mapped = jax.jit(jax.vmap(jax.grad(one, has_aux=True)))
  gradient, pooled = mapped(features, boxes.reshape(2, 4, 4), weight.reshape(2, 4, 2, 2, 3))
  expected_gradient, expected = jax.grad(flat, has_aux=True)(features)
  np.testing.assert_allclose(pooled.reshape(8, 2, 2, 3), expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-5)


def test_half_types_are_raised():
  boxes, index = _regions(3)
  half = [jnp.asarray(level, jnp.bfloat16) for level in _pyramid()]
  pooled = multiscale(half, jnp.asarray(boxes, jnp.bfloat16), index, output_size=2, strides=STRIDES)
  assert pooled.dtype == jnp.float32


def test_no_regions_and_one_cell():
  features, (boxes, index) = _pyramid(), _regions(4)
  assert multiscale(features, boxes[:0], index[:0], output_size=2, strides=STRIDES).shape[0] == 0
  cell = jnp.full((1, 1, 1, 2), 7.0)
  box = jnp.array([[0.0, 0, 1, 1]])
  pooled = roi_align(cell, box, jnp.array([0]), output_size=2, spatial_scale=1.0)
  np.testing.assert_allclose(pooled, np.full((1, 2, 2, 2), 7.0), rtol=1e-6)


def test_image_numbers_are_clipped():
  features, (boxes, _) = _pyramid()[0], _regions(2)
  options = {'output_size': 2, 'spatial_scale': 0.25}
  wild = roi_align(features, boxes, np.array([-7, 999]), **options)
  np.testing.assert_array_equal(wild, roi_align(features, boxes, np.array([0, 1]), **options))


def test_rejects_bad_input():
  features, (boxes, index) = _pyramid(), _regions(4)
  with pytest.raises(ValueError, match='must be at least 1'):
    ops.roi_align(features[0], boxes, index, output_size=2, spatial_scale=1.0, sampling_ratio=0)
  with pytest.raises(ValueError, match='powers of two'):
    ops.multiscale_roi_align(features, boxes, index, output_size=2, strides=(4, 8, 32))
  with pytest.raises(ValueError, match=r'strides must be one per map \(3\)'):
    ops.multiscale_roi_align(features, boxes, index, output_size=2, strides=(4, 8))
  with pytest.raises(ValueError, match='came empty'):
    ops.roi_align(features[0][:0], boxes, index, output_size=2, spatial_scale=1.0)
  with pytest.raises(ValueError, match='features must have cells'):
    ops.multiscale_roi_align([features[0][:, :0]], boxes, index, output_size=2, strides=(4,))
  with pytest.raises(AssertionError):
    ops.roi_align(features[0], boxes, index[:2], output_size=2, spatial_scale=1.0)
  with pytest.raises(AssertionError):
    ops.multiscale_roi_align(
      [features[0], features[1][..., :2]], boxes, index, output_size=2, strides=(4, 8)
    )
