"""Drawn parts with stains, scratches or holes, dark on bright and bright on dark, with masks.

Shape legend: S x S pixels.

One task is a texture, a kind of mark and a tone: 6 x 3 x 2 products, each with a look of its own
that depends on its name and the seed. H. Zhang et al., PeerJ Computer Science 9 (2023) e1264, name
what differs between tasks: 'black spots on the surface of white products and white spots on the
surface of black products belong to two different detection tasks'. Good and defective parts come
from the same distribution but for the mark, harmless marks included.
"""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxdefect.data.products import CLASSES
from jaxdefect.data.synthetic_defects import paint_scratches
from jaxdefect.data.synthetic_surface import Surface, harmless_marks, photograph, smooth_noise
from jaxdefect.data.synthetic_textures import LEVELS, TEXTURES, Part, make_part

TONES = tuple(LEVELS)

# A mark ends where it changes the brightness by less than this fraction of it.
LEAST_CHANGE = 0.08

# Square units of length that a mark must at least cover, and the part of it that is on the product.
LEAST_AREA, LEAST_INSIDE = 12, 0.8


class ProductSample(NamedTuple):
  """One picture and the truth about it.

  Attributes:
    image: [S, S, 3] uint8.
    mask: [S, S] uint8, 1 at every pixel that the marks change, zero on a good part.
  """

  image: np.ndarray
  mask: np.ndarray


def generate(
  number: int,
  label: int,
  *,
  texture: str,
  mark: str,
  tone: str,
  size: int = 128,
  seed: int = 0,
  with_defects: bool = True,
) -> ProductSample:
  """Makes one picture; it depends on the arguments alone.

  Args:
    number: which picture of its class, from 0.
    label: 0 for a good part, 1 for a defective one.
    texture: one of ``TEXTURES``.
    mark: one of ``MARKS``.
    tone: ``'dark'`` marks on a bright product, or ``'bright'`` ones on a dark product.
    size: S, at least 64 pixels.
    seed: another seed, other products of these names.
    with_defects: False gives the same part without its marks (same surface, light and noise): a
      reference picture, and the check that masks are exact.

  Returns:
    The picture with its mask; one to three marks on a defective part.

  Raises:
    ValueError: an argument is not allowed.

  >>> sample = generate(0, 1, texture='woven', mark='hole', tone='dark')
  >>> sample.image.shape, bool(sample.mask.any())
  ((128, 128, 3), True)
  """
  check(texture=texture, mark=mark, tone=tone, size=size, seed=seed)
  if not 0 <= label < len(CLASSES):
    raise ValueError(f'label must be 0 or 1, got {label}.')
  if number < 0:
    raise ValueError(f'number must not be negative, got {number}.')
  product = zlib.crc32(f'{texture}-{mark}-{tone}'.encode())
  # Separate streams, so that leaving the marks out changes nothing else.
  look_dice = np.random.default_rng([seed, product])
  part_dice, mark_dice, camera_dice = (
    np.random.default_rng([seed, product, number, label, stream]) for stream in range(1, 4)
  )
  tint = look_dice.uniform(0.6, 1.0, 3) if look_dice.random() < 0.5 else np.ones(3)
  part = make_part(texture, tone, look_dice, part_dice, size=size)
  bare = part.surface.metal * harmless_marks(part_dice, part.surface)
  metal, mask = bare, np.zeros((size, size), bool)
  if label and with_defects:
    for _ in range(int(mark_dice.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))):
      change = _place(mark_dice, part, mark, tone, ~mask)
      metal, mask = metal + change, mask | (change != 0)
  gray = photograph(camera_dice, metal, exposed_for=bare)
  image = np.round(gray[..., None] * tint).astype(np.uint8)  # [S, S, 3]
  return ProductSample(image, mask.astype(np.uint8))


