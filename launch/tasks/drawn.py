"""A picture with what a run says of it laid over it."""

from typing import NamedTuple

import numpy as np


class Drawn(NamedTuple):
  """What a task's ``draw`` gives per picture.

  Attributes:
    place: of the picture in its source.
    picture: [H, W, 3] uint8.
    raw: [h, w] the values that were drawn, where they are worth keeping.
  """

  place: int
  picture: np.ndarray
  raw: np.ndarray | None = None
