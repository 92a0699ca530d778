"""Rolled metal, the harmless marks on it, and the camera: the same for every class.

Shape legend: S x S pixels.

Lengths are in units of S / width pixels unless said otherwise; the picture is ``width`` units wide,
64 where a picture shows one kind of defect, more where it shows several.
"""

import functools
from typing import NamedTuple

import numpy as np

# Where the brightest hundredth of a well exposed part begins, of full scale.
BRIGHTEST = 0.8


class Surface(NamedTuple):
  """What painters of marks know about the part.

  Attributes:
    metal: [S, S] float32 brightness, about 0.2..0.9.
    along: [S, S] float32 coordinate along the rolling direction, in units of length, zero at
      ``origin``.
    across: [S, S] float32 coordinate across it.
    direction: angle of the rolling direction from the vertical, radians.
    noise: standard deviation of streaks and grain, relative to the brightness.
    width: sides of the picture, units of length.
    unit: pixels per unit of length, S / width.
    origin: (row, column) in pixels about which painters place their marks; at first the middle.
  """

  metal: np.ndarray
  along: np.ndarray
  across: np.ndarray
  direction: float
  noise: float
  width: float
  unit: float
  origin: tuple[float, float]

  def about(self, row: float, column: float) -> 'Surface':
    """The same part for painters that are to place their marks about (row, column)."""
    down, right = (
      (new - old) / self.unit for new, old in zip((row, column), self.origin, strict=True)
    )
    cos, sin = np.float32(np.cos(self.direction)), np.float32(np.sin(self.direction))
    return self._replace(
      along=self.along - np.float32(down * cos + right * sin),
      across=self.across - np.float32(right * cos - down * sin),
      origin=(row, column),
    )


def smooth_noise(dice, size: int, direction: float, scales) -> np.ndarray:
  """Gaussian noise of unit variance, smoothed along and across a direction.

  Args:
    dice: numpy generator of random numbers.
    size: S.
    direction: radians from the vertical.
    scales: k pairs (along, across) of standard deviations in pixels.

  Returns:
    [k, S, S] float32, periodic.
  """
  down, right = _frequencies(size)
  cos, sin = np.cos(direction), np.sin(direction)
  along_squared = (down * cos + right * sin) ** 2
  across_squared = (right * cos - down * sin) ** 2
  scales = np.square(np.asarray(scales, np.float32)) * (2 * np.pi**2)
  gain = np.exp(
    -scales[:, 0, None, None] * along_squared - scales[:, 1, None, None] * across_squared
  )
  white = dice.standard_normal((len(scales), size, size), dtype=np.float32)
  noise = np.fft.irfft2(np.fft.rfft2(white) * gain, s=(size, size))
  noise -= noise.mean(axis=(1, 2), keepdims=True)
  return (noise / (noise.std(axis=(1, 2), keepdims=True) + 1e-6)).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _frequencies(size: int) -> tuple[np.ndarray, np.ndarray]:
  down = np.fft.fftfreq(size).astype(np.float32)[:, None]
  return down, np.fft.rfftfreq(size).astype(np.float32)[None, :]


@functools.lru_cache(maxsize=8)
def _places(size: int, width: float) -> tuple[np.ndarray, np.ndarray]:
  """Rows and columns in units of S / width pixels, zero in the middle."""
  line = ((np.arange(size) - (size - 1) / 2) * (width / size)).astype(np.float32)
  return line[:, None], line[None, :]


