"""Pooling over space.

Shape legend: N images, H x W pixels, C channels.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.ops.ordering import stored

WINDOW, STRIDE = 3, 2
TAPS = tuple((i, j) for i in range(WINDOW) for j in range(WINDOW))


def max_pool(x: jax.Array) -> jax.Array:
  """Largest value of every 3x3 window at stride 2, as in the stem of every ResNet.

  One pixel is padded on each side with minus infinity. Of equal values the first one, row by
  row, gets the gradient, as in PyTorch.

  Args:
    x: [N, H, W, C] values.

  Returns:
    [N, ceil(H/2), ceil(W/2), C].
  """
  if jax.default_backend() == 'cpu':
    return shifted_max_pool(x, (x.shape[1], x.shape[2]))
  return lax.reduce_window(
    x,
    -jnp.inf,
    lax.max,
    window_dimensions=(1, WINDOW, WINDOW, 1),
    window_strides=(1, STRIDE, STRIDE, 1),
    padding=((0, 0), (1, 1), (1, 1), (0, 0)),
  )


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def shifted_max_pool(x: jax.Array, size: tuple[int, int]) -> jax.Array:
  """``max_pool`` as comparisons of nine shifted views.

  XLA's gradient of a pooling runs as scalar loops on a CPU; here it is a sum of masked copies.
  ``size`` is (H, W).
  """
  del size
  return pool_with_winner(x)[0]


def pool_with_winner(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The pooled values and which of the nine taps each one came from."""
  height, width = (-(-side // STRIDE) for side in x.shape[1:3])
  # One more row and column where the side is even, so that every tap has whole strides.
  after = [STRIDE * have + 1 - side - 1 for have, side in zip((height, width), x.shape[1:3])]
  low = jnp.array(-jnp.inf, x.dtype)
  x = lax.pad(x, low, ((0, 0, 0), (1, after[0], 0), (1, after[1], 0), (0, 0, 0)))
  best = winner = None
  for tap, (i, j) in enumerate(TAPS):
    view = x[:, i : i + STRIDE * height : STRIDE, j : j + STRIDE * width : STRIDE]
    if best is None or winner is None:
      best, winner = view, jnp.zeros(view.shape, jnp.int8)
    else:
      # Not a number wins, as it does elsewhere.
      better = (view > best) | (view != view)
      best = jnp.where(better, view, best)
      winner = jnp.where(better, jnp.int8(tap), winner)
  assert best is not None
  assert winner is not None
  return best, winner


def scatter_to_winners(g: jax.Array, winner: jax.Array, size: tuple[int, int]) -> jax.Array:
  """[N, H', W', C] gradients of the windows -> [N, H, W, C] gradients of the pixels."""
  n, height, width, channels = g.shape
  # Pixel (2 a + r, 2 b + c) of the padded grid is seen by the taps of its own parity alone.
  grid = []
  for r in range(STRIDE):
    row = []
    for c in range(STRIDE):
      phase = jnp.zeros((n, height + 1, width + 1, channels), g.dtype)
      for tap, (i, j) in enumerate(TAPS):
        if (i % STRIDE, j % STRIDE) == (r, c):
          part = jnp.where(winner == tap, g, 0)
          down, right = i // STRIDE, j // STRIDE
          phase += jnp.pad(part, ((0, 0), (down, 1 - down), (right, 1 - right), (0, 0)))
      row.append(phase)
    grid.append(jnp.stack(row, axis=3))  # [N, H'+1, W'+1, 2, C]
  full = jnp.stack(grid, axis=2)  # [N, H'+1, 2, W'+1, 2, C]
  full = full.reshape(n, STRIDE * (height + 1), STRIDE * (width + 1), channels)
  return full[:, 1 : 1 + size[0], 1 : 1 + size[1]]


def _pool_forward(x: jax.Array, size: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
  del size
  best, winner = pool_with_winner(x)
  # XLA would keep x and find the winner again, nine times for each pixel.
  return best, stored(winner)


def _pool_backward(size: tuple[int, int], winner: jax.Array, g: jax.Array) -> tuple[jax.Array]:
  return (scatter_to_winners(stored(g), winner, size),)


shifted_max_pool.defvjp(_pool_forward, _pool_backward)


def global_average_pool(x: jax.Array) -> jax.Array:
  """Mean over all pixels, in float32 at least.

  Args:
    x: [N, H, W, C] a feature map.

  Returns:
    [N, C] features.
  """
  return jnp.mean(x.astype(jnp.promote_types(x.dtype, jnp.float32)), axis=(1, 2))


def cell_slices(side: int, cells: int) -> list[slice]:
  """Cuts a side into cells, which share a pixel where they do not divide it.

  Cell i of n covers the pixels from floor(i m / n) up to ceil((i + 1) m / n), as in PyTorch's
  adaptive pooling.

  >>> cell_slices(3, 2)
  [slice(0, 2, None), slice(1, 3, None)]
  """
  return [slice(i * side // cells, -(-(i + 1) * side // cells)) for i in range(cells)]
