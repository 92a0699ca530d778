"""Pixel values: from 0..255 to what a network was trained on.

Shape legend: ... any leading axes, C channels.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

# Of the weights that torchvision and timm publish, per channel of RGB in 0..1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize_pixels(
  image: jax.Array,
  *,
  mean: float | Sequence[float],
  std: float | Sequence[float],
  dtype=jnp.float32,
) -> jax.Array:
  r"""Shifts and scales pixels to the statistics of the training set.

  .. math:: y = \frac{x / 255 - \text{mean}}{\text{std}}

  written as one multiply and one add per pixel. The arithmetic is float32 (float64 stays), only
  the result is cast.

  Args:
    image: [..., C] pixels 0..255, unsigned bytes or floats.
    mean: one number or C numbers, in 0..1.
    std: one number or C numbers, in 0..1, positive.
    dtype: of the result.

  Returns:
    [..., C] in ``dtype``.

  Raises:
    ValueError: if ``mean`` or ``std`` has neither one nor C entries, or ``std`` is not positive.

  >>> normalize_pixels(jnp.array([[0, 255]], jnp.uint8), mean=0.5, std=0.25).tolist()
  [[-2.0, 2.0]]
  """
  image = jnp.asarray(image)
  if image.ndim == 0:
    raise ValueError('image must have a channel axis, came as a scalar.')
  channels = image.shape[-1]
  statistics = {}
  for name, value in (('mean', mean), ('std', std)):
    row = np.atleast_1d(np.asarray(value, np.float64))
    if row.shape not in ((1,), (channels,)):
      raise ValueError(
        f'{name} must be one number or {channels} numbers, one per channel, came with shape '
        f'{row.shape}.'
      )
    statistics[name] = np.broadcast_to(row, (channels,))
  if not (statistics['std'] > 0).all():
    raise ValueError(f'std must be positive, came as {std}.')

  compute = jnp.promote_types(image.dtype, jnp.float32)
  scale = jnp.asarray(1.0 / (255.0 * statistics['std']), compute)
  shift = jnp.asarray(-statistics['mean'] / statistics['std'], compute)
  # An explicit broadcast: the library also runs under jax_numpy_rank_promotion='raise'.
  axes = (1,) * (image.ndim - 1) + (channels,)
  return (image.astype(compute) * scale.reshape(axes) + shift.reshape(axes)).astype(dtype)
