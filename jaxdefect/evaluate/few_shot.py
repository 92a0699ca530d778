"""Recognition of classes that are known by a few references alone.

Shape legend: N images, K classes, k references ('shots') per class.
"""

from collections.abc import Sequence
from typing import Any

import chex
import numpy as np

from jaxdefect.evaluate import intervals


def evaluate(
  similarity: np.ndarray,
  labels: np.ndarray,
  classes: Sequence[str],
  *,
  shots: Sequence[int] = (1, 3, 5),
  draws: int = 100,
  seed: int = 0,
  confidence: float = 0.95,
) -> dict[str, Any]:
  r"""Accuracy from k references per class, over many random choices of the references.

  With the similarity :math:`s_{ij}` of images i and j, an image goes to the class

  .. math:: \arg\max_c \tfrac1k \sum_{j \in R_c} s_{ij}

  (Phuong et al. 2024, Table IV). The references of a draw are not tested in it. For one draw the
  references of a smaller k are among those of a larger one.

  Args:
    similarity: [N, N] similarity of each image (row) with each (column).
    labels: [N] integers that count in ``classes``.
    classes: K names.
    shots: values of k.
    draws: choices of references.
    seed: of the choices.
    confidence: coverage of the intervals.

  Returns:
    A dict with ``metrics`` (``accuracy/<k>_shot``: mean over the draws), ``sd`` over the draws,
    ``intervals`` ([low, high] that hold ``confidence`` of the *draws*: what one choice of
    references can do), ``per_draw``, ``n``, ``draws``, ``classes``.

  Raises:
    ValueError: a class has no image left to test.
  """
  similarity, labels = np.asarray(similarity, np.float64), np.asarray(labels)
  chex.assert_shape(similarity, (len(labels), len(labels)))
  counts = np.bincount(labels, minlength=len(classes))
  if counts.min() <= max(shots):
    raise ValueError(
      f'class {classes[int(counts.argmin())]!r} has {counts.min()} images; {max(shots)} references '
      'leave none to test'
    )
  generator = np.random.default_rng(seed)
  members = [np.flatnonzero(labels == c) for c in range(len(classes))]
  per_draw: dict[int, list[float]] = {k: [] for k in shots}
  for _ in range(draws):
    order = [generator.permutation(m) for m in members]
    for k in shots:
      chosen = [o[:k] for o in order]
      scores = np.stack([similarity[:, c].mean(axis=1) for c in chosen], axis=1)  # [N, K]
      tested = np.ones(len(labels), bool)
      tested[np.concatenate(chosen)] = False
      per_draw[k].append(float((scores.argmax(1) == labels)[tested].mean()))
  names = {k: f'accuracy/{k}_shot' for k in shots}
  return {
    'metrics': {names[k]: float(np.mean(v)) for k, v in per_draw.items()},
    'sd': {names[k]: float(np.std(v, ddof=1)) if draws > 1 else 0.0 for k, v in per_draw.items()},
    'intervals': {
      names[k]: list(intervals.percentile_interval(np.array(v), confidence=confidence))
      for k, v in per_draw.items()
    },
    'per_draw': {names[k]: v for k, v in per_draw.items()},
    'n': len(labels),
    'draws': draws,
    'classes': list(classes),
  }
