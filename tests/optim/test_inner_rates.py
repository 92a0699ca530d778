"""Learned inner rates: their start, their shapes, and that they stay rates whatever moves them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdefect import optim
from jaxdefect.optim import inner_rates
from tests.optim.test_inner_loop import cross_entropy, make_tasks


@pytest.mark.parametrize('kind', ['per_parameter', 'per_step'])
def test_the_start_is_the_fixed_rate(kind):
  params, support, query = make_tasks()
  tasks = (cross_entropy, params, support, query)
  log_rates = inner_rates.initial_log_rates(params, kind=kind, learning_rate=0.3, num_steps=2)
  shapes = jax.tree.map(lambda leaf: (2,) if kind == 'per_step' else leaf.shape, params)
  assert jax.tree.map(jnp.shape, log_rates) == shapes
  settings = inner_rates.learned_rates(log_rates, kind=kind, num_steps=2)
  found = optim.maml_losses(*tasks, num_steps=2, **settings)
  expected = optim.maml_losses(*tasks, num_steps=2, learning_rate=0.3)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_fewer_steps_take_the_first_rates():
  params, support, _ = make_tasks()
  task = (cross_entropy, params, jax.tree.map(lambda leaf: leaf[0], support))
  log_rates = jax.tree.map(lambda _: jnp.log(jnp.array([0.1, 0.5, 0.9])), params)
  settings = inner_rates.learned_rates(log_rates, kind='per_step', num_steps=1)
  found = optim.inner_loop(*task, num_steps=1, **settings)
  expected = optim.inner_loop(*task, num_steps=1, learning_rate=0.1)
  for name in params:
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)


def test_adam_learns_better_rates_and_leaves_them_positive():
  params, support, _ = make_tasks()
  rule = optax.adam(0.1)
  log_rates = inner_rates.initial_log_rates(
    params, kind='per_step', learning_rate=0.01, num_steps=2
  )

  def loss(log_rates):
    settings = inner_rates.learned_rates(log_rates, kind='per_step', num_steps=2)
    # On the support sets themselves, so that longer steps are better ones.
    return optim.maml_losses(cross_entropy, params, support, support, num_steps=2, **settings).sum()

  @jax.jit
  def step(log_rates, moments):
    value, gradient = jax.value_and_grad(loss)(log_rates)
    updates, moments = rule.update(gradient, moments)
    return optax.apply_updates(log_rates, updates), moments, value

  moments, values = rule.init(log_rates), []
  for _ in range(30):
    log_rates, moments, value = step(log_rates, moments)
    values.append(float(value))
  assert values[-1] < 0.9 * values[0]
  rates = inner_rates.learned_rates(log_rates, kind='per_step', num_steps=2)['learning_rate']
  smallest = min(float(leaf.min()) for leaf in jax.tree.leaves(rates))
  assert smallest > 0


@pytest.mark.parametrize(
  ('changed', 'sentence'),
  [
    ({'kind': 'fixed'}, "inner_rates is 'fixed'; what is learned can be per_parameter, per_step"),
    ({'learning_rate': 0.0}, r'inner_rate is 0\.0; with inner_rates='),
    ({'num_steps': 0}, 'inner_steps is 0; inner_rates='),
  ],
)
def test_rejects_bad_arguments(changed, sentence):
  settings = {'kind': 'per_step', 'learning_rate': 0.1, 'num_steps': 1, **changed}
  with pytest.raises(ValueError, match=sentence):
    inner_rates.initial_log_rates({'w': jnp.ones(2)}, **settings)
