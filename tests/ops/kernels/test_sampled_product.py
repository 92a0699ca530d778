"""The fused product and its gradients against the twin, step by step on any device.

Shape legend: P output pixels, T taps, G offset groups, C channels, O features, R rows of C/G.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import ops
from jaxdefect.ops import sampled_product as twin
from jaxdefect.ops.kernels import sampled_product as fused

# 37 pixels, 32 channels of a group and 32 features: several tiles each way, the last not full.
BLOCKS = fused.Blocks(pixels=16, channels=16, features=16)


def _operands(dtype=jnp.float32, *, parts=1, rows=20):
  """rows [20, 32], share [37, 2, G, 4], kernel [2, 32 G, 32], g [37, 32], index [37, 2, G, 4]."""
  random = np.random.default_rng(parts)
  shapes = (rows, 32), (37, 2, parts, 4), (2, 32 * parts, 32), (37, 32)
  r, share, kernel, g = (random.normal(size=shape).astype(np.float32) for shape in shapes)
  index = random.integers(0, rows, share.shape, np.int32)  # each row many times
  r, kernel, g = (jnp.asarray(array, dtype) for array in (r, kernel, g))
  return r, jnp.asarray(share), kernel, g, jnp.asarray(index)


def _agree(ours, theirs, tolerance):
  ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
  assert len(ours) == len(theirs)
  for one, other in zip(ours, theirs):
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    one, other = (np.asarray(array, np.float32) for array in (one, other))
    scale = np.nanmax(np.abs(other))
    assert scale > 0
    np.testing.assert_allclose(one / scale, other / scale, atol=tolerance)


@pytest.mark.parametrize('parts', [1, 3])
@pytest.mark.parametrize(('dtype', 'tolerance'), [(jnp.float32, 1e-6), (jnp.bfloat16, 0.01)])
def test_product_and_gradients_match_the_twin(dtype, tolerance, parts):
  rows, share, kernel, g, index = _operands(dtype, parts=parts)

  @jax.jit
  def ours(rows, share, kernel, g):
    settings = {'blocks': BLOCKS, 'interpret': True}
    return (
      fused.product(rows, share, kernel, index, **settings),
      fused.gradients(rows, share, kernel, g, index, **settings),
    )

  @jax.jit
  def theirs(rows, share, kernel, g):
    product = functools.partial(twin.sampled_product, index=index, implementation='xla')
    y, pullback = jax.vjp(product, rows, share, kernel)
    return y, pullback(g)

  _agree(ours(rows, share, kernel, g), theirs(rows, share, kernel, g), tolerance)


def test_tiles_beyond_the_last_pixel_add_nothing(monkeypatch):
  rows, share, kernel, g, index = _operands()

  def gradients(*arrays):
    return jax.jit(functools.partial(fused.gradients, blocks=BLOCKS, interpret=True))(*arrays)

  whole = gradients(rows, share, kernel, g, index)
  # 4 tiles of the kernel: 2 programs each for the 3 blocks of pixels, of which 1 has one too many.
  monkeypatch.setattr(fused, '_PARTS', 16)
  _agree(gradients(rows, share, kernel, g, index), whole, 1e-6)


@pytest.mark.parametrize(
  ('width', 'features', 'found'),
  [(64, 256, (32, 128)), (48, 80, (16, 16)), (96, 64, (32, 64)), (512, 48, (32, 16))],
)
def test_blocks_divide_what_they_are_laid_over(width, features, found):
  rows, kernel = jnp.zeros((1, width)), jnp.zeros((1, width, features))
  blocks = fused._divided(fused.Blocks(channels=32, features=128), rows, kernel)
  assert (blocks.channels, blocks.features) == found
  assert width % blocks.channels == features % blocks.features == 0


@pytest.mark.parametrize(
  ('change', 'fits'),
  [
    ({}, True),
    ({'dtype': jnp.bfloat16}, True),
    ({'dtype': jnp.float16}, True),
    ({'parts': 2}, True),
    ({'dtype': jnp.int32}, False),
    ({'width': 24}, False),
    ({'features': 8}, False),
    ({'groups': 2}, False),
    ({'share': jnp.float16}, False),
    ({'pixels': 0}, False),
  ],
)
def test_fits_what_the_kernels_can_do(change, fits):
  case = {'dtype': jnp.float32, 'width': 32, 'features': 16, 'groups': 1, 'parts': 1} | {
    'share': jnp.float32,
    'pixels': 3,
  }
  case |= change
  rows = jnp.zeros((5, case['width']), case['dtype'])
  share = jnp.zeros((case['pixels'], 2, case['parts'], 4), case['share'])
  channels = case['parts'] * case['width'] // case['groups']
  kernel = jnp.zeros((2, channels, case['features']), case['dtype'])
  assert fused.fits(rows, share, kernel) is fits


def _images(dtype=np.float32, *, num=2):
  """x [N, 4, 5, 32], offset [N, 4, 5, 36], kernel [3, 3, 32, 16] and mask [N, 4, 5, 18]; G is 2."""
  random = np.random.default_rng(0)
  shapes = (num, 4, 5, 32), (num, 4, 5, 36), (3, 3, 32, 16), (num, 4, 5, 18)
  return tuple(jnp.asarray(random.normal(size=shape), dtype) for shape in shapes)


def _convolve(implementation):
  return functools.partial(ops.deform_conv2d, padding=1, implementation=implementation)


def test_convolution_matches_the_twin_with_points_far_away_and_none():
  x, offset, kernel, mask = _images()
  offset = offset.at[0, 1, 2, 3].set(jnp.nan).at[1, 2, 3].set(1e30)
  ours, theirs = (
    jax.jit(_convolve(name))(x, offset, kernel, mask) for name in ('pallas_interpret', 'xla')
  )
  assert np.isnan(theirs).sum() == 16
  _agree(ours, theirs, 1e-6)


def test_first_and_second_derivatives_match_the_twin():
  arrays = _images(num=1)[:3]

  def derivatives(implementation):
    def loss(*arrays):
      return jnp.sin(_convolve(implementation)(*arrays)).sum()

    def steepness(*arrays):
      gradients = jax.grad(loss, argnums=(0, 1, 2))(*arrays)
      return sum(jnp.square(one).sum() for one in gradients), gradients

    return jax.jit(jax.grad(steepness, argnums=(0, 1, 2), has_aux=True))(*arrays)

  _agree(derivatives('pallas_interpret'), derivatives('xla'), 1e-5)


def test_vmap_matches_the_twin():
  many = [jnp.stack([array, array[::-1]]) for array in _images()]

  def value_and_gradients(implementation):
    def one(*arrays):
      y, pullback = jax.vjp(_convolve(implementation), *arrays)
      return y, pullback(jnp.cos(y))

    return jax.jit(jax.vmap(one))(*many)

  _agree(value_and_gradients('pallas_interpret'), value_and_gradients('xla'), 1e-5)