def roll_metal(dice, size: int, *, width: float = 64) -> Surface:
  """The rolled metal: streaks along the rolling direction, grain, mottle and bands.

  Args:
    dice: numpy generator of random numbers.
    size: S.
    width: sides of the picture in units of length.

  Returns:
    The part, its origin in the middle.
  """
  # Mostly rolled along the picture's axes, as cameras are mounted, but not always.
  kind = dice.random()
  tilt = np.deg2rad(dice.normal(0, 4))
  direction = float(
    tilt if kind < 0.5 else np.pi / 2 + tilt if kind < 0.7 else dice.uniform(0, np.pi)
  )
  unit = size / width
  scales = [
    (dice.uniform(5, 30) * unit, dice.uniform(0.35, 0.9) * unit),  # streaks
    (dice.uniform(0.25, 0.7) * unit,) * 2,  # grain
    (dice.uniform(3, 9) * unit,) * 2,  # mottle
    (200 * unit, dice.uniform(2.5, 9) * unit),  # bands
  ]
  streaks, grain, mottle = np.exp(dice.uniform(np.log(0.012), np.log([0.09, 0.11, 0.07])))
  bands = dice.uniform(0, 0.09)
  texture = smooth_noise(dice, size, direction, scales)
  weights = np.array([streaks, grain, mottle, bands], np.float32)
  metal = dice.uniform(0.28, 0.72) * (1 + np.tensordot(weights, texture, 1))
  down, right = _places(size, width)
  cos, sin = np.float32(np.cos(direction)), np.float32(np.sin(direction))
  return Surface(
    metal=np.clip(metal, 0.05, None).astype(np.float32),
    along=down * cos + right * sin,
    across=right * cos - down * sin,
    direction=direction,
    noise=float(np.hypot(streaks, grain)),
    width=width,
    unit=unit,
    origin=((size - 1) / 2, (size - 1) / 2),
  )


def harmless_marks(dice, surface: Surface) -> np.ndarray:
  """A factor on the brightness; soft or tiny, unlike any defect."""
  factor = np.ones_like(surface.metal)
  along, across = surface.along, surface.across
  reach = surface.width / 64  # how much farther than in a picture of 64 units
  if dice.random() < 0.35:  # a dried drop: wide, faint, no outline
    a, c = dice.uniform(-28, 28, 2) * reach
    wide, high = dice.uniform(6, 16, 2)
    factor += dice.uniform(-0.16, 0.12) * np.exp(
      -(((along - a) / high) ** 2) - ((across - c) / wide) ** 2
    )
  for _ in range(dice.integers(0, 3)):  # wide faint streaks of the rolls
    c, width = dice.uniform(-30, 30) * reach, dice.uniform(1.5, 5)
    factor += dice.uniform(-0.1, 0.1) * np.exp(-(((across - c) / width) ** 2))
  if dice.random() < 0.4:  # dust
    num = dice.integers(1, 6)
    rows, columns = dice.integers(0, len(factor), (2, num))
    factor[rows, columns] *= 1 + dice.uniform(-0.45, 0.45, num)
  if dice.random() < 0.2:  # shadow at one edge of the strip
    edge = dice.uniform(16, 30) * reach * dice.choice([-1, 1])
    step = 1 / (1 + np.exp(-np.sign(edge) * (across - edge) / dice.uniform(1.0, 4.0)))
    factor *= 1 - dice.uniform(0.1, 0.45) * step
  return factor


def photograph(dice, metal: np.ndarray, *, exposed_for: np.ndarray | None = None) -> np.ndarray:
  """Light, tone curve, sensor noise, eight bits; lengths are 1/64 of the picture's side.

  Args:
    dice: numpy generator of random numbers.
    metal: [S, S] brightness.
    exposed_for: the metal without its defects, which is then never overexposed; None leaves the
      exposure as it comes.

  Returns:
    [S, S] uint8.
  """
  size = len(metal)
  down, right = _places(size, 64)
  turn = dice.uniform(0, 2 * np.pi)
  light = 1 + dice.uniform(0, 0.45) * (down * np.cos(turn) + right * np.sin(turn)) / 45
  if dice.random() < 0.35:
    y, x = dice.uniform(-40, 40, 2)
    light = light + dice.uniform(-0.3, 0.4) * np.exp(
      -((down - y) ** 2 + (right - x) ** 2) / dice.uniform(20, 45) ** 2
    )
  if exposed_for is not None:
    light = light * min(1, BRIGHTEST / np.quantile(exposed_for * light, 0.99))
  image = np.clip(metal * light, 0, None) ** dice.uniform(0.75, 1.3)
  image = image + dice.uniform(0.004, 0.02) * dice.standard_normal(metal.shape, dtype=np.float32)
  return np.clip(np.round(image * 255), 0, 255).astype(np.uint8)
