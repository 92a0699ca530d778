"""Uninformed Students: a distilled teacher, students that follow it, and what they miss."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdefect import methods, models
from jaxdefect.contracts import DataSpec, References, to_fitted
from jaxdefect.models.patch_descriptor import PatchDescriptor, pad_to_cells
from jaxdefect.ops import IMAGENET_MEAN, IMAGENET_STD, normalize_pixels, smooth_map

CLASSES = ('good', 'defect')
SIZE = 20
SMALL = {
  **{'stages': 1, 'width': 4, 'fields': (17,), 'students': 2, 'features': 4, 'channels': 2},
  **{'window': 2, 'teacher_steps': 3, 'teacher_crops': 2, 'teacher_size': 16, 'sigma': 1.0},
}
UNCOUPLED = {}


def batch(n: int, *, first: int = 0, padding: int = 0, shade: int = 0) -> dict[str, np.ndarray]:
  """Stripes and noise; ``shade`` turns the stripes by a right angle."""
  generator = np.random.default_rng(first)
  image = generator.normal(100, 8, (n + padding, SIZE, SIZE, 3))
  stripes = 60 * np.sin(np.arange(SIZE) * 1.3)
  image += stripes[:, None, None] if shade else stripes[None, :, None]
  valid = np.arange(n + padding) < n
  return {
    'image': np.clip(image, 0, 255).astype(np.uint8),
    'label': np.zeros(n + padding, np.int32),
    'valid': valid,
    'index': np.where(valid, first + np.arange(n + padding), -1).astype(np.int32),
  }


def spec() -> DataSpec:
  return DataSpec({'image': jax.ShapeDtypeStruct((4, SIZE, SIZE, 3), np.uint8)}, CLASSES, (4, 0))


def made(**settings):
  method = methods.load('uninformed_students')(**{**SMALL, **settings})
  return method, jax.jit(lambda key: method.init(key, spec()))(jax.random.key(0))


@functools.cache
def prepared():
  method, state = made()
  known = References(CLASSES, [batch(3), batch(2, first=3)])
  return method, state, method.prepare(jax.random.key(1), state, known)


def described(params, image: np.ndarray) -> np.ndarray:
  """Descriptors of the cells, in numpy's float64."""
  x = normalize_pixels(image, mean=IMAGENET_MEAN, std=IMAGENET_STD)
  network = PatchDescriptor(17, features=4, width=2)
  x = pad_to_cells(x, field=17, stride=4)
  return np.asarray(network.apply({'params': params}, x, stride=4), np.float64)


def test_prepare_changes_the_teacher_alone():
  _, before, after = prepared()
  chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
  for name in ('backbone', 'students'):
    chex.assert_trees_all_equal(before.params[name], after.params[name])
  moved = jax.tree.map(
    lambda a, b: jnp.abs(a - b).max(), before.params['teacher'], after.params['teacher']
  )
  assert min(jax.tree.leaves(moved)) > 0
  assert after.step == 0


def test_prepare_is_deterministic_and_padding_is_invisible_to_it():
  method, before, after = prepared()
  padded = References(CLASSES, [batch(3), batch(2, first=3, padding=1)])
  padded.batches[0]['image'] = batch(3)['image']
  again = method.prepare(jax.random.key(1), before, padded)
  chex.assert_trees_all_close(again, after, atol=1e-4)


def test_teacher_learns_to_tell_what_the_backbone_says():
  """A linear map of the descriptors explains more of the backbone's features than before."""
  method, before = made(teacher_steps=60, teacher_rate=1e-2, teacher_crops=4, compactness=0.0)
  patches = [batch(6, shade=shade) for shade in (0, 1)]
  known = References(CLASSES, patches)
  after = method.prepare(jax.random.key(1), before, known)
  trunk = models.backbone('resnet18', stages=1, width=4)
  fixed = {
    'params': before.params['backbone'],
    'batch_stats': before.model_state['batch_stats']['backbone'],
  }
  image = np.concatenate([one['image'] for one in patches])[:, :17, :17]
  x = normalize_pixels(image, mean=IMAGENET_MEAN, std=IMAGENET_STD)
  enlarged = jax.image.resize(x, (len(x), 16, 16, 3), 'bilinear')
  seen: list = trunk.apply(fixed, enlarged)
  target = np.asarray(seen[-1].mean((1, 2)))
  network = PatchDescriptor(17, features=4, width=2)

  def unexplained(params) -> float:
    answer = np.asarray(network.apply({'params': params['teacher']['field_17']}, x))[:, 0, 0]
    answer = np.concatenate([answer, np.ones((len(answer), 1))], axis=1)
    rest = target - answer @ np.linalg.lstsq(answer, target, rcond=None)[0]
    return float(np.square(rest).sum() / np.square(target - target.mean(0)).sum())

  assert unexplained(after.params) < 0.8 * unexplained(before.params)


def test_descriptors_are_standardised_over_the_good_parts():
  _, _, state = prepared()
  answers = described(
    state.params['teacher']['field_17'],
    np.concatenate([batch(3)['image'], batch(2, first=3)['image']]),
  )
  mean, sd = (state.model_state[f'descriptor_{k}']['field_17'] for k in ('mean', 'sd'))
  np.testing.assert_allclose(mean, answers.mean((0, 1, 2)), atol=1e-5)
  np.testing.assert_allclose(sd, answers.std((0, 1, 2)), rtol=1e-3)


