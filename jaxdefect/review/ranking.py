r"""Which picture a person should look at next: a stated mix of three reasons.

Shape legend: n pictures, m known ones, F features.

.. math:: r = 0.5\,(1 - \text{margin}) + 0.3\,\text{anomaly} + 0.2\,\text{novelty}

The margin is the model's probability for the class that it names minus that for the next one; the
anomaly is one minus the conformal p-value; the novelty says how much farther from all labelled
pictures this one is than those are from one another. All lie in 0..1. Where there is no anomaly
method its weight is shared out. A part that the model itself asks about comes before all that it
decided (r + 1), and what somebody knows to be a miss comes before those (``Store.queue``).
"""

import numpy as np

WEIGHTS = {'margin': 0.5, 'anomaly': 0.3, 'novelty': 0.2}
_CHUNK = 512


def priority(
  margin: np.ndarray,
  novelty: np.ndarray,
  *,
  anomaly: np.ndarray | None = None,
  asked: np.ndarray | None = None,
) -> np.ndarray:
  """How much a person should look at each picture.

  Args:
    margin: [n] in 0..1.
    novelty: [n] in 0..1.
    anomaly: [n] in 0..1; None without an anomaly method.
    asked: [n] bool, whether the model's own verdict is to ask; None where it never is.

  Returns:
    [n] in 0..2, the larger comes first.

  >>> priority(np.array([1.0, 0.0]), np.array([0.0, 1.0])).tolist()
  [0.0, 1.0]
  """
  parts = {'margin': np.asarray(margin, float), 'novelty': np.asarray(novelty, float)}
  if anomaly is not None:
    parts['anomaly'] = np.asarray(anomaly, float)
  for name, values in parts.items():
    if values.size and not (values.min() >= -1e-6 and values.max() <= 1 + 1e-6):
      raise ValueError(f'{name} must lie in 0..1, came as {values.min():g} to {values.max():g}.')
  parts['margin'] = 1 - parts['margin']
  total = sum(WEIGHTS[name] for name in parts)
  mixed = np.sum([WEIGHTS[name] * values for name, values in parts.items()], axis=0) / total
  return mixed + (0 if asked is None else np.asarray(asked, float))


def novelty(features: np.ndarray, known: np.ndarray) -> np.ndarray:
  """How unlike what is labelled each picture is.

  Args:
    features: [n, F], compared by their direction.
    known: [m, F] of the labelled pictures; m of 2 or more.

  Returns:
    [n] the share of the known pictures that have a known one nearer to them than this picture has:
    1 where it is farther from all of them than any of them is from its nearest.

  Raises:
    ValueError: there are fewer than two known pictures, or features of another size.
  """
  x, y = _directions(features), _directions(known)
  if len(y) < 2 or x.shape[1:] != y.shape[1:]:
    raise ValueError(
      f'known has the shape {np.shape(known)} for features of {np.shape(features)}; two pictures '
      'and as many features are needed.'
    )
  among = y @ y.T
  np.fill_diagonal(among, -np.inf)
  nearest = np.sort(1 - among.max(axis=1))  # [m] of each known one to the others
  found = np.empty(len(x))
  for start in range(0, len(x), _CHUNK):
    part = slice(start, start + _CHUNK)
    found[part] = np.searchsorted(nearest, 1 - (x[part] @ y.T).max(axis=1), side='left')
  return found / len(nearest)


def _directions(features: np.ndarray) -> np.ndarray:
  features = np.asarray(features, np.float64)
  return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)
