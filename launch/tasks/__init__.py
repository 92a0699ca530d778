"""What the launchers do differently for each kind of prediction; one module per kind.

A task names its ``EVALUATOR`` (whose ``READS`` says which predictions it takes) and has:

- ``HEADLINES``: the metrics that a run prints,
- ``evaluate(predictions, seen, fitted)``: the report dict (``seen`` has those columns of ``SEEN``
  that there are, and ``group``, alike for pictures of one part),
- ``validate(predictions, seen, classes)``: the few metrics that may choose an epoch,
- ``complete(made, fitted, known, predictions, seen, batches, directory, result)``: adds to the
  report what the task alone knows, and returns the pictures of report.html,
- ``warnings(result)``: what the reader of a report must not overlook,
- ``table(run, predictions, seen, source)``: the rows of predictions.json, one per picture,
- ``flat(rows, classes)``: the same as lines of predictions.csv, the header first,
- ``overlay(run, picture, predictions, row)``: the only prediction drawn into its picture, or None,
- ``draw(run, source, batches, rows)``: yields a ``drawn.Drawn`` per picture,
- ``legend(run)``: the colour scale of what is drawn, or None where the pictures say it themselves,
- where predictions are large, ``reduce(predictions)``: what the functions above need of them.
"""

import functools
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import numpy as np

from jaxdefect.contracts import Batch, Detections, Fitted, Method
from jaxdefect.evaluate import runner
from launch.tasks import anomaly, detection, recognition, verdicts

_TASKS = {task.EVALUATOR.READS: task for task in (recognition, detection, anomaly, verdicts)}

# Columns of a batch that some task needs beside the predictions.
SEEN = ('label', 'index', 'boxes', 'box_label', 'box_valid', 'size', 'scale')


def of(predictions: Any) -> ModuleType:
  """The task that reads these predictions."""
  return _TASKS[type(predictions)]


def predict_all(
  method: Method, fitted: Fitted, batches: Iterable[Batch]
) -> tuple[Any, dict[str, Any]]:
  """``evaluate.predict_all`` with the columns and the part of the predictions that tasks need."""
  return runner.predict_all(_reduced(method.predict), fitted, batches, keys=SEEN)


@functools.lru_cache(maxsize=8)  # The same function again is not compiled again.
def _reduced(predict: Callable) -> Callable:
  def reduced(fitted: Fitted, batch: Batch) -> Any:
    predictions = predict(fitted, batch)
    reduce = getattr(of(predictions), 'reduce', None)
    return predictions if reduce is None else reduce(predictions)

  return reduced


def in_native_pixels(predictions: Any, seen: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
  """Predictions and columns with boxes in pixels of the files, not of the network's images."""
  if not isinstance(predictions, Detections):
    return predictions, seen
  scale = np.asarray(seen['scale'])
  seen = {
    **seen,
    'boxes': seen['boxes'] / scale[:, None, None],
    'size': seen['size'] / scale[:, None],
    'scale': np.ones_like(scale),
  }
  return predictions._replace(boxes=predictions.boxes / scale[:, None, None]), seen


# The metrics that a run prints, of whatever task.
HEADLINES = tuple(dict.fromkeys(name for task in _TASKS.values() for name in task.HEADLINES))
