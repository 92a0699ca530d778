"""From a model to a line: whether it may decide alone, and what people say of what it decides."""

from jaxdefect.review.drift import Drift, drift
from jaxdefect.review.readiness import Readiness, Targets, assess
from jaxdefect.review.records import Conflict, Prediction, Queued, Verdict
from jaxdefect.review.store import Store

__all__ = [
  'Conflict',
  'Drift',
  'Prediction',
  'Queued',
  'Readiness',
  'Store',
  'Targets',
  'Verdict',
  'assess',
  'drift',
]
