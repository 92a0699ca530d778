"""Deformable convolution: against torchvision's numbers, plain convolutions and finite differences.

Shape legend: N images, H x W pixels, C input and O output channels, G offset groups.
"""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from jaxdefect import ops
from jaxdefect.ops import sampled_product

# Compiled as users run it; the eager path is compared in one test.
deform = jax.jit(ops.deform_conv2d, static_argnames=('stride', 'padding', 'dilation'))


def _arrays(seed=0, *, groups=1, parts=1, dtype=np.float32):
  """x [2, 7, 6, 4], offset [2, 7, 6, 18 G], kernel [3, 3, 4/groups, 6], mask [2, 7, 6, 9 G]."""
  random = np.random.default_rng(seed)
  shapes = (2, 7, 6, 4), (2, 7, 6, 18 * parts), (3, 3, 4 // groups, 6), (2, 7, 6, 9 * parts)
  x, offset, kernel, mask = (random.normal(size=shape).astype(dtype) for shape in shapes)
  return x, 1.5 * offset, kernel, mask


def _relative(ours, theirs):
  return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def test_value_by_hand():
  x = jnp.arange(12.0).reshape(1, 3, 4, 1)
  offset = jnp.zeros((1, 3, 4, 2)).at[0, 1, 1].set(jnp.array([0.5, -0.25]))
  y = deform(x, offset, jnp.full((1, 1, 1, 1), 2.0))
  expected = 2 * np.arange(12.0).reshape(3, 4)
  expected[1, 1] = 2 * (5 + 0.5 * 4 - 0.25)
  np.testing.assert_allclose(y[0, ..., 0], expected)


def test_border_by_hand():
  # One row of pixels; the point moves out of it to the right and up.
  x = jnp.array([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1)
  kernel = jnp.ones((1, 1, 1, 1))

  def at(y, x_offset):
    offset = jnp.tile(jnp.array([y, x_offset]), (1, 1, 3, 1))
    return deform(x, offset, kernel)[0, 0, 2, 0]

  right = [at(0.0, moved) for moved in (0.0, 0.25, 0.75, 1.0, 1.5)]
  np.testing.assert_allclose(right, [4.0, 3.0, 1.0, 0.0, 0.0])
  up = [at(moved, 0.0) for moved in (-0.25, -0.75, -1.0, -1.25)]
  np.testing.assert_allclose(up, [3.0, 1.0, 0.0, 0.0])


@pytest.mark.parametrize(('dtype', 'tolerance'), [(np.float32, 1e-5), (np.float64, 1e-9)])
def test_matches_golden(golden_dir, dtype, tolerance):
  golden = np.load(golden_dir / 'deform_conv2d.npz')
  with jax.enable_x64(dtype == np.float64):
    for i, case in enumerate(json.loads(str(golden['cases']))):
      names = ['x', 'offset', 'weight'] + ['mask'] * (f'{i}/mask' in golden.files)
      arrays = [jnp.asarray(golden[f'{i}/{name}'], dtype) for name in names]
      settings = {name: case[name] for name in ('stride', 'padding', 'dilation')}

      @jax.jit
      def value_and_gradients(arrays, cotangent, settings=settings):
        y, pullback = jax.vjp(lambda *a: ops.deform_conv2d(*a, **settings), *arrays)
        return y, pullback(cotangent)

      cotangent = jnp.asarray(golden[f'{i}/cotangent'], dtype)
      y, gradients = value_and_gradients(arrays, cotangent)
      assert y.dtype == dtype
      assert _relative(y, golden[f'{i}/y']) < tolerance
      for name, gradient in zip(names, gradients):
        assert gradient.dtype == dtype
        assert _relative(gradient, golden[f'{i}/grad_{name}']) < tolerance, (i, name)


@pytest.mark.parametrize('groups', [1, 2])
def test_zero_offsets_are_a_convolution(groups):
  x, _, kernel, _ = _arrays(groups=groups)
  stride, padding, dilation = (2, 1), (1, 2), (1, 2)
  plain = lax.conv_general_dilated(
    x,
    kernel,
    stride,
    [(1, 1), (2, 2)],
    rhs_dilation=dilation,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )
  offset, mask = jnp.zeros((*plain.shape[:3], 18)), jnp.ones((*plain.shape[:3], 9))
  settings = {'stride': stride, 'padding': padding, 'dilation': dilation}
  np.testing.assert_allclose(deform(x, offset, kernel, **settings), plain, atol=1e-5)
  np.testing.assert_allclose(deform(x, offset, kernel, mask, **settings), plain, atol=1e-5)
  half = deform(x, offset, kernel, mask / 2, **settings)
  np.testing.assert_allclose(half, plain / 2, atol=1e-5)


def test_whole_offsets_are_a_shifted_convolution():
  x, _, kernel, _ = _arrays()
  offset = jnp.tile(jnp.array([2.0, -1.0]), (2, 7, 6, 9))
  shifted = np.zeros((2, 11, 10, 4), np.float32)
  shifted[:, 2:9, 2:8] = x
  shifted = shifted[:, 3:12, 0:8]  # two rows down, one column left, padded by one
  plain = lax.conv_general_dilated(
    np.pad(shifted, ((0, 0), (0, 1), (0, 0), (0, 0))),
    kernel,
    (1, 1),
    'VALID',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  np.testing.assert_allclose(deform(x, offset, kernel, padding=1), plain, atol=1e-5)


def test_offset_groups_move_their_own_channels():
  x, offset, kernel, mask = _arrays(parts=2)
  parts = [
    deform(
      x[..., 2 * g : 2 * g + 2],
      offset[..., 18 * g : 18 * g + 18],
      kernel[:, :, 2 * g : 2 * g + 2],
      mask[..., 9 * g : 9 * g + 9],
      padding=1,
    )
    for g in range(2)
  ]
  np.testing.assert_allclose(
    deform(x, offset, kernel, mask, padding=1), parts[0] + parts[1], atol=1e-5
  )


def test_samples_far_outside_are_zero_without_gradient():
  x, offset, kernel, mask = _arrays()
  for far in (1e3, -1e3, 1e30, np.inf):
    arrays = x, offset + np.float32(far), kernel, mask
    y, pullback = jax.vjp(lambda *a: deform(*a, padding=1), *map(jnp.asarray, arrays))
    np.testing.assert_array_equal(y, 0)
    for gradient in pullback(jnp.ones_like(y)):
      np.testing.assert_array_equal(gradient, 0)


def test_offset_that_is_no_number_shows():
  x, offset, kernel, _ = _arrays()
  offset[0, 3, 2, 4] = np.nan
  y = np.asarray(deform(x, offset, kernel, padding=1))
  assert np.isnan(y[0, 3, 2]).all()
  assert np.isnan(y).sum() == y.shape[3]


@pytest.mark.parametrize(('groups', 'parts', 'masked'), [(1, 1, True), (2, 4, True), (1, 2, False)])
def test_second_derivatives_match_numeric(groups, parts, masked):
  with jax.enable_x64(True):
    x, offset, kernel, mask = _arrays(groups=groups, parts=parts, dtype=np.float64)
    # Away from whole coordinates, where the slope jumps.
    offset = np.floor(offset) + np.random.default_rng(1).uniform(0.2, 0.8, offset.shape)
    arrays = (x, offset, kernel, mask) if masked else (x, offset, kernel)
    function = functools.partial(deform, padding=1)
    check_grads(
      lambda *a: jnp.sin(function(*a)).sum(),
      tuple(map(jnp.asarray, arrays)),
      order=2,
      modes=['rev'],
      rtol=1e-5,
      atol=1e-5,
      eps=1e-5,
    )


def test_blocks_change_nothing(monkeypatch):
  arrays = [jnp.asarray(a) for a in _arrays(groups=2, parts=2)]
  cotangent = jnp.asarray(np.random.default_rng(2).normal(size=(2, 7, 6, 6)), jnp.float32)

  def value_and_gradients():
    y, pullback = jax.vjp(lambda *a: ops.deform_conv2d(*a, padding=1), *arrays)
    return y, *pullback(cotangent)

  whole = value_and_gradients()
  # 84 output pixels of 144 bytes: pieces of 14, tiles of 2.
  monkeypatch.setattr(sampled_product, 'PIECE_BYTES', 14 * 144)
  monkeypatch.setattr(sampled_product, 'TILE_BYTES', 3 * 144)
  for ours, theirs in zip(value_and_gradients(), whole):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_jit_matches_eager():
  x, offset, kernel, mask = _arrays()
  eager = ops.deform_conv2d(x, offset, kernel, mask, padding=1)
  np.testing.assert_allclose(deform(x, offset, kernel, mask, padding=1), eager, atol=1e-5)


def test_vmap_matches_loop():
  many = [np.stack(pair) for pair in zip(_arrays(0), _arrays(1))]
  loop = np.stack([deform(*arrays, padding=1) for arrays in zip(*many)])
  mapped = jax.jit(jax.vmap(functools.partial(ops.deform_conv2d, padding=1)))(*many)
  np.testing.assert_allclose(mapped, loop, atol=1e-5)


def test_permuting_images_permutes_outputs():
  x, offset, kernel, mask = _arrays()
  y = deform(x, offset, kernel, mask, padding=1)
  np.testing.assert_array_equal(
    deform(x[::-1], offset[::-1], kernel, mask[::-1], padding=1), y[::-1]
  )


def test_bfloat16_is_close():
  arrays = [jnp.asarray(a, jnp.bfloat16) for a in _arrays()]
  exact = [a.astype(jnp.float32) for a in arrays]

  def value_and_gradients(arrays):
    y, pullback = jax.vjp(lambda *a: deform(*a, padding=1), *arrays)
    return y, *pullback(jnp.ones_like(y))

  for ours, theirs in zip(value_and_gradients(arrays), value_and_gradients(exact)):
    assert ours.dtype == jnp.bfloat16
    assert _relative(ours.astype(jnp.float32), np.asarray(theirs)) < 0.02


def test_offsets_keep_their_precision_beside_bfloat16():
  # At column 300 bfloat16 holds even numbers only.
  x = (jnp.arange(400) % 2).reshape(1, 1, 400, 1).astype(jnp.bfloat16)
  offset = jnp.tile(jnp.array([0.0, 0.25]), (1, 1, 400, 1))
  y = deform(x, offset, jnp.ones((1, 1, 1, 1), jnp.bfloat16))
  np.testing.assert_array_equal(y[0, 0, 300:304, 0].astype(jnp.float32), [0.25, 0.75, 0.25, 0.75])


def test_no_images_give_no_outputs():
  _, _, kernel, _ = _arrays()
  y = deform(jnp.zeros((0, 7, 6, 4)), jnp.zeros((0, 7, 6, 18)), kernel, padding=1)
  assert y.shape == (0, 7, 6, 6)


def _temporary_bytes(function, *shapes):
  arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  memory = jax.jit(function).lower(*arrays).compile().memory_analysis()
  return memory.temp_size_in_bytes


@pytest.mark.parametrize(('side', 'groups'), [(16, 1), (48, 1), (48, 2)])
def test_memory_stays_within_two_column_matrices(side, groups):
  shapes = (2, side, side, 64), (2, side, side, 18), (3, 3, 64 // groups, 32), (2, side, side, 9)
  columns = 4 * math.prod(shapes[0]) * 9
  function = functools.partial(ops.deform_conv2d, padding=1)
  assert _temporary_bytes(function, *shapes) < 2 * columns
  if side == 48:  # several pieces: the gradients as well
    gradients = jax.grad(lambda *a: function(*a).sum(), argnums=(0, 1, 2, 3))
    assert _temporary_bytes(gradients, *shapes) < 2 * columns


@pytest.mark.parametrize(
  ('changes', 'name'),
  [
    ({'offset': (2, 7, 6, 17)}, 'offset'),
    ({'offset': (2, 7, 5, 18)}, 'offset'),
    ({'offset': (2, 7, 6, 18 * 3)}, 'offset'),
    ({'offset': (2, 7, 6, 0)}, 'offset'),
    ({'mask': (2, 7, 6, 18)}, 'mask'),
    ({'mask': (2, 9)}, 'mask'),
    ({'kernel': (3, 3, 3, 6)}, 'kernel'),
    ({'kernel': (3, 3, 1, 6)}, 'kernel'),
    ({'kernel': (3, 3, 8, 6)}, 'kernel'),
    ({'x': (2, 0, 6, 4)}, 'x'),
    ({'kernel': (11, 3, 4, 6)}, 'kernel'),
    ({'stride': 0}, 'stride'),
    ({'padding': -1}, 'padding'),
    ({'dilation': (1, 2, 3)}, 'dilation'),
    ({'stride': 1.5}, 'stride'),
  ],
)
def test_rejects_bad_shape(changes, name):
  shapes = {
    'x': (2, 7, 6, 4),
    'offset': (2, 7, 6, 18),
    'kernel': (3, 3, 4, 6),
    'mask': (2, 7, 6, 9),
  }
  settings = {key: changes.pop(key) for key in ('stride', 'padding', 'dilation') if key in changes}
  arrays = {key: jnp.zeros(shape) for key, shape in {**shapes, **changes}.items()}
  with pytest.raises(ValueError, match=name) as error:
    ops.deform_conv2d(**arrays, **{'padding': 1, **settings})
  message = str(error.value)
  assert '\n' not in message
  assert message.endswith('.')
