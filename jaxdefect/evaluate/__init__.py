"""From predictions to numbers with intervals."""

from jaxdefect.evaluate import (
  average_precision,
  classification,
  coco_matches,
  detection_mistakes,
  intervals,
  linear_probe,
  seeds,
  weighted_precision,
)
from jaxdefect.evaluate.runner import predict_all

__all__ = [
  'average_precision',
  'classification',
  'coco_matches',
  'detection_mistakes',
  'intervals',
  'linear_probe',
  'predict_all',
  'seeds',
  'weighted_precision',
]
