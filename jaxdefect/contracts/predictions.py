"""What ``predict`` returns, one type per task (never per paper).

Shape legend: N images, K classes.
"""

from typing import NamedTuple

import jax


class ClassScores(NamedTuple):
  """One score per class for each image.

  Attributes:
    scores: [N, K] float32, larger means more like the class; on the method's own scale (a
      logit, a mean cosine similarity), comparable between the classes of one image.
    probabilities: [N, K] float32, non-negative, each row sums to one, same order as ``scores``;
      comparable between images.
  """

  scores: jax.Array
  probabilities: jax.Array
