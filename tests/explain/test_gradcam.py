"""Grad-CAM on a linear toy network, where every derivative is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect.contracts import ClassScores, Fitted
from jaxdefect.explain.gradcam import gradcam

KERNEL = jnp.array([[2.0, -1.0], [0.5, 3.0]])  # [C, K]
FITTED = Fitted(params={'kernel': KERNEL}, model_state={}, classes=('a', 'b'))


def _activations(fitted, batch, tap):
  """Feature maps = pixels; score = mean over the map, then the kernel."""
  maps = batch['image'].astype(jnp.float32)
  if tap is not None:
    maps = maps + tap
  scores = maps.mean(axis=(1, 2)) @ fitted.params['kernel']
  return ClassScores(scores=scores, probabilities=jax.nn.softmax(scores)), maps


def _batch(n: int = 3) -> dict:
  image = np.random.default_rng(0).integers(0, 9, size=(n, 4, 5, 2)).astype(np.uint8)
  return {
    'image': image,
    'label': np.zeros(n, np.int32),
    'valid': np.ones(n, bool),
    'index': np.arange(n, dtype=np.int32),
  }


def test_value_by_hand():
  # ds_k/dA_ijc = kernel[c, k] / hw everywhere, so alpha_c = kernel[c, k] / 20.
  batch = _batch()
  targets = np.array([0, 1, 0])
  predictions, maps = gradcam(_activations, FITTED, batch, targets=targets)
  alpha = np.asarray(KERNEL)[:, targets].T / 20  # [N, C]
  expected = np.maximum(0, (batch['image'] * alpha[:, None, None, :]).sum(-1))
  assert maps.shape == (3, 4, 5)
  assert maps.dtype == jnp.float32
  np.testing.assert_allclose(maps, expected, rtol=1e-6)
  assert (expected == 0).any()  # the rectifier had work to do
  np.testing.assert_allclose(predictions.scores, batch['image'].mean((1, 2)) @ KERNEL, rtol=1e-6)


def test_explains_the_predicted_class_by_default():
  predictions, maps = gradcam(_activations, FITTED, _batch())
  _, same = gradcam(_activations, FITTED, _batch(), targets=predictions.scores.argmax(-1))
  np.testing.assert_array_equal(maps, same)


def test_gradient_matches_numeric():
  # A network that is not linear: alpha is the spatial mean of a finite difference.
  def squares(fitted, batch, tap):
    maps = batch['image'].astype(jnp.float32)
    maps = maps if tap is None else maps + tap
    scores = (maps**2).mean(axis=(1, 2)) @ fitted.params['kernel']
    return ClassScores(scores=scores, probabilities=jax.nn.softmax(scores)), maps

  batch = _batch(1)
  _, maps = gradcam(squares, FITTED, batch, targets=np.array([1]))
  alpha = np.zeros(2)
  for i, j, c in np.ndindex(4, 5, 2):
    step = np.zeros((1, 4, 5, 2), np.float32)
    step[0, i, j, c] = 0.5
    upper, lower = (squares(FITTED, batch, s)[0].scores[0, 1] for s in (step, -step))
    alpha[c] += float(upper - lower) / 20
  expected = np.maximum(0, batch['image'][0] @ alpha)
  np.testing.assert_allclose(maps[0], expected, rtol=1e-3, atol=1e-3)


def test_jit_matches_eager():
  eager = gradcam(_activations, FITTED, _batch(), targets=np.array([1, 1, 0]))
  compiled = jax.jit(functools.partial(gradcam, _activations))
  jitted = compiled(FITTED, _batch(), targets=np.array([1, 1, 0]))
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), eager, jitted)


def test_padding_is_invisible():
  batch = _batch(3)
  padded = {key: np.concatenate([value, value[:1]]) for key, value in batch.items()}
  padded['valid'] = np.array([True, True, True, False])

  def activations(fitted, batch, tap):  # whatever padding holds, even what is no number
    predictions, maps = _activations(fitted, batch, tap)
    broken = jnp.where(batch['valid'], 0.0, jnp.nan)
    scores = predictions.scores + broken[:, None]
    return predictions._replace(scores=scores), maps + broken[:, None, None, None]

  _, maps = gradcam(activations, FITTED, padded)
  _, exact = gradcam(_activations, FITTED, batch)
  np.testing.assert_array_equal(maps[:3], exact)
  np.testing.assert_array_equal(maps[3], 0)


def test_half_precision_maps_come_back_as_float32():
  def halves(fitted, batch, tap):
    predictions, maps = _activations(fitted, batch, tap)
    return predictions, maps.astype(jnp.bfloat16)

  assert gradcam(halves, FITTED, _batch())[1].dtype == jnp.float32


def test_rejects_a_method_without_feature_maps():
  with pytest.raises(ValueError, match='activations is None'):
    gradcam(None, FITTED, _batch())


def test_rejects_bad_targets():
  with pytest.raises(ValueError, match='targets'):
    gradcam(_activations, FITTED, _batch(), targets=np.array([0, 1, 2]))
  with pytest.raises(AssertionError):
    gradcam(_activations, FITTED, _batch(), targets=np.array([0, 1]))


def test_contrast_by_hand_ignores_what_all_classes_share():
  batch, targets = _batch(), np.array([0, 1, 0])
  shared = FITTED.replace(params={'kernel': KERNEL + jnp.array([[7.0], [-4.0]])})
  _, maps = gradcam(_activations, FITTED, batch, targets=targets, contrast=True)
  _, same = gradcam(_activations, shared, batch, targets=targets, contrast=True)
  np.testing.assert_allclose(maps, same, atol=1e-5)
  lead = np.asarray(KERNEL[:, [0, 1]] - KERNEL[:, [1, 0]])[:, targets].T / 20  # [N, C]
  expected = np.maximum(0, (batch['image'] * lead[:, None, None, :]).sum(-1))
  np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-6)
