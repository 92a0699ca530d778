"""What the training images add to the variance, measured by leaving them out of the training."""

import numpy as np
import pytest

from jaxdefect.data import folds
from jaxdefect.data.samples import Samples
from jaxdefect.evaluate import refits, ridge_head


def samples(positive, groups=None):
  n = len(positive)
  groups = np.arange(n) if groups is None else groups
  return Samples(tuple(map(str, range(n))), positive.astype(np.int32), ('good', 'defect'), groups)


def variance(score, given):
  ones, twos = folds.leave_one_out(given), folds.leave_two_out(given)
  return refits.training_variance(
    ones, score(ones), twos, score(twos), given.labels == 1, given.groups
  )


def test_models_that_do_not_depend_on_the_images_add_nothing():
  scores, positive = np.random.default_rng(0).normal(size=12), np.arange(12) % 2 == 1
  assert variance(lambda all_folds: [scores[f.test] for f in all_folds], samples(positive)) == 0


def test_value_by_hand():
  # Without image 5 the order is reversed; all other images change nothing.
  positive = np.array([False, False, False, True, True, True])

  def score(all_folds):
    return [np.where(5 in f.train, 1.0, -1.0) * f.test for f in all_folds]

  # Leave-one-out without 5: all of its 6 pairs are won with 5 in training, none without: tau = 1.
  # Striking off another image, 5 is scored by a model without itself, in both figures: tau = 0.
  tau = np.array([0, 0, 0, 0, 0, 1.0])
  expected = 5 / 6 * np.square(tau - tau.mean()).sum()
  assert variance(score, samples(positive)) == pytest.approx(expected)


def test_groups_are_left_out_whole():
  generator = np.random.default_rng(1)
  positive = np.arange(16) % 2 == 1
  x = ridge_head.unit_vectors(generator.normal(size=(16, 40)) + positive[:, None])
  alone = variance(ridge_head.LeaveOut(x, positive, penalty=0.1), samples(positive))
  again = np.repeat(np.arange(16), 3)
  # Copies in groups are one image: the head's penalty is for three times as many.
  copies = variance(
    ridge_head.LeaveOut(x[again], positive[again], penalty=0.3), samples(positive[again], again)
  )
  assert copies == pytest.approx(alone, rel=1e-9)


def test_measures_how_much_the_model_varies_with_its_training_images():
  generator = np.random.default_rng(2)
  direction = np.zeros(40)
  direction[0] = 1.2

  def drawn(n):
    positive = np.arange(n) % 2 == 1
    return generator.normal(size=(n, 40)) + positive[:, None] * direction, positive

  x_test, y_test = drawn(4000)
  true, said = [], []
  for _ in range(20):
    x, positive = drawn(30)
    head = ridge_head.fit(x, positive, penalty=40.0)
    scores = ridge_head.scores(head, x_test)
    true.append((scores[y_test][:, None] > scores[~y_test][:500]).mean())
    said.append(variance(ridge_head.LeaveOut(x, positive, penalty=40.0), samples(positive)))
  # A jackknife errs upwards.
  assert 1 < np.mean(said) / np.var(true) < 8
