"""WaferSegClassNet: its two stages, the mask's rule, and its losses by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdefect import losses, methods, models
from jaxdefect.contracts import References, to_fitted
from jaxdefect.ops import normalize_pixels
from tests.method_batches import CLASSES, SIZE, batch, spec

SMALL = {'width': 2, 'pretrain_steps': 1, 'temperature': 0.5}
VIEWS = {'crop_scale': (0.5, 1.0)}


def wafers(n=6):
  """Maps of 2 x 2 pixels per cell: no die, good, failed."""
  cells = np.random.default_rng(0).integers(0, 3, (n, SIZE // 2, SIZE // 2))
  image = np.array([0, 127, 255], np.uint8)[cells].repeat(2, 1).repeat(2, 2)
  return {**batch(n), 'image': image[..., None].repeat(3, -1)}, cells


@functools.cache
def made(**settings):
  method = methods.load('wafer_seg_class_net')(
    optimizer=optax.sgd(0.1), **{**SMALL, 'dropout': 0.0, **settings}
  )
  state = jax.jit(lambda key: method.init(key, spec()))(jax.random.key(0))
  return method, state, jax.jit(method.step)


def losses_by_hand(state, given, mask, temperature):
  """From what the network says of the batch, with its statistics."""
  network = models.WaferSegClassNet(3, width=2)
  variables = {'params': state.params, **state.model_state}
  x = normalize_pixels(jnp.asarray(given['image']), mean=0.0, std=1.0)
  run = jax.jit(functools.partial(network.apply, train=True, mutable=['batch_stats']))
  said, _ = run(variables, x)
  p = 1 / (1 + np.exp(-np.asarray(said.mask, np.float64)))
  chosen = np.where(mask, p, 1 - p)
  shared, size = (p * mask).sum((1, 2)), mask.sum((1, 2)) + (p * p).sum((1, 2))
  dice = (2 * shared + 1) / (size + 1)
  log_p = np.asarray(jax.nn.log_softmax(said.logits))
  return {
    'n_pair': losses.n_pair(said.embedding, given['label'], temperature=temperature),
    'cross_entropy': -log_p[np.arange(len(p)), given['label']],
    'mask': -np.log(chosen).mean((1, 2)) + 1 - dice,
    'dice': dice,
  }


@pytest.mark.parametrize('temperature', [0.05, 0.5])
def test_losses_by_hand(temperature):
  _, state, step = made(temperature=temperature)
  given, cells = wafers()
  mask = (cells == 2).repeat(2, 1).repeat(2, 2)  # every failed die, whatever its pattern
  expected = losses_by_hand(state, given, mask, temperature)
  for first in (True, False):
    now = state if first else state._replace(step=jnp.asarray(1))
    _, scalars = step(jax.random.key(0), now, given)
    for name, values in expected.items():
      np.testing.assert_allclose(scalars[name][0], np.sum(values), rtol=1e-3)
    total = np.sum(expected['cross_entropy']) + np.sum(expected['mask'])
    total += np.sum(expected['n_pair']) if first else 0
    np.testing.assert_allclose(scalars['loss'][0], total, rtol=1e-3)
    assert scalars['loss'][1] == 6


def test_the_first_stage_moves_the_encoder_by_the_n_pair_loss_alone():
  _, state, step = made()
  given, _ = wafers()

  def moved(now, given):
    after, _ = step(jax.random.key(0), now, given)
    return jax.tree.map(lambda a, b: np.asarray(a - b), after.params, now.params)

  def largest(tree):
    return max(np.abs(leaf).max() for leaf in jax.tree.leaves(tree))

  # Heads that say something else: the encoder's step is the same, and theirs is not.
  heads = ('classifier', 'mask', *(f'{name}.{k}' for name in ('up', 'decoder') for k in range(4)))
  others = {name: jax.tree.map(lambda leaf: 2 * leaf, state.params[name]) for name in heads}
  other = state._replace(params={**state.params, **others})
  for stage, same in ((0, True), (1, False)):
    ours = moved(state._replace(step=jnp.asarray(stage)), given)
    theirs = moved(other._replace(step=jnp.asarray(stage)), given)
    for k in range(5):
      name = f'encoder.{k}'
      assert largest(ours[name]) > 0
      gap = largest(jax.tree.map(np.subtract, ours[name], theirs[name]))
      assert (gap < 1e-6) == same, (stage, name, gap)
    assert largest(ours['classifier']) > 0
    assert largest(ours['mask']) > 0
    assert (largest(ours['projection']) > 0) == same


def test_dropout_is_drawn_by_index():
  _, state, step = made(dropout=0.5)
  given = batch()
  turned = {name: value[::-1] for name, value in given.items()}
  total = step(jax.random.key(0), state, given)[1]['cross_entropy'][0]
  np.testing.assert_allclose(
    step(jax.random.key(0), state, turned)[1]['cross_entropy'][0], total, rtol=1e-4
  )
  renamed = {**given, 'index': given['index'] + 100}
  assert abs(step(jax.random.key(0), state, renamed)[1]['cross_entropy'][0] - total) > 1e-3
  # The prediction drops nothing.
  whole = made()[0].predict(to_fitted(state, CLASSES), given)
  np.testing.assert_array_equal(
    made(dropout=0.5)[0].predict(to_fitted(state, CLASSES), given).scores, whole.scores
  )


def test_refuses_a_class_that_it_was_not_trained_on():
  method, state, _ = made()
  with pytest.raises(ValueError, match='cannot learn the class'):
    method.adapt(jax.random.key(0), to_fitted(state, CLASSES), References(('crack',), [batch(2)]))


@pytest.mark.parametrize(
  ('settings', 'reason'),
  [
    ({'dropout': 1.0}, 'dropout is 1.0'),
    ({'pretrain_steps': -1}, 'pretrain_steps is -1'),
    ({'temperature': 0.0}, 'temperature is 0.0'),
    ({'failed_level': 0.0}, 'failed_level is 0.0'),
  ],
)
def test_rejects_settings(settings, reason):
  with pytest.raises(ValueError, match=reason):
    methods.load('wafer_seg_class_net')(**settings)
