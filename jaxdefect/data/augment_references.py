"""Pictures and what they are compared with, in the same random views of ``augment``.

Shape legend: N images, R references of each, H x W pixels, C channels.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp

from jaxdefect.data import augment


def random_views_together(
  key: jax.Array, image: jax.Array, reference: jax.Array, index: jax.Array, **view: Any
) -> tuple[jax.Array, jax.Array]:
  """One random view of every image and its references, so that only what differs still differs.

  Args:
    key: that of ``random_views``.
    image: [N, H, W, C] pixels 0..255, bytes or floats.
    reference: [N, R, H, W, C] likewise.
    index: [N] integers, ``batch['index']``.
    **view: the settings of ``random_views``, without ``angle_limits``.

  Returns:
    The views [N, H, W, C] and [N, R, H, W, C], float32, 0..255.

  Raises:
    ValueError: as ``random_views`` does.
  """
  chex.assert_rank([image, reference], [4, 5])
  stacked = jnp.concatenate([image[:, None], reference], axis=1)  # [N, 1 + R, H, W, C]
  flat = stacked.reshape(-1, *image.shape[1:])
  # What is drawn follows from the index: one index, one view.
  views = augment.random_views(key, flat, jnp.repeat(index, stacked.shape[1]), **view)
  views = views.reshape(stacked.shape)
  return views[:, 0], views[:, 1:]
