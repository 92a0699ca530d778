"""The single-stage detector: its size, where its cells lie, and what their bins mean."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models
from jaxdefect.models import yolo

WIDTHS = {'n': 0.25, 's': 0.5}


def images(height=40, width=70, num=2):
  return jax.random.normal(jax.random.key(1), (num, height, width, 3))


@functools.cache
def made(**settings):
  module = models.Yolo(3, **{'width': 0.0625, 'num_bins': 4, **settings})
  return module, jax.jit(module.init)(jax.random.key(0), images())


def parameters(size, classes):
  module = models.Yolo(classes, width=WIDTHS[size])
  image = jnp.zeros((1, 64, 64, 3))
  shapes = jax.eval_shape(lambda key: module.init(key, image), jax.random.key(0))
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes['params']))


def test_sizes_are_the_published_ones():
  # 3,157,200 and 11,166,560 are published; 16 of them are the fixed numbers 0 to 15 of the bins.
  assert parameters('n', 80) == 3_157_200 - 16
  assert parameters('s', 80) == 11_166_560 - 16


def test_fewer_classes_narrow_the_head_of_the_small_size_alone():
  # n: the class way is 64 wide where 80 classes make it 80; s: 128 in both, only the last layers.
  assert parameters('n', 6) == 3_012_002
  assert parameters('s', 80) - parameters('s', 6) == 3 * 74 * (128 + 1)


def test_shapes_of_an_image_that_no_stride_divides():
  module, variables = made()
  said = jax.jit(module.apply)(variables, images())
  cells = 5 * 9 + 3 * 5 + 2 * 3
  assert said.logits.shape == (2, cells, 3)
  assert said.bins.shape == (2, cells, 4, 4)
  assert said.boxes.shape == (2, cells, 4)
  np.testing.assert_array_equal(np.unique(said.strides, return_counts=True)[1], [45, 15, 6])
  # Level by level, row by row.
  np.testing.assert_array_equal(
    said.centres[np.array([0, 1, 9, 45, 60])], [[4, 4], [12, 4], [4, 12], [8, 8], [16, 16]]
  )


def test_every_box_holds_its_centre_and_starts_at_half_of_its_reach():
  module, variables = made()
  said = jax.jit(module.apply)(variables, images())
  assert (said.boxes[..., :2] <= said.centres).all()
  assert (said.boxes[..., 2:] >= said.centres).all()
  widths = (said.boxes[..., 2] - said.boxes[..., 0]) / said.strides
  np.testing.assert_allclose(widths, 3.0, rtol=0.2)  # 1.5 of 0 to 3 to either side
  np.testing.assert_allclose(jax.nn.sigmoid(said.logits), 0.01, rtol=0.3)  # before training


def test_boxes_from_bins_by_hand():
  probability = [[0.1, 0.2, 0.7], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.25, 0.5, 0.25]]
  bins = jnp.log(jnp.array([probability]) + 1e-20)
  box = yolo.boxes_from_bins(bins, jnp.array([[24.0, 40.0]]), jnp.array([16.0]))
  np.testing.assert_allclose(box, [[24 - 1.6 * 16, 40, 24 + 1.5 * 16, 40 + 16]], rtol=1e-6)


def test_an_object_moves_the_cell_that_it_lies_in_most():
  module, variables = made()
  before = images(64, 64, 1)
  after = before.at[:, 40:48, 8:16].add(3.0)
  said = [jax.jit(module.apply)(variables, x).logits[0, :64] for x in (before, after)]
  moved = jnp.abs(said[1] - said[0]).max(-1).reshape(8, 8)
  row, column = np.unravel_index(moved.argmax(), (8, 8))
  assert abs(row - 5) <= 1
  assert abs(column - 1) <= 1


def test_padding_is_invisible_and_statistics_follow_with_three_hundredths():
  module, variables = made()
  x = jnp.concatenate([images(), 50 * images()])
  valid = jnp.array([True, True, False, False])
  apply = jax.jit(functools.partial(module.apply, train=True, mutable=['batch_stats']))
  short, short_state = apply(variables, images(), valid=None)
  long, long_state = apply(variables, x, valid=valid)
  np.testing.assert_allclose(long.logits[:2], short.logits, rtol=1e-3, atol=1e-4)
  for a, b in zip(jax.tree.leaves(long_state), jax.tree.leaves(short_state), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
  stem = models.conv2d(
    images(), variables['params']['backbone']['stem']['0']['kernel'], stride=2, padding=1
  )
  running = short_state['batch_stats']['backbone']['stem']['1']['mean']
  np.testing.assert_allclose(running, 0.03 * stem.mean((0, 1, 2)), rtol=1e-3, atol=1e-5)


def test_half_types_give_boxes_in_full_precision():
  module, variables = made(dtype=jnp.bfloat16)
  said = jax.jit(module.apply)(variables, images())
  assert {said.logits.dtype, said.bins.dtype, said.boxes.dtype} == {jnp.dtype(jnp.float32)}
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize('settings', [{'width': 0.0}, {'depth': -1.0}, {'num_bins': 1}])
def test_rejects_bad_arguments(settings):
  with pytest.raises(ValueError, match='the first two must be above 0'):
    models.Yolo(3, **settings).init(jax.random.key(0), images())
