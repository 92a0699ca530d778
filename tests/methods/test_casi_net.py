"""CASI-Net: cross-entropy by hand, and what it cannot do."""

import jax
import numpy as np
import optax
import pytest

from jaxdefect import methods, models
from jaxdefect.contracts import References, to_fitted
from tests.method_batches import CLASSES, batch, spec

SMALL = {'stem': 4, 'channels': (6,), 'blocks': 1, 'reduction': 2}
VIEWS = {'crop_scale': (0.5, 1.0)}


@pytest.fixture(scope='module')
def made():
  method = methods.load('casi_net')(optimizer=optax.sgd(0.1), label_smoothing=0.1, **SMALL)
  return method, jax.jit(lambda key: method.init(key, spec()))(jax.random.key(0))


def test_loss_is_the_smoothed_cross_entropy_of_the_batch(made):
  method, state = made
  item = batch(5, padding=1)
  _, scalars = jax.jit(method.step)(jax.random.key(0), state, item)
  x = (item['image'] / np.float32(255) - 0.5) / 0.25
  outputs, _ = models.CASINet(3, **SMALL).apply(
    {'params': state.params, **state.model_state},
    x,
    train=True,
    valid=item['valid'],
    mutable=['batch_stats'],
  )
  logits, label = np.asarray(outputs.logits, np.float64)[:5], item['label'][:5]
  log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  target = 0.9 * np.eye(3)[label] + 0.1 / 3
  np.testing.assert_allclose(scalars['loss'], (-(target * log_p).sum(), 5), rtol=1e-4)
  np.testing.assert_allclose(scalars['accuracy'], ((logits.argmax(1) == label).sum(), 5))


def test_attention_and_interaction_can_be_left_out():
  """The ablation: each part brings its parameters, and takes them away."""
  for name in ('attention', 'interaction'):
    method = methods.load('casi_net')(**SMALL, **{name: False})
    state = jax.eval_shape(lambda key, m=method: m.init(key, spec()), jax.random.key(0))
    assert not [path for path in state.params if path.startswith(name)]


def test_refuses_a_class_that_it_was_not_trained_on(made):
  method, state = made
  with pytest.raises(ValueError, match="cannot learn the class 'crack' without training"):
    method.adapt(jax.random.key(0), to_fitted(state, CLASSES), References(('crack',), [batch(2)]))
