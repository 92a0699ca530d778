"""A sum over parts is the sum, in the memory of one part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect.optim import accumulation


def described(part):
  """Floating-point and whole numbers, and a constant."""
  x = jnp.where(part['valid'], jnp.sin(part['pixels'].astype(jnp.float32)), 0.0)
  return {'sum': x.sum(), 'valid': part['valid'].sum(), 'rows': (x[:, None] ** 2).sum(0), 'one': 1}


@pytest.mark.parametrize('unroll', [True, False])
def test_parts_add_up(unroll):
  batch = {'pixels': np.arange(12, dtype=np.uint8), 'valid': np.arange(12) < 7}
  whole = jax.jit(described)(batch)

  @jax.jit
  def in_parts(batch):
    return accumulation.sum_over_parts(described, batch, parts=3, unroll=unroll)

  found = in_parts(batch)
  assert int(found.pop('one')) == 3
  del whole['one']
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, whole)
  assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, whole)
  assert found['valid'].dtype == whole['valid'].dtype


@pytest.mark.parametrize('unroll', [True, False])
def test_parts_add_up_on_every_device(unroll):
  def on_device(batch):
    total = accumulation.sum_over_parts(described, batch, parts=2, unroll=unroll)
    return jax.lax.psum(total['sum'], 'd')

  batch = {'pixels': np.arange(8, dtype=np.uint8), 'valid': np.arange(8) < 7}
  shards = jax.tree.map(lambda x: x.reshape(2, 4), batch)
  found = jax.pmap(on_device, axis_name='d')(shards)
  np.testing.assert_allclose(found, [described(batch)['sum']] * 2, rtol=1e-5)


@pytest.mark.parametrize('unroll', [True, False])
def test_one_part_at_a_time_is_in_memory(unroll):
  def loss(w, x):
    for _ in range(4):
      x = jnp.tanh(x @ w)
    return jnp.sum(x**2)

  def megabytes(parts):
    def gradient(w, x):
      return accumulation.sum_over_parts(
        lambda part: jax.grad(loss)(w, part), x, parts=parts, unroll=unroll
      )

    shapes = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((64, 64), (4096, 64)))
    compiled = jax.jit(gradient).lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 1e6

  assert megabytes(4) < 0.5 * megabytes(1)


def test_says_what_does_not_divide():
  with pytest.raises(ValueError, match='accumulate is 3, but a device holds 4 examples'):
    accumulation.sum_over_parts(jnp.sum, jnp.ones(4), parts=3)


@pytest.mark.parametrize('accumulate', [0, -1, 2.0, None])
def test_rejects_what_is_no_number_of_parts(accumulate):
  with pytest.raises(ValueError, match='must be an integer, 1 or more'):
    accumulation.check(accumulate, None)


def test_refuses_parts_of_what_belongs_together():
  accumulation.check(1, 'pairs are drawn')
  accumulation.check(4, None)
  with pytest.raises(ValueError, match='is 4; it can only be 1, because pairs are drawn'):
    accumulation.check(4, 'pairs are drawn')
