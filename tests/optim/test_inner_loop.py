"""MAML against golden vectors and finite differences, however the tasks are laid out.

Shape legend: T tasks, S support and Q query examples of each.
"""

import functools
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdefect
from jaxdefect import models, optim

LAYOUTS = [
  {'unroll': True},
  {'unroll': False},
  {'unroll': True, 'remat': False},
  {'unroll': False, 'remat': False},
]


def logits(params, x):
  return (jnp.tanh(x @ params['W1'] + params['b1']) @ params['W2'])[..., 0]


def cross_entropy(params, batch):
  z = logits(params, batch['x'])
  return jnp.mean(jax.nn.softplus(z) - batch['y'] * z)


@pytest.fixture(scope='module')
def golden(golden_dir):
  """(params, support, query, settings, file), to be used within ``enable_x64``."""
  with np.load(golden_dir / 'maml.npz') as file:
    arrays = dict(file)
  params = {name: arrays[name] for name in ('W1', 'b1', 'W2')}
  support, query = (
    {name: arrays[f'{part}_{name}'] for name in ('x', 'y')} for part in ('support', 'query')
  )
  settings = {
    'learning_rate': float(arrays['inner_lr']),
    'num_steps': int(arrays['inner_steps']),
  }
  return params, support, query, settings, arrays


def make_tasks(tasks=4, size=6, seed=0):
  random = np.random.default_rng(seed)
  params = {
    'W1': 0.5 * random.normal(size=(5, 8)),
    'b1': 0.1 * random.normal(size=8),
    'W2': random.normal(size=(8, 1)),
  }

  def part():
    x = random.normal(size=(tasks, size, 5))
    return {'x': x, 'y': (random.uniform(size=(tasks, size)) > 0.5).astype(x.dtype)}

  return jax.tree.map(jnp.asarray, (params, part(), part()))


def meta_gradient(loss, params, support, query, **settings):
  """Losses and the gradient of their sum, compiled."""

  def total(params, support, query):
    losses = optim.maml_losses(loss, params, support, query, **settings)
    return losses.sum(), losses

  gradient, losses = jax.jit(jax.grad(total, has_aux=True))(params, support, query)
  return losses, gradient


def close(a, b, *, rtol=1e-5, atol=1e-6):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('order', ['first', 'second'])
def test_matches_golden(golden, order, layout):
  params, support, query, settings, expected = golden
  with jax.enable_x64(True):
    losses, gradient = meta_gradient(
      cross_entropy,
      *(params, support, query),
      first_order=order == 'first',
      **settings,
      **layout,
    )
  np.testing.assert_allclose(losses, expected[f'{order}/query_losses'], rtol=0, atol=1e-9)
  for name, leaf in gradient.items():
    np.testing.assert_allclose(leaf, expected[f'{order}/grad_{name}'], rtol=0, atol=1e-9)


def test_second_order_differs_from_first_order(golden):
  params, support, query, settings, _ = golden
  with jax.enable_x64(True):
    gradients = [
      meta_gradient(cross_entropy, params, support, query, first_order=first, **settings)[1]
      for first in (True, False)
    ]
  for name in params:
    first, second = (g[name] for g in gradients)
    assert np.abs(first - second).max() > 0.01 * np.abs(second).max()


def test_gradient_matches_numeric(golden):
  params, support, query, settings, _ = golden
  with jax.enable_x64(True):
    params = jax.tree.map(jnp.asarray, params)
    rates = jax.tree.map(lambda leaf: jnp.full_like(leaf, settings['learning_rate']), params)

    @jax.jit
    def total(params, rates):
      losses = optim.maml_losses(
        cross_entropy, params, support, query, learning_rate=rates, num_steps=2
      )
      return losses.sum()

    gradients = jax.jit(jax.grad(total, (0, 1)))(params, rates)
    random = np.random.default_rng(1)
    step = 1e-5
    for _ in range(3):
      along = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), (params, rates))
      exact = sum(
        jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(gradients), jax.tree.leaves(along))
      )
      there, back = (
        total(*jax.tree.map(lambda leaf, d, s=sign: leaf + s * d, (params, rates), along))
        for sign in (step, -step)
      )
      np.testing.assert_allclose((there - back) / (2 * step), exact, rtol=1e-7)


