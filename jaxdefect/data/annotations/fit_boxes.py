"""Boxes held against the size of their picture.

Shape legend: n boxes, as edges (x0, y0, x1, y1) in pixels from the picture's upper left corner.
"""

from collections.abc import Sequence

import numpy as np

from jaxdefect.data.annotations.findings import Findings

# Counting from 0 instead of 1, or rounding to whole pixels, moves an edge by no more.
ROUNDING = 1.0
POLICIES = ('error', 'repair')
_HINT = "bad_boxes='repair' clips or leaves out such boxes, and reports each"


def fit_boxes(
  boxes: np.ndarray,
  size: tuple[int, int],
  places: Sequence[str],
  findings: Findings,
  *,
  bad_boxes: str = 'error',
) -> tuple[np.ndarray, np.ndarray]:
  """Clips boxes to their picture and finds those that cannot be right.

  ================================================ ============ ===========================
  a box                                            ``'error'``  ``'repair'``
  ================================================ ============ ===========================
  reaches over the picture by at most 1 pixel      clipped      clipped
  reaches over it by more                          an error     clipped
  has no area, before or after, or crossed edges   an error     left out
  has an edge that is no finite number             an error     an error
  ================================================ ============ ===========================

  What is clipped or left out becomes a note, what is an error an error of ``findings``.

  Args:
    boxes: [n, 4] edges as written, float64.
    size: (height, width) of the picture.
    places: [n] where each box is written, by file and number.
    findings: takes the notes and errors.
    bad_boxes: ``'error'`` or ``'repair'``.

  Returns:
    boxes: [m, 4] float32 inside the picture, of positive area.
    kept: [m] their places among the n.
  """
  if bad_boxes not in POLICIES:
    raise ValueError(f'bad_boxes must be one of {", ".join(POLICIES)}, got {bad_boxes!r}.')
  height, width = size
  # In float32 before the comparison, so that the dust of x + width is no overhang.
  with np.errstate(over='ignore'):
    written = np.asarray(boxes, np.float64).reshape(-1, 4).astype(np.float32)
  finite = np.all(np.isfinite(written), axis=1)
  fitted = np.clip(written, 0.0, np.asarray([width, height, width, height], np.float32))
  crossed = np.any(written[:, 2:] <= written[:, :2], axis=1)
  empty = np.any(fitted[:, 2:] <= fitted[:, :2], axis=1)
  over = np.abs(written - fitted).max(axis=1, initial=0.0)
  for i in np.flatnonzero(~finite | empty | (over > 0)).tolist():
    x0, y0, x1, y1 = (f'{edge:g}' for edge in written[i])
    where = f'{places[i]}, ({x0}, {y0}, {x1}, {y1}) in {width} x {height}'
    if not finite[i]:
      findings.error('boxes with an edge that is no finite number', where)
    elif empty[i]:
      what = 'boxes without area' if crossed[i] else 'boxes outside their image'
      if bad_boxes == 'error':
        findings.error(what, where, hint=_HINT)
      else:
        findings.note(f'{what}, left out', where)
    elif over[i] > ROUNDING:
      what = f'boxes that reach over their image by more than {ROUNDING:g} pixel'
      if bad_boxes == 'error':
        findings.error(what, where, hint=_HINT)
      else:
        findings.note(f'{what}, clipped', where)
    else:
      what = f'boxes that reach over their image by at most {ROUNDING:g} pixel, clipped'
      findings.note(what, where)
  kept = np.flatnonzero(finite & ~empty)
  return fitted[kept], kept
