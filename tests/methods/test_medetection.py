"""MeDetection: second order, what adapts, and a product from a few pictures."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdefect import methods
from jaxdefect.contracts import Method, References, to_fitted
from jaxdefect.data import support_set
from tests.method_batches import SIZE, spec, training_batch

SMALL = {'width': 4, 'blocks': 1, 'references': 2, 'fine_tune_epochs': 1}
VIEWS = {'crop_scale': (0.5, 1.0)}
# First order compiles sooner, and its tasks are no less apart.
UNCOUPLED = {'first_order': True}


def medetection(**settings) -> Method:
  return methods.load('medetection')(**{**SMALL, **settings})


def marked(n: int, first: int = 0) -> dict[str, np.ndarray]:
  """Gray parts, every second with a white spot."""
  generator = np.random.default_rng(first)
  image = generator.integers(90, 110, (n, SIZE, SIZE, 3), np.uint8)
  label = (np.arange(n) % 2).astype(np.int32)
  image[label == 1, 5:9, 5:9] = 255
  index = np.arange(first, first + n, dtype=np.int32)
  return {'image': image, 'label': label, 'valid': np.ones(n, bool), 'index': index}


PRODUCT = ('good', 'defect')
KEY = jax.random.key(0)


def test_learns_a_product_from_a_few_pictures():
  method = medetection(fine_tune_epochs=12, fine_tune_rate=1e-2, fine_tune_batch=8)
  start = to_fitted(method.init(jax.random.key(0), spec('medetection')), PRODUCT)
  known = References(PRODUCT, [marked(16)], [marked(8, first=50)])
  fitted = method.adapt(jax.random.key(0), start, known)
  losses = fitted.memory['history']['validation_loss']
  assert losses.min() < 0.5 * losses[0]
  assert int(fitted.memory['epoch']) == losses.argmin()
  test = marked(10, first=99)
  np.testing.assert_array_equal(method.predict(fitted, test).scores.argmax(1), test['label'])
  # The kept pictures are good ones of the support set.
  good = marked(16)['image'][::2]
  assert all((one == good).all((1, 2, 3)).any() for one in fitted.memory['references'])


def test_compares_with_the_template_of_a_picture_where_it_has_one():
  method = medetection(fine_tune_epochs=3, fine_tune_rate=1e-2)
  start = to_fitted(method.init(jax.random.key(0), spec('medetection')), PRODUCT)
  fitted = method.adapt(jax.random.key(0), start, References(PRODUCT, [marked(8)]))
  test = marked(4, first=99)
  itself = {**test, 'reference': test['image'][:, None]}
  scores = np.asarray(method.predict(fitted, itself).scores)
  # Without a difference there is nothing to tell pictures apart by.
  np.testing.assert_allclose(scores, np.broadcast_to(scores[:1], scores.shape), atol=1e-6)
  assert np.ptp(np.asarray(method.predict(fitted, test).scores)[:, 0]) > 1e-4


@pytest.mark.parametrize(('nearest', 'each'), [(None, 1), (1, 2)])
def test_fine_tuning_compares_with_all_good_pictures(monkeypatch, nearest, each):
  draw, seen = support_set.draw, []

  def watched(key, pictures, shape):
    seen.append((pictures, shape))
    return draw(key, pictures, shape)

  monkeypatch.setattr(support_set, 'draw', watched)
  method = medetection(nearest=nearest)
  start = to_fitted(method.init(jax.random.key(0), spec('medetection')), PRODUCT)
  support = marked(8)
  method.adapt(KEY, start, References(PRODUCT, [support]))
  pictures, shape = seen[0]
  assert shape[1] == each
  good = {one.tobytes() for one in support['image'][support['label'] == 0]}
  assert {one.tobytes() for one in pictures} == good


@pytest.mark.parametrize(
  ('classes', 'batches', 'message'),
  [
    (('dent', 'good'), [marked(4)], 'the classes of the references are dent, good'),
    (PRODUCT, [{**marked(4), 'label': np.zeros(4, np.int32)}], '4 good and 0 defective'),
  ],
)
def test_needs_good_and_defective_pictures(classes, batches, message):
  method = medetection()
  start = to_fitted(method.init(jax.random.key(0), spec('medetection')), PRODUCT)
  with pytest.raises(ValueError, match=message):
    method.adapt(jax.random.key(0), start, References(classes, batches))


def test_needs_something_to_compare_with():
  method = medetection()
  start = to_fitted(method.init(jax.random.key(0), spec('medetection')), PRODUCT)
  with pytest.raises(ValueError, match='compares with defect-free pictures'):
    method.predict(start, marked(2))


def test_steps_to_second_order_and_says_how_far_it_moved():
  key, moved = jax.random.key(0), {}
  # One task: each is unrolled, and takes its share of the compiling.
  stepped = {}
  for first_order in (False, True):
    method = medetection(optimizer=optax.sgd(1.0), inner_rate=0.5, first_order=first_order)
    state = method.init(key, spec('medetection'))
    # A head of zeros passes no gradient on.
    state.params['fc']['kernel'] = jnp.full_like(state.params['fc']['kernel'], 0.1)
    after, scalars = jax.jit(method.step)(key, state, training_batch('medetection', 3))
    stepped[first_order], moved[first_order] = after.params, scalars['movement'][0]
  difference = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), stepped[False], stepped[True])
  assert max(jax.tree.leaves(difference)) > 1e-4
  np.testing.assert_allclose(moved[False], moved[True], rtol=1e-5)
  assert moved[False] > 0


def test_head_alone_adapts_in_anil():
  method = medetection(optimizer=optax.sgd(0.1), adapts='head', reset_head=True, inner_rate=0.5)
  state = method.init(jax.random.key(0), spec('medetection'))
  after, scalars = jax.jit(method.step)(jax.random.key(0), state, training_batch('medetection', 3))
  assert scalars['movement'][0] > 0
  # The head starts every task from zero, so what it is does not matter and does not change.
  chex.assert_trees_all_equal(after.params['fc'], state.params['fc'])


@pytest.mark.parametrize(('kind', 'shape'), [('per_parameter', (84, 1)), ('per_step', (1,))])
def test_learns_its_inner_rates_and_adapts_by_them(kind, shape):
  method = medetection(optimizer=optax.sgd(0.1), inner_rates=kind, fine_tune_epochs=0)
  state = method.init(jax.random.key(0), spec('medetection'))
  rates = state.params['inner_rates']['fc']['kernel']
  assert rates.shape == shape
  np.testing.assert_allclose(jnp.exp(rates), 0.01, rtol=1e-5)
  after, _ = jax.jit(method.step)(jax.random.key(0), state, training_batch('medetection', 3))
  moved = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).max()), after.params['inner_rates'], rates_of(state)
  )
  assert max(jax.tree.leaves(moved)) > 0

  known = References(PRODUCT, [marked(8)])
  fitted = method.adapt(jax.random.key(0), to_fitted(after, PRODUCT), known)
  assert 'inner_rates' not in fitted.params
  # Without epochs of fine-tuning what moved is the inner loop: by the learned rates, all of it.
  stopped = jax.tree.map(lambda leaf: jnp.full_like(leaf, -jnp.inf), rates_of(after))
  still = after._replace(params={**after.params, 'inner_rates': stopped})
  unmoved = method.adapt(jax.random.key(0), to_fitted(still, PRODUCT), known)
  own = {name: leaf for name, leaf in after.params.items() if name != 'inner_rates'}
  chex.assert_trees_all_equal(unmoved.params, own)
  twice = jax.tree.map(lambda leaf: leaf + jnp.log(2.0), rates_of(after))
  faster = after._replace(params={**after.params, 'inner_rates': twice})
  farther = method.adapt(jax.random.key(0), to_fitted(faster, PRODUCT), known)

  def way(params):
    return jax.tree.map(lambda a, b: a - b, params, own)

  single = way(fitted.params)
  assert float(optax.tree.norm(single)) > 1e-5
  # One step: twice the rates are twice the way.
  chex.assert_trees_all_close(
    way(farther.params), jax.tree.map(lambda leaf: 2 * leaf, single), rtol=1e-3, atol=1e-6
  )


def rates_of(state):
  return state.params['inner_rates']


def test_rates_per_step_serve_fewer_steps_too():
  """The same parameters without the inner loop, as the report compares them."""
  settings = {'optimizer': optax.sgd(0.1), 'inner_rates': 'per_step'}
  method = medetection(**settings, inner_steps=2, first_order=True)
  state = method.init(jax.random.key(0), spec('medetection'))
  assert rates_of(state)['fc']['kernel'].shape == (2,)
  without = medetection(**settings, inner_steps=0)
  _, scalars = jax.jit(without.step)(jax.random.key(0), state, training_batch('medetection', 3))
  assert scalars['movement'][0] == 0


def test_rejects_bad_arguments():
  with pytest.raises(ValueError, match="adapts is 'tail'"):
    medetection(adapts='tail')
  with pytest.raises(ValueError, match='nearest is 3'):
    medetection(nearest=3)
  with pytest.raises(ValueError, match="inner_rates is 'own'; it can be fixed, per_parameter"):
    medetection(inner_rates='own')
  with pytest.raises(ValueError, match=r'inner_rate is 0\.0; with inner_rates='):
    medetection(inner_rates='per_step', inner_rate=0.0).init(KEY, spec('medetection'))
  with pytest.raises(ValueError, match='inner_steps is 0; inner_rates='):
    medetection(inner_rates='per_step', inner_steps=0).init(KEY, spec('medetection'))
