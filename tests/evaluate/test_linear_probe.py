"""The floor learns what is linear in the pixels, and nothing else."""

import numpy as np
import pytest

from jaxdefect.evaluate import linear_probe, predict_all


def _batch(images: np.ndarray, labels: np.ndarray, valid: np.ndarray | None = None) -> dict:
  n = len(images)
  return {
    'image': images.astype(np.uint8),
    'label': labels.astype(np.int32),
    'valid': np.ones(n, bool) if valid is None else valid,
    'index': np.arange(n, dtype=np.int32),
  }


def _patches(n: int, seed: int, num_classes: int = 3) -> dict:
  """Noise with a bright patch whose place is the class."""
  generator = np.random.default_rng(seed)
  labels = generator.integers(num_classes, size=n)
  images = generator.integers(0, 100, size=(n, 16, 16, 1))
  for image, label in zip(images, labels):
    image[4 * label : 4 * label + 4, :4] += 100
  return _batch(images, labels)


@pytest.mark.parametrize('num_classes', [2, 3])
def test_learns_a_linear_rule(num_classes):
  classes = 'abc'[:num_classes]
  fitted = linear_probe.fit([_patches(40, 0, num_classes)], classes, size=(8, 8))
  predictions, columns = predict_all(
    linear_probe.predict, fitted, [_patches(100, 1, num_classes), _patches(100, 2, num_classes)]
  )
  assert (predictions.scores.argmax(1) == columns['label']).mean() > 0.95
  np.testing.assert_allclose(predictions.probabilities.sum(1), 1, atol=1e-5)


def test_fails_where_pixels_hold_no_linear_rule():
  # The class is whether two patches agree: exclusive or, chance for a linear model.
  generator = np.random.default_rng(0)
  bits = generator.integers(2, size=(600, 2))
  images = np.repeat(bits * 150, 32, axis=1).reshape(600, 8, 8, 1)
  images = images + generator.integers(0, 60, size=images.shape)
  labels = bits[:, 0] ^ bits[:, 1]
  fitted = linear_probe.fit([_batch(images[:200], labels[:200])], 'ab', size=(8, 8))
  predictions, columns = predict_all(
    linear_probe.predict, fitted, [_batch(images[200:], labels[200:])]
  )
  assert (predictions.scores.argmax(1) == columns['label']).mean() < 0.65


def test_padding_is_invisible():
  batch = _patches(20, 0)
  valid = np.arange(24) < 20

  def padded(rows):
    longer = {k: np.concatenate([v, v[rows]]) for k, v in batch.items() if k != 'valid'}
    return linear_probe.fit([longer | {'valid': valid}], 'abc', size=(4, 4)).params['kernel']

  one, other = padded([3, 2, 1, 0]), padded([9, 9, 9, 9])
  np.testing.assert_array_equal(one, other)
  # Without padding the pixels come from a program of another shape, which may round otherwise.
  exact = linear_probe.fit([batch], 'abc', size=(4, 4)).params['kernel']
  np.testing.assert_allclose(exact, one, atol=1e-5)


def test_solution_is_the_regularised_optimum():
  # At the optimum the gradient of the docstring's objective vanishes: W = C X^T (Y - P).
  batch = _patches(30, 0)
  fitted = linear_probe.fit([batch], 'abc', size=(4, 4), inverse_strength=3.0)
  probabilities = np.asarray(linear_probe.predict(fitted, batch).probabilities, np.float64)
  pixels = batch['image'].astype(np.float64).reshape(30, 4, 4, 4, 4).mean(axis=(2, 4))
  x = np.asarray(linear_probe._small(batch['image'], (4, 4)), np.float64).reshape(30, -1)
  assert np.corrcoef(pixels.ravel(), x.ravel())[0, 1] > 0.9
  x = x - x.mean(0)
  scale = x.std() * np.sqrt(x.shape[1])
  kernel = np.asarray(fitted.params['kernel'], np.float64).reshape(-1, 3) * scale
  residual = np.eye(3)[batch['label']] - probabilities
  np.testing.assert_allclose(kernel, 3.0 * (x / scale).T @ residual, atol=0.02)


def test_class_without_an_image_is_never_predicted():
  batch = _patches(30, 0)
  fitted = linear_probe.fit([batch], ('a', 'b', 'c', 'absent'), size=(4, 4))
  predictions, _ = predict_all(linear_probe.predict, fitted, [batch])
  assert np.isfinite(predictions.scores).all()
  assert (predictions.probabilities[:, 3] == 0).all()


def test_one_class_and_constant_images():
  batch = _patches(10, 0)
  only = linear_probe.fit([batch | {'label': np.full(10, 1, np.int32)}], 'ab')
  assert (np.asarray(linear_probe.predict(only, batch).scores).argmax(1) == 1).all()
  flat = linear_probe.fit([batch | {'image': np.full((10, 16, 16, 1), 7, np.uint8)}], 'abc')
  assert np.isfinite(linear_probe.predict(flat, batch).scores).all()


def test_rejects_a_stream_without_images():
  with pytest.raises(ValueError, match='no valid image'):
    linear_probe.fit([], 'ab')
  batch = _batch(np.zeros((2, 4, 4, 1)), np.zeros(2), valid=np.zeros(2, bool))
  with pytest.raises(ValueError, match='no valid image'):
    linear_probe.fit([batch], 'ab')
