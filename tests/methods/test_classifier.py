"""Cross-entropy: classes that it was trained on, and their weights."""

import jax
import numpy as np
import pytest

from jaxdefect import methods
from jaxdefect.contracts import References, to_fitted
from tests.method_batches import CLASSES, batch, spec

SMALL = {'backbone': 'resnet18', 'stages': 1}
VIEWS = {'crop_scale': (0.5, 1.0)}
UNCOUPLED = {'update_statistics': False}


def test_refuses_a_class_that_it_was_not_trained_on():
  method = methods.load('classifier')(**SMALL)
  fitted = to_fitted(method.init(jax.random.key(0), spec()), CLASSES)
  with pytest.raises(ValueError, match='cannot learn the class'):
    method.adapt(jax.random.key(0), fitted, References(('crack',), [batch(2)]))


def test_weighs_rare_classes():
  method = methods.load('classifier')(balance_classes=True, **SMALL)
  state = method.init(jax.random.key(0), spec()._replace(counts=(1, 2, 4)))
  np.testing.assert_allclose(state.model_state['class_weights'], [4, 2, 1])
  state = method.init(jax.random.key(0), spec()._replace(counts=(0, 2, 4)))
  # Finite, as padding has class 0 and a gradient of no weight times infinity would be no number.
  np.testing.assert_allclose(state.model_state['class_weights'], [1, 2, 1])


@pytest.mark.parametrize(
  ('settings', 'reason'),
  [
    ({}, 'BatchNorm takes its statistics from the whole batch'),
  ],
)
def test_what_couples_a_batch_is_named(settings, reason):
  with pytest.raises(ValueError, match=f'accumulate is 4; it can only be 1, because .*{reason}'):
    methods.load('classifier')(**{**SMALL, **settings}, accumulate=4)