def test_value_by_hand():
  # One step on (w - s)^2 / 2: w' = w - a (w - s); the query loss is (w' - q)^2 / 2.
  def square(w, target):
    return 0.5 * (w - target) ** 2

  w, s, q, a = 3.0, jnp.array([1.0, 5.0]), jnp.array([0.0, 2.0]), 0.25
  for first_order in (False, True):

    def losses(w, a, first_order=first_order):
      return optim.maml_losses(
        square, w, s, q, learning_rate=a, num_steps=1, first_order=first_order
      )

    moved = w - a * (w - s)
    np.testing.assert_allclose(losses(w, a), 0.5 * (moved - q) ** 2, rtol=1e-6)
    to_w, to_a = jax.jacrev(losses, (0, 1))(w, a)
    factor = 1 if first_order else 1 - a
    np.testing.assert_allclose(to_w, factor * (moved - q), rtol=1e-6)
    np.testing.assert_allclose(to_a, -(w - s) * (moved - q), rtol=1e-6)


def test_no_steps_is_joint_training():
  params, support, query = make_tasks()
  losses, gradient = meta_gradient(
    cross_entropy, params, support, query, learning_rate=1.0, num_steps=0
  )
  close(losses, jax.vmap(cross_entropy, (None, 0))(params, query))
  joint = jax.grad(lambda p: jax.vmap(cross_entropy, (None, 0))(p, query).sum())(params)
  close(gradient, joint)


def test_anil_moves_only_the_head():
  params, support, query = make_tasks()
  one = jax.tree.map(lambda leaf: leaf[0], support)
  settings = {'learning_rate': 0.3, 'num_steps': 2, 'adapted': lambda path: path == ('W2',)}
  moved = optim.inner_loop(cross_entropy, params, one, **settings)
  for name in ('W1', 'b1'):
    np.testing.assert_array_equal(moved[name], params[name])
  gradient = jax.grad(cross_entropy)(params, one)['W2']
  middle = {**params, 'W2': params['W2'] - 0.3 * gradient}
  gradient = jax.grad(cross_entropy)(middle, one)['W2']
  close(moved['W2'], middle['W2'] - 0.3 * gradient)
  # The outer loop still moves everything.
  _, outer = meta_gradient(cross_entropy, params, support, query, **settings)
  assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(outer))


def test_the_inner_gradient_of_fixed_parameters_is_not_computed():
  params, support, _ = make_tasks()
  one = jax.tree.map(lambda leaf: leaf[0], support)

  def num_products(adapted):
    def adapt(params):
      return optim.inner_loop(
        cross_entropy, params, one, learning_rate=0.1, num_steps=1, adapted=adapted
      )

    return str(jax.make_jaxpr(adapt)(params)).count('dot_general[')

  # Forward 2, kernel of the head 1; then the cotangent of the hidden layer and its kernel 2.
  assert (num_products(lambda path: path == ('W2',)), num_products(None)) == (3, 5)


def test_a_rate_per_parameter():
  params, support, query = make_tasks()
  one = meta_gradient(cross_entropy, params, support, query, learning_rate=0.2, num_steps=2)
  for shape in (lambda leaf: (), jnp.shape):
    rates = jax.tree.map(lambda leaf, shape=shape: jnp.full(shape(leaf), 0.2), params)
    close(
      meta_gradient(cross_entropy, params, support, query, learning_rate=rates, num_steps=2), one
    )
  # Rates of zero stop a parameter.
  rates = {**rates, 'W1': 0.0}
  task = jax.tree.map(lambda leaf: leaf[0], support)
  moved = optim.inner_loop(cross_entropy, params, task, learning_rate=rates, num_steps=2)
  np.testing.assert_array_equal(moved['W1'], params['W1'])
  assert np.abs(moved['W2'] - params['W2']).max() > 1e-3


@pytest.mark.parametrize('first_order', [False, True])
def test_rates_are_differentiable(first_order):
  params, support, query = make_tasks()
  rates = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.2), params)

  def gradient(**layout):
    def total(rates):
      losses = optim.maml_losses(
        *(cross_entropy, params, support, query),
        learning_rate=rates,
        num_steps=2,
        first_order=first_order,
        **layout,
      )
      return losses.sum()

    return jax.jit(jax.grad(total))(rates)

  expected = gradient(unroll=False, remat=False)
  assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(expected))
  close(gradient(), expected)


NETWORK = models.medetection(
  stem_channels=(3,), stem_strides=(2,), width=3, blocks=1, attention=None, pool='mean'
)


