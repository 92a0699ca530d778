"""How well heat maps find the pixels of defects: AUROC over all pixels, and per-region overlap.

Shape legend: N images, H x W pixels of one image, B bins of scores.

Both are curves over one threshold for all images. They are read off histograms of the pixels'
scores, so that memory does not grow with the images: a bin holds the scores that agree in their
first 22 bits, to one part in 8,192, and counts as a tie.
"""

from collections.abc import Iterable
from typing import Any

import chex
import numpy as np
import scipy.ndimage

_BITS = 22
_ANY_NEIGHBOUR = np.ones((3, 3), int)


def evaluate(
  pairs: Iterable[tuple[np.ndarray, np.ndarray]], *, max_false_positive_rate: float = 0.3
) -> dict[str, Any]:
  r"""Scores maps against masks, pooled over all images.

  At a threshold t a pixel is positive from t on. The false-positive rate f is the share of the
  pixels without a defect, those of good images included, that are positive. A region is a connected
  component of a mask (pixels that touch at a corner are connected). With the regions
  :math:`C_1, ..., C_K` and the positive pixels :math:`P_t`,

  .. math::
    \mathrm{PRO} = \frac{1}{f_{max}} \int_0^{f_{max}} \frac1K \sum_k \frac{|P_t \cap C_k|}{|C_k|}
    \, df

  so that a small region counts as much as a large one. The AUROC has every defective pixel count
  alike, and runs to f = 1. Between thresholds both curves are straight.

  Args:
    pairs: (map [H, W], larger is more anomalous; mask [H, W], true or non-zero on the defect) of
      each image; a good image has an empty mask. Sizes may differ. Read once.
    max_false_positive_rate: f_max, in (0, 1].

  Returns:
    ``metrics``: ``pixel_auroc`` and ``pro`` in 0..1, absent where there is no region or no pixel
    beside them; ``images`` and ``regions``, their numbers.

  Raises:
    ValueError: a mask has another size than its map, or a map a value that is not finite.

  Bergmann et al., IJCV 129 (2021) 1038-1059, section 5.2 (PRO).
  """
  if not 0 < max_false_positive_rate <= 1:
    raise ValueError(
      f'max_false_positive_rate is {max_false_positive_rate:g}; above 0 and at most 1 is needed.'
    )
  normal = np.zeros(2**_BITS, np.int64)  # [B]
  defective = np.zeros(2**_BITS, np.int64)
  overlap = np.zeros(2**_BITS)  # each region's pixels weigh one together
  images = regions = 0
  for heat, mask in pairs:
    heat, mask = np.asarray(heat, np.float32), np.asarray(mask) > 0
    chex.assert_rank([heat, mask], 2)
    if heat.shape != mask.shape:
      raise ValueError(f'a map has {heat.shape} pixels, its mask {mask.shape}.')
    if not np.isfinite(heat).all():
      raise ValueError('a map holds values that are not finite; the model has probably diverged.')
    bins = _bins(heat)
    _add(normal, bins[~mask])
    images += 1
    if not mask.any():
      continue
    components: Any = scipy.ndimage.label(mask, structure=_ANY_NEIGHBOUR)
    labels, found = components
    sizes = np.bincount(labels.ravel(), minlength=found + 1)
    _add(defective, bins[mask])
    _add(overlap, bins[mask], 1 / sizes[labels[mask]])
    regions += found
  report: dict[str, Any] = {'metrics': {}, 'images': images, 'regions': regions}
  if regions and normal.any():
    used = np.flatnonzero(normal + defective)[::-1]  # falling scores
    rate = np.append(0, np.cumsum(normal[used])) / normal.sum()
    recall = np.append(0, np.cumsum(defective[used])) / defective.sum()
    share = np.append(0, np.cumsum(overlap[used])) / regions
    limit = max_false_positive_rate
    report['metrics'] = {
      'pixel_auroc': min(_area(rate, recall, 1.0), 1.0),
      'pro': min(_area(rate, share, limit) / limit, 1.0),
    }
  return report


def _bins(scores: np.ndarray) -> np.ndarray:
  """float32 -> int64 bins in the order of the scores: the first bits of a float are its size."""
  bits = (scores + np.float32(0)).view(np.uint32)  # -0 becomes 0
  negative = bits >> 31 == 1
  ordered = np.where(negative, ~bits, bits | np.uint32(2**31))
  return (ordered >> np.uint32(32 - _BITS)).astype(np.int64)


def _add(histogram: np.ndarray, bins: np.ndarray, weights: np.ndarray | None = None) -> None:
  if bins.size:
    first = int(bins.min())
    counts = np.bincount(bins - first, weights)
    histogram[first : first + len(counts)] += counts


def _area(x: np.ndarray, y: np.ndarray, limit: float) -> float:
  """The area below a rising line from x = 0 to ``limit``."""
  inside = x <= limit
  end = np.interp(limit, x, y)
  return float(np.trapezoid(np.append(y[inside], end), np.append(x[inside], limit)))
