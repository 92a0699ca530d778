"""A finished run, read back from its folder: what predicts, and shows what it saw."""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from jaxdefect import train
from jaxdefect.contracts import Fitted, Method
from jaxdefect.evaluate import thresholds
from jaxdefect.explain import gradcam
from launch import experiment


class Finished(NamedTuple):
  """A run read back from its folder."""

  config: ConfigDict
  method: Method
  fitted: Fitted
  directory: pathlib.Path

  def predict(self, batch: Any) -> Any:
    """The predictions of a batch; compiled once for each shape."""
    return _compiled(self.method.predict)(self.fitted, batch)

  def evidence(self, batch: Any) -> jax.Array | None:
    """[N, h, w] what speaks for the predicted class; None where the method shows nothing."""
    if self.method.activations is None:
      return None
    return _explained(self.method.activations)(self.fitted, batch)[1]

  @property
  def evidence_ceiling(self) -> float:
    """The end of the run's one colour scale for evidence."""
    path = self.directory / 'evidence.json'
    if not path.exists():
      raise ValueError(f'{path} does not exist: the run has not finished')
    return float(json.loads(path.read_text())['ceiling'])

  @property
  def report(self) -> dict[str, Any]:
    """What the run's test part said; empty where the run was tested on none."""
    path = self.directory / 'report.json'
    return json.loads(path.read_text()) if path.exists() else {}


@functools.lru_cache(maxsize=8)
def _compiled(predict: Callable[..., Any]) -> Callable[..., Any]:
  return jax.jit(predict)


@functools.lru_cache(maxsize=8)
def _explained(activations: Callable[..., Any]) -> Callable[..., Any]:
  return jax.jit(functools.partial(gradcam.gradcam, activations, contrast=True))


def read_run(directory: pathlib.Path, *, false_alarm_rate: float | None = None) -> Finished:
  """Reads a finished run: its config, its method and what it fitted.

  Args:
    directory: the folder of the run.
    false_alarm_rate: of an anomaly method, instead of the one that it was calibrated for.

  Raises:
    ValueError: the folder holds no run, several seeds, or one that has not finished.
  """
  config = experiment.read_config(directory)
  if len(config.seeds) > 1:
    raise ValueError(
      f'{directory} holds a run per seed; choose one, for example '
      f'--workdir={directory / f"seed_{config.seeds[0]}"}'
    )
  fitted = train.load_fitted(directory / 'fitted.safetensors')
  if false_alarm_rate is not None:
    fitted = thresholds.with_false_alarm_rate(fitted, false_alarm_rate)
  return Finished(config, experiment.make_method(config, steps=config.steps), fitted, directory)