def test_loss_of_the_whole_image_by_hand():
  method, state = made(window=None, optimizer=optax.sgd(0.1))
  _, _, ready = prepared()
  state = state._replace(params=ready.params, model_state=ready.model_state)
  some = batch(2, first=9, padding=1)
  after, scalars = jax.jit(method.step)(jax.random.key(0), state, some)
  mean, sd = (ready.model_state[f'descriptor_{k}']['field_17'] for k in ('mean', 'sd'))
  image = some['image'][:2]
  answer = (described(ready.params['teacher']['field_17'], image) - mean) / sd
  away = [
    np.square(described(one['field_17'], image) - answer).sum(-1).mean((1, 2))
    for one in ready.params['students'].values()
  ]
  np.testing.assert_allclose(scalars['loss'][0], np.mean(away, axis=0).sum(), rtol=1e-4)
  assert scalars['loss'][1] == 2
  chex.assert_trees_all_equal(after.params['teacher'], ready.params['teacher'])
  chex.assert_trees_all_equal(after.params['backbone'], ready.params['backbone'])


def test_score_by_hand():
  method, _, state = prepared()
  good = batch(4, first=20)
  fitted = method.adapt(jax.random.key(0), to_fitted(state, CLASSES), References(CLASSES, [good]))
  mean, sd = (state.model_state[f'descriptor_{k}']['field_17'] for k in ('mean', 'sd'))

  def error_and_variance(image):
    answer = (described(state.params['teacher']['field_17'], image) - mean) / sd
    said = np.stack([described(p['field_17'], image) for p in state.params['students'].values()])
    error = np.square(said.mean(0) - answer).sum(-1)
    return error, np.square(said).sum(-1).mean(0) - np.square(said.mean(0)).sum(-1)

  test = batch(2, first=30, shade=1)
  expected = 0
  for known, new in zip(error_and_variance(good['image']), error_and_variance(test['image'])):
    expected += (new - known.mean()) / known.std()
  maps = smooth_map(jnp.asarray(expected), size=(SIZE, SIZE), sigma=1.0)
  predictions = jax.jit(method.predict)(fitted, test)
  np.testing.assert_allclose(predictions.maps, maps, rtol=2e-3, atol=2e-3)
  np.testing.assert_allclose(predictions.scores, predictions.maps.max((1, 2)))


def test_moments_extend_and_come_from_validation_where_it_is_there():
  method, _, state = prepared()
  empty = to_fitted(state, CLASSES)
  parts = [batch(3), batch(2, first=3, padding=1)]
  once = method.adapt(jax.random.key(0), empty, References(CLASSES, parts))
  grown = empty
  for part in parts:
    grown = method.adapt(jax.random.key(0), grown, References(CLASSES, [part]))
  assert once.memory['count'].tolist() == grown.memory['count'].tolist() == [5 * 5 * 5]
  chex.assert_trees_all_close(grown.memory, once.memory, rtol=1e-4)
  apart = method.adapt(jax.random.key(0), empty, References(CLASSES, [batch(6, first=60)], parts))
  chex.assert_trees_all_close(apart.memory, once.memory, rtol=1e-5)
  method, _ = made(expectation='training')
  training = method.adapt(
    jax.random.key(0), empty, References(CLASSES, parts, [batch(6, first=60)])
  )
  chex.assert_trees_all_close(training.memory, once.memory, rtol=1e-5)


def test_students_miss_what_they_have_not_seen():
  method, state = made(optimizer=optax.adam(1e-2), channels=4, teacher_steps=20)
  good = [batch(8), batch(8, first=8)]
  state = method.prepare(jax.random.key(1), state, References(CLASSES, good))
  step = jax.jit(method.step)
  first = None
  for number in range(40):
    state, scalars = step(jax.random.key(2), state, good[number % 2])
    first = scalars['unexplained'] if first is None else first
  assert scalars['unexplained'][0] < 0.7 * first[0]
  known = References(CLASSES, good)
  fitted = method.adapt(jax.random.key(0), to_fitted(state, CLASSES), known)
  predict = jax.jit(method.predict)
  own, strange = (predict(fitted, batch(8, first=40, shade=s)).scores for s in (0, 1))
  assert own.max() < strange.min()


@pytest.mark.parametrize(
  ('settings', 'sentence'),
  [
    ({'students': 0}, 'students must be 1 or more, got 0'),
    ({'window': 0}, 'window must be 1 or more places, or None'),
    ({'fields': (17, 17)}, r'fields must be different sides of patches.*got \(17, 17\)'),
    ({'fields': (18,)}, 'field must be one of 17, 33, 65 pixels, got 18'),
    ({'stride': 20}, 'stride is 20; patches of 17 pixels would leave gaps'),
    ({'expectation': 'test'}, "expectation must be 'validation' or 'training', got 'test'"),
  ],
)
def test_rejects_bad_arguments(settings, sentence):
  with pytest.raises(ValueError, match=sentence):
    methods.load('uninformed_students')(**{**SMALL, **settings})


def test_needs_good_parts():
  method, before, state = prepared()
  with pytest.raises(ValueError, match='distils its teacher on good parts'):
    method.prepare(jax.random.key(0), before, None)
  with pytest.raises(ValueError, match='call adapt before predict'):
    method.predict(to_fitted(state, CLASSES), batch(1))
