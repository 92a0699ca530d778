"""Cross-stage partial blocks by hand, and the pooling behind them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models
from jaxdefect.models import csp


def drawn(shape=(2, 7, 6, 6), dtype=jnp.float32):
  return jax.random.normal(jax.random.key(1), shape, dtype)


@functools.cache
def made(kind, features, **settings):
  module = kind(features, **settings)
  variables = jax.jit(functools.partial(module.init, running=True))(jax.random.key(0), drawn())
  return module, variables


def convolved(x, params):
  """A 3x3 or 1x1 convolution, the normalisation of fresh statistics, and SiLU."""
  kernel = params['0']['kernel']
  y = models.conv2d(x, kernel, padding=kernel.shape[0] // 2) / np.sqrt(1 + 1e-5)
  return y * jax.nn.sigmoid(y)


@pytest.mark.parametrize('shortcut', [False, True])
def test_block_by_hand(shortcut):
  module, variables = made(models.CSPBlock, 8, blocks=2, shortcut=shortcut)

  @jax.jit
  def by_hand(x, params):
    y = convolved(x, params['enter'])
    kept = [y[..., :4], y[..., 4:]]
    for index in range(2):
      inside = convolved(kept[-1], params[f'blocks.{index}']['conv1'])
      inside = convolved(inside, params[f'blocks.{index}']['conv2'])
      kept.append(kept[-1] + inside if shortcut else inside)
    return convolved(jnp.concatenate(kept, -1), params['leave'])

  found = jax.jit(functools.partial(module.apply, running=True))(variables, drawn())
  np.testing.assert_allclose(found, by_hand(drawn(), variables['params']), rtol=1e-4, atol=1e-5)
  assert variables['params']['leave']['0']['kernel'].shape == (1, 1, 16, 8)


def test_window_max_is_the_largest_in_reach():
  x = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype(np.float32)
  expected = np.empty_like(x)
  for i in range(6):
    for j in range(5):
      expected[:, i, j] = x[:, max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3].max((1, 2))
  np.testing.assert_array_equal(csp.window_max(jnp.array(x), 5), expected)
  np.testing.assert_array_equal(csp.window_max(jnp.array(x[:, :1, :1]), 5), x[:, :1, :1])


def test_gradient_of_a_maximum_goes_to_where_it_is():
  # Through the second maximum too, although its neighbours all see the same pixel.
  x = jnp.array(np.random.default_rng(0).permutation(42).reshape(1, 6, 7, 1), jnp.float32)
  slope = jax.grad(lambda x: csp.window_max(csp.window_max(x, 5), 5).sum())(x)
  expected = np.zeros((6, 7))
  values = np.asarray(x[0, ..., 0])
  for i in range(6):
    for j in range(7):
      seen = np.zeros((6, 7), bool)
      seen[max(i - 4, 0) : i + 5, max(j - 4, 0) : j + 5] = True
      expected[np.unravel_index(np.where(seen, values, -1).argmax(), values.shape)] += 1
  np.testing.assert_allclose(slope[0, ..., 0], expected, atol=1e-5)


def test_pyramid_pool_by_hand():
  module, variables = made(models.PyramidPool, 8)

  @jax.jit
  def by_hand(x, params):
    y = convolved(x, params['enter'])
    maps = [y, *(csp.window_max(y, size) for size in (5, 9, 13))]
    return convolved(jnp.concatenate(maps, -1), params['leave'])

  found = jax.jit(functools.partial(module.apply, running=True))(variables, drawn())
  np.testing.assert_allclose(found, by_hand(drawn(), variables['params']), rtol=1e-4, atol=1e-5)
  assert variables['params']['leave']['0']['kernel'].shape == (1, 1, 12, 8)


def test_padding_is_invisible_to_the_statistics():
  module, variables = made(models.CSPBlock, 8)
  x = jnp.concatenate([drawn(), 100 * drawn()])
  valid = jnp.array([True, True, False, False])
  apply = jax.jit(functools.partial(module.apply, running=False, mutable=['batch_stats']))
  short, short_state = apply(variables, drawn(), valid=None)
  long, long_state = apply(variables, x, valid=valid)
  np.testing.assert_allclose(long[:2], short, rtol=1e-4, atol=1e-5)
  for a, b in zip(jax.tree.leaves(long_state), jax.tree.leaves(short_state), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_half_types_stay_half():
  module, variables = made(models.PyramidPool, 8, dtype=jnp.bfloat16)
  assert module.apply(variables, drawn(), running=True).dtype == jnp.bfloat16
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_rejects_an_odd_number_of_channels():
  with pytest.raises(ValueError, match='features is 7; the halves of a CSP block'):
    models.CSPBlock(7).init(jax.random.key(0), drawn(), running=True)
