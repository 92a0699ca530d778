"""A loss becomes a step: gradients by hand, over devices, and the running average."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdefect import losses, optim
from jaxdefect.contracts import to_fitted


def squared_error(key, params, model_state, batch):
  """Masked squared error of a linear model; counts the steps in its model state."""
  del key
  residual = jnp.where(batch['valid'], batch['x'] @ params['kernel'] - batch['y'], 0)
  weight = jnp.sum(batch['valid'])
  scalars = {'residual': (jnp.sum(residual), weight)}
  return jnp.sum(residual**2), (weight, {'calls': model_state['calls'] + 1}, scalars)


def make_batch(num, seed=0, valid=None):
  generator = np.random.default_rng(seed)
  return {
    'x': generator.normal(size=(num, 3)),
    'y': generator.normal(size=num),
    'valid': np.ones(num, bool) if valid is None else np.array(valid),
  }


def test_value_by_hand():
  batch = make_batch(4, valid=[True, True, False, True])
  kernel = np.array([1.0, -2.0, 0.5])
  optimizer = optax.sgd(0.1)
  state = optim.initial_state({'kernel': jnp.array(kernel)}, {'calls': jnp.array(0)}, optimizer)
  step = jax.jit(optim.gradient_step(squared_error, optimizer))
  new, scalars = step(jax.random.key(0), state, batch)

  kept = batch['valid']
  residual = (batch['x'] @ kernel - batch['y'])[kept]
  gradient = 2 * batch['x'][kept].T @ residual / 3
  np.testing.assert_allclose(new.params['kernel'], kernel - 0.1 * gradient, rtol=1e-5)
  np.testing.assert_allclose(scalars['loss'], (np.sum(residual**2), 3), rtol=1e-5)
  np.testing.assert_allclose(scalars['residual'], (np.sum(residual), 3), rtol=1e-5)
  np.testing.assert_allclose(scalars['gradient_norm'], (np.linalg.norm(gradient), 1), rtol=1e-5)
  assert (int(new.step), int(new.model_state['calls'])) == (1, 1)


def test_padding_alone_moves_nothing():
  optimizer = optax.sgd(0.1)
  state = optim.initial_state({'kernel': jnp.ones(3)}, {'calls': jnp.array(0)}, optimizer)
  step = jax.jit(optim.gradient_step(squared_error, optimizer))
  new, scalars = step(jax.random.key(0), state, make_batch(2, valid=[False, False]))
  np.testing.assert_array_equal(new.params['kernel'], 1)
  assert scalars['gradient_norm'] == (0, 1)


def contrastive_error(axis_name):
  def loss(key, params, model_state, batch):
    noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (3,)))(batch['index'])
    views = [jnp.tanh(view @ params['in']) @ params['out'] for view in (batch['x'], noise)]
    values = losses.three_view_nt_xent(
      views[0], views[1], views[0] + views[1],
      temperature=0.5, valid=batch['valid'], axis_name=axis_name,
    )  # fmt: skip
    return jnp.sum(values), (jnp.sum(batch['valid']), model_state, {})

  return loss


def test_two_devices_equal_one():
  with jax.enable_x64(True):
    generator = np.random.default_rng(0)
    params = {'in': generator.normal(size=(3, 8)), 'out': generator.normal(size=(8, 4))}
    params = jax.tree.map(jnp.array, params)
    # Device 0 holds three valid examples and device 1 a single one.
    batch = make_batch(6, valid=[True, True, True, False, True, False]) | {'index': np.arange(6)}
    optimizer = optim.adam(learning_rate=0.01, steps=9, clip_norm=1.0, weight_decay=0.1)
    state = optim.initial_state(params, {}, optimizer, average_decay=0.9)

    def make_step(axis_name):
      return optim.gradient_step(
        contrastive_error(axis_name), optimizer, axis_name=axis_name, average_decay=0.9
      )

    one, two = (
      jax.jit(make_step(None)),
      jax.pmap(make_step('d'), axis_name='d', in_axes=(None, 0, 0)),
    )
    sharded = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), batch)
    both = jax.tree.map(lambda x: jnp.stack([x, x]), state)
    key = jax.random.key(1)
    for _ in range(3):
      state, scalars = one(key, state, batch)
      both, both_scalars = two(key, both, sharded)
    for index in range(2):
      got = jax.tree.map(lambda x, i=index: x[i], (both, both_scalars))
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9), got, (state, scalars)
      )


def noisy_error(key, params, model_state, batch):
  """Squared error of an input with noise of each example's own; weighs the valid ones."""
  noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (3,)))(batch['index'])
  hidden = jnp.tanh((batch['x'] + noise) @ params['in'])
  residual = jnp.where(batch['valid'], hidden @ params['out'] - batch['y'], 0)
  weight = jnp.sum(batch['valid'])
  return jnp.sum(residual**2), (weight, model_state, {'residual': (residual.sum(), weight)})