def defect_loss(statistics, params, batch):
  """Cross-entropy with the statistics of the batch."""
  outputs, _ = NETWORK.apply(
    {'params': params, 'batch_stats': statistics},
    *(batch['image'], batch['reference']),
    train=True,
    mutable=['batch_stats'],
  )
  return jnp.mean(jax.nn.softplus(outputs.logit) - batch['label'] * outputs.logit)


@pytest.fixture(scope='module')
def defect_tasks():
  """(loss, params, support, query) of two tasks of images."""
  random = np.random.default_rng(0)

  def part(size):
    return {
      'image': jnp.asarray(random.normal(size=(2, size, 8, 8, 3)), jnp.float32),
      'reference': jnp.asarray(random.normal(size=(2, size, 1, 8, 8, 3)), jnp.float32),
      'label': jnp.asarray(random.integers(0, 2, (2, size)), jnp.int32),
    }

  support, query = part(4), part(3)
  first = jax.tree.map(lambda leaf: leaf[0], support)
  variables = jax.jit(NETWORK.init)(jax.random.key(0), first['image'], first['reference'])
  params = variables['params']
  params['fc']['kernel'] = jnp.asarray(random.normal(size=params['fc']['kernel'].shape)) / 8
  loss = functools.partial(defect_loss, variables['batch_stats'])
  return loss, params, support, query


def test_layouts_agree_on_a_network(defect_tasks):
  loss, params, support, query = defect_tasks
  results = [
    meta_gradient(loss, params, support, query, learning_rate=0.1, num_steps=2, **layout)
    for layout in LAYOUTS[:3]
  ]
  assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(results[0][1]))
  for other in results[1:]:
    close(results[0], other, rtol=1e-5, atol=1e-5)


def test_two_devices_equal_one(defect_tasks):
  loss, params, support, query = defect_tasks
  settings = {'learning_rate': 0.1, 'num_steps': 1}
  expected = meta_gradient(loss, params, support, query, **settings)

  def device(params, support, query):
    def total(params):
      losses = optim.maml_losses(loss, params, support, query, **settings)
      return losses.sum(), losses

    gradient, losses = jax.grad(total, has_aux=True)(params)
    return losses, jax.lax.psum(gradient, 'devices')

  split = jax.tree.map(lambda leaf: leaf[:, None], (support, query))  # [D, T / D, ...]
  losses, gradient = jax.pmap(device, axis_name='devices', in_axes=(None, 0, 0))(params, *split)
  close(losses.reshape(-1), expected[0], atol=1e-5)
  close(jax.tree.map(lambda leaf: leaf[1], gradient), expected[1], atol=1e-5)


EIGHT_DEVICES = """
import jax
jax.config.update('jax_num_cpu_devices', 8)
import importlib.util, sys
import numpy as np
spec = importlib.util.spec_from_file_location('inner_loop_tests', sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
tests.compare_on_all_devices()
print(jax.local_device_count(), 'devices agree')
"""


def compare_on_all_devices():
  """Unrolled, vmapped, pmapped and sharded tasks; runs in a process with its own devices."""
  devices = jax.local_device_count()
  params, support, query = make_tasks(tasks=2 * devices)
  settings = {'learning_rate': 0.3, 'num_steps': 2}
  expected = meta_gradient(cross_entropy, params, support, query, unroll=True, **settings)
  vmapped = meta_gradient(cross_entropy, params, support, query, unroll=False, **settings)
  close(vmapped, expected, atol=1e-5)

  def device(params, support, query):
    def total(params):
      losses = optim.maml_losses(cross_entropy, params, support, query, **settings)
      return losses.sum(), losses

    gradient, losses = jax.grad(total, has_aux=True)(params)
    return losses, jax.lax.psum(gradient, 'devices')

  split = jax.tree.map(lambda leaf: leaf.reshape(devices, 2, *leaf.shape[1:]), (support, query))
  losses, gradient = jax.pmap(device, axis_name='devices', in_axes=(None, 0, 0))(params, *split)
  close((losses.reshape(-1), jax.tree.map(lambda leaf: leaf[-1], gradient)), expected, atol=1e-5)

  mesh = jax.make_mesh((devices,), ('devices',), axis_types=(jax.sharding.AxisType.Auto,))
  tasks = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('devices'))
  sharded = jax.device_put((support, query), tasks)
  losses, gradient = meta_gradient(cross_entropy, params, *sharded, unroll=False, **settings)
  assert len(losses.sharding.device_set) == devices
  close((losses, gradient), expected, atol=1e-5)


