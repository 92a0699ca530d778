"""Pictures of what a model looks at, and the report that holds them."""

from jaxdefect.explain import (
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
  'detection_figures',
  'detections',
  'gradcam',
  'mistakes',
  'overlays',
  'plots',
  'report',
  'sampling_points',
]
