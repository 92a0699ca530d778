"""From ``config.calibration`` to a threshold: what stands between ``adapt`` and ``predict``."""

from collections.abc import Callable
from typing import Any

import jax

from jaxdefect.contracts import AnomalyMaps, Batch, Fitted, References, Verdicts
from jaxdefect.evaluate import cross_calibration, thresholds
from launch import checks, experiment


def anomaly_part(predict: Callable[..., Any]) -> Callable[..., AnomalyMaps]:
  """``predict`` of an anomaly method, or that part of the verdicts that a threshold is for."""

  def maps(fitted: Fitted, batch: Batch) -> AnomalyMaps:
    predictions = predict(fitted, batch)
    return predictions.anomaly if isinstance(predictions, Verdicts) else predictions

  return maps


def calibrate(
  made: experiment.Experiment,
  key: jax.Array,
  start: Fitted,
  fitted: Fitted,
  known: References,
) -> Fitted:
  """Sets the threshold of a fitted run from good parts, where its config asks for one.

  Args:
    made: the experiment; ``config.calibration.kind`` is ``'split'`` (the validation part sets the
      threshold) or ``'cross'`` (the references do, each scored by a fit without it).
    key: that ``adapt`` was given.
    start: what ``adapt`` began with.
    fitted: what it returned.
    known: the references.

  Returns:
    ``fitted``, with ``calibration`` where the config has such settings.
  """
  settings = made.config.get('calibration')
  if settings is None:
    return fitted
  rate, groups = settings.false_alarm_rate, made.split.groups(made.source)
  if settings.kind == 'split':
    parts = checks.good_images(made.source, made.split.validation)
    held = experiment.eval_batches(made.config, made.source, parts, fitted.classes)
    return thresholds.calibrate(
      anomaly_part(made.method.predict), fitted, held, false_alarm_rate=rate, groups=groups
    )
  steps = made.config.steps
  if checks.anomaly_beside_a_head(
    made.config
  ):  # that part takes no steps, and knows good parts alone
    parts = checks.good_images(made.source, made.split.train)
    batches = experiment.eval_batches(made.config, made.source, parts, fitted.classes)
    known, steps = References(fitted.classes, batches), 0
  return cross_calibration.calibrate(
    made.method._replace(predict=anomaly_part(made.method.predict)),
    key,
    start,
    fitted,
    known,
    false_alarm_rate=rate,
    folds=settings.folds,
    groups=groups,
    steps=steps,
  )
