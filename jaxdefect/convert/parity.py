"""Does the exported model say the same?

Shape legend: N images, D detections.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdefect.contracts import AnomalyMaps, ClassScores, Detections, Verdicts

TOLERANCE = 1e-4
PIXELS = 0.05  # that two boxes may lie apart


class Parity(NamedTuple):
  """How two implementations compare on the same images.

  Attributes:
    differences: the largest difference of every number, by the name of what is compared: of
      scores as a share of their size, of the corners of boxes in pixels.
    equal: images for which both decide the same.
    n: images compared.
  """

  differences: dict[str, float]
  equal: int
  n: int

  @property
  def largest(self) -> float:
    """The largest difference of any score."""
    return float(np.max([v for k, v in self.differences.items() if k != 'boxes']))

  def failure(self, *, tolerance: float = TOLERANCE, pixels: float = PIXELS) -> str | None:
    """One sentence where it is too large, or not a number."""
    for name, value in self.differences.items():
      allowed = pixels if name == 'boxes' else tolerance
      if not value <= allowed:
        unit = ' pixels' if name == 'boxes' else ''
        return (
          f'the {name} of the exported model differ from ours by {value:.3g}{unit} on {self.n} '
          f'images; at most {allowed:.3g} is allowed'
        )
    return None


def predictions(said: Mapping[str, Any]) -> Any:
  """What an exported model returned, as our predictions; boxes are in native pixels.

  Args:
    said: output -> numpy array [N, ...].

  Raises:
    ValueError: outputs that belong to none of them.
  """
  if 'verdict' in said:
    return Verdicts(
      said['verdict'],
      said['rule'],
      ClassScores(said['scores'], said['probabilities']),
      AnomalyMaps(said['anomaly'], said['maps']),
    )
  if 'boxes' in said:
    return Detections(*(said[name] for name in Detections._fields))
  if 'probabilities' in said:
    return ClassScores(said['scores'], said['probabilities'])
  if 'maps' in said:
    return AnomalyMaps(said['scores'], said['maps'])
  raise ValueError(f'the model returns {", ".join(said)}, which are no predictions of ours')


def compare(ours: Any, theirs: Any) -> Parity:
  """Compares predictions on the same images.

  A difference is a share of the number that differs, or of the root mean square of its kind where
  the number is smaller than that.

  Args:
    ours: ``ClassScores``, ``AnomalyMaps``, ``Verdicts`` or ``Detections`` of numpy arrays.
    theirs: the same of the other implementation.

  Returns:
    The ``Parity``; of detections, those count that both found.

  Raises:
    ValueError: they are of different shapes.
  """
  if isinstance(ours, Detections):
    return _compare_boxes(ours, theirs)
  mine, other = dict(_numbers(ours)), dict(_numbers(theirs))
  differences = {}
  for name, value in mine.items():
    if value.shape != other[name].shape:
      raise ValueError(
        f'the exported model gives {name} of shape {other[name].shape}, ours has {value.shape}'
      )
    differences[name] = _difference(value, other[name])
  same = _decided(ours) == _decided(theirs)
  return Parity(differences, int(same.sum()), len(same))


def _difference(mine: np.ndarray, other: np.ndarray) -> float:
  mine, other = mine.astype(np.float64), other.astype(np.float64)
  size = np.sqrt(np.mean(mine**2)) if mine.size else 0.0
  apart = np.abs(mine - other) / np.maximum(np.abs(mine), max(size, 1e-12))
  return float(apart.max(initial=0.0))  # a NaN stays


def _numbers(said: Any) -> list[tuple[str, np.ndarray]]:
  if isinstance(said, Verdicts):
    maps: Any = said.anomaly
    return [*_numbers(said.head), ('anomaly', maps.scores), ('maps', maps.maps)]
  return [(name, np.asarray(getattr(said, name))) for name in said._fields]


def _decided(said: Any) -> np.ndarray:
  """[N] class, verdict, or where the map of an anomaly method peaks."""
  if isinstance(said, Verdicts):
    return np.asarray(said.verdict) * 10 + np.asarray(said.rule)
  if isinstance(said, ClassScores):
    return np.asarray(said.scores).argmax(-1)
  return np.asarray(said.maps).reshape(len(said.maps), -1).argmax(-1)


def _compare_boxes(ours: Detections, theirs: Detections) -> Parity:
  """Pairs boxes of a class by falling score; what only one side found is a difference of 1."""
  boxes, scores, equal = 0.0, 0.0, 0
  for row in range(len(ours.valid)):
    mine, other = (_rows(side, row) for side in (ours, theirs))
    left = list(range(len(other[0])))
    lost = len(mine[0]) != len(left)
    for box, score, label in zip(*mine):
      apart = [np.abs(other[0][i] - box).max() if other[2][i] == label else np.inf for i in left]
      if not apart or min(apart) > 1.0:  # another object
        lost = True
        continue
      nearest = left.pop(int(np.argmin(apart)))
      boxes = max(boxes, min(apart))
      scores = max(scores, abs(float(other[1][nearest]) - float(score)))
    equal += not lost
  return Parity({'boxes': float(boxes), 'scores': scores}, equal, len(ours.valid))


def _rows(side: Any, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  keep = np.asarray(side.valid[row], bool)
  return side.boxes[row][keep], side.scores[row][keep], side.labels[row][keep]
