"""Siamese one-shot: the losses of pairs by hand, and classes by one reference alone."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdefect import methods, models
from jaxdefect.contracts import DataSpec, References, to_fitted
from tests.method_batches import CLASSES, batch, spec

SMALL = {'channels': (2, 3), 'widths': (8, 4)}
VIEWS = {'crop_scale': (0.5, 1.0)}
BOTH = pytest.mark.parametrize('comparison', ['distance', 'weighted_l1'])


@functools.cache
def made(comparison):
  method = methods.load('siamese_one_shot')(
    optimizer=optax.sgd(0.1), comparison=comparison, **SMALL
  )
  state = jax.jit(lambda key: method.init(key, spec()))(jax.random.key(0))
  fitted = method.adapt(
    jax.random.key(0), to_fitted(state, CLASSES), References(CLASSES, [batch()])
  )
  return method, state, fitted


def compared(state, images, comparison):
  """What is compared of images, [N, 4]."""
  encoder = {name: leaf for name, leaf in state.params.items() if name != 'same'}
  x = (images / np.float32(255) - 0.5) / 0.5
  vectors = np.asarray(models.SiameseEncoder(**SMALL).apply({'params': encoder}, x)[1], np.float64)
  return 1 / (1 + np.exp(-vectors)) if comparison == 'weighted_l1' else vectors


def alike(params, a, b, comparison):
  if comparison == 'distance':
    return 1 - (np.linalg.norm(a - b) / 2) ** 2  # margin 2
  return float(
    np.abs(a - b) @ np.asarray(params['same']['kernel'])[:, 0] + params['same']['bias'][0]
  )


@BOTH
def test_loss_and_pair_accuracy_by_hand(comparison):
  method, state, _ = made(comparison)
  item = batch(5, padding=1)
  _, scalars = jax.jit(method.step)(jax.random.key(0), state, item)
  vectors, labels = compared(state, item['image'][:5], comparison), item['label']
  total = right = weight = 0.0
  for i in range(5):
    for same in (True, False):
      partners = [j for j in range(5) if j != i and (labels[i] == labels[j]) == same]
      if not partners:  # the third class has one picture
        continue
      weight += 0.5
      for j in partners:
        score = alike(state.params, vectors[i], vectors[j], comparison)
        if comparison == 'weighted_l1':
          p = 1 / (1 + np.exp(-score))
          cost = -np.log(p if same else 1 - p)
        else:
          distance = np.linalg.norm(vectors[i] - vectors[j]) / 2
          cost = distance**2 if same else max(2 - distance, 0) ** 2
        total += cost / len(partners) / 2
        right += ((score > 0) == same) / len(partners) / 2
  assert weight == 4.5
  np.testing.assert_allclose(scalars['loss'], (total, weight), rtol=1e-4)
  np.testing.assert_allclose(scalars['pair_accuracy'], (right, weight), rtol=1e-4)


@BOTH
def test_score_is_the_mean_similarity_by_hand(comparison):
  method, state, fitted = made(comparison)
  a = compared(state, batch(4, first=9)['image'], comparison)
  references, labels = compared(state, batch()['image'], comparison), batch()['label']
  expected = [
    [
      np.mean([alike(state.params, x, r, comparison) for r in references[labels == k]])
      for k in range(3)
    ]
    for x in a
  ]
  found = method.predict(fitted, batch(4, first=9))
  np.testing.assert_allclose(found.scores, expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(found.probabilities, jax.nn.softmax(jnp.array(expected)), atol=1e-4)


@BOTH
def test_learns_a_new_class_by_one_reference_alone(comparison):
  method, _, fitted = made(comparison)
  new = {**batch(1, first=77), 'label': np.zeros(1, np.int32)}
  more = method.adapt(jax.random.key(0), fitted, References(('crack',), [new]))
  assert more.classes == (*CLASSES, 'crack')
  assert more.memory['embeddings'].shape[0] == 7
  chex.assert_trees_all_equal(more.params, fitted.params)
  # Old classes keep their scores; the new class knows its own picture.
  old, now = method.predict(fitted, new), method.predict(more, new)
  np.testing.assert_allclose(now.scores[:, :3], old.scores, atol=1e-6)
  assert (now.scores[:, 3] > now.scores[:, :3].max(1)).all()


def striped(n, first, period):
  """Stripes of a period, at a random phase and angle of 0 or 90 degrees."""
  random = np.random.default_rng(first)
  wave = np.sin(2 * np.pi * (np.arange(16) / period + random.uniform(size=(n, 1))))
  image = np.broadcast_to(128 + 90 * wave[:, :, None], (n, 16, 16))
  image = np.where(random.integers(2, size=(n, 1, 1)) > 0, image, image.swapaxes(1, 2))
  return (image[..., None] + random.normal(0, 8, (n, 16, 16, 3))).clip(0, 255).astype(np.uint8)


def labelled(images, label, first=0):
  index = first + np.arange(len(images), dtype=np.int32)
  return {'image': images, 'label': label, 'valid': np.ones(len(images), bool), 'index': index}


@BOTH
def test_one_picture_of_a_class_is_enough_once_pairs_are_learnt(comparison):
  method = methods.load('siamese_one_shot')(
    optimizer=optax.adam(3e-3), comparison=comparison, channels=(8, 8), widths=(32, 5), pool=True
  )
  label = np.repeat(np.arange(2, dtype=np.int32), 8)
  make = lambda first: labelled(  # noqa: E731
    np.concatenate([striped(8, first, 8.0), striped(8, first + 1, 3.0)]), label, first
  )
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), make(0))
  key = jax.random.key(0)
  state = jax.jit(lambda key: method.init(key, DataSpec(shapes, ('wide', 'fine'), (8, 8))))(key)
  step = jax.jit(method.step)
  for number in range(60):
    state, scalars = step(key, state, make(2 * number))
  total, weight = scalars['pair_accuracy']
  assert total / weight > 0.95
  one = labelled(np.concatenate([striped(1, 900, 8.0), striped(1, 901, 3.0)]), np.arange(2))
  fitted = method.adapt(
    key, to_fitted(state, ('wide', 'fine')), References(('wide', 'fine'), [one])
  )
  np.testing.assert_array_equal(method.predict(fitted, make(1000)).scores.argmax(1), label)


def test_needs_references():
  method, state, fitted = made('distance')
  with pytest.raises(ValueError, match='has no references yet: call adapt before predict'):
    method.predict(to_fitted(state, CLASSES), batch(2))
  with pytest.raises(ValueError, match='call adapt before it is converted'):
    method.deploy(to_fitted(state, CLASSES))
  one = {**batch(2), 'label': np.zeros(2, np.int32)}
  with pytest.raises(ValueError, match='hold no image of the class'):
    method.adapt(jax.random.key(0), to_fitted(state, CLASSES), References(CLASSES, [one]))
  assert method.deploy(fitted)[1]['flattened'] == 16 * 16 * 3


def test_rejects_bad_arguments():
  make = methods.load('siamese_one_shot')
  with pytest.raises(ValueError, match="comparison is 'cosine'; it can be distance or weighted_l1"):
    make(comparison='cosine')
  with pytest.raises(ValueError, match='margin is 0; it must be larger than 0'):
    make(margin=0)
