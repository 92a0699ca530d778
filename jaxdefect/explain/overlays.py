"""Heat maps over pictures, all on one absolute colour scale.

Shape legend: N images, H x W pixels, h x w cells of a map.

The same colour means the same evidence in every picture. The ceiling comes once from a calibration
set and never from the picture at hand, so that a good part looks calm beside a bad one.
"""

import os
import pathlib
from collections.abc import Iterable

import chex
import numpy as np
from matplotlib import colormaps
from PIL import Image

# Dark to bright in even steps of lightness: readable in gray and with any colour vision.
COLORMAP = 'inferno'
# The map starts a little above black, so that weak evidence does not darken the picture.
_FIRST_COLOR = 0.25


def absolute_ceiling(maps: Iterable[np.ndarray], *, quantile: float = 0.95) -> float:
  """The value that gets the strongest colour, from the peaks of a calibration set.

  The quantile is taken over one peak per picture: at 0.95 one calibration picture in twenty is
  brighter than the scale and clipped. Use training or validation pictures, never test pictures.

  Args:
    maps: [N,h,w], or any stream of [h,w] maps, in the unit of ``gradcam``.
    quantile: share of the pictures that the scale covers, in (0, 1].

  Returns:
    The ceiling in the unit of the maps; 1 where all maps are zero.

  Raises:
    ValueError: if there is no map, or ``quantile`` is out of range.

  >>> absolute_ceiling(np.array([[[0.0, 1.0]], [[3.0, 0.0]]]), quantile=0.5)
  2.0
  """
  if not 0 < quantile <= 1:
    raise ValueError(f'quantile is {quantile}; above 0 and at most 1 is needed.')
  peaks = [float(np.max(one)) for one in maps]
  if not peaks:
    raise ValueError('maps is empty; at least one map is needed to set the colour scale.')
  ceiling = float(np.quantile(peaks, quantile))
  return ceiling if ceiling > 0 else max(*peaks, 0.0) or 1.0


def resize_map(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Brings a map to a picture's size, bilinearly.

  Args:
    heat: [h,w] floats.
    size: (H, W) in pixels.

  Returns:
    [H,W] float32.
  """
  chex.assert_rank(heat, 2)
  small = Image.fromarray(np.asarray(heat, np.float32))
  return np.asarray(small.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def overlay(
  image: np.ndarray, heat: np.ndarray, *, ceiling: float, opacity: float = 0.75
) -> np.ndarray:
  r"""Lays a heat map over a picture.

  With the map at the picture's size, :math:`v = \min(\max(m / \text{ceiling}, 0), 1)`, a pixel is
  :math:`(1 - a) \cdot \text{picture} + a \cdot \text{colour}(v)` with :math:`a` =
  opacity :math:`\cdot v`: no evidence leaves the picture as it is.

  Args:
    image: [H,W], [H,W,1] or [H,W,3], uint8 or floats in 0..255.
    heat: [h,w] floats in the unit of ``ceiling``.
    ceiling: value of the strongest colour; larger ones are clipped. See ``absolute_ceiling``.
    opacity: how much of the picture the strongest colour hides, in 0..1.

  Returns:
    [H,W,3] uint8.

  Raises:
    ValueError: if ``ceiling`` is not a positive number, or ``opacity`` not within 0..1.
  """
  if not (np.isfinite(ceiling) and ceiling > 0):
    raise ValueError(f'ceiling is {ceiling}; a positive number is needed.')
  if not 0 <= opacity <= 1:
    raise ValueError(f'opacity is {opacity}; 0 to 1 is allowed.')
  picture = as_rgb(image).astype(np.float32)
  value = np.clip(resize_map(heat, picture.shape[:2]) / ceiling, 0, 1)
  alpha = (opacity * value)[..., None]
  return np.rint((1 - alpha) * picture + alpha * colors(value)).astype(np.uint8)


def colors(value: np.ndarray) -> np.ndarray:
  """Colours of the scale.

  Args:
    value: any shape, 0 (none) to 1 (the ceiling).

  Returns:
    [..., 3] float32 in 0..255.
  """
  table = colormaps[COLORMAP]
  rgba = table(_FIRST_COLOR + (0.96 - _FIRST_COLOR) * np.asarray(value))
  return np.asarray(rgba, np.float32)[..., :3] * 255


def as_rgb(image: np.ndarray) -> np.ndarray:
  """A picture as [H,W,3] uint8.

  Args:
    image: [H,W], [H,W,1] or [H,W,3], uint8 or floats in 0..255.

  Returns:
    [H,W,3] uint8; floats are rounded and clipped.

  Raises:
    ValueError: if the shape is no picture's.
  """
  image = np.asarray(image)
  if image.ndim == 2:
    image = image[..., None]
  if image.ndim != 3 or image.shape[-1] not in (1, 3):
    raise ValueError(f'image has the shape {image.shape}; [H,W], [H,W,1] or [H,W,3] is needed.')
  if image.dtype != np.uint8:
    image = np.rint(np.clip(image, 0, 255)).astype(np.uint8)
  return np.broadcast_to(image, (*image.shape[:2], 3))


def save_small(path: str | os.PathLike[str], image: np.ndarray, *, max_side: int = 640) -> None:
  """Writes a picture as a JPEG for a page, no larger than ``max_side`` pixels.

  Args:
    path: the file.
    image: as in ``as_rgb``.
    max_side: of the longer side; smaller pictures keep their size.
  """
  picture = Image.fromarray(np.ascontiguousarray(as_rgb(image)))
  picture.thumbnail((max_side, max_side))
  picture.save(path, format='JPEG', quality=90)


def save(path: str | os.PathLike[str], image: np.ndarray) -> None:
  """Writes a picture as PNG; nothing is left behind when it fails.

  Args:
    path: the file.
    image: as in ``as_rgb``.
  """
  path = pathlib.Path(path)
  partial = path.with_name(path.name + '.partial')
  try:
    Image.fromarray(np.ascontiguousarray(as_rgb(image))).save(partial, format='PNG')
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)
