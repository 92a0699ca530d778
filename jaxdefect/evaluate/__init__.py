"""From predictions to numbers with intervals."""

from jaxdefect.evaluate import (
  anomaly,
  average_precision,
  classification,
  coco_matches,
  cross_calibration,
  detection_mistakes,
  intervals,
  linear_probe,
  region_overlap,
  seeds,
  thresholds,
  weighted_precision,
)
from jaxdefect.evaluate.runner import predict_all

__all__ = [
  'anomaly',
  'average_precision',
  'classification',
  'coco_matches',
  'cross_calibration',
  'detection_mistakes',
  'intervals',
  'linear_probe',
  'predict_all',
  'region_overlap',
  'seeds',
  'thresholds',
  'weighted_precision',
]
