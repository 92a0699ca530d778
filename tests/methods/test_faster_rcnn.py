"""Faster R-CNN with prototypes: their start, their course, and classes by reference alone."""

import chex
import jax
import numpy as np
import optax
import pytest

from jaxdefect import methods
from jaxdefect.contracts import Method, References, to_fitted
from tests.method_batches import CLASSES, batch, spec

SMALL = {
  **{'backbone': 'resnet18', 'stages': 1, 'width': 8, 'frozen_stages': 0, 'neck_channels': 8},
  **{'anchor_sizes': (6.0, 12.0), 'head_width': 16, 'classifier': 'prototype', 'embedding': 8},
  **{'rpn_samples': 8, 'proposals_before': 12, 'proposals': 8, 'regions': 8},
  **{'score_threshold': 0.0, 'max_detections': 5},
}
VIEWS = {'flips': True, 'scale': (0.8, 1.2)}
UNCOUPLED = {'classifier': 'linear', 'update_statistics': False}


def detector(**settings) -> Method:
  return methods.load('faster_rcnn')(**{**SMALL, **settings})


@pytest.mark.parametrize('background', ['linear', 'prototype'])
def test_learns_a_new_class_by_reference_alone(background):
  method = detector(background=background)
  fitted = to_fitted(method.init(jax.random.key(0), spec()), CLASSES)
  new = batch()
  new['box_label'] = np.zeros_like(new['box_label'])
  more = method.adapt(jax.random.key(0), fitted, References(('crack',), [new]))
  assert more.classes == (*CLASSES, 'crack')
  chex.assert_trees_all_equal(more.params, fitted.params)
  prototypes = np.asarray(more.model_state['prototypes'])
  np.testing.assert_array_equal(prototypes[:4], fitted.model_state['prototypes'])
  # Known classes among the references change nothing.
  again = method.adapt(jax.random.key(0), fitted, References(CLASSES, [batch()]))
  chex.assert_trees_all_equal(again, fitted)
  assert 3 in np.asarray(method.predict(more, new).labels)


def test_linear_refuses_a_new_class():
  method = detector(classifier='linear')
  fitted = to_fitted(method.init(jax.random.key(0), spec()), CLASSES)
  with pytest.raises(ValueError, match="cannot learn the class 'crack'"):
    method.adapt(jax.random.key(0), fitted, References(('crack',), [batch()]))


def test_prototypes_start_as_support_means_and_follow_the_batches():
  method = detector(optimizer=optax.sgd(0.0), prototype_momentum=0.5, new_class='prototype')
  state = method.init(jax.random.key(0), spec())
  ready = method.prepare(jax.random.key(0), state, References(CLASSES, [batch()]))
  support = method.adapt(
    jax.random.key(0),
    to_fitted(ready, CLASSES),
    References(('a', 'b', 'c'), [batch()]),  # the same pictures under new names
  )
  known, again = np.split(np.asarray(support.model_state['prototypes'])[1:], 2)
  np.testing.assert_allclose(known, again, atol=1e-5)
  # They start apart: the mean embedding is taken out.
  directions = known / np.linalg.norm(known, axis=1, keepdims=True)
  assert (directions @ directions.T)[np.triu_indices(3, 1)].max() < 0.5
  after, _ = jax.jit(method.step)(jax.random.key(0), ready, batch())
  moved = np.abs(np.asarray(after.model_state['prototypes'] - ready.model_state['prototypes']))
  # A class whose sample is its true boxes alone stays: they are its support.
  assert moved[0].max() > 1e-4
  assert moved[1:].max() > 1e-4


def test_weighs_rare_classes():
  state = detector(balance_classes=True).init(jax.random.key(0), spec()._replace(counts=(1, 2, 4)))
  np.testing.assert_allclose(state.model_state['class_weights'], [4, 2, 1])


def test_learns_without_any_box():
  method = detector(optimizer=optax.sgd(0.1))
  state = method.init(jax.random.key(0), spec())
  empty = batch()
  empty['box_valid'] = np.zeros_like(empty['box_valid'])
  after, scalars = jax.jit(method.step)(jax.random.key(0), state, empty)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))
  assert scalars['box'][0] == 0
  assert scalars['rpn_objectness'][0] > 0


@pytest.mark.parametrize(
  ('settings', 'reason'),
  [
    ({}, 'prototypes follow the regions of the whole batch'),
    ({'classifier': 'linear', 'update_statistics': True}, 'BatchNorm takes'),
    ({'classifier': 'linear', 'box_head': 'gs'}, 'BatchNorm takes'),
  ],
)
def test_what_couples_a_batch_is_named(settings, reason):
  with pytest.raises(ValueError, match=f'accumulate is 4; it can only be 1, because .*{reason}'):
    methods.load('faster_rcnn')(**{**SMALL, **settings}, accumulate=4)


def test_group_norm_couples_no_pictures():
  assert detector(classifier='linear', box_head='gs', norm='group', accumulate=2)
