"""Schedules and optimisers against PyTorch's formulas, and partitions of a tree."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdefect import optim


def test_schedule_by_hand():
  rate = optim.schedule('cosine', learning_rate=2.0, steps=6, warmup_steps=2)
  expected = [1, 2, 2] + [1 + np.cos(np.pi * done / 4) for done in (1, 2, 3)]
  np.testing.assert_allclose([rate(t) for t in range(6)], expected, rtol=1e-5)
  constant = optim.schedule('constant', learning_rate=2.0, steps=3)
  np.testing.assert_allclose([constant(t) for t in range(3)], 2)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'kind': 'linear'}, 'schedule is'),
    ({'learning_rate': -1.0}, 'learning_rate is -1'),
    ({'warmup_steps': 9}, 'warmup_steps is 9'),
  ],
)
def test_schedule_rejects(arguments, message):
  with pytest.raises(ValueError, match=message):
    optim.schedule(**{'kind': 'cosine', 'learning_rate': 1.0, 'steps': 3} | arguments)


def run(optimizer, gradients, params):
  state = optimizer.init(params)
  for gradient in gradients:
    updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return params


def test_adam_by_hand():
  with jax.enable_x64(True):
    gradients = np.random.default_rng(0).normal(size=(3, 2, 2))
    w, m, v = np.ones((2, 2)), 0, 0
    for t, g in enumerate(gradients, 1):
      m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
      w = w - 0.1 * (m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8) + 0.05 * w)
    optimizer = optim.adam(learning_rate=0.1, steps=3, b1=0.8, b2=0.9, weight_decay=0.05)
    got = run(optimizer, list(map(jnp.array, gradients)), jnp.ones((2, 2)))
    np.testing.assert_allclose(got, w, rtol=1e-6)


def test_sgd_by_hand():
  gradients = np.random.default_rng(0).normal(size=(3, 2, 2))
  w, b = np.ones((2, 2)), 0
  for g in gradients:
    b = 0.9 * b + g + 0.05 * w
    w = w - 0.1 * b
  optimizer = optim.sgd(learning_rate=0.1, steps=3, weight_decay=0.05)
  got = run(optimizer, list(map(jnp.array, gradients)), jnp.ones((2, 2)))
  np.testing.assert_allclose(got, w, rtol=1e-5)


def test_weight_decay_spares_vectors():
  params = {'kernel': jnp.ones((2, 2)), 'scale': jnp.ones(2)}
  zero = jax.tree.map(jnp.zeros_like, params)
  for make in (optim.adam, optim.sgd):
    got = run(make(learning_rate=0.1, steps=1, weight_decay=0.5), [zero], params)
    np.testing.assert_allclose(got['kernel'], 0.95, rtol=1e-6)
    np.testing.assert_array_equal(got['scale'], 1)


def test_clipping_bounds_the_update():
  optimizer = optim.sgd(learning_rate=1.0, steps=1, clip_norm=0.5, momentum=0.0)
  got = run(optimizer, [{'a': jnp.array([3.0]), 'b': jnp.array([4.0])}], {'a': 0.0, 'b': 0.0})
  np.testing.assert_allclose([got['a'][0], got['b'][0]], [-0.3, -0.4], rtol=1e-6)


@pytest.mark.parametrize('bad', [{'clip_norm': 0.0}, {'weight_decay': -1.0}])
def test_optimizers_reject(bad):
  for make in (optim.adam, optim.sgd):
    with pytest.raises(ValueError, match=next(iter(bad))):
      make(learning_rate=0.1, steps=1, **bad)


@pytest.fixture
def params():
  return {'backbone': {'kernel': jnp.ones((7, 3))}, 'head': {'kernel': jnp.ones((3, 2))}}


def is_backbone(path):
  return path[0] == 'backbone'


def test_frozen_parameters_stay_and_keep_no_moments(params):
  optimizer = optim.partition.freeze(
    optim.adam(learning_rate=0.1, steps=1, clip_norm=1.0, weight_decay=0.1), is_backbone
  )
  shapes = {leaf.shape for leaf in jax.tree.leaves(optimizer.init(params))}
  assert shapes == {(), (3, 2)}
  got = run(optimizer, [params], params)
  np.testing.assert_array_equal(got['backbone']['kernel'], params['backbone']['kernel'])
  assert np.all(got['head']['kernel'] < 1)


def test_clipping_sees_trained_parameters_alone(params):
  optimizer = optim.partition.freeze(
    optim.sgd(learning_rate=1.0, steps=1, clip_norm=1.0, momentum=0.0), is_backbone
  )
  huge = {'backbone': {'kernel': 1e6 * jnp.ones((7, 3))}, 'head': {'kernel': jnp.ones((3, 2))}}
  got = run(optimizer, [huge], params)
  np.testing.assert_allclose(jnp.linalg.norm(got['head']['kernel'] - 1), 1, rtol=1e-5)


def test_groups_scale_the_learning_rate(params):
  optimizer = optim.partition.scale_by_group(
    optim.sgd(learning_rate=1.0, steps=1), lambda path: 0.1 if is_backbone(path) else 1.0
  )
  got = run(optimizer, [params], params)
  np.testing.assert_allclose(got['backbone']['kernel'], 0.9, rtol=1e-6)
  np.testing.assert_allclose(got['head']['kernel'], 0, atol=1e-6)


def test_frozen_backward_pass_is_not_computed(params):
  def loss(key, params, model_state, batch):
    del key
    features = jnp.tanh(batch @ params['backbone']['kernel'])
    return jnp.sum(features @ params['head']['kernel']), (1, model_state, {})

  optimizer = optim.partition.freeze(optim.sgd(learning_rate=0.1, steps=1), is_backbone)
  state = optim.initial_state(params, {}, optimizer)

  def num_products(frozen):
    step = optim.gradient_step(loss, optimizer, frozen=frozen)
    return str(jax.make_jaxpr(step)(jax.random.key(0), state, jnp.ones((5, 7)))).count(
      'dot_general['
    )

  # Forward 2, kernel of the head 1; and kernel of the backbone and its cotangent 2.
  assert (num_products(is_backbone), num_products(None)) == (3, 5)
