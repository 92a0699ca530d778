"""The geometry of random views: where each pixel of a view looks in its image.

Shape legend: N images, H x W pixels, K classes, T tries of a random crop.

Images, masks and boxes take their views from here, so the same key gives them the same one.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxdefect.contracts.batch import example_keys
from jaxdefect.data import elastic as bending
from jaxdefect.ops.warp import affine_grid

# Draws of a crop that are tried before the last one is shrunk until it fits, as in torchvision.
CROP_TRIES = 10
# A class that may turn by less than this has a direction, which nothing else may turn either.
DIRECTIONAL = 90.0


class ViewKeys(NamedTuple):
  """[N] random keys per draw of a view: one for each, so that switches do not move others."""

  crop: jax.Array
  place: jax.Array
  turn: jax.Array
  flip: jax.Array
  free: jax.Array
  light: jax.Array
  bend: jax.Array


def view_keys(key: jax.Array, index: jax.Array) -> ViewKeys:
  """The keys of every example's view, from ``key`` and the example's ``index`` alone.

  Args:
    key: typed PRNG key, already folded with the step (and with the number of the view).
    index: [N] integers, ``batch['index']``.

  Returns:
    [N] typed keys for each draw.
  """

  def split(key):
    # Six came first; the seventh must not change them.
    return ViewKeys(*jax.random.split(key, 6), bend=jax.random.fold_in(key, 6))

  return jax.vmap(split)(example_keys(key, index))


def class_limits(limits: Mapping[str, float], classes: Sequence[str]) -> np.ndarray:
  """Brings limits that are given by the name of a class into the order of the classes.

  Args:
    limits: name of a class -> greatest turn either way, degrees in 0..180.
    classes: the names that labels count in.

  Returns:
    [K] float32; 180, which is no limit, for classes that are not named.

  Raises:
    ValueError: for what is no mapping, a name that is no class, or a limit out of range.

  >>> class_limits({'scratch': 10}, ('pit', 'scratch')).tolist()
  [180.0, 10.0]
  """
  if not isinstance(limits, Mapping):
    raise ValueError(
      f"angle_limits must name classes, for example {{'{classes[0]}': 10}}, came as {limits!r}."
    )
  for name, limit in limits.items():
    if name not in classes:
      close = difflib.get_close_matches(name, classes, n=1)
      hint = f'; did you mean {close[0]!r}?' if close else '.'
      raise ValueError(
        f'angle_limits names the class {name!r}, but the classes are {", ".join(classes)}{hint}'
      )
    if not (isinstance(limit, int | float) and 0 <= limit <= 180):
      raise ValueError(f'angle_limits of {name!r} must be degrees in 0..180, came as {limit!r}.')
  return np.array([limits.get(name, 180.0) for name in classes], np.float32)


def random_places(
  keys: ViewKeys,
  size: tuple[int, int],
  *,
  label: jax.Array | None = None,
  crop_scale: tuple[float, float] = (0.2, 1.0),
  crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
  quarter_turns: bool = True,
  flips: bool = True,
  angle: float = 0.0,
  angle_limits: Sequence[float] | jax.Array | None = None,
  elastic: float = 0.0,
  elastic_sigma: float = 0.08,
) -> jax.Array:
  """Where the pixels of one random view per image look; see ``augment.random_views``.

  Args:
    keys: of :func:`view_keys`.
    size: (H, W) in pixels.
    label: [N] classes, which ``angle_limits`` needs.
    crop_scale: least and greatest area of the crop, as a fraction of the image's.
    crop_ratio: least and greatest aspect of the crop relative to the image's.
    quarter_turns: also turn by 0, 90, 180 or 270 degrees.
    flips: also mirror each axis, with probability one half each.
    angle: also turn by up to this many degrees either way.
    angle_limits: [K] greatest turn of each class in degrees.
    elastic: greatest elastic displacement, as a fraction of the shorter side.
    elastic_sigma: smoothness of that displacement, as a fraction of the shorter side.

  Returns:
    What ``ops.warp`` takes: [N, 2, 3] matrices, or with ``elastic`` [N, H, W, 2] places (y, x).

  Raises:
    ValueError: for a range that is empty or outside what is allowed.
  """
  _check(crop_scale, crop_ratio, angle, elastic, elastic_sigma)
  limits = _limits(angle_limits, label, keys.free.shape[0])
  reach = min(size) * elastic  # pixels

  def draw(keys: ViewKeys, limit: jax.Array | None):
    quarter = jax.random.randint(keys.turn, (), 0, 4) if quarter_turns else jnp.zeros((), jnp.int32)
    mirrored = jax.random.bernoulli(keys.flip, shape=(2,))
    most = angle
    if limit is not None:
      # A line points the same way after half a turn, and after being mirrored twice.
      directional = limit < DIRECTIONAL
      quarter = jnp.where(directional, quarter & 2, quarter)
      mirrored = jnp.where(directional, mirrored[0], mirrored)
      most = jnp.minimum(angle, limit)
    zoom, extent = _crop(keys.crop, size, quarter, crop_scale, crop_ratio)
    mirror = jnp.where(flips & mirrored, -1.0, 1.0)
    degrees = jax.random.uniform(keys.free, minval=-most, maxval=most) if angle else jnp.zeros(())
    shift = jax.random.uniform(keys.place, (2,), minval=-0.5, maxval=0.5)
    matrix = _matrix(size, zoom * mirror, quarter, degrees, shift * (jnp.array(size) - extent))
    if not elastic:
      return matrix, None
    shape = (2, *bending.node_grid(size, elastic_sigma))
    nodes = jax.random.uniform(keys.bend, shape, minval=-reach, maxval=reach)
    # The map is linear, so the few nodes are mapped and not the many pixels.
    turn = matrix[:, :2, None, None]
    return matrix, turn[:, 0] * nodes[0] + turn[:, 1] * nodes[1]

  matrix, nodes = jax.vmap(draw)(keys, limits)
  if nodes is None:
    return matrix
  bent = bending.smooth_field(nodes, size, sigma=elastic_sigma)  # [N, 2, H, W]
  return affine_grid(matrix, size) + jnp.moveaxis(bent, 1, -1)


def _limits(limits, label, num: int) -> jax.Array | None:
  """[N] degrees, the limit of each image's class."""
  if limits is None:
    return None
  if label is None:
    raise ValueError("angle_limits needs label, the class of each image: label=batch['label'].")
  if isinstance(limits, Mapping):
    raise ValueError(
      f'angle_limits must be a number of degrees for every class, in their order, came as '
      f'{dict(limits)} (view_geometry.class_limits orders them).'
    )
  if not isinstance(limits, jax.Array) and not all(0 <= limit <= 180 for limit in limits):
    raise ValueError(f'angle_limits must lie in 0..180 degrees, came as {tuple(limits)}.')
  label = jnp.asarray(label)
  chex.assert_shape(label, (num,))
  limits = jnp.asarray(limits, jnp.float32)
  chex.assert_rank(limits, 1)
  return limits[label]