def test_eight_devices_equal_one():
  root = pathlib.Path(jaxdefect.__file__).parent.parent
  result = subprocess.run(
    [sys.executable, '-W', 'error', '-c', EIGHT_DEVICES, __file__],
    env={'PYTHONPATH': str(root), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert result.stdout.strip() == '8 devices agree', result.stderr


def test_memory_grows_neither_with_steps_nor_with_tasks():
  params, support, query = make_tasks(tasks=4, size=4096)

  def megabytes(tasks, steps, **layout):
    part = jax.tree.map(lambda leaf: leaf[:tasks], (support, query))

    def total(params):
      losses = optim.maml_losses(
        cross_entropy, params, *part, learning_rate=0.1, num_steps=steps, **layout
      )
      return losses.sum()

    return jax.jit(jax.grad(total)).lower(params).compile().memory_analysis().temp_size_in_bytes

  small = megabytes(1, 2, unroll=True)
  assert small > 1e5
  assert megabytes(1, 6, unroll=True) < 1.3 * small
  assert megabytes(4, 2, unroll=True) < 1.3 * small
  assert megabytes(1, 6, unroll=True, remat=False) > 2 * small


def test_aux_is_stacked_and_has_no_gradient():
  params, support, query = make_tasks()

  def loss(params, batch):
    value = cross_entropy(params, batch)
    return value, {'twice': 2 * value, 'right': jnp.sum(logits(params, batch['x']) > 0)}

  for layout in LAYOUTS:

    def both(params, layout=layout):
      return optim.maml_losses(
        *(loss, params, support, query), learning_rate=0.2, num_steps=1, aux=True, **layout
      )

    losses, aux = jax.jit(both)(params)
    assert losses.shape == aux['twice'].shape == aux['right'].shape == (4,)
    np.testing.assert_allclose(aux['twice'], 2 * losses, rtol=1e-6)
    assert jnp.issubdtype(aux['right'].dtype, jnp.integer)
    gradient = jax.grad(lambda params, both=both: both(params)[1]['twice'].sum())(params)
    assert not any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(gradient))
  plain = meta_gradient(cross_entropy, params, support, query, learning_rate=0.2, num_steps=1)
  gradient = jax.grad(lambda params: both(params)[0].sum())(params)
  close((losses, gradient), plain)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_query_loss_sees_the_support_set(layout):
  params, support, query = make_tasks()

  def query_loss(params, support, query):
    centre = support['x'].mean(0)
    return cross_entropy(params, {**query, 'x': query['x'] - centre})

  losses, gradient = meta_gradient(
    *(cross_entropy, params, support, query),
    query_loss=query_loss,
    learning_rate=0.3,
    num_steps=2,
    **layout,
  )
  moved = {**query, 'x': query['x'] - support['x'].mean(1, keepdims=True)}
  expected = meta_gradient(
    cross_entropy, params, support, moved, learning_rate=0.3, num_steps=2, unroll=False
  )
  close((losses, gradient), expected)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_what_a_loss_closes_over_is_differentiated(layout):
  params, support, query = make_tasks()

  def total(weight):
    def loss(params, batch):
      return weight * cross_entropy(params, batch)

    return optim.maml_losses(
      loss, params, support, query, learning_rate=0.3, num_steps=2, **layout
    ).sum()

  gradient = jax.jit(jax.grad(total))(2.0)
  step = 1e-2
  numeric = (total(2.0 + step) - total(2.0 - step)) / (2 * step)
  np.testing.assert_allclose(gradient, numeric, rtol=2e-3)


def test_the_gradient_can_be_differentiated_again():
  params, support, query = make_tasks(tasks=2)

  def product(**layout):
    def total(params):
      return optim.maml_losses(
        cross_entropy, params, support, query, learning_rate=0.3, num_steps=2, **layout
      ).sum()

    def length(params):
      return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(jax.grad(total)(params)))

    return jax.jit(jax.grad(length))(params)

  close(product(unroll=True), product(unroll=False, remat=False), rtol=1e-4, atol=1e-5)


def test_batches_may_hold_integers_and_keys():
  params, support, query = make_tasks(tasks=2)
  keys = jax.random.split(jax.random.key(0), 2)

  def loss(params, batch):
    noise = 0.1 * jax.random.normal(batch['key'], batch['x'].shape)
    return cross_entropy(params, {'x': batch['x'] + noise, 'y': batch['label'] > 0})

  support, query = (
    {'x': part['x'], 'label': part['y'].astype(jnp.int32), 'key': keys} for part in (support, query)
  )
  results = [
    meta_gradient(loss, params, support, query, learning_rate=0.3, num_steps=2, **layout)
    for layout in LAYOUTS
  ]
  for other in results[1:]:
    close(results[0], other)


