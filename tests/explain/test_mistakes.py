"""Mistakes find their pictures across padded batches, and are explained on the common scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect.contracts import ClassScores, Fitted
from jaxdefect.evaluate import classification, predict_all
from jaxdefect.explain import mistakes, overlays

FITTED = Fitted(params={'w': jnp.float32(0.1)}, model_state={}, classes=('dark', 'bright'))


def _activations(fitted, batch, tap):
  maps = batch['image'].astype(jnp.float32)
  maps = maps if tap is None else maps + tap
  mean = maps.mean(axis=(1, 2, 3)) * fitted.params['w']
  scores = jnp.stack([11.0 - mean, mean], axis=1)
  return ClassScores(scores=scores, probabilities=jax.nn.softmax(scores)), maps


def _batches() -> list[dict]:
  """Seven pictures of brightness 10 * index in batches of four; padding sits in between."""
  places = [[0, 1, -1, 2], [3, -1, 4, 5], [-1, -1, 6, -1]]
  batches = []
  for place in map(np.array, places):
    index = np.where(place < 0, 0, place).astype(np.int32)
    image = np.broadcast_to((10 * index)[:, None, None, None], (4, 4, 4, 1)).astype(np.uint8)
    label = (index % 2).astype(np.int32)
    batches.append({'image': image, 'label': label, 'valid': place >= 0, 'index': index})
  return batches


def _rows():
  predictions, columns = predict_all(lambda f, b: _activations(f, b, None)[0], FITTED, _batches())
  return classification.worst_mistakes(predictions, columns['label'])


def test_pictures_are_those_of_the_rows():
  names = [f'picture {i}' for i in range(7)]
  rows = _rows()
  found = mistakes.illustrate(rows, FITTED, _batches(), names=names)
  # Bright from 55 on: 1, 3 and 5 are called dark, 6 is called bright. Odds: e^9, e^5, e, e.
  assert [one.name for one in found[:2]] == ['picture 1', 'picture 3']
  assert {one.name for one in found[2:]} == {'picture 5', 'picture 6'}
  for one, row in zip(found, rows):
    assert (one.image == 10 * int(one.name.split()[1])).all()
    assert one.overlay is None
    assert one.true == FITTED.classes[row['true']]
    assert one.predicted == FITTED.classes[row['predicted']]
    assert one.probability == row['probability'] > one.true_probability


def test_overlay_explains_the_predicted_class():
  rows = _rows()
  found = mistakes.illustrate(rows, FITTED, _batches(), activations=_activations, ceiling=2.0)
  for one in found:
    # d score / d A = -0.1 / 16 for 'dark' and +0.1 / 16 for 'bright', so the lead of 'bright' has
    # the slope 0.2 / 16: only bright has evidence.
    level = 0.2 / 16 * one.image[0, 0, 0] if one.predicted == 'bright' else 0.0
    expected = overlays.overlay(one.image, np.full((4, 4), level), ceiling=2.0)
    np.testing.assert_array_equal(one.overlay, expected)


def test_ceiling_ignores_padding():
  batches = _batches()
  for batch in batches:
    batch['image'] = np.where(batch['valid'][:, None, None, None], batch['image'], 255)
  ceiling = mistakes.evidence_ceiling(_activations, FITTED, batches, quantile=1.0)
  # The brightest valid picture, 60, is called bright; its lead's gradient is 0.2 / 16 per pixel.
  assert ceiling == pytest.approx(60 * 0.2 / 16)


def test_no_mistake_gives_no_picture():
  assert mistakes.illustrate([], FITTED, _batches()) == []


def test_rejects_a_missing_ceiling_and_a_foreign_row():
  with pytest.raises(ValueError, match='ceiling'):
    mistakes.illustrate(_rows(), FITTED, _batches(), activations=_activations)
  row = {'row': 99, 'true': 0, 'predicted': 1, 'probability': 1.0, 'true_probability': 0.0}
  with pytest.raises(ValueError, match='99'):
    mistakes.illustrate([row], FITTED, _batches())
