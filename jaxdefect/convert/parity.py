"""Does the exported model say the same?

Shape legend: N images, H x W pixels, K classes.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import torch

from jaxdefect.contracts import Batch

TOLERANCE = 1e-4


class Parity(NamedTuple):
  """How two implementations compare on the same images.

  Attributes:
    largest: largest difference of any number, of those above 1 as a share.
    equal: images for which both decide the same.
    n: images compared.
  """

  largest: float
  equal: int
  n: int


def compare(
  predict: Callable[[Batch], Any],
  module: Any,
  batches: Iterable[Batch],
  *,
  tolerance: float = TOLERANCE,
) -> Parity:
  """Runs both on the same images, padding left out.

  Args:
    predict: batch -> our predictions: ``ClassScores``, ``AnomalyMaps`` or ``Verdicts``.
    module: uint8 tensor [N, H, W, 3] -> the same arrays as a flat tuple; the PyTorch twin.
    batches: host batches with ``image`` and ``valid``.
    tolerance: largest difference that passes, of numbers up to 1; of larger ones that share.

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
    ours = [np.asarray(x)[keep] for x in jax.tree.leaves(predict(batch))]
    for mine, other in zip(ours, theirs, strict=True):
      if mine.shape != other.shape:
        raise ValueError(f'the exported model gives {other.shape} scores, ours {mine.shape}')
      apart = np.abs(mine - other) / np.maximum(np.abs(mine), 1)
      largest = float(np.maximum(largest, apart.max()))  # keeps a NaN
    equal += int((_decided(ours) == _decided(theirs)).sum())
    n += len(image)
  if not n:
    raise ValueError('there is no image to compare the exported model on')
  if not largest <= tolerance:
    raise ValueError(
      f'the exported model differs from ours by {largest:.3g} on {n} images; '
      f'at most {tolerance:.3g} is allowed'
    )
  return Parity(largest, equal, n)


def _decided(outputs: Sequence[np.ndarray]) -> np.ndarray:
  """[N] class of scores [N, K], verdict [N], or where the map of an anomaly method peaks."""
  first = outputs[0]
  if first.ndim > 1:
    return first.argmax(-1)
  if np.issubdtype(first.dtype, np.integer):
    return first
  return outputs[1].reshape(len(first), -1).argmax(-1)