def test_a_task_that_diverges_leaves_the_others_alone():
  params, support, query = make_tasks()
  settings = {'learning_rate': 0.3, 'num_steps': 2, 'unroll': True}
  expected, _ = meta_gradient(cross_entropy, params, support, query, **settings)
  support['x'] = support['x'].at[0, 0, 0].set(jnp.nan)
  losses, gradient = meta_gradient(cross_entropy, params, support, query, **settings)
  assert np.isnan(losses[0])
  close(losses[1:], expected[1:])
  assert np.isnan(gradient['W1']).all()


def test_parameters_keep_their_type():
  params, support, _ = make_tasks()
  params = {**params, 'W1': params['W1'].astype(jnp.bfloat16)}
  one = jax.tree.map(lambda leaf: leaf[0], support)
  rate = jnp.float32(0.1)
  moved = jax.eval_shape(
    lambda p: optim.inner_loop(cross_entropy, p, one, learning_rate=rate, num_steps=2), params
  )
  assert jax.tree.map(lambda leaf: leaf.dtype, moved) == jax.tree.map(
    lambda leaf: leaf.dtype, params
  )


def test_jit_matches_eager():
  params, support, query = make_tasks(tasks=2)
  settings = {'learning_rate': 0.3, 'num_steps': 2}
  losses, gradient = meta_gradient(cross_entropy, params, support, query, **settings)
  eager = optim.maml_losses(cross_entropy, params, support, query, **settings)
  close(losses, eager)
  close(
    gradient,
    jax.grad(lambda p: optim.maml_losses(cross_entropy, p, support, query, **settings).sum())(
      params
    ),
  )


@pytest.mark.parametrize(
  ('changed', 'sentence'),
  [
    ({'num_steps': -1}, 'num_steps is -1; it must be an integer, 0 or more'),
    ({'num_steps': 1.0}, 'num_steps is 1.0; it must be an integer'),
    ({'learning_rate': -0.1}, 'learning_rate is -0.1; it must be 0 or more'),
    ({'learning_rate': float('nan')}, 'learning_rate is nan'),
    ({'learning_rate': {'W1': 0.1}}, 'learning_rate is a tree of another structure than params'),
    (
      {'learning_rate': {'W1': 0.1, 'W2': jnp.ones(3), 'b1': 0.1}},
      r'learning_rate of W2 has shape \(3,\); .* the shape of its parameter, \(8, 1\)',
    ),
    ({'adapted': lambda path: path == ('fc',)}, "adapted names none .* the first is 'W1'"),
    ({'loss': lambda params, batch: batch['x'].sum(0)}, r'must be a scalar, it has shape \(5,\)'),
    (
      {'loss': lambda params, batch: (cross_entropy(params, batch), {})},
      'the loss returned a tuple; pass aux=True',
    ),
    ({'aux': True}, r'with aux=True a loss must return \(scalar, aux\), it returned'),
    (
      {'query': {'x': jnp.zeros((3, 6, 5)), 'y': jnp.zeros((3, 6))}},
      'support holds 4 tasks, query 3',
    ),
    (
      {'support': {'x': jnp.zeros((4, 6, 5)), 'y': jnp.zeros((2, 6))}},
      'support must hold arrays with one leading task axis; theirs are 2, 4',
    ),
    ({'query': {'x': jnp.zeros(())}}, 'query must hold arrays .* theirs are none'),
    ({'query': {}}, 'query must hold arrays .* theirs are missing'),
    (
      {
        'support': {'x': jnp.zeros((0, 6, 5)), 'y': jnp.zeros((0, 6))},
        'query': {'x': jnp.zeros((0, 6, 5)), 'y': jnp.zeros((0, 6))},
      },
      'support and query hold no task',
    ),
  ],
)
def test_rejects_bad_arguments(changed, sentence):
  params, support, query = make_tasks()
  arguments = {
    **{'loss': cross_entropy, 'params': params, 'support': support, 'query': query},
    **{'learning_rate': 0.1, 'num_steps': 1},
    **changed,
  }
  with pytest.raises(ValueError, match=sentence):
    optim.maml_losses(**arguments)
