"""A picture on a canvas of the network's size, its proportions kept.

Shape legend: H x W native pixels, h x w pixels of the canvas, C channels (1 or 3).
"""

from typing import NamedTuple

import numpy as np

from jaxdefect.data import decode

# What surrounds the picture: ImageNet's mean gray, so next to nothing once pixels are normalised.
GRAY = 114


class Letterboxed(NamedTuple):
  """A canvas and where the picture lies in it.

  Attributes:
    image: uint8 [h, w, 3], the picture at the upper left, the rest ``GRAY``.
    size: [2] float32, (height, width) of the picture in pixels of the canvas; whole along the
      side that fills the canvas, mostly not along the other.
    scale: float32, pixels of the canvas per native pixel, the same for both axes.
  """

  image: np.ndarray
  size: np.ndarray
  scale: np.float32


def letterbox(
  image: np.ndarray, image_size: tuple[int, int], *, interpolation: str = 'bilinear'
) -> Letterboxed:
  r"""Enlarges or shrinks a picture until it just fits the canvas, at its upper left corner.

  .. math:: s = \min(h / H,\; w / W)

  A native edge coordinate :math:`e` lies at exactly :math:`s e` on the canvas, along both axes: a
  picture that would end between two pixels is continued to the next one with its last row or
  column, never stretched to it.

  Args:
    image: uint8 [H, W, C].
    image_size: (h, w).
    interpolation: ``'bilinear'`` (Pillow's, antialiased) or ``'nearest'``.

  Returns:
    The canvas, the picture's size in it, and s.

  >>> fit = letterbox(np.zeros((100, 200, 1), np.uint8), (320, 320))
  >>> fit.size.tolist(), float(fit.scale), int(fit.image[160, 0, 0])
  ([160.0, 320.0], 1.600000023841858, 114)
  """
  height, width = image.shape[:2]
  if not (height and width):
    raise ValueError(f'An image must have pixels, came with shape {list(image.shape)}.')
  # Whole numbers decide which side is short: s = numerator / denominator.
  tall = image_size[0] * width <= image_size[1] * height
  numerator, denominator = (image_size[0], height) if tall else (image_size[1], width)
  rows = -(-height * numerator // denominator)
  columns = -(-width * numerator // denominator)
  seen = (rows * denominator / numerator, columns * denominator / numerator)

  missing = [int(np.ceil(one)) - side for one, side in zip(seen, (height, width))]
  if any(missing):
    image = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode='edge')
  canvas = np.full((*image_size, 3), GRAY, np.uint8)
  canvas[:rows, :columns] = decode.resize(
    image, (rows, columns), interpolation=interpolation, region=seen
  )
  scale = np.float32(numerator / denominator)
  return Letterboxed(canvas, np.asarray([height, width], np.float32) * scale, scale)