def _crop(key, size, quarter, scale, ratio) -> tuple[jax.Array, jax.Array]:
  """Zoom (y, x) of one crop, and the height and width that it covers in the image."""
  area_key, ratio_key = jax.random.split(key)
  area = jax.random.uniform(area_key, (CROP_TRIES, 1), minval=scale[0], maxval=scale[1])
  low, high = jnp.log(jnp.array(ratio, jnp.float32))
  aspect = jnp.exp(jax.random.uniform(ratio_key, (CROP_TRIES, 1), minval=low, maxval=high))
  zoom = jnp.sqrt(jnp.concatenate([area / aspect, area * aspect], axis=1))  # [T, 2]
  sides = jnp.array(size, jnp.float32)[None, :]
  extent = zoom * sides
  extent = jnp.where(quarter % 2 == 1, extent[:, ::-1], extent)

  fits = jnp.all(extent <= sides, axis=1)
  chosen = jnp.where(fits.any(), jnp.argmax(fits), CROP_TRIES - 1)
  zoom, extent = zoom[chosen], extent[chosen]
  shrink = jnp.minimum(1.0, jnp.min(sides[0] / extent))
  return zoom * shrink, extent * shrink


def _matrix(size, zoom, quarter, degrees, shift) -> jax.Array:
  """[2, 3] from output pixels to input pixels; exact for whole quarter turns."""
  # Sine and cosine of a quarter turn from a table: cos(pi / 2) is not zero in floating point.
  table = jnp.array([0.0, 1.0, 0.0, -1.0], jnp.float32)
  sine, cosine = table[quarter], table[(quarter + 1) % 4]
  free_sine, free_cosine = jnp.sin(jnp.deg2rad(degrees)), jnp.cos(jnp.deg2rad(degrees))
  sine, cosine = (
    sine * free_cosine + cosine * free_sine,
    cosine * free_cosine - sine * free_sine,
  )
  rotation = jnp.stack([jnp.stack([cosine, -sine]), jnp.stack([sine, cosine])])
  linear = rotation * zoom[None, :]
  centre = (jnp.array(size, jnp.float32) - 1) / 2
  offset = centre + shift - (linear * centre[None, :]).sum(axis=1)
  return jnp.concatenate([linear, offset[:, None]], axis=1)


def _check(crop_scale, crop_ratio, angle, elastic, elastic_sigma) -> None:
  if not 0 < crop_scale[0] <= crop_scale[1] <= 1:
    raise ValueError(
      f'crop_scale must be (least, greatest) with 0 < least <= greatest <= 1, came as '
      f'{tuple(crop_scale)}.'
    )
  if not 0 < crop_ratio[0] <= crop_ratio[1]:
    raise ValueError(
      f'crop_ratio must be (least, greatest) with 0 < least <= greatest, came as '
      f'{tuple(crop_ratio)}.'
    )
  if not 0 <= angle <= 180:
    raise ValueError(f'angle must lie in 0..180, came as {angle}.')
  if not 0 < elastic_sigma <= 1:
    raise ValueError(f'elastic_sigma must lie above 0 and at most at 1, came as {elastic_sigma}.')
  if not 0 <= elastic <= bending.FOLD_FREE * elastic_sigma:
    raise ValueError(
      f'elastic must lie in 0..{bending.FOLD_FREE * elastic_sigma:g}, {bending.FOLD_FREE} of '
      f'elastic_sigma, or the surface could fold over itself; came as {elastic}.'
    )
