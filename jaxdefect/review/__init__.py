"""From a model to a line: whether it may decide alone, and whether the line has changed."""

from jaxdefect.review.drift import Drift, drift
from jaxdefect.review.readiness import Readiness, Targets, assess

__all__ = ['Drift', 'Readiness', 'Targets', 'assess', 'drift']
