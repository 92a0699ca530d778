"""The runner drops padding, keeps the order and the type, and compiles once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect.contracts import ClassScores, Fitted
from jaxdefect.evaluate import predict_all


class Boxes(NamedTuple):
  corners: jax.Array
  classes: ClassScores


def _batches(num_images: int, size: int) -> list[dict]:
  """Images whose pixels equal their index; the tail is padded with copies of image 0."""
  batches = []
  for start in range(0, num_images, size):
    index = np.arange(start, start + size)
    valid = index < num_images
    index = np.where(valid, index, 0).astype(np.int32)
    image = np.broadcast_to(index[:, None, None, None], (size, 2, 2, 1)).astype(np.uint8)
    batches.append({'image': image, 'label': index % 3, 'valid': valid, 'index': index})
  return batches


def _predict(fitted, batch):
  mean = batch['image'].astype(jnp.float32).mean(axis=(1, 2)) + fitted.params['offset']  # [N, 1]
  scores = jnp.concatenate([mean, -mean], axis=1)
  return ClassScores(scores=scores, probabilities=jax.nn.softmax(scores))


FITTED = Fitted(params={'offset': jnp.float32(0.5)}, model_state={}, classes=('a', 'b'))


def test_padding_is_invisible():
  exact, exact_columns = predict_all(_predict, FITTED, _batches(6, 6))
  padded, padded_columns = predict_all(_predict, FITTED, _batches(6, 4))
  assert type(padded) is ClassScores
  assert isinstance(padded.scores, np.ndarray)
  np.testing.assert_array_equal(padded.scores, exact.scores)
  np.testing.assert_array_equal(padded.scores[:, 0], np.arange(6) + 0.5)
  np.testing.assert_array_equal(padded_columns['index'], exact_columns['index'])
  np.testing.assert_array_equal(padded_columns['label'], [0, 1, 2, 0, 1, 2])


def test_compiles_once():
  traces = []

  def predict(fitted, batch):
    traces.append(1)
    return _predict(fitted, batch)

  predict_all(predict, FITTED, _batches(11, 4))
  assert len(traces) == 1


def test_keeps_any_named_tuple():
  def predict(fitted, batch):
    return Boxes(corners=jnp.ones((4, 5, 4)), classes=_predict(fitted, batch))

  boxes, columns = predict_all(predict, FITTED, _batches(6, 4), keys=('index', 'missing'))
  assert type(boxes) is Boxes
  assert type(boxes.classes) is ClassScores
  assert boxes.corners.shape == (6, 5, 4)
  assert set(columns) == {'index'}


def test_a_batch_of_padding_gives_nothing():
  batch = _batches(4, 4)[0] | {'valid': np.zeros(4, bool)}
  predictions, columns = predict_all(_predict, FITTED, [batch])
  assert predictions.scores.shape == (0, 2)
  assert columns['label'].shape == (0,)


def test_rejects_a_stream_without_batches():
  with pytest.raises(ValueError, match='no batch'):
    predict_all(_predict, FITTED, [])


def test_rejects_predictions_without_the_batch_axis():
  with pytest.raises(ValueError, match='batch axis'):
    predict_all(lambda fitted, batch: batch['image'].mean(), FITTED, _batches(4, 4))
