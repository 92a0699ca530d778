"""Accuracy by how many defects a picture shows, where classes are combinations ('C+EL+S').

Shape legend: K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdefect.evaluate import intervals


def has_mixed(classes: Sequence[str]) -> bool:
  """Whether a class is a combination: names joined by '+'.

  >>> has_mixed(['Normal', 'C', 'C+EL']), has_mixed(['crazing', 'scratches'])
  (True, False)
  """
  return any('+' in name for name in classes)


def evaluate(report: Mapping[str, Any], *, no_defect: str = 'Normal') -> dict[str, Any]:
  """Accuracy over the images with one defect, with two at once, and so on.

  Args:
    report: of ``classification.evaluate``: ``classes``, ``confusion_matrix`` and ``confidence``.
    no_defect: name of the class without any; its images are not counted.

  Returns:
    A dict with ``metrics``, ``mixed_accuracy/<m>`` for every number m of defects that the images
    show; their Wilson ``intervals`` and ``interval_kinds``; and ``mixed_accuracy``, one line each
    of what was measured on how many images.
  """
  classes, matrix = report['classes'], np.asarray(report['confusion_matrix'])
  confidence = report['confidence']
  numbers = np.asarray([0 if name == no_defect else 1 + name.count('+') for name in classes])
  found: dict[str, Any] = {
    'metrics': {},
    'intervals': {},
    'interval_kinds': {},
    'mixed_accuracy': [],
  }
  for number in range(1, numbers.max(initial=0) + 1):
    rows = np.flatnonzero(numbers == number)
    hits, n = int(matrix[rows, rows].sum()), int(matrix[rows].sum())
    if n:
      key = f'mixed_accuracy/{number}'
      found['metrics'][key] = hits / n
      found['intervals'][key] = list(intervals.wilson(hits, n, confidence=confidence))
      found['interval_kinds'][key] = 'wilson'
      defects = 'defect' if number == 1 else 'defects'
      found['mixed_accuracy'].append(f'{number} {defects}: {100 * hits / n:.1f} % of {n} images')
  return found
