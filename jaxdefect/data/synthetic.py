"""Procedural pictures of rolled metal: the data set that needs no files.

Shape legend: S x S pixels, n defects in one picture.

Surface and light come from the same distribution for every class, so that nothing but the defect
tells the classes apart. A picture is made in four steps, each a few vectorised lines:

1. rolled metal: streaks along the rolling direction, grain, mottle, bands;
2. harmless marks on any class: soft stains, faint streaks, dust, a shadow at the edge;
3. defects (``synthetic_defects``), laid over the metal, each with a map of its opacity;
4. light (gradient, hot spot), tone curve, sensor noise, eight bits.
"""

from typing import NamedTuple

import numpy as np

from jaxdefect.data import synthetic_defects
from jaxdefect.data.synthetic_surface import Surface, harmless_marks, photograph, roll_metal

CLASSES = ('good', *synthetic_defects.PAINTERS)

# A defect ends where it is less opaque than this: beyond its mask it changes nothing.
LEAST_OPACITY = 0.15

# Pixels (at size 64) that a defect must at least cover inside the picture.
LEAST_AREA = 14


class Sample(NamedTuple):
  """One picture and the truth about it.

  Attributes:
    image: [S, S, 1] uint8.
    label: place of its class in ``CLASSES``.
    masks: [n, S, S] bool, one per defect: every pixel that it changes, and no other. Defects may
      overlap. n = 0 on a good part.
    boxes: [n, 4] float32, x1 y1 x2 y2 in absolute pixels; the last row and column are excluded,
      so a defect of one pixel has width and height 1.
  """

  image: np.ndarray
  label: int
  masks: np.ndarray
  boxes: np.ndarray

  @property
  def mask(self) -> np.ndarray:
    """[S, S] bool: the pixels of any defect."""
    return np.logical_or.reduce(self.masks, axis=0)


def generate(
  number: int, label: int, *, size: int = 64, seed: int = 0, with_defects: bool = True
) -> Sample:
  """Makes one picture; it depends on the arguments alone.

  Lengths scale with ``size``, so another size shows the same kinds of marks larger.

  Args:
    number: which picture of the class, from 0.
    label: place in ``CLASSES``.
    size: S, at least 32 pixels.
    seed: another seed, another data set.
    with_defects: False gives the same part without its defects (same surface, marks, light and
      noise): a reference picture, and the check that masks are exact.

  Returns:
    The picture with masks and boxes.

  Raises:
    ValueError: for a label, number or size outside what is allowed.

  >>> sample = generate(3, CLASSES.index('scratches'))
  >>> sample.image.shape, bool(sample.mask.any()), len(sample.boxes) == len(sample.masks)
  ((64, 64, 1), True, True)
  """
  if not 0 <= label < len(CLASSES):
    raise ValueError(f'label must lie in 0..{len(CLASSES) - 1}, came as {label}.')
  if number < 0 or seed < 0:
    raise ValueError(f'number and seed must not be negative, came as {number} and {seed}.')
  if size < 32:
    raise ValueError(f'size must be at least 32 pixels, came as {size}.')
  # Separate streams, so that leaving the defects out changes nothing else.
  surface_dice, defect_dice, camera_dice = (
    np.random.default_rng([seed, number, label, stream]) for stream in range(3)
  )
  surface = roll_metal(surface_dice, size)
  metal = surface.metal * harmless_marks(surface_dice, surface)
  masks = np.zeros((0, size, size), bool)
  if label and with_defects:
    metal, masks = _with_defects(defect_dice, surface, metal, CLASSES[label])
  image = photograph(camera_dice, metal)
  return Sample(image[..., None], label, masks, _boxes(masks))


def _with_defects(dice, surface: Surface, metal: np.ndarray, name: str):
  """The metal with its defects, and their masks."""
  least = LEAST_AREA * surface.unit**2
  seen = []
  # A defect of which next to nothing lies inside the picture is left out; one at least stays.
  while not seen:
    layers = synthetic_defects.PAINTERS[name](dice, surface)
    layers = [(opacity * (opacity >= LEAST_OPACITY), shade) for opacity, shade in layers]
    seen = [layer for layer in layers if np.count_nonzero(layer[0]) >= least]
  covered = np.zeros_like(metal)
  for opacity, shade in seen:
    # Where defects overlap, the metal is not changed twice.
    metal = metal + np.clip(opacity - covered, 0, None) * shade
    covered = np.maximum(covered, opacity)
  return metal, np.stack([opacity > 0 for opacity, _ in seen])


def _boxes(masks: np.ndarray) -> np.ndarray:
  boxes = np.zeros((len(masks), 4), np.float32)
  for box, mask in zip(boxes, masks):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
  return boxes
