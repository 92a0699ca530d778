"""Fine-tuning keeps the best epoch, repeats itself, and shows rare classes as often as others."""

import jax
import numpy as np
import pytest

from jaxdefect import optim

LABELS = np.array([0] * 9 + [1] * 2)


def test_rows_hold_the_classes_in_equal_shares():
  rows = optim.balanced_rows(jax.random.key(0), LABELS, 4)
  assert rows.shape == (3, 4)
  assert (LABELS[rows].sum(axis=1) == 2).all()
  # No good picture twice before all have been seen.
  good = rows[LABELS[rows] == 0]
  assert len(set(good.tolist())) == good.size
  np.testing.assert_array_equal(rows, optim.balanced_rows(jax.random.key(0), LABELS, 4))
  assert (rows != optim.balanced_rows(jax.random.key(1), LABELS, 4)).any()


def test_rows_of_one_class_are_all_rows():
  rows = optim.balanced_rows(jax.random.key(0), np.zeros(4, int), 2)
  assert sorted(rows.ravel().tolist()) == [0, 1, 2, 3]


def count(key, carry, batch):
  """A step that counts itself and says so."""
  del key, batch
  return carry + 1, np.float32(carry)


EXAMPLES = {'label': LABELS}  # three steps per epoch of four


def tune(losses, **settings):
  """Three steps per epoch; the validation loss of epoch e is ``losses[e]``."""
  settings = {'epochs': 3, 'batch_size': 4} | settings
  return optim.fine_tune(
    jax.random.key(0),
    count,
    0,
    EXAMPLES,
    validate=lambda carry: {'loss': losses[carry // 3], 'recall': carry},
    **settings,
  )


def test_best_epoch_is_kept():
  tuned = tune([3.0, 1.0, 2.0, 1.5])
  assert (tuned.epoch, tuned.carry) == (1, 3)
  np.testing.assert_array_equal(tuned.history['validation_loss'], [3, 1, 2, 1.5])
  np.testing.assert_array_equal(tuned.history['validation_recall'], [0, 3, 6, 9])
  assert np.isnan(tuned.history['loss'][0])
  np.testing.assert_array_equal(tuned.history['loss'][1:], [1, 4, 7])


def test_start_is_kept_where_nothing_is_better():
  tuned = tune([1.0, 2.0, 3.0, np.nan])
  assert (tuned.epoch, tuned.carry) == (0, 0)


def test_an_undefined_start_is_worse_than_any_number():
  assert tune([np.nan, 2.0, 3.0, 4.0]).epoch == 1


def test_patience_stops():
  tuned = tune([3.0, 1.0, 2.0, 0.5], patience=1)
  assert tuned.epoch == 1
  assert len(tuned.history['validation_loss']) == 3


def test_last_epoch_is_kept_without_validation():
  tuned = optim.fine_tune(jax.random.key(0), count, 0, EXAMPLES, epochs=2, batch_size=4)
  assert (tuned.epoch, tuned.carry) == (2, 6)
  assert set(tuned.history) == {'loss'}


def test_no_epoch_changes_nothing():
  tuned = optim.fine_tune(jax.random.key(0), count, 0, EXAMPLES, epochs=0, batch_size=4)
  assert (tuned.epoch, tuned.carry) == (0, 0)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'epochs': -1}, 'epochs is -1'),
    ({'epochs': 1, 'patience': 2}, 'patience needs validate'),
  ],
)
def test_rejects_bad_arguments(settings, message):
  with pytest.raises(ValueError, match=message):
    optim.fine_tune(jax.random.key(0), count, 0, EXAMPLES, batch_size=4, **settings)


def test_rejects_an_empty_set():
  with pytest.raises(ValueError, match='labels is empty'):
    optim.fine_tune(
      jax.random.key(0), count, 0, {'label': np.zeros(0, int)}, epochs=1, batch_size=4
    )


def test_figures_of_a_network_that_diverged():
  found = optim.two_class_figures(np.array([np.nan, 1.0]), np.array([0, 1]))
  assert found.pop('loss') == np.inf
  assert list(found) == ['auroc', 'recall', 'balanced_accuracy']
  assert np.isnan([*found.values()]).all()


def test_figures_of_two_classes_by_hand():
  logit, label = np.array([-1.0, 2.0, 0.5, -3.0]), np.array([0, 1, 0, 1])
  found = optim.two_class_figures(logit, label)
  each = -np.log(1 / (1 + np.exp(-np.where(label == 1, logit, -logit))))
  np.testing.assert_allclose(found['loss'], (each[[0, 2]].mean() + each[[1, 3]].mean()) / 2)
  # Of four pairs of a defect and a good one, two are in order.
  assert (found['auroc'], found['recall'], found['balanced_accuracy']) == (0.5, 0.5, 0.5)
  alone = optim.two_class_figures(logit[:1], label[:1])
  np.testing.assert_allclose(alone['loss'], each[0])
  assert set(alone) == {'loss'}
