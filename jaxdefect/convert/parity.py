"""Does the exported model say the same?

Shape legend: N images, H x W pixels, K classes.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from jaxdefect.contracts import Batch, ClassScores

TOLERANCE = 1e-4


class Parity(NamedTuple):
  """How two implementations compare on the same images.

  Attributes:
    largest: largest absolute difference of any score or probability.
    equal: images for which both name the same class.
    n: images compared.
  """

  largest: float
  equal: int
  n: int


def compare(
  predict: Callable[[Batch], ClassScores],
  module: Any,
  batches: Iterable[Batch],
  *,
  tolerance: float = TOLERANCE,
) -> Parity:
  """Runs both on the same images, padding left out.

  Args:
    predict: batch -> ``ClassScores`` [N, K], ours.
    module: uint8 tensor [N, H, W, 3] -> (scores, probabilities), [N, K] each; the PyTorch twin.
    batches: host batches with ``image`` and ``valid``.
    tolerance: largest difference that passes.

  Returns:
    The comparison.

  Raises:
    ValueError: a difference above ``tolerance`` or not finite, or there is no image.
  """
  largest, equal, n = 0.0, 0, 0
  for batch in batches:
    keep = np.asarray(batch['valid'])
    if not keep.any():
      continue
    image = np.asarray(batch['image'])[keep]
    with torch.inference_mode():
      theirs = [np.asarray(t) for t in module(torch.from_numpy(np.array(image)))]
    predicted = predict(batch)
    ours = [np.asarray(x)[keep] for x in (predicted.scores, predicted.probabilities)]
    for mine, other in zip(ours, theirs, strict=True):
      if mine.shape != other.shape:
        raise ValueError(f'the exported model gives {other.shape} scores, ours {mine.shape}')
      largest = float(np.maximum(largest, np.abs(mine - other).max()))  # keeps a NaN
    equal += int((ours[0].argmax(-1) == theirs[0].argmax(-1)).sum())
    n += len(image)
  if not n:
    raise ValueError('there is no image to compare the exported model on')
  if not largest <= tolerance:
    raise ValueError(
      f'the exported model differs from ours by {largest:.3g} on {n} images; '
      f'at most {tolerance:.3g} is allowed'
    )
  return Parity(largest, equal, n)
