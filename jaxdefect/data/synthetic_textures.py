"""Looks of products that are drawn, not photographed: what the surface of one task is like.

Shape legend: S x S pixels.

A look has two sorts of chance. What makes the product (weave, grooves, layout) comes from the
task's ``look_dice``, which begin alike for each of its pictures; what differs from part to part
(phase, place, grain) comes from the picture's own ``dice``. Lengths are in units of S / ``WIDTH``
pixels.
"""

from typing import NamedTuple

import numpy as np

from jaxdefect.data.synthetic_surface import Surface, roll_metal, smooth_noise

# Sides of a picture in units of length.
WIDTH = 112

# Brightness of a product's surface: (least, most) for dark marks on it, and for bright ones.
LEVELS = {'dark': (0.5, 0.75), 'bright': (0.2, 0.4)}


class Part(NamedTuple):
  """A part without a defect, before it is photographed.

  Attributes:
    surface: as painters of marks want it; ``surface.metal`` is the brightness.
    inside: [S, S] bool, where the part is; marks lie there and nowhere else.
  """

  surface: Surface
  inside: np.ndarray


def make_part(
  texture: str,
  tone: str,
  look_dice: np.random.Generator,
  dice: np.random.Generator,
  *,
  size: int,
) -> Part:
  """One part of a product.

  Args:
    texture: one of ``TEXTURES``.
    tone: ``'dark'`` for a bright surface (the marks are dark), ``'bright'`` for a dark one.
    look_dice: random numbers of the task; begins alike for each picture of it.
    dice: random numbers of the picture.
    size: S.

  Returns:
    The part.
  """
  low, high = LEVELS[tone]
  middle = look_dice.uniform(low, high)
  bare = roll_metal(dice, size, width=WIDTH)
  relief, inside = TEXTURES[texture](look_dice, dice, bare)
  level = middle * (1 + 0.04 * dice.standard_normal())
  metal = np.where(inside, level * relief, level * look_dice.uniform(0.3, 0.6))
  noise = float(np.std(relief[inside]))
  return Part(bare._replace(metal=metal.clip(0.03, 0.9).astype(np.float32), noise=noise), inside)


def _rolled(look_dice, dice, bare: Surface):
  """Rolled metal: streaks and grain along one direction."""
  del look_dice
  return bare.metal / bare.metal.mean(), np.ones_like(bare.metal, bool)


def _woven(look_dice, dice, bare: Surface):
  """Plain weave: two sets of threads, one over the other by turns."""
  turn, pitch = look_dice.uniform(-0.6, 0.6), look_dice.uniform(3.5, 7.0, 2)
  depth = look_dice.uniform(0.06, 0.14)
  along, across = _turned(bare, turn + 0.02 * dice.standard_normal())
  shift = dice.uniform(0, 7, 2)
  over = np.sin(np.pi * (along + shift[0]) / pitch[0]) * np.sin(
    np.pi * (across + shift[1]) / pitch[1]
  )
  threads = np.tanh(2.5 * over)
  slub = _smooth(dice, bare, 9.0, 0.7)
  return 1 + depth * threads + 0.03 * slub, np.ones_like(over, bool)


def _cast(look_dice, dice, bare: Surface):
  """A cast or grained surface: bumps of one size."""
  scale, depth = look_dice.uniform(0.8, 2.5), look_dice.uniform(0.05, 0.12)
  bumps = _smooth(dice, bare, scale, scale) - _smooth(dice, bare, 3 * scale, 3 * scale)
  return 1 + depth * np.tanh(bumps), np.ones_like(bumps, bool)


def _ribbed(look_dice, dice, bare: Surface):
  """Milled grooves, a little uneven."""
  turn, pitch = look_dice.uniform(0, np.pi), look_dice.uniform(4.0, 12.0)
  depth, sharp = look_dice.uniform(0.08, 0.2), look_dice.uniform(1.0, 3.0)
  _, across = _turned(bare, turn + 0.01 * dice.standard_normal())
  bend = 0.4 * _smooth(dice, bare, 20.0, 20.0)
  wave = np.sin(2 * np.pi * (across + dice.uniform(0, pitch) + bend) / pitch)
  return 1 + depth * np.tanh(sharp * wave), np.ones_like(wave, bool)


def _lathed(look_dice, dice, bare: Surface):
  """A round turned part with a bore and holes, nearly in one pose."""
  radius, bore = look_dice.uniform(42, 50), look_dice.uniform(8, 15)
  num, reach, hole = int(look_dice.integers(3, 7)), look_dice.uniform(24, 32), 3.5
  pitch, depth = look_dice.uniform(2.0, 5.0), look_dice.uniform(0.04, 0.1)
  along, across = _turned(bare, 0.0)
  down, right = dice.normal(0, 1.0, 2)
  along, across = along - down, across - right
  distance = np.hypot(along, across)
  relief = 1 + depth * np.sin(2 * np.pi * distance / pitch)
  # A lathe leaves two bright wedges where the light falls across the grooves.
  relief = relief + 0.1 * np.cos(2 * (np.arctan2(across, along) - look_dice.uniform(0, np.pi)))
  inside = (distance < radius) & (distance > bore)
  for angle in 2 * np.pi * np.arange(num) / num + dice.normal(0, 0.03):
    inside &= np.hypot(along - reach * np.cos(angle), across - reach * np.sin(angle)) > hole
  return relief, inside


def _printed(look_dice, dice, bare: Surface):
  """A printed layout of bars and pads, the same on every part."""
  along, across = _turned(bare, 0.0)
  along, across = along - dice.normal(0, 0.7), across - dice.normal(0, 0.7)
  relief = np.ones_like(along)
  for _ in range(int(look_dice.integers(8, 15))):
    place, shade = look_dice.uniform(-50, 50, 2), look_dice.uniform(0.65, 0.85)
    half = look_dice.uniform([1.5, 6], [5, 30])
    half = half if look_dice.random() < 0.5 else half[::-1]
    bar = (np.abs(along - place[0]) < half[0]) & (np.abs(across - place[1]) < half[1])
    relief = np.where(bar, shade, relief)
  return relief + 0.02 * _smooth(dice, bare, 0.6, 0.6), np.ones_like(relief, bool)


TEXTURES = {
  'rolled': _rolled,
  'woven': _woven,
  'cast': _cast,
  'ribbed': _ribbed,
  'lathed': _lathed,
  'printed': _printed,
}


def _turned(bare: Surface, turn: float) -> tuple[np.ndarray, np.ndarray]:
  """Coordinates [S, S] along and across a direction of the picture, in units of length."""
  back = np.float32(turn - bare.direction)
  cos, sin = np.cos(back), np.sin(back)
  return bare.along * cos + bare.across * sin, bare.across * cos - bare.along * sin


def _smooth(dice, bare: Surface, along: float, across: float) -> np.ndarray:
  """[S, S] noise of unit variance along and across the rolling direction."""
  scales = [(along * bare.unit, across * bare.unit)]
  return smooth_noise(dice, len(bare.metal), bare.direction, scales)[0]
