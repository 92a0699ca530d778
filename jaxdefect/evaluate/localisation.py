"""Whether evidence lies where the defect is: maps against masks.

Shape legend: N images, H x W pixels, R resamples.
"""

from collections.abc import Sequence
from typing import Any

import chex
import numpy as np
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import roc_auc_score

from jaxdefect.evaluate import intervals


def evaluate(
  maps: Sequence[np.ndarray],
  masks: Sequence[np.ndarray],
  *,
  tolerance: float = 0.0,
  confidence: float = 0.95,
  num_resamples: int = 200,
  seed: int = 0,
) -> dict[str, Any]:
  r"""Scores maps of defective images against their masks.

  The pointing game asks whether the largest value of a map lies on the defect. The AUROC of pixels
  is the chance that a pixel of a defect has a larger value than a pixel without one, here the mean
  over images, so that a large defect counts no more than a small one and maps of different images
  need no common scale; the area of the defects does not enter, as it does in the AUROC over the
  pixels of all images together.

  Args:
    maps: N arrays [H, W], larger where the model saw more.
    masks: N arrays [H, W], true or non-zero on the defect; an image without such a pixel, or
      without any other, is left out and counted.
    tolerance: a hit may lie so far from the defect, as a fraction of the longer side of the image.
    confidence: coverage of the intervals, in (0, 1).
    num_resamples: bootstrap resamples of the images.
    seed: makes the bootstrap repeatable.

  Returns:
    ``metrics``: ``pointing_game`` and ``pixel_auroc``, shares in 0..1, and ``chance``, the share
    that pointing at random would have; ``intervals`` (Wilson for the first, bootstrap over images
    for the second); ``n``, and ``left_out``. Without images there are no metrics.

  Raises:
    ValueError: not as many masks as maps, a mask of another size, or a negative tolerance.

  References:
    J. Zhang et al., `Top-down neural attention by excitation backprop
    <https://arxiv.org/abs/1608.00507>`_, section 4.2 (pointing game).
  """
  if len(maps) != len(masks):
    raise ValueError(f'there are {len(maps)} maps, but {len(masks)} masks.')
  if tolerance < 0:
    raise ValueError(f'tolerance is {tolerance}; it must be 0 or more.')
  hits, aurocs, shares = [], [], []
  for heat, drawn in zip(maps, masks):
    heat, mask = np.asarray(heat, np.float64), np.asarray(drawn) > 0
    chex.assert_rank([heat, mask], 2)
    if heat.shape != mask.shape:
      raise ValueError(f'a map has {heat.shape} pixels, its mask {mask.shape}.')
    if mask.all() or not mask.any():
      continue
    rows, columns = np.nonzero(mask)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    distance = np.hypot(rows - row, columns - column).min()
    hits.append(bool(distance <= tolerance * max(heat.shape)) and heat.max() > heat.min())
    aurocs.append(float(roc_auc_score(mask.ravel(), heat.ravel())))
    shares.append((distance_transform_edt(~mask) <= tolerance * max(heat.shape)).mean())
  report: dict[str, Any] = {
    'metrics': {},
    'intervals': {},
    'n': len(hits),
    'left_out': len(maps) - len(hits),
  }
  if not hits:
    return report
  values = np.asarray(aurocs)
  report['metrics'] = {
    'pointing_game': float(np.mean(hits)),
    'pixel_auroc': float(values.mean()),
    'chance': float(np.mean(shares)),
  }
  draws = np.random.default_rng(seed).integers(0, values.size, (num_resamples, values.size))
  report['intervals'] = {
    'pointing_game': list(intervals.wilson(sum(hits), len(hits), confidence=confidence)),
    'pixel_auroc': list(
      intervals.percentile_interval(values[draws].mean(1), confidence=confidence)
    ),
  }
  return report
