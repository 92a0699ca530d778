"""DC-Net: combinations of patterns, their likelihood by hand, and what adapt can add."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdefect import methods
from jaxdefect.contracts import DataSpec, References, to_fitted
from tests.method_batches import SIZE, batch

SMALL = {'width': 2}
VIEWS = {'crop_scale': (0.5, 1.0)}
# Patterns in the order of their names: A, B, C.
MIXED = ('Normal', 'A', 'A+B', 'C', 'A+B+C')
MEMBER = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1]])


def spec(classes):
  image = jax.ShapeDtypeStruct((6, SIZE, SIZE, 3), np.uint8)
  return DataSpec({'image': image}, tuple(classes), (2,) * len(classes))


@functools.cache
def made(classes=MIXED, *, rate=0.1, **settings):
  """The method, and a state of which no parameter is where it started."""
  method = methods.load('dc_net')(optimizer=optax.sgd(rate), **{**SMALL, **settings})
  state = jax.jit(lambda key: method.init(key, spec(classes)))(jax.random.key(0))
  drawn = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(state.params))))
  params = jax.tree.map(
    lambda leaf: leaf + 0.3 * jax.random.normal(next(drawn), leaf.shape), state.params
  )
  return method, state._replace(params=params)


def logits_of(method, fitted):
  """What the last layer says, from the features that ``activations`` shows."""
  fc = fitted.params['fc']
  maps = jax.jit(lambda f, b: method.activations(f, b, None)[1])(fitted, batch())
  return np.asarray(maps.mean((1, 2)) @ fc['kernel'] + fc['bias'], np.float64)


def test_scores_are_log_likelihoods_by_hand():
  method, state = made()
  fitted = to_fitted(state, MIXED)
  yes = 1 / (1 + np.exp(-logits_of(method, fitted)))  # [N, B]
  likelihood = np.prod(np.where(MEMBER, yes[:, None], 1 - yes[:, None]), axis=2)  # [N, K]
  said = jax.jit(method.predict)(fitted, batch())
  np.testing.assert_allclose(said.scores, np.log(likelihood), rtol=1e-4, atol=1e-5)
  known = likelihood / likelihood.sum(1, keepdims=True)
  np.testing.assert_allclose(said.probabilities, known, rtol=1e-4, atol=1e-6)
  assert np.ptp(known, axis=1).min() > 0.01


def test_scores_of_all_combinations_are_a_distribution():
  every = ('Normal', 'A', 'B', 'A+B', 'C', 'A+C', 'B+C', 'A+B+C')
  method, state = made(every)
  said = jax.jit(method.predict)(to_fitted(state, every), batch())
  np.testing.assert_allclose(np.exp(said.scores).sum(1), 1, rtol=1e-5)
  np.testing.assert_allclose(np.exp(said.scores), said.probabilities, rtol=1e-4)


def test_loss_is_the_mean_cross_entropy_of_the_patterns():
  method, state = made()
  given = batch(5)
  _, scalars = jax.jit(method.step)(jax.random.key(0), state, given)
  # With the statistics of the batch in place of the running ones, predict sees what the step saw.
  after, _ = jax.jit(methods.load('dc_net')(optimizer=optax.sgd(0.0), **SMALL).step)(
    jax.random.key(0), state, given
  )
  np.testing.assert_array_equal(after.params['fc']['bias'], state.params['fc']['bias'])
  statistics = jax.tree.map(
    lambda new, old: old + 10 * (new - old),  # a step of a tenth
    after.model_state['batch_stats'],
    state.model_state['batch_stats'],
  )
  for name, tree in statistics.items():  # what is kept is the unbiased variance
    side = {'0': 8, '1': 4, '2': 2, '3': 2, '4': 1}[name[-1]]
    n = 5 * side**2
    statistics[name] = {**tree, 'var': tree['var'] * (n - 1) / n}
  fitted = to_fitted(state, MIXED)
  fitted = fitted.replace(model_state={**fitted.model_state, 'batch_stats': statistics})
  said = jax.jit(method.predict)(fitted, given)
  own = np.take_along_axis(np.asarray(said.scores), given['label'][:, None], axis=1)
  assert float(scalars['loss'][1]) == 5
  np.testing.assert_allclose(float(scalars['loss'][0]), -own.sum() / 3, rtol=1e-3)
  hits = (np.asarray(said.scores).argmax(1) == given['label']).sum()
  assert float(scalars['accuracy'][0]) == hits
  assert float(scalars['exact_match'][0]) <= hits


def test_every_class_is_a_pattern_where_none_is_mixed():
  classes = ('crazing', 'good', 'scratch')
  _, state = made(classes)
  np.testing.assert_array_equal(state.model_state['membership'], np.eye(3))
  _, state = made(classes, no_pattern='good')
  assert state.params['fc']['bias'].shape == (2,)
  np.testing.assert_array_equal(state.model_state['membership'], [[1, 0], [0, 0], [0, 1]])


def test_a_new_combination_is_one_adapt_away():
  method, state = made()
  fitted = to_fitted(state, MIXED)
  more = method.adapt(jax.random.key(0), fitted, References(('A', 'B+C'), []))
  assert more.classes == (*MIXED, 'B+C')
  old, now = jax.jit(method.predict)(fitted, batch()), jax.jit(method.predict)(more, batch())
  np.testing.assert_allclose(now.scores[:, :5], old.scores, atol=1e-6)
  logits = logits_of(method, fitted)
  expected = logits[:, 1] + logits[:, 2] - np.log1p(np.exp(logits)).sum(1)
  np.testing.assert_allclose(now.scores[:, 5], expected, rtol=1e-4, atol=1e-5)
  with pytest.raises(ValueError, match=r"cannot learn the pattern 'X' of the class 'A\+X'"):
    method.adapt(jax.random.key(0), fitted, References(('A+X',), []))


@pytest.mark.parametrize(
  ('classes', 'reason'),
  [
    (('Normal',), 'needs a basic pattern'),
    (('A+B', 'C', 'B+A'), "the classes 'A[+]B' and 'B[+]A' are the same combination"),
    (('A', 'A++B'), "the class 'A[+][+]B' is no combination"),
    (('A', 'A+A'), "the class 'A[+]A' is no combination"),
  ],
)
def test_rejects_classes(classes, reason):
  with pytest.raises(ValueError, match=reason):
    methods.load('dc_net')(**SMALL).init(jax.random.key(0), spec(classes))


def test_offsets_learn_at_a_rate_of_their_own():
  moved = {}
  for share in (1.0, 0.25):
    method, state = made(offset_rate=share)
    after, _ = jax.jit(method.step)(jax.random.key(0), state, batch())
    moved[share] = jax.tree.map(lambda a, b: a - b, after.params, state.params)
  slow, fast = moved[0.25]['conv.0'], moved[1.0]['conv.0']
  assert float(jnp.abs(fast['offset']['kernel']).max()) > 0
  np.testing.assert_allclose(slow['offset']['kernel'], 0.25 * fast['offset']['kernel'], atol=1e-6)
  np.testing.assert_allclose(slow['kernel'], fast['kernel'], atol=1e-6)
