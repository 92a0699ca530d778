"""Self-contrastive + angular margin: equation 5, and classes by reference alone."""

import chex
import jax
import numpy as np
import optax
import pytest

from jaxdefect import methods
from jaxdefect.contracts import References, to_fitted
from tests.method_batches import CLASSES, batch, spec

SMALL = {'backbone': 'resnet18', 'stages': 1, 'projection': (8, 4)}
VIEWS = {'crop_scale': (0.5, 1.0)}


def test_learns_a_new_class_by_reference_alone():
  method = methods.load('contrastive_margin')(**SMALL)
  fitted = to_fitted(method.init(jax.random.key(0), spec()), CLASSES)
  fitted = method.adapt(jax.random.key(0), fitted, References(CLASSES, [batch()]))
  new = {**batch(1, first=77), 'label': np.zeros(1, np.int32)}
  more = method.adapt(jax.random.key(0), fitted, References(('crack',), [new]))
  assert more.classes == (*CLASSES, 'crack')
  assert more.memory['embeddings'].shape[0] == 7
  chex.assert_trees_all_equal(more.params, fitted.params)
  # Old classes keep their scores; the new class knows its own picture.
  old, now = method.predict(fitted, new), method.predict(more, new)
  np.testing.assert_allclose(now.scores[:, :3], old.scores, atol=1e-6)
  assert (now.scores[:, 3] > now.scores[:, :3].max(1)).all()


@pytest.mark.parametrize('argument', ['anchors', 'positives', 'margin_views', 'embedding'])
def test_rejects_what_is_no_choice(argument):
  with pytest.raises(ValueError, match=f"{argument} is 'every'; it can be "):
    methods.load('contrastive_margin')(**{argument: 'every'})


def test_score_is_the_mean_cosine_by_hand():
  method = methods.load('contrastive_margin')(**SMALL)
  fitted = to_fitted(method.init(jax.random.key(0), spec()), CLASSES)
  fitted = method.adapt(jax.random.key(0), fitted, References(CLASSES, [batch()]))
  vectors, labels = np.asarray(fitted.memory['embeddings']), np.asarray(fitted.memory['labels'])
  expected = np.stack([(vectors @ vectors[labels == k].T).mean(1) for k in range(3)], axis=1)
  np.testing.assert_allclose(method.predict(fitted, batch()).scores, expected, atol=1e-5)


def test_loss_is_equation_5():
  method = methods.load('contrastive_margin')(optimizer=optax.sgd(0.1), **SMALL)
  state = method.init(jax.random.key(0), spec())
  _, scalars = jax.jit(method.step)(jax.random.key(0), state, batch())
  total = 0.75 * scalars['contrastive'][0] + 0.25 * scalars['margin'][0]
  np.testing.assert_allclose(scalars['loss'][0], total, rtol=1e-5)


@pytest.mark.parametrize(
  ('settings', 'reason'),
  [
    ({}, 'compares the pictures of a batch'),
  ],
)
def test_what_couples_a_batch_is_named(settings, reason):
  with pytest.raises(ValueError, match=f'accumulate is 4; it can only be 1, because .*{reason}'):
    methods.load('contrastive_margin')(**{**SMALL, **settings}, accumulate=4)
