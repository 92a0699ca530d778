"""Masks and boxes under the random views of ``augment``: the same key and index, the same geometry.

Shape legend: N images, H x W pixels, M boxes per image (padded).
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp

from jaxdefect.data import view_geometry
from jaxdefect.ops.warp import affine_grid, nearest_pixels, warp_nearest

# Settings of random_views that move no pixel.
_LIGHT = ('brightness', 'contrast')


def random_mask_views(
  key: jax.Array, mask: jax.Array, index: jax.Array, *, label: jax.Array | None = None, **view: Any
) -> jax.Array:
  """The mask of every image in the view that ``random_views`` makes of the image.

  Each pixel of a view takes the value of the nearest pixel of the mask, so values are never mixed;
  what is mirrored in the picture is mirrored in its mask.

  Args:
    key: that of ``random_views``.
    mask: [N, H, W] integers or booleans, of the image's size.
    index: [N] integers, ``batch['index']``.
    label: [N] integers, ``batch['label']``; needed for ``angle_limits`` alone.
    **view: the other settings of ``random_views``; brightness and contrast change nothing here.

  Returns:
    [N, H, W], the mask's type.

  Raises:
    ValueError: as ``random_views`` does.
  """
  mask = jnp.asarray(mask)
  chex.assert_rank(mask, 3)
  chex.assert_shape(index, (mask.shape[0],))
  return warp_nearest(mask[..., None], _places(key, index, mask.shape[1:], label, view))[..., 0]


def random_box_hulls(
  key: jax.Array,
  boxes: jax.Array,
  box_valid: jax.Array,
  index: jax.Array,
  *,
  size: tuple[int, int],
  label: jax.Array | None = None,
  **view: Any,
) -> tuple[jax.Array, jax.Array]:
  """The upright hull of every box in the view that ``random_views`` makes of its image.

  Elastic views have no inverse in closed form. So each pixel of the view is asked whether it shows
  the box, as ``random_mask_views`` would of the box's mask, and the hull goes round those that do.

  What is lost: edges are whole pixels, up to one pixel looser than the box on each side; the hull
  of a box that is turned by anything but quarter turns is loose (a square turned by 45 degrees
  fills half of it), and says nothing about where in the box the defect was; what the picture
  mirrors at its border is part of the hull; a box thinner than a pixel of the view may be missed.
  Where masks are known, the hull of their view is tighter. ``augment_boxes`` draws only maps that
  keep boxes tight.

  Args:
    key: that of ``random_views``.
    boxes: [N, M, 4] edges (x0, y0, x1, y1), pixels, 0 at the image's corner.
    box_valid: [N, M] bool; False marks padding.
    index: [N] integers, ``batch['index']``.
    size: (H, W) of the images in pixels.
    label: [N] integers, ``batch['label']`` of the images; needed for ``angle_limits`` alone.
    **view: the other settings of ``random_views``; brightness and contrast change nothing here.

  Returns:
    boxes [N, M, 4] float32, zero where not valid; box_valid [N, M] bool, False also for a box that
    the view does not show.

  Raises:
    ValueError: as ``random_views`` does.
  """
  boxes, box_valid = jnp.asarray(boxes, jnp.float32), jnp.asarray(box_valid)
  chex.assert_shape(boxes, (None, None, 4))
  chex.assert_shape(box_valid, boxes.shape[:2])
  chex.assert_shape(index, (boxes.shape[0],))
  places = _places(key, index, size, label, view)
  grid = affine_grid(places, size) if places.ndim == 3 else places
  row, column, _ = nearest_pixels(grid, size)  # [N, H, W]
  low, high = jnp.floor(boxes[..., :2]), jnp.ceil(boxes[..., 2:])  # every pixel that is touched

  # [N, M, H, W]: which pixels of the view show which box.
  low, high = low[..., None, None, :], high[..., None, None, :]
  row, column = row[:, None], column[:, None]
  shown = (column >= low[..., 0]) & (column < high[..., 0])
  shown &= (row >= low[..., 1]) & (row < high[..., 1])
  shown &= box_valid[..., None, None]

  by_column, by_row = shown.any(axis=2), shown.any(axis=3)  # [N, M, W], [N, M, H]
  edges = (_first(by_column), _first(by_row), _end(by_column), _end(by_row))
  seen = by_row.any(axis=2)
  hull = jnp.stack(edges, axis=-1).astype(jnp.float32)
  return jnp.where(seen[..., None], hull, 0.0), seen


def _first(line: jax.Array) -> jax.Array:
  return jnp.argmax(line, axis=-1)


def _end(line: jax.Array) -> jax.Array:
  return line.shape[-1] - jnp.argmax(line[..., ::-1], axis=-1)


def _places(key, index, size, label, view: dict[str, Any]) -> jax.Array:
  geometry = {name: value for name, value in view.items() if name not in _LIGHT}
  keys = view_geometry.view_keys(key, jnp.asarray(index))
  return view_geometry.random_places(keys, size, label=label, **geometry)
