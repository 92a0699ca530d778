"""Rates per step and the multi-step loss (MAML++), against loops written out in plain JAX.

Shape legend: T tasks, K inner steps.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import optim
from tests.optim.test_inner_loop import LAYOUTS, cross_entropy, make_tasks

STEPS = 3
WEIGHTS = np.array([0.1, 0.4, 0.2, 0.3])


def make_rates(params, seed=3):
  """One rate per step for W1 and b1, one per step and number for W2."""
  random = np.random.default_rng(seed)
  shapes = {'W1': (), 'b1': (), 'W2': params['W2'].shape}
  return {name: jnp.asarray(random.uniform(0.1, 0.6, (STEPS, *shapes[name]))) for name in params}


def plain(params, rates, weights, support, query, *, first_order=False, moves=('W1', 'b1', 'W2')):
  """The weighted query losses of each task [T], one task and one step after the other."""
  losses = []
  for t in range(len(query['x'])):
    own, asked = (jax.tree.map(lambda leaf, t=t: leaf[t], part) for part in (support, query))
    moved, total = dict(params), weights[0] * cross_entropy(params, asked)
    for k in range(STEPS):
      gradient = jax.grad(cross_entropy)(moved, own)
      if first_order:
        gradient = jax.lax.stop_gradient(gradient)
      moved = {
        name: leaf - rates[name][k] * gradient[name] if name in moves else leaf
        for name, leaf in moved.items()
      }
      total += weights[k + 1] * cross_entropy(moved, asked)
    losses.append(total)
  return jnp.stack(losses)


def compare(ours, theirs, arguments, *, rtol=1e-9):
  """Losses, and the gradient of their squares' sum to every argument."""
  found, expected = (
    jax.jit(
      lambda *given, f=f: (f(*given), jax.grad(lambda *g: (f(*g) ** 2).sum(), range(3))(*given))
    )(*arguments)
    for f in (ours, theirs)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12), found, expected
  )
  return found


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('first_order', [False, True])
def test_rates_per_step_and_the_multi_step_loss_are_the_plain_loops(layout, first_order):
  with jax.enable_x64(True):
    params, support, query = make_tasks(tasks=2)

    def ours(params, rates, weights):
      return optim.maml_losses(
        *(cross_entropy, params, support, query),
        **{'learning_rate': rates, 'per_step': True, 'step_weights': weights},
        **{'num_steps': STEPS, 'first_order': first_order, **layout},
      )

    def theirs(params, rates, weights):
      return plain(params, rates, weights, support, query, first_order=first_order)

    arguments = (params, make_rates(params), jnp.asarray(WEIGHTS))
    _, gradient = compare(ours, theirs, arguments)
    assert all(float(jnp.abs(leaf).min()) > 0 for leaf in jax.tree.leaves(gradient[1:]))


def test_the_gradient_is_the_numeric_one():
  with jax.enable_x64(True):
    params, support, query = make_tasks(tasks=2)
    start = (params, make_rates(params), jnp.asarray(WEIGHTS))

    @jax.jit
    def total(params, rates, weights):
      return optim.maml_losses(
        *(cross_entropy, params, support, query),
        **{'learning_rate': rates, 'per_step': True, 'step_weights': weights, 'num_steps': STEPS},
      ).sum()

    gradients = jax.jit(jax.grad(total, (0, 1, 2)))(*start)
    random = np.random.default_rng(1)
    for _ in range(3):
      along = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), start)
      pairs = zip(jax.tree.leaves(gradients), jax.tree.leaves(along), strict=True)
      exact = sum(float(jnp.vdot(g, d)) for g, d in pairs)
      there, back = (
        total(*jax.tree.map(lambda leaf, d, s=sign: leaf + s * d, start, along))
        for sign in (1e-5, -1e-5)
      )
      np.testing.assert_allclose((there - back) / 2e-5, exact, rtol=1e-6)


def test_values_by_hand():
  # Steps on (w - s)^2 / 2 at rates a_k; the query loss is (w - q)^2 / 2.
  def square(w, target):
    return 0.5 * (w - target) ** 2

  w, s, q = 3.0, jnp.array([1.0]), jnp.array([2.0])
  settings = {'learning_rate': jnp.array([0.25, 0.5]), 'per_step': True, 'num_steps': 2}
  # 3 -> 3 - (3 - 1) / 4 = 2.5 -> 2.5 - (2.5 - 1) / 2 = 1.75
  moved = optim.inner_loop(square, jnp.array(w), s[0], **settings)
  np.testing.assert_allclose(moved, 1.75)
  losses = optim.maml_losses(square, w, s, q, step_weights=(1.0, 10.0, 100.0), **settings)
  np.testing.assert_allclose(losses, [0.5 * (1.0 + 10 * 0.5**2 + 100 * 0.25**2)])


