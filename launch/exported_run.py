"""An exported model in the place of a run, for launchers that only predict."""

import pathlib
import types
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxdefect.contracts import Batch, Fitted, Method
from jaxdefect.convert import exported, parity
from jaxdefect.data import Source
from jaxdefect.evaluate import thresholds
from launch import tasks

BATCH = 16


class ExportedRun(NamedTuple):
  """What ``finished_run.Finished`` is, of a folder or an ONNX file that ``launch.convert`` wrote.

  Attributes:
    config: ``batch_size`` and ``data``.
    method: what it was exported from is not known any more: it raises.
    fitted: classes and calibration, without parameters.
    directory: where the model lies.
    model: what predicts.
  """

  config: ConfigDict
  method: Method
  fitted: Fitted
  directory: pathlib.Path
  model: exported.Model

  def predict(self, batch: Batch) -> Any:
    """Predictions on pictures that were brought to the network's size already."""
    said = self.model(np.asarray(batch['image']))
    return parity.predictions(dict(zip(self.model.outputs, said)))

  def inspect(self, picture: np.ndarray) -> tuple[dict[str, Any], Any]:
    """The row that launch.predict would write of one decoded picture, and the predictions."""
    predictions = parity.predictions(exported.run(self.model, [picture]))
    return self.verdict(predictions), predictions

  def verdict(self, predictions: Any) -> dict[str, Any]:
    """From the numbers of one picture to its row, which has no name."""
    source: Any = types.SimpleNamespace(names=('',))
    seen = {'index': np.zeros(1, int), 'scale': np.ones(1, np.float32)}
    (row,) = tasks.of(predictions).table(self, predictions, seen, source)
    del row['image']
    return row

  def evidence(self, batch: Batch) -> np.ndarray | None:
    """[N, h, w] what speaks for the predicted class; None where the model shows nothing."""
    if 'evidence' not in self.model.outputs or 'evidence_ceiling' not in self.model.described:
      return None
    said = self.model(np.asarray(batch['image']))
    return said[self.model.outputs.index('evidence')]

  @property
  def evidence_ceiling(self) -> float:
    """The end of the run's one colour scale for evidence."""
    return float(self.model.described['evidence_ceiling'])

  def predict_pictures(self, source: Source) -> tuple[Any, dict[str, np.ndarray]]:
    """Predictions on pictures as they were read, and the columns that tasks need."""
    pictures = (source.read(i) for i in range(len(source)))
    predictions = parity.predictions(exported.run(self.model, pictures, batch_size=BATCH))
    count = len(source)
    return predictions, {'index': np.arange(count), 'scale': np.ones(count, np.float32)}


def open_run(path: pathlib.Path, *, false_alarm_rate: float | None = None) -> ExportedRun:
  """Opens an exported model.

  Args:
    path: a folder (run by PyTorch) or an ``.onnx`` file (run by onnxruntime).
    false_alarm_rate: of an anomaly method, instead of the one that it was calibrated for.

  Raises:
    ValueError: there is none, it is damaged, or its threshold is part of the graph.
  """
  model = exported.open_model(path)
  described = model.described
  calibration = described.get('calibration')
  if calibration is not None:
    calibration = {name: np.asarray(value, np.float32) for name, value in calibration.items()}
  fitted = Fitted({}, {}, calibration=calibration, classes=tuple(model.classes))
  if false_alarm_rate is not None:
    if 'verdict' in model.outputs:
      raise ValueError(
        f'{path} decides by its own threshold; convert the run again with another false-alarm rate'
      )
    fitted = thresholds.with_false_alarm_rate(fitted, false_alarm_rate)
  static = (described.get('input') or {}).get('static')
  config = ConfigDict({'batch_size': static[0] if static else BATCH, 'data': described['data']})
  return ExportedRun(config, Method(*[_absent] * 5), fitted, path, model)


def _absent(*_: Any, **__: Any) -> Any:
  raise ValueError('an exported model only predicts')
