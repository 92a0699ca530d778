"""Decoded images of several data sets at one size, as many as fit into a given memory.

Shape legend: h x w the network's size.
"""

import threading
from collections.abc import Callable, Hashable

import numpy as np

from jaxdefect.data import decode


class ImageCache:
  """Decodes what it has not kept; keeps what fits, first come, first kept.

  >>> cache = ImageCache((2, 3), 'bilinear', cache_bytes=18)
  >>> cache.image('a', lambda: np.zeros((8, 8, 1), np.uint8)).shape
  (2, 3, 3)
  """

  def __init__(self, image_size: tuple[int, int], interpolation: str, *, cache_bytes: int):
    """Starts empty.

    Args:
      image_size: (h, w).
      interpolation: as in ``decode.resize``.
      cache_bytes: how much memory the images may take.
    """
    self._image_size = image_size
    self._interpolation = interpolation
    self._free = cache_bytes
    self._kept: dict[Hashable, np.ndarray] = {}
    self._lock = threading.Lock()

  def image(self, key: Hashable, read: Callable[[], np.ndarray]) -> np.ndarray:
    """The image of a key; may be called from several threads.

    Args:
      key: names the image.
      read: gives it at its native size, uint8 [H, W, C].

    Returns:
      uint8 [h, w, 3]; not to be written to.
    """
    kept = self._kept.get(key)
    if kept is not None:
      return kept
    image = decode.resize(read(), self._image_size, interpolation=self._interpolation)
    with self._lock:
      if image.nbytes <= self._free and key not in self._kept:
        self._free -= image.nbytes
        self._kept[key] = image
    return image