@pytest.mark.parametrize('accumulate', [2, 4, 8])
def test_accumulated_equals_whole(accumulate):
  with jax.enable_x64(True):
    generator = np.random.default_rng(0)
    params = {'in': generator.normal(size=(3, 5)), 'out': generator.normal(size=5)}
    params = jax.tree.map(jnp.array, params)
    # The parts are not equally full, and the last one is empty.
    valid = [True, True, True, False, True, False, False, False]
    batch = make_batch(8, valid=valid) | {'index': np.arange(8)}
    optimizer = optim.adam(learning_rate=0.01, steps=9, clip_norm=1.0, weight_decay=0.1)
    known = {'table': jnp.arange(3)}
    start = optim.initial_state(params, known, optimizer, average_decay=0.9)

    def run(accumulate):
      step = jax.jit(
        optim.gradient_step(noisy_error, optimizer, average_decay=0.9, accumulate=accumulate)
      )
      state = start
      for _ in range(2):
        state, scalars = step(jax.random.key(1), state, batch)
      return state, scalars

    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9), run(accumulate), run(1)
    )


def test_accumulates_on_every_device():
  with jax.enable_x64(True):
    params = {'in': jnp.ones((3, 5), jnp.float64), 'out': jnp.arange(5.0)}
    valid = [True, True, True, True, True, False, False, False]
    batch = make_batch(8, valid=valid) | {'index': np.arange(8)}
    optimizer = optax.sgd(0.1)
    state = optim.initial_state(params, {}, optimizer)
    key = jax.random.key(1)
    expected, _ = optim.gradient_step(noisy_error, optimizer)(key, state, batch)
    step = optim.gradient_step(noisy_error, optimizer, axis_name='d', accumulate=2)
    shards = jax.tree.map(lambda x: x.reshape(2, 4, *x.shape[1:]), batch)
    found, _ = jax.pmap(step, axis_name='d', in_axes=(None, None, 0))(key, state, shards)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, [b] * 2, rtol=0, atol=1e-9),
      found.params,
      expected.params,
    )


def test_accumulation_needs_parts_that_divide_the_batch_and_do_not_belong_together():
  optimizer = optax.sgd(0.1)
  state = optim.initial_state({'kernel': jnp.ones(3)}, {'calls': jnp.array(0)}, optimizer)
  step = optim.gradient_step(squared_error, optimizer, accumulate=3)
  with pytest.raises(ValueError, match='accumulate is 3, but a device holds 4 examples'):
    step(jax.random.key(0), state, make_batch(4))
  with pytest.raises(ValueError, match='accumulate is 2; it can only be 1, because of a reason'):
    optim.gradient_step(squared_error, optimizer, accumulate=2, coupled='of a reason')


def test_key_is_folded_with_the_step():
  def loss(key, params, model_state, batch):
    del batch
    return params['w'] * jax.random.normal(key), (1, model_state, {})

  optimizer = optax.sgd(1.0)
  state = optim.initial_state({'w': jnp.zeros(())}, {}, optimizer)
  step = jax.jit(optim.gradient_step(loss, optimizer))
  key = jax.random.key(3)
  expected = 0.0
  for t in range(2):
    state, _ = step(key, state, {})
    expected -= float(jax.random.normal(jax.random.fold_in(key, t)))
  np.testing.assert_allclose(state.params['w'], expected, rtol=1e-6)


def drift(key, params, model_state, batch):
  """Gradient -1, so plain descent at rate 1 counts 1, 2, 3, ..."""
  del key, batch
  return -params['w'], (1, model_state, {})


def test_average_by_hand():
  optimizer = optax.sgd(1.0)
  state = optim.initial_state({'w': jnp.zeros(())}, {}, optimizer, average_decay=0.9)
  step = jax.jit(optim.gradient_step(drift, optimizer, average_decay=0.9))
  seen = []
  for _ in range(3):
    state, _ = step(jax.random.key(0), state, {})
    seen.append(float(state.model_state['average_params']['w']))
  expected = [1, (0.9 * 1 + 2) / 1.9, (0.81 * 1 + 0.9 * 2 + 3) / 2.71]
  np.testing.assert_allclose(seen, expected, rtol=1e-5)
  np.testing.assert_allclose(to_fitted(state, ()).params['w'], expected[-1], rtol=1e-5)


def test_average_needs_a_place():
  optimizer = optax.sgd(1.0)
  state = optim.initial_state({'w': jnp.zeros(())}, {}, optimizer)
  with pytest.raises(ValueError, match='initial_state'):
    optim.gradient_step(drift, optimizer, average_decay=0.9)(jax.random.key(0), state, {})
  with pytest.raises(ValueError, match='average_decay is 1'):
    optim.gradient_step(drift, optimizer, average_decay=1.0)


def test_a_gradient_that_is_not_finite_shows():
  def loss(key, params, model_state, batch):
    del key, batch
    return jnp.sqrt(params['w']), (1, model_state, {})

  optimizer = optax.sgd(1.0)
  state = optim.initial_state({'w': jnp.zeros(())}, {}, optimizer)
  _, scalars = optim.gradient_step(loss, optimizer)(jax.random.key(0), state, {})
  assert not np.isfinite(scalars['gradient_norm'][0])


def test_learning_rate_is_reported():
  optimizer = optim.partition.freeze(
    optim.sgd(learning_rate=1.0, steps=4, warmup_steps=2), lambda path: path == ('b',)
  )
  state = optim.initial_state({'w': jnp.zeros(()), 'b': jnp.zeros(())}, {}, optimizer)
  step = jax.jit(optim.gradient_step(drift, optimizer))
  seen = []
  for _ in range(3):
    state, scalars = step(jax.random.key(0), state, {})
    seen.append(float(scalars['learning_rate'][0]))
  assert seen == [0.5, 1.0, 1.0]
