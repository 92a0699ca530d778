"""What ``predict`` returns, one type per task (never per paper).

Shape legend: N images, K classes, D detections per image (padding included).
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


class Detections(NamedTuple):
  """Boxes with a class and a score each, a fixed number per image.

  Attributes:
    boxes: [N, D, 4] float32, edges (x0, y0, x1, y1) in pixels of ``batch['image']``; divided by
      ``batch['scale']`` they are pixels of the picture as it was read.
    scores: [N, D] float32 in 0..1, falling along D.
    labels: [N, D] int32, counting in ``Fitted.classes``.
    valid: [N, D] bool; False marks padding, which comes last.
  """

  boxes: jax.Array
  scores: jax.Array
  labels: jax.Array
  valid: jax.Array
