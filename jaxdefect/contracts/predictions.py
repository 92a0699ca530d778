"""What ``predict`` returns, one type per task (never per paper).

Shape legend: N images, K classes, D detections per image (padding included), h x w places.
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


class AnomalyMaps(NamedTuple):
  """How far each image, and each place in it, is from what good parts look like.

  Raw scores on the fitted method's own scale: comparable between images and places, not between
  methods. What is too far is decided apart, by the threshold in ``Fitted.calibration``.

  Attributes:
    scores: [N] float32, larger means more anomalous.
    maps: [N, h, w] float32, larger means more anomalous there; the places divide the image evenly
      (mostly h x w is the image's size). A method that does not localise has h = w = 1.
  """

  scores: jax.Array
  maps: jax.Array


# What a part is to be done with, and which rule says so; ``Verdicts`` count in them.
VERDICTS = ('ok', 'review', 'reject')
RULES = ('supervised', 'anomaly', 'few samples')


class Verdicts(NamedTuple):
  """What is to be done with each part, which rule says so, and what the rules saw.

  Attributes:
    verdict: [N] int32, counting in ``VERDICTS``.
    rule: [N] int32, counting in ``RULES``: the supervised head, the anomaly score beside it, or a
      head that has seen too few samples of the mode that it names to decide alone.
    head: what the supervised head says.
    anomaly: how far each part is from good ones.
  """

  verdict: jax.Array
  rule: jax.Array
  head: ClassScores
  anomaly: AnomalyMaps
