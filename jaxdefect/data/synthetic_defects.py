"""Six defects of hot-rolled strip, as painters of opacity maps.

Shape legend: S x S pixels, P stamps of one defect, w x w pixels of a stamp.

A painter takes ``dice``, a numpy generator, and the ``Surface``, and yields one (opacity, shade)
per defect, both [S,S], opacity in 0..1; the defect adds ``opacity * shade`` to the metal. Defects
lie about the surface's origin; lengths are in its units. How they look is modelled on the six
classes of hot-rolled strip in K. Song, Y. Yan, Applied Surface Science 285 (2013) 858-864.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxdefect.data.synthetic_surface import Surface, smooth_noise

Layer = tuple[np.ndarray, np.ndarray]


def paint_crazing(dice: np.random.Generator, surface: Surface) -> Iterator[Layer]:
  """A net of fine, jagged, broken cracks, mostly across the rolling direction."""
  for _ in range(1 if dice.random() < 0.75 else 2):
    reach = dice.uniform(14, 34, 2)
    middle = dice.uniform(-18, 18, 2)
    num, steps = int(dice.integers(9, 26)), 80
    # Random walks that keep their heading and wander about it; most run across the rolling.
    heading = np.where(dice.random(num) < 0.7, 0.0, dice.uniform(-np.pi / 2, np.pi / 2, num))
    heading = heading + np.pi * (dice.random(num) < 0.5)
    kinks = dice.normal(0, 1.0, (num, steps // 4)).repeat(4, axis=1)
    wander = heading[:, None] + kinks + dice.normal(0, 0.5, (num, steps))
    path = np.cumsum(np.stack([np.sin(wander), np.cos(wander)], -1) * 0.5, axis=1)
    start = middle + dice.uniform(-1, 1, (num, 2)) * reach
    # The later half are branches: they leave the earlier cracks somewhere on their way.
    trunk = num - num // 2
    parent = dice.integers(0, trunk, num - trunk)
    start[trunk:] = (start[:trunk, None] + path[:trunk])[parent, dice.integers(5, 40, num - trunk)]
    path += start[:, None, :]  # [num, steps, 2] in (along, across)
    # Cracks end, thin out, and are closed for short stretches.
    length = dice.integers(14, steps, num)[:, None]
    step = np.arange(steps)
    keep = (step < length) & (dice.random((num, steps // 4)) > 0.1).repeat(4, axis=1)
    width = (
      dice.uniform(0.35, 0.6) * dice.uniform(0.7, 1.4, (num, 1)) * (1.15 - 0.5 * step / length)
    )
    opacity = _stamp(surface, path[keep], width[keep], width[keep], 0.0, softness=0.7)
    yield opacity, -_strength(dice, surface, 0.2, 0.5) * surface.metal


def paint_inclusion(dice: np.random.Generator, surface: Surface) -> Iterator[Layer]:
  """Dark spindles along the rolling direction, alone or strung in a line."""
  num = int(dice.integers(1, 7))
  line = dice.uniform(-24, 24)
  ragged = _ragged(dice, surface, 1.2)
  shade = _strength(dice, surface, 0.22, 0.55) * surface.metal
  shade = -shade if dice.random() < 0.9 else 0.8 * shade
  for _ in range(num):
    across = line + dice.normal(0, 4) if dice.random() < 0.7 else dice.uniform(-27, 27)
    along = dice.uniform(-27, 27)
    wide = dice.uniform(1.1, 3.2)
    high = wide * dice.uniform(2.5, 6.0)
    lean = dice.normal(0, 0.06)
    a = (surface.along - along) / high
    c = (surface.across - across - lean * (surface.along - along)) / wide
    # |a| + c^2 rather than a^2 + c^2: pointed ends.
    level = 1 - np.abs(a) ** 1.5 - c**2 + 0.28 * ragged
    yield _edge(level, 0.5), shade * dice.uniform(0.75, 1.15)


def paint_patches(dice: np.random.Generator, surface: Surface) -> Iterator[Layer]:
  """Large blotches with ragged outlines, often with a darker rim."""
  ragged = 0.8 * _ragged(dice, surface, 4.0) + dice.uniform(0.15, 0.5) * _ragged(dice, surface, 1.5)
  cloud = _ragged(dice, surface, 2.0)
  shade = _strength(dice, surface, 0.24, 0.6) * surface.metal * (1 + 0.12 * cloud)
  shade = -shade if dice.random() < 0.88 else 0.7 * shade
  rim = dice.uniform(0, 0.6)
  for _ in range(int(dice.integers(1, 5))):
    along, across = dice.uniform(-26, 26, 2)
    wide = dice.uniform(5, 12)
    high = wide * np.exp(dice.uniform(-0.2, 1.0))
    a, c = (surface.along - along) / high, (surface.across - across) / wide
    level = 1 - a**2 - c**2 + 0.35 * ragged
    opacity = _edge(level, dice.uniform(0.2, 0.7))
    hollow = 1 - rim * np.clip(level - 0.4, 0, 0.5) / 0.5
    yield opacity, shade * hollow


def paint_pitted_surface(dice: np.random.Generator, surface: Surface) -> Iterator[Layer]:
  """Fields of many small round dark pits."""
  shade = -_strength(dice, surface, 0.22, 0.55) * surface.metal
  typical = dice.uniform(0.6, 1.05)
  for _ in range(1 if dice.random() < 0.7 else 2):
    reach = dice.uniform([10, 8], [38, 24])
    middle = dice.uniform(-22, 22, 2)
    num = int(np.clip(reach[0] * reach[1] * dice.uniform(0.06, 0.15), 25, 140))
    places = middle + dice.normal(0, 0.55, (num, 2)) * reach
    radius = typical * np.exp(dice.normal(0, 0.22, num))
    stretch = np.exp(dice.normal(0.08, 0.12, num))
    opacity = _stamp(surface, places, radius * stretch, radius / stretch, 0.0, softness=0.8)
    yield opacity, shade


def paint_rolled_in_scale(dice: np.random.Generator, surface: Surface) -> Iterator[Layer]:
  """Scattered flakes pressed into the metal: one side dark, the other bright."""
  light = dice.uniform(0, 2 * np.pi)
  strength = _strength(dice, surface, 0.3, 0.65) * surface.metal
  bias = dice.uniform(-0.6, -0.15)
  ragged = _ragged(dice, surface, 0.9)
  for _ in range(int(dice.integers(1, 4))):
    num = int(dice.integers(4, 16))
    places = dice.uniform(-25, 25, 2) + dice.normal(0, 1, (num, 2)) * dice.uniform(4, 12, 2)
    radius = dice.uniform(1.8, 3.0) * np.exp(dice.normal(0, 0.25, num))
    stretch = np.exp(dice.normal(-0.4, 0.25, num))  # flakes lie across the rolling direction
    lean = dice.normal(0, 0.5, num)
    opacity, relief = _stamp(
      surface, places, radius * stretch, radius / stretch, lean,
      softness=1.0, ragged=ragged, light=light,
    )  # fmt: skip
    yield opacity, strength * (1.3 * relief + bias)


def paint_scratches(dice: np.random.Generator, surface: Surface) -> Iterator[Layer]:
  """Long thin sharp lines, mostly bright, mostly along the rolling direction."""
  num = int(dice.integers(1, 5))
  # One tool, one direction: scratches of a picture are nearly parallel.
  tilt = dice.normal(0, 0.05) if dice.random() < 0.65 else dice.uniform(-np.pi / 2, np.pi / 2)
  bright = dice.random() < 0.8
  broken = _ragged(dice, surface, 1.5)
  for _ in range(num):
    lean = tilt + dice.normal(0, 0.05)
    cos, sin = np.cos(lean), np.sin(lean)
    along = surface.along * cos + surface.across * sin
    across = surface.across * cos - surface.along * sin
    middle, offset = dice.uniform(-16, 16), dice.uniform(-25, 25)
    gouge = dice.random() < 0.2  # a wide band of parallel grooves
    half = dice.uniform(25 if gouge else 12, 60)
    run = (along - middle) / half
    distance = np.abs(across - offset - dice.normal(0, 0.9) * run**2)
    width = dice.uniform(2, 3.5) if gouge else np.exp(dice.uniform(np.log(0.4), np.log(1.3)))
    groove = 0.65 + 0.35 * np.cos(distance * dice.uniform(1.5, 3.0)) if gouge else 1.0
    # Pressure varies along the scratch, the ends taper, and the tool may skip.
    end = np.clip((1 - np.abs(run)) * half / dice.uniform(3, 12), 0, 1)
    opacity = _edge(width * np.sqrt(end) + 0.45 - distance, 0.7) * (np.abs(run) < 1)
    opacity *= np.clip(1 + dice.uniform(0, 0.35) * broken, 0.15, 1)
    strength = _strength(dice, surface, 0.25, 0.6)
    shade = (0.3 + 0.5 * surface.metal) if bright else -surface.metal
    yield opacity.astype(np.float32), strength * groove * shade


PAINTERS = {
  'crazing': paint_crazing,
  'inclusion': paint_inclusion,
  'patches': paint_patches,
  'pitted_surface': paint_pitted_surface,
  'rolled-in_scale': paint_rolled_in_scale,
  'scratches': paint_scratches,
}


def _strength(dice, surface, low: float, high: float) -> float:
  """Contrast of a defect; on a rough surface weaker ones would be invisible."""
  return float(min(dice.uniform(low, high) + 1.6 * surface.noise, 0.85))


def _edge(level: np.ndarray, softness: float) -> np.ndarray:
  """Opacity from a level that is positive inside; hard zero outside."""
  return np.clip(level / softness, 0, 1).astype(np.float32)


def _ragged(dice, surface, scale: float) -> np.ndarray:
  """[S, S] noise that roughens outlines."""
  return smooth_noise(dice, len(surface.metal), 0.0, [(scale * surface.unit,) * 2])[0]


def _stamp(surface, places, along, across, lean, *, softness, ragged=None, light=None) -> Any:
  """Opacity of P small ellipses, drawn in windows around their centres.

  Args:
    surface: gives direction and size.
    places: [P, 2] centres (along, across).
    along: [P] half axes along the rolling direction.
    across: [P] half axes across it.
    lean: [P] or a number, radians by which each ellipse is turned.
    softness: width of the rise of the opacity at the edge, in units of length.
    ragged: [S, S] noise that roughens the outlines.
    light: direction of the light; if given, the slope towards it is returned as well.

  Returns:
    opacity [S, S], or (opacity, relief [S, S] in -1..1).
  """
  size = len(surface.metal)
  cos, sin = np.cos(surface.direction), np.sin(surface.direction)
  rows = (places[:, 0] * cos - places[:, 1] * sin) * surface.unit + surface.origin[0]
  columns = (places[:, 0] * sin + places[:, 1] * cos) * surface.unit + surface.origin[1]
  half = (
    int(
      np.ceil(
        max(along.max(initial=0), across.max(initial=0)) * 1.3 * surface.unit
        + softness * surface.unit
      )
    )
    + 1
  )
  window = np.arange(-half, half + 1)
  y = np.round(rows).astype(int)[:, None, None] + window[None, :, None]  # [P, w, 1]
  x = np.round(columns).astype(int)[:, None, None] + window[None, None, :]  # [P, 1, w]
  down = (y - rows[:, None, None]) / surface.unit
  right = (x - columns[:, None, None]) / surface.unit
  turn = surface.direction + np.broadcast_to(lean, rows.shape)[:, None, None]
  cos, sin = np.cos(turn), np.sin(turn)
  a = (down * cos + right * sin) / along[:, None, None]
  c = (right * cos - down * sin) / across[:, None, None]
  # Distance inwards from the edge, in units of length; half the rise lies outside the ellipse.
  radius = np.sqrt(along * across)[:, None, None]
  inwards = radius * (1 - np.sqrt(a**2 + c**2))
  y, x = np.broadcast_arrays(y, x)
  inside = (y >= 0) & (y < size) & (x >= 0) & (x < size)
  if ragged is not None:
    inwards = inwards + 0.35 * ragged[y.clip(0, size - 1), x.clip(0, size - 1)]
  opacity = np.clip(inwards / softness + 0.5, 0, 1)  # [P, w, w]
  inside &= opacity > 0
  canvas = np.zeros((size, size), np.float32)
  np.maximum.at(canvas, (y[inside], x[inside]), opacity[inside])
  if light is None:
    return canvas
  relief = np.zeros((size, size), np.float32)
  # Where flakes overlap, the later one lies on top.
  slope = (down * np.cos(light) + right * np.sin(light)) / np.maximum(along, across)[:, None, None]
  relief[y[inside], x[inside]] = np.clip(slope[inside], -1, 1)
  return canvas, relief
