"""A threshold from the very good parts that a method is fitted to, each scored without itself.

Shape legend: n good parts.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np

from jaxdefect.contracts import Batch, Fitted, Method, References
from jaxdefect.evaluate import thresholds


def calibrate(
  method: Method,
  key: jax.Array,
  start: Fitted,
  fitted: Fitted,
  references: References,
  *,
  false_alarm_rate: float,
  folds: int = 0,
  groups: Sequence[int] | np.ndarray | None = None,
  steps: int = 0,
) -> Fitted:
  """Calibrates with the very good parts that the method is fitted to, each scored without itself.

  Every fold is scored by a fit to the others, and the scores of all of them set the threshold. No
  part has to be held back; in return the scores come from fits to a little less than all, so that
  the promise is nearly, not exactly, that of ``thresholds.calibrate`` (Barber et al., Annals of
  Statistics 49 (2021) 486-507: at worst twice the rate).

  Args:
    method: fitted by ``adapt`` alone.
    key: as ``Method.adapt`` takes it.
    start: before any good part was seen: ``memory`` is what ``adapt`` starts from.
    fitted: the fit to all good parts, which is to be calibrated.
    references: the good parts.
    false_alarm_rate: a, in (0, 1).
    folds: K; 0, or as many as there are groups, leaves out one group at a time.
    groups: group of each image by its ``index``; near-copies stay in one fold, and one of them
      counts, as for ``thresholds.calibrate``. None means that every image is on its own.
    steps: that the method was trained for; any at all is refused.

  Returns:
    ``fitted`` with ``calibration``, as ``thresholds.calibrate`` gives it.

  Raises:
    ValueError: the method took steps, there are fewer than two groups, or as
      ``thresholds.calibrate``.
  """
  if steps:
    raise ValueError(
      f"calibration.kind 'cross' would score good parts that the method was trained on for {steps} "
      "steps; use 'split', which holds some back."
    )
  indices = np.concatenate([batch['index'][batch['valid']] for batch in references.batches])
  own = indices if groups is None else np.asarray(groups)[indices]
  thresholds.check_enough(len(np.unique(own)), false_alarm_rate)
  fold = _folds(own, folds)
  predict = jax.jit(method.predict)
  found: dict[int, tuple[float, float]] = {}
  for number in range(fold.max() + 1):
    held = indices[fold == number]
    known = dataclasses.replace(
      references, batches=_Part(references.batches, held, keep=False), validation=None
    )
    part = method.adapt(key, start, known)
    scores, peaks, seen = thresholds.score_good_parts(
      predict, part, _Part(references.batches, held, keep=True)
    )
    found |= {int(i): (s, p) for i, s, p in zip(seen, scores, peaks)}
  scores, peaks = np.array([found[int(i)] for i in indices], np.float32).T
  chosen = thresholds.one_of_each(own)
  return thresholds.calibrated(fitted, scores[chosen], peaks[chosen], false_alarm_rate)


def _folds(groups: np.ndarray, folds: int) -> np.ndarray:
  """The fold of each image: whole groups, the larger first, each to the smallest fold."""
  names, members = np.unique(groups, return_inverse=True)
  sizes = np.bincount(members)
  folds = min(folds or len(names), len(names))
  if folds < 2:
    raise ValueError(
      f'The good parts make {len(names)} groups of near-copies in {folds} folds; two are needed.'
    )
  filled, place = np.zeros(folds, int), np.zeros(len(names), int)
  for group in np.argsort(-sizes, kind='stable'):
    place[group] = filled.argmin()
    filled[place[group]] += sizes[group]
  return place[members]


class _Part:
  """The same batches with fewer valid rows; their shapes, and so the compiled code, stay."""

  def __init__(self, batches: Iterable[Batch], indices: np.ndarray, *, keep: bool):
    self._batches, self._indices, self._keep = batches, indices, keep

  def __iter__(self) -> Iterator[Batch]:
    for batch in self._batches:
      chosen = np.isin(batch['index'], self._indices) == self._keep
      valid = np.asarray(batch['valid']) & chosen
      if valid.any():
        yield {**batch, 'valid': valid}
