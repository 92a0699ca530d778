"""From predictions to numbers with intervals."""

from jaxdefect.evaluate import classification, intervals, linear_probe
from jaxdefect.evaluate.runner import predict_all

__all__ = ['classification', 'intervals', 'linear_probe', 'predict_all']
