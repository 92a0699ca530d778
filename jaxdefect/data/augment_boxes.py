"""Random views of a batch with boxes, on the device: one affine warp per image moves both.

Shape legend: N images, H x W pixels, C channels, M boxes per image (padded).

Only maps that send boxes to boxes are drawn (flips, quarter turns, scale, shift), so a box that was
tight stays tight. A free rotation or an elastic deformation would leave its hull loose, and a
detector would learn to draw loose boxes; ``augment_masks.random_box_hulls`` gives such hulls to
whoever can do with them.
"""

import chex
import jax
import jax.numpy as jnp

from jaxdefect.contracts.batch import example_keys
from jaxdefect.data.letterbox import GRAY
from jaxdefect.ops.warp import warp


def random_box_views(
  key: jax.Array,
  image: jax.Array,
  boxes: jax.Array,
  box_valid: jax.Array,
  index: jax.Array,
  *,
  flips: bool = True,
  quarter_turns: bool = False,
  scale: tuple[float, float] = (1.0, 1.0),
  translate: float = 0.0,
  brightness: float = 0.0,
  contrast: float = 0.0,
  min_visible: float = 0.25,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  r"""One random view of every image, and its boxes where they are then.

  With the canvas' centre :math:`c`, a point :math:`p` of the picture and of its boxes moves to

  .. math:: c + s\, Q F\, (p - c) + (1 - s)\, u + t

  with a flip :math:`F` per axis with probability one half, a turn :math:`Q` by 0, 90, 180 or 270
  degrees, :math:`\log s` uniform, and a shift :math:`t` uniform in +-``translate`` of each side.
  The fixed point :math:`u` of the scaling is uniform over the canvas (measured from :math:`c`), so
  an enlarged picture shows any part of itself and a reduced one lies anywhere on the canvas. What
  comes into view from outside is ``letterbox.GRAY``.

  Map and light act on the whole canvas, letterbox padding included: after a flip the picture no
  longer lies at the upper left. So a batch's ``size`` is the whole canvas (H, W) from here on, and
  its ``scale`` says nothing any more.

  A box stays valid if, of its area after the move, at least ``min_visible`` lies on the canvas; it
  is cut there. Without geometry, or with flips and turns alone, pixels are moved and never mixed.

  What is drawn for an example depends on ``key`` and its ``index`` alone: not on its place in
  the batch, on padding, or on the number of devices.

  Args:
    key: typed PRNG key, already folded with the step.
    image: [N, H, W, C] pixels 0..255, bytes or floats.
    boxes: [N, M, 4] edges (x0, y0, x1, y1), pixels.
    box_valid: [N, M] bool; False marks padding.
    index: [N] integers, ``batch['index']``.
    flips: mirror each axis, with probability one half each.
    quarter_turns: also turn by 0, 90, 180 or 270 degrees; for square images alone.
    scale: least and greatest enlargement s; below one half the sampling aliases.
    translate: greatest shift, as a fraction of the side, in 0..1.
    brightness: half-width b of the factor on the pixels, uniform in 1-b .. 1+b.
    contrast: half-width c of the factor on the distance to the view's mean, in 1-c .. 1+c.
    min_visible: least visible part of a box, in 0..1.

  Returns:
    image [N, H, W, C] float32, 0..255; boxes [N, M, 4] float32, zero where not valid; box_valid
    [N, M] bool.

  Raises:
    ValueError: for a range that is empty or outside what is allowed, or quarter turns of an
      image that is not square.
  """
  image, boxes, index = jnp.asarray(image), jnp.asarray(boxes), jnp.asarray(index)
  box_valid = jnp.asarray(box_valid)
  chex.assert_rank(image, 4)
  chex.assert_shape(boxes, (image.shape[0], None, 4))
  chex.assert_shape(box_valid, boxes.shape[:2])
  chex.assert_shape(index, (image.shape[0],))
  size = image.shape[1:3]
  if quarter_turns and size[0] != size[1]:
    raise ValueError(
      f'quarter_turns needs square images, got {size[0]} x {size[1]} pixels; switch it off.'
    )
  if not 0 < scale[0] <= scale[1]:
    raise ValueError(
      f'scale must be (least, greatest) with 0 < least <= greatest, came as {tuple(scale)}.'
    )
  for name, value in (
    ('translate', translate),
    ('brightness', brightness),
    ('contrast', contrast),
    ('min_visible', min_visible),
  ):
    if not 0 <= value <= 1:
      raise ValueError(f'{name} must lie in 0..1, came as {value}.')

  zooms = tuple(scale) != (1.0, 1.0)
  sides = jnp.array(size, jnp.float32)

  def draw(key):
    # Every key is split the same way whatever is switched on, so switches do not move others.
    flip, turn, zoom, point, place, light = jax.random.split(key, 6)
    mirror = jnp.where(flips & jax.random.bernoulli(flip, shape=(2,)), -1.0, 1.0)
    quarter = jax.random.randint(turn, (), 0, 4) if quarter_turns else jnp.zeros((), jnp.int32)
    low, high = jnp.log(jnp.array(scale, jnp.float32))
    zoom = jnp.exp(jax.random.uniform(zoom, minval=low, maxval=high)) if zooms else jnp.ones(())
    point = jax.random.uniform(point, (2,), minval=-0.5, maxval=0.5) * sides
    place = jax.random.uniform(place, (2,), minval=-1.0) * translate * sides
    light = jax.random.uniform(light, (2,), minval=-1.0)
    shift = (1 - zoom) * point + place
    return _turn(quarter) * mirror, zoom, shift, 1 + brightness * light[0], 1 + contrast * light[1]

  turn, zoom, shift, gain, spread = jax.vmap(draw)(example_keys(key, index))
  view = image.astype(jnp.float32)
  boxes = boxes.astype(jnp.promote_types(boxes.dtype, jnp.float32))
  if flips or quarter_turns or zooms or translate:
    view = warp(view, _to_input(turn, zoom, shift, size), border='constant', fill=GRAY)
    boxes, box_valid = _move(boxes, box_valid, turn, zoom, shift, size, min_visible)

  if contrast:
    mean = view.mean(axis=(1, 2, 3), keepdims=True)
    view = mean + (view - mean) * spread[:, None, None, None]
  if brightness:
    view = view * gain[:, None, None, None]
  view = jnp.clip(view, 0.0, 255.0) if brightness or contrast else view
  return view, boxes, box_valid


def _turn(quarter: jax.Array) -> jax.Array:
  """[2, 2] matrix on (y, x); from a table, because cos(pi / 2) is not zero in floating point."""
  table = jnp.array([0.0, 1.0, 0.0, -1.0], jnp.float32)
  sine, cosine = table[quarter], table[(quarter + 1) % 4]
  return jnp.stack([jnp.stack([cosine, -sine]), jnp.stack([sine, cosine])])


def _to_input(turn, zoom, shift, size) -> jax.Array:
  """[N, 2, 3] from the pixels of the view to those of the image, for ``warp``."""
  # A turn's inverse is its transpose. Pixel centres are whole, so the middle is at (size - 1) / 2.
  back = turn.swapaxes(1, 2) / zoom[:, None, None]
  centre = (jnp.array(size, jnp.float32) - 1) / 2
  offset = centre - (back * (centre + shift)[:, None, :]).sum(axis=2)
  return jnp.concatenate([back, offset[:, :, None]], axis=2)


def _move(boxes, box_valid, turn, zoom, shift, size, min_visible) -> tuple[jax.Array, jax.Array]:
  """Boxes after the map, cut at the canvas, and which of them are still to be seen."""
  ahead = turn * zoom[:, None, None]
  sides = jnp.array(size, jnp.float32)
  # Edges are counted from the corner, so here the middle is at size / 2.
  offset = sides / 2 + shift - (ahead * sides / 2).sum(axis=2)
  corners = boxes.reshape(*boxes.shape[:2], 2, 2)[..., ::-1]  # [N, M, 2, (y, x)]
  # Plain multiplies, not a dot: a GPU may round a dot's inputs to ten bits (TF32).
  corners = (ahead[:, None, None] * corners[..., None, :]).sum(-1) + offset[:, None, None]
  low, high = corners.min(axis=2), corners.max(axis=2)  # [N, M, (y, x)]
  area = (high - low).prod(axis=-1)
  low, high = jnp.clip(low, 0.0, sides), jnp.clip(high, 0.0, sides)
  visible = (high - low).prod(axis=-1)
  kept = box_valid & (visible > 0) & (visible >= min_visible * area)
  moved = jnp.concatenate([low[..., ::-1], high[..., ::-1]], axis=-1)  # [N, M, 4]
  return jnp.where(kept[..., None], moved, 0.0), kept