def test_equal_rates_are_one_rate():
  params, support, query = make_tasks()
  one = optim.maml_losses(cross_entropy, params, support, query, learning_rate=0.3, num_steps=STEPS)
  for rates in (
    jnp.full(STEPS, 0.3),
    jax.tree.map(lambda leaf: jnp.full((STEPS, *leaf.shape), 0.3), params),
  ):
    found = optim.maml_losses(
      *(cross_entropy, params, support, query),
      **{'learning_rate': rates, 'per_step': True, 'num_steps': STEPS},
    )
    np.testing.assert_allclose(found, one, rtol=1e-6)


def test_all_weight_at_the_end_is_the_ordinary_loss():
  params, support, query = make_tasks()

  def loss(params, batch):
    return cross_entropy(params, batch), jnp.abs(params['W2']).sum()

  settings = {'learning_rate': 0.3, 'num_steps': 2, 'aux': True}
  expected, ends = optim.maml_losses(loss, params, support, query, **settings)
  weights = [0.0, 0.0, 1.0]
  found, also = optim.maml_losses(loss, params, support, query, step_weights=weights, **settings)
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  np.testing.assert_allclose(also, ends, rtol=1e-6)
  joint = optim.maml_losses(
    loss, params, support, query, step_weights=[3.0], **{**settings, 'num_steps': 0}
  )[0]
  np.testing.assert_allclose(
    joint, 3 * jax.vmap(cross_entropy, (None, 0))(params, query), rtol=1e-6
  )


@pytest.mark.parametrize('layout', LAYOUTS[:2])
def test_every_score_sees_the_support_set_and_the_head_alone_moves(layout):
  with jax.enable_x64(True):
    params, support, query = make_tasks(tasks=2)
    centred = {**query, 'x': query['x'] - support['x'].mean(1, keepdims=True)}

    def query_loss(params, support, query):
      return cross_entropy(params, {**query, 'x': query['x'] - support['x'].mean(0)})

    def ours(params, rates, weights):
      return optim.maml_losses(
        *(cross_entropy, params, support, query),
        **{'query_loss': query_loss, 'adapted': lambda path: path == ('W2',)},
        **{'learning_rate': rates, 'per_step': True, 'step_weights': weights},
        **{'num_steps': STEPS, **layout},
      )

    def theirs(params, rates, weights):
      return plain(params, rates, weights, support, centred, moves=('W2',))

    _, gradient = compare(ours, theirs, (params, make_rates(params), jnp.asarray(WEIGHTS)))
    assert not bool(jnp.any(gradient[1]['W1']))  # a rate that nothing moves by


def test_memory_of_the_multi_step_loss_does_not_grow_with_the_steps():
  params, support, query = make_tasks(tasks=1, size=4096)

  def megabytes(steps, **layout):
    def total(params):
      return optim.maml_losses(
        *(cross_entropy, params, support, query),
        **{'learning_rate': 0.1, 'num_steps': steps, 'step_weights': jnp.ones(steps + 1)},
        **{'unroll': True, **layout},
      ).sum()

    return jax.jit(jax.grad(total)).lower(params).compile().memory_analysis().temp_size_in_bytes

  small = megabytes(2)
  assert small > 1e5
  assert megabytes(6) < 1.3 * small
  assert megabytes(6, first_order=True) < 1.3 * small
  assert megabytes(6, remat=False) > 2 * small


@pytest.mark.parametrize(
  ('changed', 'sentence'),
  [
    ({'step_weights': [1.0, 2.0]}, r'step_weights has shape \(2,\); it must be \(4,\): a weight'),
    ({'step_weights': 1.0}, r'step_weights has shape \(\); it must be \(4,\)'),
    ({'per_step': True}, r'has shape \(\); it must have one rate per step, \(3,\), or have the'),
    ({'per_step': True, 'learning_rate': jnp.ones(2)}, r'has shape \(2,\); it must have one rate'),
    ({'learning_rate': jnp.ones(3)}, r'of W1 has shape \(3,\); it must be a scalar or have'),
  ],
)
def test_rejects_bad_arguments(changed, sentence):
  params, support, query = make_tasks()
  settings = {'learning_rate': 0.1, 'num_steps': STEPS, **changed}
  with pytest.raises(ValueError, match=sentence):
    optim.maml_losses(cross_entropy, params, support, query, **settings)
