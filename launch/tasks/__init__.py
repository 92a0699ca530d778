"""What the launchers do differently for each kind of prediction; one module per kind.

A task names its ``EVALUATOR`` (whose ``READS`` says which predictions it takes) and has:

- ``HEADLINES``: the metrics that a run prints,
- ``evaluate(predictions, seen, classes)``: the report dict,
- ``validate(predictions, seen, classes)``: the few metrics that may choose an epoch,
- ``complete(made, fitted, known, predictions, seen, batches, directory, result)``: adds to the
  report what the task alone knows, and returns the pictures of report.html,
- ``warnings(result)``: what the reader of a report must not overlook,
- ``table(run, predictions, seen, source)``: the rows of predictions.json, one per picture,
- ``flat(rows, classes)``: the same as lines of predictions.csv, the header first,
- ``draw(folder, run, source, batches, rows)``: one PNG per picture.
"""

from types import ModuleType
from typing import Any

from launch.tasks import detection, recognition

_TASKS = {task.EVALUATOR.READS: task for task in (recognition, detection)}

# Columns of a batch that some task needs beside the predictions.
SEEN = ('label', 'index', 'boxes', 'box_label', 'box_valid', 'size', 'scale')


def of(predictions: Any) -> ModuleType:
  """The task that reads these predictions."""
  return _TASKS[type(predictions)]


# The metrics that a run prints, of whatever task.
HEADLINES = tuple(name for task in _TASKS.values() for name in task.HEADLINES)
