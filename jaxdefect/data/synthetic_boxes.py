"""Procedural pictures with several defects of several classes, and the box and mask of each.

Shape legend: S x S pixels, n defects in one picture.

The same metal, marks, light and defects as in ``synthetic``, seen from farther away: a picture is
``WIDTH`` units of length wide instead of 64, so that several defects find room in it.
"""

from typing import NamedTuple

import numpy as np

from jaxdefect.data import synthetic_defects
from jaxdefect.data.synthetic_surface import Surface, harmless_marks, photograph, roll_metal

CLASSES = tuple(synthetic_defects.PAINTERS)

# Sides of a picture in the units of length of the painters.
WIDTH = 112

# A defect ends where it changes the metal's brightness by less than this fraction of it; beyond
# its mask it changes nothing.
LEAST_CHANGE = 0.08

# Square units of length that a defect must at least cover inside the picture.
LEAST_AREA = 12

# More defects find no room in one picture.
MOST_DEFECTS = 16

# A place is refused for the part of the smaller of two boxes that lies in the larger one, and for a
# box that the picture's border cuts. Each vain try makes it easier to please.
CUT_COST, PATIENCE = 0.3, 0.1


class Scene(NamedTuple):
  """One picture and the truth about it.

  Attributes:
    image: [S, S, 1] uint8.
    labels: [n] int32, places in ``CLASSES``.
    boxes: [n, 4] float32, edges x0 y0 x1 y1 in pixels: the extent of the defect in ``mask``.
    mask: [S, S] uint8, k + 1 where the defect of row k is to be seen, 0 where there is none.
  """

  image: np.ndarray
  labels: np.ndarray
  boxes: np.ndarray
  mask: np.ndarray


def plan(number: int, *, seed: int = 0, max_defects: int = 4) -> np.ndarray:
  """The classes of the defects of a picture, known before it is made.

  Args:
    number: which picture.
    seed: another seed, another data set.
    max_defects: most defects of a picture; 0 to that many are equally likely.

  Returns:
    [n] int32, places in ``CLASSES``, each equally likely.

  Raises:
    ValueError: ``max_defects`` is outside 0..16; more would find no room.
  """
  if not 0 <= max_defects <= MOST_DEFECTS:
    raise ValueError(f'max_defects must lie in 0..{MOST_DEFECTS}, came as {max_defects}.')
  dice = np.random.default_rng([seed, number, 0])
  num = dice.integers(0, max_defects + 1)
  return dice.integers(0, len(CLASSES), num).astype(np.int32)


def generate(
  number: int,
  *,
  size: int = 128,
  seed: int = 0,
  max_defects: int = 4,
  with_defects: bool = True,
) -> Scene:
  """Makes one picture; it depends on the arguments alone.

  Defects are placed at random, mostly apart. Where two meet, the pixels belong to the first.

  Args:
    number: which picture, from 0.
    size: S, at least 64 pixels.
    seed: another seed, another data set.
    max_defects: most defects of a picture.
    with_defects: False gives the same part without its defects (same surface, marks, light and
      noise): a reference picture, and the check that masks are exact.

  Returns:
    The picture with boxes and masks.

  Raises:
    ValueError: for a number, size or ``max_defects`` outside what is allowed.

  >>> scene = generate(1)
  >>> scene.image.shape, len(scene.boxes) == int(scene.mask.max())
  ((128, 128, 1), True)
  """
  if number < 0 or seed < 0:
    raise ValueError(f'number and seed must not be negative, came as {number} and {seed}.')
  if size < 64:
    raise ValueError(f'size must be at least 64 pixels, came as {size}.')
  # Separate streams, so that leaving the defects out changes nothing else.
  surface_dice, defect_dice, camera_dice = (
    np.random.default_rng([seed, number, stream]) for stream in range(1, 4)
  )
  surface = roll_metal(surface_dice, size, width=WIDTH)
  metal = surface.metal * harmless_marks(surface_dice, surface)
  bare = metal
  labels = plan(number, seed=seed, max_defects=max_defects if with_defects else 0)
  mask = np.zeros((size, size), np.uint8)
  boxes = np.zeros((len(labels), 4), np.float32)
  for k, label in enumerate(labels):
    change, boxes[k] = _place(defect_dice, surface, CLASSES[label], boxes[:k], mask == 0)
    metal = metal + change
    mask[change != 0] = k + 1
  image = photograph(camera_dice, metal, exposed_for=bare)
  return Scene(image[..., None], labels, boxes, mask)


def _place(dice, surface: Surface, name: str, others: np.ndarray, free: np.ndarray):
  """The change [S, S] that one defect makes to free metal, and its box, away from the others."""
  size = len(free)
  least = LEAST_AREA * surface.unit**2
  patience = 0.0
  while True:
    painter = synthetic_defects.PAINTERS[name](dice, surface.about(*dice.uniform(0, size, 2)))
    opacity, shade = next(painter)
    change = opacity * shade
    seen = free & (np.abs(change) >= LEAST_CHANGE * surface.metal)
    if np.count_nonzero(seen) >= least:
      box = _extent(seen)
      cut = box[:2].min() == 0 or box[2:].max() == size
      if _overlap(box, others) + CUT_COST * cut <= patience:
        return change * seen, box
    patience += PATIENCE


def _extent(mask: np.ndarray) -> np.ndarray:
  rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
  return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def _overlap(box: np.ndarray, others: np.ndarray) -> float:
  """Greatest part of the smaller of ``box`` [4] and one of ``others`` [k, 4] inside the larger."""
  sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
  shared = sides.clip(0).prod(axis=1)
  areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
  return float((shared / np.minimum(areas, (box[2:] - box[:2]).prod())).max(initial=0))
