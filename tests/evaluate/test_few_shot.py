"""Accuracy from a few references, by hand and at its corners."""

import numpy as np
import pytest

from jaxdefect.evaluate import few_shot


def test_value_by_hand():
  # Two classes of three; image 5 looks like the first class to everybody.
  labels = np.array([0, 0, 0, 1, 1, 1])
  like = np.array([0, 0, 0, 1, 1, 0])
  similarity = (like[:, None] == labels[None, :]).astype(float)
  result = few_shot.evaluate(similarity, labels, ['a', 'b'], shots=(1, 2), draws=200)
  # One shot: four images are tested; image 5 is among them in two draws of three and always wrong.
  expected = 1 - (2 / 3) / 4
  assert result['metrics']['accuracy/1_shot'] == pytest.approx(expected, abs=0.02)
  assert set(result['per_draw']['accuracy/1_shot']) == {0.75, 1.0}
  low, high = result['intervals']['accuracy/2_shot']
  assert 0 <= low <= result['metrics']['accuracy/2_shot'] <= high <= 1


def test_same_seed_gives_same_draws():
  labels = np.repeat([0, 1], 10)
  similarity = np.random.default_rng(0).normal(size=(20, 20))
  first = few_shot.evaluate(similarity, labels, ['a', 'b'], draws=5)
  assert first == few_shot.evaluate(similarity, labels, ['a', 'b'], draws=5)
  assert first != few_shot.evaluate(similarity, labels, ['a', 'b'], draws=5, seed=1)


def test_rejects_a_class_without_test_images():
  with pytest.raises(ValueError, match="class 'b' has 2 images; 2 references leave none"):
    few_shot.evaluate(np.eye(5), np.array([0, 0, 0, 1, 1]), ['a', 'b'], shots=(2,))
