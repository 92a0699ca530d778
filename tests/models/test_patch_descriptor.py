"""The dense descriptor is the network of a patch, slid over every place."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect.models.patch_descriptor import (
  FIELDS,
  DilatedConv,
  PatchDescriptor,
  pad_to_cells,
  windows_maximum,
)


@functools.cache
def made(field: int):
  module = PatchDescriptor(field, features=3, width=2)
  variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, field, field, 3)))
  return module, variables


@pytest.mark.parametrize(
  ('field', 'stride'), [(17, 1), (17, 4), (33, 1), (33, 2), (33, 4), (33, 6), (65, 1), (65, 4)]
)
def test_dense_is_the_sliding_window(field, stride):
  module, variables = made(field)
  height, width = field + 7, field + 12
  image = jax.random.normal(jax.random.key(1), (1, height, width, 3))
  dense = jax.jit(functools.partial(module.apply, stride=stride))(variables, image)
  rows, columns = 7 // stride + 1, 12 // stride + 1
  assert dense.shape == (1, rows, columns, 3)
  places = [(i * stride, j * stride) for i in range(rows) for j in range(columns)]
  patches = jnp.stack([image[0, i : i + field, j : j + field] for i, j in places])
  # A patch by itself, with ordinary pools.
  alone = jax.jit(functools.partial(module.apply, stride=8))(variables, patches)
  assert alone.shape == (len(places), 1, 1, 3)
  np.testing.assert_allclose(dense.reshape(-1, 3), alone[:, 0, 0], atol=2e-5)
  assert np.ptp(np.asarray(alone), axis=0).min() > 1e-3


@pytest.mark.parametrize('field', FIELDS)
def test_field_is_all_that_a_descriptor_sees(field):
  module, variables = made(field)
  image = jax.random.normal(jax.random.key(1), (1, field, field, 3))
  slope = jax.jit(jax.grad(lambda x: module.apply(variables, x, stride=8).sum()))(image)
  seen = np.asarray(jnp.abs(slope[0]).sum(-1)) > 0
  # The last row may be dropped by a pool of an odd map (of 65 pixels), the first never.
  assert seen[0].any()
  assert seen[:, 0].any()
  assert seen[-8:].any()


def test_published_sizes():
  for field, layers in FIELDS.items():
    shape = jax.ShapeDtypeStruct((1, field, field, 3), jnp.float32)
    module = PatchDescriptor(field)
    y, variables = jax.eval_shape(
      lambda x, m=module: m.init_with_output(jax.random.key(0), x), shape
    )
    assert y.shape == (1, 1, 1, 128)
    assert len(variables['params']) == len(layers)


def test_dilated_convolution_by_hand():
  x = np.random.default_rng(0).normal(size=(1, 7, 8, 2)).astype(np.float32)
  module = DilatedConv(3, kernel_size=2, stride=2, dilation=3)
  variables = module.init(jax.random.key(0), x)
  variables['params']['bias'] = jnp.arange(3.0)
  kernel = np.asarray(variables['params']['kernel'])
  expected = np.zeros((1, 2, 3, 3), np.float32)
  for i in range(2):
    for j in range(3):
      taps = x[0, 2 * i : 2 * i + 4 : 3, 2 * j : 2 * j + 4 : 3]
      expected[0, i, j] = np.einsum('abc,abco->o', taps, kernel) + np.arange(3)
  np.testing.assert_allclose(module.apply(variables, x), expected, atol=1e-5)


def test_windows_maximum_by_hand():
  x = np.random.default_rng(0).normal(size=(2, 5, 6, 1)).astype(np.float32)
  actual = windows_maximum(jnp.asarray(x), dilation=2)
  assert actual.shape == (2, 3, 4, 1)
  for i in range(3):
    for j in range(4):
      np.testing.assert_array_equal(actual[:, i, j], x[:, i : i + 3 : 2, j : j + 3 : 2].max((1, 2)))


@pytest.mark.parametrize(('field', 'stride'), [(17, 1), (17, 4), (33, 4), (65, 8), (17, 17)])
def test_every_cell_has_its_patch(field, stride):
  rows = np.broadcast_to(np.arange(40.0)[None, :, None, None], (1, 40, 37, 1))
  padded = np.asarray(pad_to_cells(jnp.asarray(rows), field=field, stride=stride))
  cells = -(-40 // stride)
  assert padded.shape[1] == (cells - 1) * stride + field
  assert padded.shape[2] == (-(-37 // stride) - 1) * stride + field
  before = (field - stride + 1) // 2
  inside = np.broadcast_to(rows[0, :, :1], (40, *padded.shape[2:]))
  np.testing.assert_array_equal(padded[0, before : before + 40], inside)
  # The middle of each patch is the middle of its cell.
  assert abs((field - 1) / 2 - before - (stride - 1) / 2) <= 0.5


def test_rejects_bad_arguments():
  with pytest.raises(ValueError, match='field must be one of 17, 33, 65 pixels, got 20'):
    PatchDescriptor(20)
  module, variables = made(17)
  with pytest.raises(ValueError, match='images at least 17 x 17 pixels, got 1 and 16 x 20'):
    module.apply(variables, jnp.zeros((1, 16, 20, 3)))