def check(*, texture: str, mark: str, tone: str, size: int, seed: int) -> None:
  """Refuses a product that does not exist, a picture that is too small or a negative seed."""
  for argument, value, allowed in (
    ('texture', texture, TEXTURES),
    ('mark', mark, MARKS),
    ('tone', tone, TONES),
  ):
    if value not in allowed:
      raise ValueError(f'{argument} must be one of {", ".join(allowed)}, got {value!r}.')
  if size < 64:
    raise ValueError(f'size must be at least 64 pixels, got {size}.')
  if seed < 0:
    raise ValueError(f'seed must not be negative, got {seed}.')


def _place(dice, part: Part, mark: str, tone: str, free: np.ndarray) -> np.ndarray:
  """The change [S, S] of brightness that one mark makes."""
  surface = part.surface
  size = len(surface.metal)
  least = LEAST_AREA * surface.unit**2
  strength = dice.uniform(*_STRENGTH[mark]) + 1.2 * surface.noise
  while True:
    about = surface.about(*dice.uniform(0.05 * size, 0.95 * size, 2))
    opacity = next(MARKS[mark](dice, about))
    change = np.minimum(strength, 0.9) * opacity
    # Dark marks take light away; bright ones add as much as a bright surface would have.
    change = -change * surface.metal if tone == 'dark' else change * 0.5
    seen = free & part.inside & (np.abs(change) >= LEAST_CHANGE * surface.metal)
    if seen.sum() >= max(least, LEAST_INSIDE * np.count_nonzero(opacity > 0.5)):
      return np.where(seen, change, 0.0).astype(np.float32)


def _stain(dice, surface: Surface) -> Iterator[np.ndarray]:
  """A blot with a soft, uneven outline."""
  along, across = _turned_about(dice, surface)
  wide = dice.uniform(3.0, 9.0)
  high = wide * np.exp(dice.uniform(0.0, 0.7))
  uneven = _uneven(dice, surface, 4.0)
  level = 1 - np.hypot(along / high, across / wide) + 0.3 * uneven
  # Far away, noise alone must not leave spots.
  level = np.where(np.hypot(along / high, across / wide) < 2, level, 0)
  yield np.clip(level / dice.uniform(0.3, 0.9), 0, 1)


def _scratch(dice, surface: Surface) -> Iterator[np.ndarray]:
  """A long thin line in any direction."""
  turn = dice.uniform(0, np.pi)
  cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
  turned = surface._replace(
    along=surface.along * cos + surface.across * sin,
    across=surface.across * cos - surface.along * sin,
  )
  opacity, _ = next(paint_scratches(dice, turned))
  yield opacity


def _hole(dice, surface: Surface) -> Iterator[np.ndarray]:
  """A pit or bore with a sharp edge."""
  along, across = _turned_about(dice, surface)
  wide = dice.uniform(2.0, 4.5)
  high = wide * np.exp(dice.uniform(0.0, 0.4))
  distance = np.hypot(along / high, across / wide)
  level = np.where(distance < 2, 1 - distance + 0.08 * _uneven(dice, surface, 1.0), 0)
  yield np.clip(level / 0.25, 0, 1)


MARKS = {'stain': _stain, 'scratch': _scratch, 'hole': _hole}

# Least and most contrast of a mark, as a fraction of the brightness.
_STRENGTH = {'stain': (0.18, 0.45), 'scratch': (0.25, 0.55), 'hole': (0.35, 0.75)}


def _turned_about(dice, surface: Surface) -> tuple[np.ndarray, np.ndarray]:
  """Coordinates [S, S] in a direction of their own."""
  turn = dice.uniform(0, np.pi)
  cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
  return surface.along * cos + surface.across * sin, surface.across * cos - surface.along * sin


def _uneven(dice, surface: Surface, scale: float) -> np.ndarray:
  """[S, S] noise that roughens outlines."""
  return smooth_noise(dice, len(surface.metal), 0.0, [(scale * surface.unit,) * 2])[0]
