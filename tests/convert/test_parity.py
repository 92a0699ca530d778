"""The comparison itself.

Shape legend: N images, K classes.
"""

import numpy as np
import pytest
import torch

from jaxdefect.contracts import ClassScores
from jaxdefect.convert import parity

_SCORES = np.array([[0.1, 0.9], [0.5, 0.5 + 2e-5], [7.0, 7.0]], np.float32)


def _batch(valid):
  # The first pixel of an image says which row of scores it gets.
  image = np.zeros((3, 1, 1, 3), np.uint8)
  image[:, 0, 0, 0] = [0, 1, 2]
  return {'image': image, 'valid': np.array(valid)}


def _predict(batch):
  scores = _SCORES[batch['image'][:, 0, 0, 0]]
  return ClassScores(scores, scores / 10)


def _twin(offset):
  def module(images):
    scores = torch.from_numpy(_SCORES + np.asarray(offset, np.float32))[images[:, 0, 0, 0].long()]
    return scores, scores / 10

  return module


def test_value_by_hand():
  offset = [[0, 0], [5e-5, 0], [1, 1]]
  result = parity.compare(_predict, _twin(offset), [_batch([True, True, False])])
  assert result.largest == pytest.approx(5e-5, abs=1e-7)
  assert (result.equal, result.n) == (1, 2)  # the second image changed its class


def test_padding_is_invisible():
  offset = [[0, 0], [0, 0], [1, 1]]  # only where valid is False
  batches = [_batch([True, True, False]), _batch([False, False, False])]
  assert parity.compare(_predict, _twin(offset), batches) == (0.0, 2, 2)


@pytest.mark.parametrize(
  ('offset', 'sentence'),
  [
    (np.full((3, 2), 2e-4), r'differs from ours by 0\.0002 on 3 images; at most 0\.0001'),
    (np.full((3, 2), np.nan), 'differs from ours by nan'),
    (np.full((3, 2), np.inf), 'differs from ours by inf'),
  ],
)
def test_rejects_difference(offset, sentence):
  with pytest.raises(ValueError, match=sentence):
    parity.compare(_predict, _twin(offset), [_batch([True] * 3)])


def test_rejects_no_images():
  with pytest.raises(ValueError, match='no image to compare'):
    parity.compare(_predict, _twin(0), [_batch([False] * 3)])


def test_rejects_another_number_of_classes():
  def module(images):
    return torch.zeros(3, 5), torch.zeros(3, 5)

  with pytest.raises(ValueError, match=r'gives \(3, 5\) scores, ours \(3, 2\)'):
    parity.compare(_predict, module, [_batch([True] * 3)])
