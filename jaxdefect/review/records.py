"""What a review store keeps, as plain rows."""

from typing import NamedTuple


class Prediction(NamedTuple):
  """What a model says of a picture, and how much a person should look at it.

  Attributes:
    image: sum of the pixels.
    path: where the file lies.
    verdict: of the model, for example ``'review'``.
    rule: that produced it; ``''`` where there is one alone.
    label: class that the model names.
    margin: probability of that class minus that of the next one, in 0..1.
    anomaly: 1 - p of the anomaly method, in 0..1; None without one.
    novelty: how unlike what is labelled, in 0..1.
    priority: in the queue; the larger comes first.
  """

  image: str
  path: str
  verdict: str
  rule: str
  label: str
  margin: float
  anomaly: float | None
  novelty: float
  priority: float


class Queued(NamedTuple):
  """A picture that awaits a verdict.

  Attributes:
    prediction: of the model that put it there.
    missed: whether somebody said that the model had passed a defect here.
  """

  prediction: Prediction
  missed: bool


class Verdict(NamedTuple):
  """What a person decided.

  Attributes:
    number: rising.
    image: sum of the pixels.
    path: where the file lies.
    label: class that the person gave.
    said: class that the model had named.
    reviewer: who.
    at: when, UTC.
    undone: whether it was taken back.
  """

  number: int
  image: str
  path: str
  label: str
  said: str
  reviewer: str
  at: str
  undone: bool


class Conflict(ValueError):
  """Somebody else was first, or there is nothing to do it to."""
