"""Convolutions written so that XLA is fast on a CPU.

Shape legend: N images, H x W pixels, C input and O output channels, k window, s stride, p padding.

XLA's forward convolution and its input gradient are good on a CPU. Its weight gradient is good
where Eigen computes it, and slow where YNNPACK does (``ynnpack.py``): there it is a matrix product
over all pixels, but for windows at stride 1 on maps that are not large and deep. Depthwise and
grouped convolutions, which XLA runs as scalar loops, are sums of shifted products and splits.

A convolution y = x * w is bilinear, and so are its two gradients. They form a closed triple: with
a cotangent g of y, u of x and v of w,

==================  =====================  ======================
function            gradient of its first  gradient of its second
==================  =====================  ======================
y = conv(x, w)      back(g, w)             weight(x, g)
x = back(y, w)      conv(u, w)             weight(u, y)
w = weight(x, y)    back(y, v)             conv(x, v)
==================  =====================  ======================

so reverse mode works to any order (second-order MAML) and every order is fast.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.models import ynnpack
from jaxdefect.ops.ordering import stored

# Fewer input channels than this are gathered in blocks before they are multiplied.
NARROW = 8
# From this many channels, and numbers per image, YNNPACK's weight gradient falls far behind.
# Milliseconds on two CPU cores, its and ours: 2x160x160x256 2500 and 500, 2x160x160x128 510 and
# 180, 2x80x80x256 180 and 120; but 2x80x80x128 38 and 44, 8x56x56x64 17 and 33.
DEEP, LARGE = 128, 2**20
# XLA transposes the input of a kernel's gradient, in the forward pass if it may, keeps both, and
# computes what the input is made of in the order of the transposed array, which takes longer
# than to store and transpose it (24x56x56x64, 3 x 3, one core: 78 ms, and 53 stored). So inputs of
# more numbers than this are stored when the gradient is there.
MADE_LATE = 2**18


class Geometry(NamedTuple):
  """What a dense convolution needs to know beside its two arrays; static."""

  size: tuple[int, int]  # H, W of the input
  window: int
  stride: int
  padding: int


def direct(
  x: jax.Array, kernel: jax.Array, *, stride: int, padding: int, groups: int = 1
) -> jax.Array:
  """The convolution as XLA has it."""
  return lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=((padding, padding), (padding, padding)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def convolve(
  x: jax.Array, kernel: jax.Array, *, stride: int, padding: int, groups: int
) -> jax.Array:
  """[N, H, W, C], [k, k, C/groups, O] -> [N, H', W', O]."""
  at = Geometry((x.shape[1], x.shape[2]), kernel.shape[0], stride, padding)
  if groups == 1:
    return conv(x, kernel, at)
  if groups == x.shape[3] == kernel.shape[3]:
    return depthwise(x, kernel, at)
  parts = zip(jnp.split(x, groups, axis=3), jnp.split(kernel, groups, axis=3))
  return jnp.concatenate([conv(part, weights, at) for part, weights in parts], axis=3)


def depthwise(x: jax.Array, kernel: jax.Array, at: Geometry) -> jax.Array:
  """One window per channel: the sum of the views under the taps, each times its weights."""
  size = tuple((side + 2 * at.padding - at.window) // at.stride + 1 for side in at.size)
  views = shifted_views(x, size, at)
  return sum(
    (view * kernel[i, j, 0] for i, row in enumerate(views) for j, view in enumerate(row)),
    start=jnp.zeros((), x.dtype),
  )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: jax.Array, kernel: jax.Array, at: Geometry) -> jax.Array:
  """[N, H, W, C], [k, k, C, O] -> [N, H', W', O]."""
  if at.window == 1 and at.padding == 0:
    x = x[:, :: at.stride, :: at.stride]
    return jnp.einsum('nhwc,co->nhwo', x, kernel[0, 0])
  return windows(x, kernel, at)


def windows(x: jax.Array, kernel: jax.Array, at: Geometry) -> jax.Array:
  """As ``conv``, for windows of more than a pixel.

  Maps smaller than the window are gathered into one matrix product: XLA takes 70 ms for a 3 x 3 on
  8 maps of 2 x 2 x 512, and 5 on maps of 3 x 3.
  """
  size = tuple((side + 2 * at.padding - at.window) // at.stride + 1 for side in at.size)
  if min(size) >= at.window:
    return direct(x, kernel, stride=at.stride, padding=at.padding)
  views = [view for row in shifted_views(x, size, at) for view in row]
  kernel = kernel.reshape(-1, kernel.shape[3])
  return jnp.einsum('nhwc,co->nhwo', jnp.concatenate(views, axis=3), kernel)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def back(g: jax.Array, kernel: jax.Array, at: Geometry) -> jax.Array:
  """[N, H', W', O], [k, k, C, O] -> [N, H, W, C], the gradient to the input."""
  if at.window == 1 and at.padding == 0:
    x = jnp.einsum('nhwo,co->nhwc', g, kernel[0, 0])
    edges = [
      (0, side - (have - 1) * at.stride - 1, at.stride - 1)
      for side, have in zip(at.size, g.shape[1:3])
    ]
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *edges, (0, 0, 0)))
  shape = jax.ShapeDtypeStruct((g.shape[0], *at.size, kernel.shape[2]), g.dtype)
  (x,) = jax.linear_transpose(lambda x: windows(x, kernel, at), shape)(g)
  return x


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def weight(x: jax.Array, g: jax.Array, at: Geometry) -> jax.Array:
  """[N, H, W, C], [N, H', W', O] -> [k, k, C, O], the gradient to the kernel."""
  if at.window > 1 and x.size > MADE_LATE:
    x = stored(x, earlier=g)
  if at.window == 1 and at.padding == 0:
    x = x[:, :: at.stride, :: at.stride]
    return pixel_product(x, g)[None, None]
  large = x.shape[3] >= DEEP and x.size >= LARGE * x.shape[0]
  if (at.stride == 1 and not large) or not ynnpack.convolves():
    shape = jax.ShapeDtypeStruct((at.window, at.window, x.shape[3], g.shape[3]), x.dtype)
    (kernel,) = jax.linear_transpose(
      lambda kernel: direct(x, kernel, stride=at.stride, padding=at.padding), shape
    )(g)
    return kernel
  if large and at.stride == 1:
    return weight_by_taps(x, g, at)
  if x.shape[3] < NARROW:
    return weight_from_blocks(x, g, at)
  return jnp.stack(
    [
      jnp.stack([pixel_product(view, g) for view in row])
      for row in shifted_views(x, g.shape[1:3], at)
    ]
  )


def weight_by_taps(x: jax.Array, g: jax.Array, at: Geometry) -> jax.Array:
  """As ``weight`` at stride 1, one tap after the other: only one view of ``x`` exists at a time."""
  pad = at.padding
  x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

  def tap(corner: jax.Array) -> jax.Array:
    start = (0, corner[0], corner[1], 0)
    return pixel_product(lax.dynamic_slice(x, start, (*g.shape[:3], x.shape[3])), g)

  corners = jnp.stack(jnp.indices((at.window, at.window)), -1).reshape(-1, 2)
  kernel = lax.map(tap, corners)  # [k * k, C, O]
  return kernel.reshape(at.window, at.window, x.shape[3], g.shape[3])


def weight_from_blocks(x: jax.Array, g: jax.Array, at: Geometry) -> jax.Array:
  """As ``weight``, for the few channels of a stem, where a product per tap would be too thin.

  A window of k pixels at stride s over C channels is one of K = ceil(k / s) blocks at stride 1
  over s * s * C channels, and the K blocks of a row lie side by side in one product.
  """
  n, height, width, features = g.shape
  channels, stride, pad = x.shape[3], at.stride, at.padding
  taps = -(-at.window // stride)
  rows, columns = height + taps - 1, width + taps - 1
  after = [stride * blocks - pad - side for blocks, side in zip((rows, columns), at.size)]
  zero = jnp.zeros((), x.dtype)
  x = lax.pad(x, zero, ((0, 0, 0), (pad, after[0], 0), (pad, after[1], 0), (0, 0, 0)))
  x = x.reshape(n, rows, stride, columns, stride, channels).transpose(0, 1, 3, 2, 4, 5)
  x = x.reshape(n, rows, columns, stride * stride * channels)
  x = jnp.concatenate([x[:, :, j : j + width] for j in range(taps)], axis=3)
  kernel = jnp.stack([pixel_product(x[:, i : i + height], g) for i in range(taps)])
  kernel = kernel.reshape(taps, taps, stride, stride, channels, features)
  kernel = kernel.transpose(0, 2, 1, 3, 4, 5)
  kernel = kernel.reshape(taps * stride, taps * stride, channels, features)
  return kernel[: at.window, : at.window]


def shifted_views(x: jax.Array, size: tuple[int, ...], at: Geometry) -> list[list[jax.Array]]:
  """[N, H, W, C] -> k rows of k arrays [N, *size, C], the input under each tap."""
  pad, stride = at.padding, at.stride
  x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  height, width = (stride * (side - 1) + 1 for side in size)
  return [
    [x[:, i : i + height : stride, j : j + width : stride] for j in range(at.window)]
    for i in range(at.window)
  ]


def pixel_product(x: jax.Array, g: jax.Array) -> jax.Array:
  """[N, H, W, C], [N, H, W, O] -> [C, O], summed over all pixels.

  The smaller side goes first, which halves the time; the barrier keeps XLA from swapping back.
  """
  x = x.reshape(-1, x.shape[-1])
  g = g.reshape(-1, g.shape[-1])
  if x.shape[1] <= g.shape[1]:
    return jnp.einsum('mc,mo->co', x, g)
  return lax.optimization_barrier(jnp.einsum('mo,mc->oc', g, x)).T


conv.defvjp(
  lambda x, kernel, at: (conv(x, kernel, at), (x, kernel)),
  lambda at, saved, g: (back(g, saved[1], at), weight(saved[0], g, at)),
)
back.defvjp(
  lambda g, kernel, at: (back(g, kernel, at), (g, kernel)),
  lambda at, saved, u: (conv(u, saved[1], at), weight(u, saved[0], at)),
)
weight.defvjp(
  lambda x, g, at: (weight(x, g, at), (x, g)),
  lambda at, saved, v: (back(saved[1], v, at), conv(saved[0], v, at)),
)
