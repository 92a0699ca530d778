"""The prototype loss by hand, its corners, and prototypes that are the same on every device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import losses


def draw(num=7, dim=5, classes=3, dtype=np.float32):
  generator = np.random.default_rng(0)
  features = generator.normal(size=(num, dim)).astype(dtype)
  prototypes = generator.normal(size=(classes, dim)).astype(dtype)
  return jnp.array(features), jnp.array(prototypes), jnp.arange(num) % classes


def test_value_by_hand():
  # Cosines 0.6 and 0.8 at tau = 0.5 are logits 1.2 and 1.6, whatever the lengths are.
  features = jnp.array([[3.0, 4.0], [0.3, 0.4]])
  prototypes = jnp.array([[2.0, 0.0], [0.0, 7.0]])
  values = losses.prototype_cross_entropy(
    features, prototypes, jnp.array([0, 1]), temperature=0.5, class_weights=jnp.array([2.0, 1.0])
  )
  log_sum = np.log(np.exp(1.2) + np.exp(1.6))
  np.testing.assert_allclose(values, [2 * (log_sum - 1.2), log_sum - 1.6], rtol=1e-5)


def test_loss_does_not_depend_on_lengths():
  features, prototypes, labels = draw()
  value = losses.prototype_cross_entropy(features, prototypes, labels, temperature=0.1)
  longer = losses.prototype_cross_entropy(100 * features, prototypes / 7, labels, temperature=0.1)
  np.testing.assert_allclose(longer, value, rtol=1e-4)


def test_gradient_matches_numeric():
  with jax.enable_x64(True):
    features, prototypes, labels = draw(dtype=np.float64)

    def loss(features, prototypes):
      return losses.prototype_cross_entropy(features, prototypes, labels, temperature=0.2)

    jax.test_util.check_grads(jax.jit(loss), (features, prototypes), order=1, modes=['rev'])


@pytest.mark.parametrize('classes', [1, 3])
def test_zero_vectors_are_finite(classes):
  features = jnp.zeros((2, 4))
  prototypes = jnp.zeros((classes, 4)).at[0, 0].set(1.0)
  value, gradients = jax.jit(
    jax.value_and_grad(
      lambda f, u: jnp.sum(
        losses.prototype_cross_entropy(f, u, jnp.zeros(2, int), temperature=0.01)
      ),
      (0, 1),
    )
  )(features, prototypes)
  np.testing.assert_allclose(value, 2 * np.log(classes), rtol=1e-6)
  assert all(jnp.all(jnp.isfinite(g)) for g in gradients)


def test_half_precision_is_raised():
  features, prototypes, labels = draw()
  values = losses.prototype_cross_entropy(
    features.astype(jnp.bfloat16), prototypes, labels, temperature=0.1
  )
  means, counts = losses.class_means(features.astype(jnp.float16), labels, 3)
  assert values.dtype == means.dtype == counts.dtype == jnp.float32


def test_class_means_by_hand():
  features = np.array([[1.0, 2.0], [3.0, 6.0], [5.0, 5.0], [9.0, 9.0]])
  means, counts = losses.class_means(jnp.array(features), jnp.array([2, 2, 0, -1]), 4)
  np.testing.assert_allclose(means, [[5, 5], [0, 0], [2, 4], [0, 0]])
  np.testing.assert_array_equal(counts, [1, 0, 2, 0])


def test_update_by_hand_and_absent_classes_bit_for_bit():
  features, prototypes, _ = draw()
  # Class 1 is absent, and so is class 2, which only padding names.
  labels = jnp.array([0, 0, 0, 0, 0, 2, -1])
  valid = jnp.array([True] * 4 + [False, False, True])
  moved = losses.update_prototypes(prototypes, features, labels, momentum=0.9, valid=valid)
  expected = 0.9 * prototypes[0] + 0.1 * np.mean(features[:4], axis=0)
  np.testing.assert_allclose(moved[0], expected, rtol=1e-5)
  np.testing.assert_array_equal(moved[1:], prototypes[1:])


def test_padding_is_invisible():
  features, prototypes, labels = draw()
  padded = jnp.concatenate([features, jnp.full((2, features.shape[1]), jnp.nan)])
  moved = losses.update_prototypes(
    prototypes,
    padded,
    jnp.append(labels, jnp.array([0, 1])),
    momentum=0.5,
    valid=jnp.arange(9) < 7,
  )
  expected = losses.update_prototypes(prototypes, features, labels, momentum=0.5)
  np.testing.assert_allclose(moved, expected, rtol=1e-6)
  nothing = losses.update_prototypes(
    prototypes, padded[7:], jnp.array([0, 1]), momentum=0.5, valid=jnp.zeros(2, bool)
  )
  np.testing.assert_array_equal(nothing, prototypes)


def test_empty_batch_changes_nothing():
  _, prototypes, _ = draw()
  empty = jnp.zeros((0, prototypes.shape[1]))
  moved = losses.update_prototypes(prototypes, empty, jnp.zeros(0, int), momentum=0.5)
  np.testing.assert_array_equal(moved, prototypes)


def test_two_devices_match_one():
  with jax.enable_x64(True):
    features, prototypes, _ = draw(num=8, dtype=np.float64)
    # The first device has no example of class 1, the second none of class 2, nobody any of 3.
    labels = jnp.array([0, 0, 2, 2, 0, 1, 1, 1])
    valid = jnp.array([True] * 7 + [False])
    prototypes = jnp.concatenate([prototypes, prototypes[:1]])
    expected = losses.update_prototypes(prototypes, features, labels, momentum=0.9, valid=valid)

    def device(features, labels, valid):
      return losses.update_prototypes(
        prototypes, features, labels, momentum=0.9, valid=valid, axis_name='devices'
      )

    moved = jax.pmap(device, axis_name='devices', devices=jax.devices()[:2])(
      features.reshape(2, 4, -1), labels.reshape(2, 4), valid.reshape(2, 4)
    )
    np.testing.assert_allclose(moved[0], expected, rtol=1e-12)
    np.testing.assert_array_equal(moved[0], moved[1])
    np.testing.assert_array_equal(moved[0, 3], prototypes[3])


def test_jit_matches_eager():
  features, prototypes, labels = draw()

  def both(features, prototypes, labels):
    return (
      losses.prototype_cross_entropy(features, prototypes, labels, temperature=0.1),
      losses.update_prototypes(prototypes, features, labels, momentum=0.9),
    )

  for compiled, eager in zip(
    jax.jit(both)(features, prototypes, labels), both(features, prototypes, labels)
  ):
    np.testing.assert_allclose(compiled, eager, rtol=1e-5)


def test_rejects_bad_arguments():
  features, prototypes, labels = draw()
  with pytest.raises(AssertionError):
    losses.prototype_cross_entropy(features, prototypes.T, labels, temperature=1.0)
  with pytest.raises(AssertionError):
    losses.prototype_cross_entropy(features, prototypes, labels[1:], temperature=1.0)
  with pytest.raises(AssertionError):
    losses.update_prototypes(prototypes[:, 1:], features, labels, momentum=0.5)
  with pytest.raises(AssertionError):
    losses.class_means(features, labels, 3, valid=jnp.ones(2, bool))
  with pytest.raises(ValueError, match='temperature is 0; it must be larger than 0'):
    losses.prototype_cross_entropy(features, prototypes, labels, temperature=0)
  with pytest.raises(ValueError, match=r'momentum is 1.5; it must be in \[0, 1\]'):
    losses.update_prototypes(prototypes, features, labels, momentum=1.5)
