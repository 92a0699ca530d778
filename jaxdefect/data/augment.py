"""Random views of a batch, on the device: one affine warp per image, then brightness and contrast.

Shape legend: N images, H x W pixels, C channels, T tries of a random crop.

Colour carries no meaning on gray surfaces and carries much of it on coloured ones, so hue and
saturation are never touched.
"""

import chex
import jax
import jax.numpy as jnp

from jaxdefect.contracts.batch import example_keys
from jaxdefect.ops.warp import warp

# Draws of a crop that are tried before the last one is shrunk until it fits, as in torchvision.
CROP_TRIES = 10


def random_views(
  key: jax.Array,
  image: jax.Array,
  index: jax.Array,
  *,
  crop_scale: tuple[float, float] = (0.2, 1.0),
  crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
  quarter_turns: bool = True,
  flips: bool = True,
  angle: float = 0.0,
  brightness: float = 0.0,
  contrast: float = 0.0,
) -> jax.Array:
  r"""One random view of every image: resized crop, turn, both flips, brightness, contrast.

  An output pixel at offset :math:`p` from the centre looks at

  .. math:: c + R(\theta + 90^\circ k)\, \mathrm{diag}(\sqrt{s / r}, \sqrt{s r})\, F\, p

  with crop area :math:`s`, aspect :math:`\log r` uniform, a flip :math:`F` per axis with
  probability one half, :math:`k` uniform in 0..3, :math:`\theta` uniform in +-``angle``, and the
  crop's centre :math:`c` uniform where the unturned crop lies inside the image. The whole chain
  is one bilinear sampling; what a free rotation reaches beyond the image is mirrored. With
  everything off, or with flips and quarter turns of a square image alone, pixels are moved and
  never mixed.

  Crops follow torchvision's RandomResizedCrop: the first of ten draws (made at once, so shapes
  stay static) that fits inside the image; if none does, the last one is shrunk until it fits.
  Two differences: crops are not rounded to whole pixels, and the aspect is relative to the
  image's own, so a 2:1 image is not squeezed by being cropped. For the same reason a quarter
  turn of an image that is not square never stretches it: the turned crop keeps its proportions
  and is shrunk to fit, i.e. it shows at most (short side / long side)^2 of the area.

  What is drawn for an example depends on ``key`` and its ``index`` alone: not on its place in
  the batch, on padding, or on the number of devices.

  Args:
    key: typed PRNG key, already folded with the step (and with the number of the view).
    image: [N, H, W, C] pixels 0..255, bytes or floats.
    index: [N] integers, ``batch['index']``.
    crop_scale: least and greatest area of the crop, as a fraction of the image's; in (0, 1].
    crop_ratio: least and greatest aspect (width : height) of the crop relative to the image's.
    quarter_turns: also turn by 0, 90, 180 or 270 degrees.
    flips: also mirror each axis, with probability one half each.
    angle: also turn by up to this many degrees either way; keep it small for directional defects.
    brightness: half-width b of the factor on the pixels, uniform in 1-b .. 1+b.
    contrast: half-width c of the factor on the distance to the view's mean, in 1-c .. 1+c.

  Returns:
    [N, H, W, C] float32, 0..255.

  Raises:
    ValueError: for a range that is empty or outside what is allowed.

  Reference: the views of the self-contrastive recogniser, section 'data augmentation'.
  """
  image, index = jnp.asarray(image), jnp.asarray(index)
  chex.assert_rank(image, 4)
  chex.assert_shape(index, (image.shape[0],))
  _check(crop_scale, crop_ratio, angle=angle, brightness=brightness, contrast=contrast)
  size = image.shape[1:3]

  def draw(key):
    # Every key is split the same way whatever is switched on, so switches do not move others.
    crop, place, turn, flip, free, light = jax.random.split(key, 6)
    quarter = jax.random.randint(turn, (), 0, 4) if quarter_turns else jnp.zeros((), jnp.int32)
    zoom, extent = _crop(crop, size, quarter, crop_scale, crop_ratio)
    mirror = jnp.where(flips & jax.random.bernoulli(flip, shape=(2,)), -1.0, 1.0)
    degrees = jax.random.uniform(free, minval=-angle, maxval=angle) if angle else jnp.zeros(())
    shift = jax.random.uniform(place, (2,), minval=-0.5, maxval=0.5)
    matrix = _matrix(size, zoom * mirror, quarter, degrees, shift * (jnp.array(size) - extent))
    light = jax.random.uniform(light, (2,), minval=-1.0)
    return matrix, 1 + brightness * light[0], 1 + contrast * light[1]

  matrix, gain, spread = jax.vmap(draw)(example_keys(key, index))
  view = warp(image.astype(jnp.float32), matrix)

  if contrast:
    mean = view.mean(axis=(1, 2, 3), keepdims=True)
    view = mean + (view - mean) * spread[:, None, None, None]
  if brightness:
    view = view * gain[:, None, None, None]
  return jnp.clip(view, 0.0, 255.0) if brightness or contrast else view


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


def _check(crop_scale, crop_ratio, **limits) -> None:
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
  for name, value in limits.items():
    greatest = 180 if name == 'angle' else 1
    if not 0 <= value <= greatest:
      raise ValueError(f'{name} must lie in 0..{greatest}, came as {value}.')
