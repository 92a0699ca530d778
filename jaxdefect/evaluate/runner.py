"""Runs ``predict`` over a stream of padded batches and collects what comes back.

Shape legend: N images of the stream, padding excluded.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from jaxdefect.contracts import Batch, Fitted


def predict_all(
  predict: Callable[[Fitted, Batch], Any],
  fitted: Fitted,
  batches: Iterable[Batch],
  *,
  keys: Sequence[str] = ('label', 'index'),
) -> tuple[Any, dict[str, np.ndarray]]:
  """Predicts every image of a stream, without its padding.

  ``predict`` is compiled once: padded batches share their shapes. Any task's predictions will do,
  as long as every array in them starts with the batch axis.

  Args:
    predict: ``Method.predict``, ``(fitted, batch) -> predictions``.
    fitted: what predicts.
    batches: padded batches as in ``contracts.batch``; all-padding batches are allowed.
    keys: which of the batch's arrays to collect beside the predictions.

  Returns:
    The predictions as the same (named) tuple of numpy arrays [N, ...], in the stream's order, and
    a dict with ``keys`` -> numpy arrays [N, ...]; a key that the batches lack is left out.

  Raises:
    ValueError: if there is no batch at all, or a prediction lacks the batch axis.
  """
  compiled = jax.jit(predict)
  predictions, columns = [], []
  pending = None
  for batch in batches:
    # Dispatch is asynchronous: the next batch is decoded while this one computes.
    outputs = compiled(fitted, batch)
    if pending is not None:
      predictions.append(_without_padding(*pending))
    valid = np.asarray(batch['valid'])
    pending = outputs, valid
    columns.append({key: np.asarray(batch[key])[valid] for key in keys if key in batch})
  if pending is None:
    raise ValueError('batches holds no batch; at least one is needed to predict.')
  predictions.append(_without_padding(*pending))

  stacked = jax.tree.map(lambda *parts: np.concatenate(parts), *predictions)
  return stacked, {key: np.concatenate([part[key] for part in columns]) for key in columns[0]}


def _without_padding(outputs: Any, valid: np.ndarray) -> Any:
  def rows(leaf: jax.Array) -> np.ndarray:
    if leaf.ndim == 0 or leaf.shape[0] != valid.shape[0]:
      raise ValueError(
        f'predict returned an array of shape {leaf.shape} for a batch of {valid.shape[0]}; '
        'every prediction must start with the batch axis.'
      )
    return np.asarray(leaf)[valid]

  return jax.tree.map(rows, outputs)
