"""Pictures of what a model looks at, and the report that holds them."""

from jaxdefect.explain import (
  anomaly_figures,
  detection_figures,
  detections,
  gradcam,
  mistakes,
  overlays,
  plots,
  report,
  sampling_points,
)

__all__ = [
  'anomaly_figures',
  'detection_figures',
  'detections',
  'gradcam',
  'mistakes',
  'overlays',
  'plots',
  'report',
  'sampling_points',
]
