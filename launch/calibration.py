"""From ``config.calibration`` to a threshold: what stands between ``adapt`` and ``predict``."""

import jax

from jaxdefect.contracts import Fitted, References
from jaxdefect.evaluate import cross_calibration, thresholds
from launch import experiment


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
    held = experiment.eval_batches(made.config, made.source, made.split.validation, fitted.classes)
    return thresholds.calibrate(
      made.method.predict, fitted, held, false_alarm_rate=rate, groups=groups
    )
  return cross_calibration.calibrate(
    made.method,
    key,
    start,
    fitted,
    known,
    false_alarm_rate=rate,
    folds=settings.folds,
    groups=groups,
    steps=made.config.steps,
  )
