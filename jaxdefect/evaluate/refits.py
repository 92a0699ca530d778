r"""What the choice of the training images adds to the variance of a cross-validated AUROC.

Shape legend: n images, of G groups.

DeLong's variance takes the models for given: it says what other *test* images would have shown. But
the same few images train the models, and with others the model would be another one, better or
worse. Leaving out each group k once more measures it: with :math:`s_i` the score of image i by a
model without its group, and :math:`s_i^{(k)}` by one without k as well,

.. math:: \tau_k = \hat A(s_i : i \notin k) - \hat A(s_i^{(k)} : i \notin k), \qquad
          v = \frac{G - 1}{G} \sum_k (\tau_k - \bar\tau)^2

is the jackknife's variance of what training alone does; k is tested in neither figure. The AUROC of
the model that was trained on all images varies by it and, as measured (table E2), independently of
what cross-validation says of it, so that the variances add up.

Efron and Stein, Annals of Statistics 9 (1981) 586-596, for the jackknife; Bates, Hastie and
Tibshirani, JASA 119 (2024) 1434-1445, for what intervals with fixed models miss.
"""

from collections.abc import Sequence

import numpy as np

from jaxdefect.data.folds import Fold
from jaxdefect.evaluate import anomaly


def training_variance(
  ones: Sequence[Fold],
  scores_of_ones: Sequence[np.ndarray],
  twos: Sequence[Fold],
  scores_of_twos: Sequence[np.ndarray],
  positive: np.ndarray,
  groups: np.ndarray,
) -> float:
  """The variance that the training images add.

  Args:
    ones: ``folds.leave_one_out``.
    scores_of_ones: of the test images of each.
    twos: ``folds.leave_two_out``.
    scores_of_twos: likewise.
    positive: [n] bool.
    groups: [n].

  Returns:
    v above, in squared AUROC.
  """
  members = np.unique(groups, return_inverse=True)[1]  # [n]
  count = int(members.max()) + 1
  alone = np.empty(len(positive))
  for fold, scores in zip(ones, scores_of_ones):
    alone[fold.test] = scores
  without = np.full((count, len(positive)), np.nan)  # [G, n], of k itself there is none
  for fold, scores in zip(twos, scores_of_twos):
    own = members[fold.test]
    for left, other in ((own.min(), own.max()), (own.max(), own.min())):
      without[left, fold.test[own == other]] = scores[own == other]
  effects = []
  for k in range(count):
    kept = members != k
    once = np.ones((1, int(kept.sum())), np.int32)
    both = (anomaly.auroc(s[kept], positive[kept], once)[0] for s in (alone, without[k]))
    effects.append(next(both) - next(both))
  effects = np.asarray(effects)
  return float((count - 1) / count * np.square(effects - effects.mean()).sum())
