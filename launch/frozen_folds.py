"""The scores of a ridge head on the features of a backbone that stays as it is.

All folds together cost one eigendecomposition (``evaluate.ridge_head``). Each training picture may
be shown to the head in random views as well; the picture that is scored is always as it is, and its
views are left out with it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import threadpoolctl

from jaxdefect import data
from jaxdefect.data.folds import Fold
from jaxdefect.evaluate import ridge_head
from launch import frozen

STRENGTH = 1.0


class ViewFolds:
  """A ``cross_validation.Scorer`` over features of pictures and their views.

  Args:
    features: [n, 1 + V, F], each picture as it is first.
    positive: [n] bool.
    given: how many of the first pictures set the penalty; the others are scored alone.
    strength: penalty in units of the features' spread; views do not weaken it.
  """

  def __init__(
    self,
    features: np.ndarray,
    positive: np.ndarray,
    *,
    given: int | None = None,
    strength: float = STRENGTH,
  ):
    count, self._rows, size = features.shape
    flat = ridge_head.unit_vectors(features.reshape(-1, size))
    inside = flat[: (count if given is None else given) * self._rows]
    self._penalty = strength * ridge_head.spread(inside) * self._rows
    self._flat, self._marks = flat, np.repeat(np.asarray(positive, bool), self._rows)
    self._scorer = ridge_head.LeaveOut(flat, self._marks, penalty=self._penalty)

  def __call__(self, folds: Sequence[Fold]) -> list[np.ndarray]:
    """The scores of each fold's test images, larger for positives."""
    views = np.arange(self._rows)
    with threadpoolctl.threadpool_limits(1):  # small systems: threads would only wait
      return self._scorer(
        [
          Fold((fold.train[:, None] * self._rows + views).ravel(), fold.test * self._rows)
          for fold in folds
        ]
      )

  def of_others(self, features: np.ndarray) -> np.ndarray:
    """[m] scores of other pictures, [m, F] as they are, by the head of all pictures and views."""
    head = ridge_head.fit(self._flat, self._marks, penalty=self._penalty)
    return ridge_head.scores(head, ridge_head.unit_vectors(features))


class FrozenFolds:
  """The same from a config: computes the features.

  Args:
    config: names the data, the backbone and its weights; its ``method.augmentation`` draws views.
    source: the data set.
    places: [n] places in it that the folds count in.
    given: how many of the first may train.
    positive: name of the positive class.
    views: of each picture.
    seed: of the views.
  """

  decides = False  # least squares on few pictures rank; where to cut is not theirs to say

  def __init__(
    self,
    config: Any,
    source: data.Source,
    places: np.ndarray,
    *,
    given: int,
    positive: str,
    views: int,
    seed: int,
  ):
    if 'backbone' not in config.method:
      raise ValueError(f'--frozen needs a method with a backbone, which {config.method.name} lacks')
    describe, self.start_weights = frozen.pooled(config)
    settings = config.method.to_dict().get('augmentation')
    if views and settings is None:
      raise ValueError(f'--views needs method.augmentation, which {config.method.name} lacks here')
    draw = frozen.random_views(settings or {}, source.classes) if views else None
    made = {'describe': describe, 'draw': draw, 'views': views, 'seed': seed}
    features = frozen.features(config, source, places, **made)
    marks = source.labels[places] == source.class_number(positive)
    self._folds = ViewFolds(features, marks, given=given)

  def __call__(self, folds: Sequence[Fold]) -> list[np.ndarray]:
    """The scores of each fold's test images, larger for positives."""
    return self._folds(folds)
