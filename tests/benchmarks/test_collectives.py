"""What a step sends between devices: by hand, as XLA compiles it, and as it is committed."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from benchmarks import collectives, timing
from jaxdefect import methods, optim
from jaxdefect.models import normalization

X = jax.ShapeDtypeStruct((4, 3), jnp.float32)


def test_count_by_hand():
  def step(x, w):
    mean = lax.psum(x.sum(0), 'devices')  # 3 floats, round 1
    spread = lax.pmax(x.max(0), 'devices')  # 3 floats, round 1: does not wait for the mean
    everyone = lax.all_gather(x - mean, 'devices')  # 12 floats of this device, round 2
    return lax.psum({'w': w * everyone.sum(), 'n': spread.sum()}, 'devices')  # 5 + 1, rounds 3, 2

  found = collectives.count(step, X, jax.ShapeDtypeStruct((5,), jnp.float32))
  counted = sorted((one.kind, one.size, one.round) for one in found)
  assert counted == [
    ('all_gather', 48, 2),
    ('all_reduce', 4, 2),
    ('all_reduce', 12, 1),
    ('all_reduce', 12, 1),
    ('all_reduce', 20, 3),
  ]
  sizes = {'all_gather': {'elsewhere': 48}, 'all_reduce': {'elsewhere': 48}, 'reduce_scatter': {}}
  assert collectives.summary(found) == {'rounds': 3, **sizes}


def test_gradient_of_a_gather_scatters_one_device_s_part():
  def step(x):
    return jax.grad(lambda x: jnp.square(lax.all_gather(x, 'devices', tiled=True)).sum())(x)

  kinds = {one.kind: one.size for one in collectives.count(step, X)}
  assert kinds == {'all_gather': 48, 'reduce_scatter': 48}


def test_constants_are_not_sent():
  def step(x):
    return lax.psum((x, jnp.zeros(1000), jnp.ones((3, 3))), 'devices')

  assert [one.size for one in collectives.count(step, X)] == [48]
  assert collectives.count(lambda x: x + lax.axis_index('devices'), X) == []


def test_half_types_are_half_as_long():
  found = collectives.count(lambda x: lax.psum(x.astype(jnp.bfloat16), 'devices'), X)
  assert [one.size for one in found] == [24]


def test_a_loop_counts_every_turn():
  def step(x):
    return lax.scan(lambda c, _: (c + lax.psum(x.sum(0) * c, 'devices'), None), x[0], length=4)

  found = collectives.count(step, X)
  assert [(one.size, one.round) for one in found] == [(12, 1), (12, 2), (12, 3), (12, 4)]


def test_what_cannot_be_counted_is_refused():
  with pytest.raises(ValueError, match='the collective ppermute'):
    collectives.count(lambda x: lax.ppermute(x, 'devices', [(0, 1), (1, 0)]), X)

  def step(x):
    return lax.while_loop(lambda c: c.sum() < 9, lambda c: lax.psum(c, 'devices'), x)

  with pytest.raises(ValueError, match='inside while cannot be counted'):
    collectives.count(step, X)


def test_count_is_what_xla_sends():
  """Batch statistics there and back, gradients of what is trained, sums of scalars."""
  norm = normalization.BatchNorm(axis_name='devices')
  batch = {'image': np.ones((4, 2, 2, 3), np.float32), 'valid': np.ones(4, bool)}
  variables = norm.init(jax.random.key(0), batch['image'], use_running_average=False)
  frozen = lambda path: path[0] == 'stem'  # noqa: E731

  def loss(key, params, model_state, batch):
    y, updated = norm.apply(
      {'params': params['norm'], **model_state},
      batch['image'] * params['stem'],
      use_running_average=False,
      mutable='batch_stats',
    )
    values = jnp.square(y @ params['fc']).sum((1, 2, 3))
    return values.sum(), (batch['valid'].sum(), {**model_state, **updated}, {})

  params = {'stem': jnp.ones(3), 'norm': variables['params'], 'fc': jnp.ones((3, 7))}
  rule = optim.partition.freeze(optax.sgd(0.1), frozen)
  state = optim.initial_state(params, {'batch_stats': variables['batch_stats']}, rule)
  step = optim.gradient_step(loss, rule, axis_name='devices', frozen=frozen)
  found = collectives.summary(collectives.count(step, jax.random.key(0), state, batch))

  def twice(tree):
    return jax.tree.map(lambda x: jnp.stack([x, x]), tree)

  mapped = jax.pmap(step, axis_name='devices', in_axes=(None, 0, 0))
  text = mapped.lower(jax.random.key(0), twice(state), twice(batch)).compile().as_text()
  sent = re.findall(r'= \(?(.*?)\)? all-reduce\((.*?)\)', text)
  numbers = [
    int(np.prod([int(n) for n in shape.split(',') if n]))
    for shapes, operands in sent
    for shape, operand in zip(re.findall(r'f32\[([\d,]*)\]', shapes), operands.split(', '))
    if not operand.startswith('%constant')  # the number of pixels, a scalar
  ]
  assert sum(found['all_reduce'].values()) == 4 * sum(numbers)
  assert found['rounds'] == len(sent)  # what does not wait travels together
  assert found['all_reduce']['optim/gradient.py'] == 4 * (3 + 3 + 21 + 2)  # the stem is frozen


COUNTED = {'classifier', 'patch_svdd', 'uninformed_students'} & {*methods.names()}


@pytest.mark.parametrize('name', sorted(COUNTED))
def test_committed_counts_are_those_of_the_code(name):
  committed = json.loads((timing.RESULTS / 'collectives.json').read_text())
  assert committed['cases']['methods'][name] == collectives.of_method(name)
  assert {*committed['cases']['methods']} == {*collectives.METHODS}
