"""Random views of a batch, on the device: one bilinear warp per image, then light.

Shape legend: N images, H x W pixels, C channels, K classes.

Colour carries no meaning on gray surfaces and carries much of it on coloured ones, so hue and
saturation are never touched. ``augment_masks`` gives masks and boxes the same views.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from jaxdefect.data import view_geometry
from jaxdefect.ops.warp import warp


def random_views(
  key: jax.Array,
  image: jax.Array,
  index: jax.Array,
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
  brightness: float = 0.0,
  contrast: float = 0.0,
) -> jax.Array:
  r"""One random view of every image: crop, turn, flips, elastic bending, brightness, contrast.

  An output pixel at offset :math:`p` from the centre looks at

  .. math:: c + R(\theta + 90^\circ k)\, \mathrm{diag}(\sqrt{s / r}, \sqrt{s r})\, F\, (p + u(p))

  with crop area :math:`s`, aspect :math:`\log r` uniform, a flip :math:`F` per axis with
  probability one half, :math:`k` uniform in 0..3, :math:`\theta` uniform in +-``angle``, the
  crop's centre :math:`c` uniform where the unturned crop lies inside the image, and a smooth random
  displacement :math:`u` (``elastic.smooth_field``). The whole chain is one bilinear sampling; what
  it reaches beyond the image is mirrored. With everything off, or with flips and quarter turns of
  a square image alone, pixels are moved and never mixed.

  Crops follow torchvision's RandomResizedCrop: the first of ten draws (made at once, so shapes
  stay static) that fits inside the image; if none does, the last one is shrunk until it fits.
  Two differences: crops are not rounded to whole pixels, and the aspect is relative to the
  image's own, so a 2:1 image is not squeezed by being cropped. For the same reason a quarter
  turn of an image that is not square never stretches it: the turned crop keeps its proportions
  and is shrunk to fit, i.e. it shows at most (short side / long side)^2 of the area.

  Most defects look the same from every side: ``angle=180`` turns them freely. A directional one, a
  score along the part's travel, does not, and ``angle_limits`` bounds the turn of its class. A
  limit only takes away: :math:`\theta` is uniform in +-min(``angle``, limit), and below 90 degrees
  the class is directional: of the quarter turns the half turn alone is left to it, and of the flips
  both axes at once, which is half a turn too, because one mirror turns a line at 45 degrees by 90.
  So the direction of a line stays within the limit, and its two ends may change places (``flips``
  and ``quarter_turns`` off keep them). From 90 degrees on, every direction is reached in any case.
  Two more things tilt a line a little: ``elastic``, and a crop of another aspect (up to 8 degrees
  at 4/3; ``crop_ratio=(1, 1)`` has none).

  What is drawn for an example depends on ``key`` and its ``index`` alone (and its class where
  there are limits): not on its place in the batch, on padding, or on the number of devices; and
  switching one thing on or off does not move what else is drawn.

  Args:
    key: typed PRNG key, already folded with the step (and with the number of the view).
    image: [N, H, W, C] pixels 0..255, bytes or floats.
    index: [N] integers, ``batch['index']``.
    label: [N] integers, ``batch['label']``; needed for ``angle_limits`` alone.
    crop_scale: least and greatest area of the crop, as a fraction of the image's; in (0, 1].
    crop_ratio: least and greatest aspect (width : height) of the crop relative to the image's.
    quarter_turns: also turn by 0, 90, 180 or 270 degrees.
    flips: also mirror each axis, with probability one half each.
    angle: also turn by up to this many degrees either way, in 0..180.
    angle_limits: [K] greatest turn of each class either way, degrees in 0..180; 180 is no limit.
      ``view_geometry.class_limits`` makes them from names.
    elastic: greatest elastic displacement of a pixel along each axis of the view, as a fraction
      of the shorter side, in 0..0.8 ``elastic_sigma``: more could fold the surface. The root mean
      square is about 0.28 of it.
    elastic_sigma: how smooth the displacement is: the standard deviation of the Gaussian, as a
      fraction of the shorter side, in (0, 1].
    brightness: half-width b of the factor on the pixels, uniform in 1-b .. 1+b.
    contrast: half-width c of the factor on the distance to the view's mean, in 1-c .. 1+c.

  Returns:
    [N, H, W, C] float32, 0..255.

  Raises:
    ValueError: for a range that is empty or outside what is allowed, or limits without labels.

  Reference: the views of the self-contrastive recogniser, section 'data augmentation'; the
  practitioner's post, section 'Augmentation that preserves defect physics'.
  """
  image, index = jnp.asarray(image), jnp.asarray(index)
  chex.assert_rank(image, 4)
  chex.assert_shape(index, (image.shape[0],))
  for name, value in (('brightness', brightness), ('contrast', contrast)):
    if not 0 <= value <= 1:
      raise ValueError(f'{name} must lie in 0..1, came as {value}.')

  keys = view_geometry.view_keys(key, index)
  places = view_geometry.random_places(
    keys,
    (image.shape[1], image.shape[2]),
    label=label,
    crop_scale=crop_scale,
    crop_ratio=crop_ratio,
    quarter_turns=quarter_turns,
    flips=flips,
    angle=angle,
    angle_limits=angle_limits,
    elastic=elastic,
    elastic_sigma=elastic_sigma,
  )
  view = warp(image.astype(jnp.float32), places)

  light = jax.vmap(lambda key: jax.random.uniform(key, (2,), minval=-1.0))(keys.light)
  gain, spread = 1 + brightness * light[:, 0], 1 + contrast * light[:, 1]
  if contrast:
    mean = view.mean(axis=(1, 2, 3), keepdims=True)
    view = mean + (view - mean) * spread[:, None, None, None]
  if brightness:
    view = view * gain[:, None, None, None]
  return jnp.clip(view, 0.0, 255.0) if brightness or contrast else view
