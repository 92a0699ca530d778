"""The network of Uninformed Students: a descriptor of a patch, evaluated densely.

Shape legend: N images, H x W pixels, h x w places, C channels, D descriptor size, p field.

Convolutions without padding and 2x2 pools leave one place of a patch of p x p pixels. Over a whole
image the same network is run so that place (i, j) of the output is exactly the descriptor of the
patch whose upper left corner is pixel (s i, s j), for any stride s: a pool halves the map while the
stride asks for it; after that it keeps every place, and what follows is dilated instead (a trous).

References:
  Bergmann et al., `Uninformed Students <https://arxiv.org/abs/1911.02357>`_, section 3.1 and
  appendix A (tables 3 to 5); the dense evaluation is Bailer et al.,
  `Fast dense feature extraction <https://arxiv.org/abs/1805.03096>`_, written as dilation.
"""

from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.models.conv4 import halve
from jaxdefect.models.convolution import conv2d, kaiming_fan_out

SLOPE = 5e-3  # of the leaky ReLU


class Layer(NamedTuple):
  """A convolution and what follows it."""

  window: int
  widen: int = 1  # channels, as a multiple of the network's width; of the last layer they are D
  pool: bool = False


# Field in pixels -> layers.
FIELDS = {
  17: (Layer(6), Layer(5, 2), Layer(5, 2), Layer(4)),
  33: (Layer(5, pool=True), Layer(5, 2, pool=True), Layer(2, 2), Layer(4)),
  65: (Layer(5, pool=True), Layer(5, pool=True), Layer(5, pool=True), Layer(4, 2), Layer(1)),
}


class PatchDescriptor(nn.Module):
  """Descriptors of the patches of an image.

  Attributes:
    field: p, side of a patch in pixels: 17, 33 or 65.
    features: D.
    width: channels of the first layer; 128 is the published network.
    dtype: type of the computation; parameters are float32.
  """

  field: int = 33
  features: int = 128
  width: int = 128
  dtype: Any = jnp.float32

  def __post_init__(self) -> None:
    if self.field not in FIELDS:
      raise ValueError(
        f'field must be one of {", ".join(map(str, FIELDS))} pixels, got {self.field}.'
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, x: jax.Array, *, stride: int = 1) -> jax.Array:
    """Describes every patch at a stride.

    Args:
      x: [N, H, W, C] images of at least p x p pixels.
      stride: s, pixels between neighbouring patches; what saves time is 2, 4 and so on.

    Returns:
      [N, (H - p) // s + 1, (W - p) // s + 1, D].

    Raises:
      ValueError: images smaller than a patch, or a stride below 1.
    """
    chex.assert_rank(x, 4)
    if stride < 1 or min(x.shape[1:3]) < self.field:
      raise ValueError(
        f'the stride must be at least 1 and images at least {self.field} x {self.field} pixels, '
        f'got {stride} and {x.shape[1]} x {x.shape[2]}.'
      )
    height, width = ((side - self.field) // stride + 1 for side in x.shape[1:3])
    layers = FIELDS[self.field]
    last_window = max(k for k, layer in enumerate(layers) if layer.window > 1)
    reached, dilation = 1, 1  # pixels between places of the map; places between taps
    for k, layer in enumerate(layers):
      last = k == len(layers) - 1
      conv = DilatedConv(
        features=self.features if last else layer.widen * self.width,
        kernel_size=layer.window,
        # What the pools left of the stride.
        stride=stride // reached if k == last_window else 1,
        dilation=dilation if layer.window > 1 else 1,
        dtype=self.dtype,
        name=f'conv{k + 1}',
      )
      x = conv(x)
      if not last:
        x = nn.leaky_relu(x, SLOPE)
      if layer.pool and stride % (2 * reached) == 0:
        x, reached = halve(x), 2 * reached
      elif layer.pool:
        x, dilation = windows_maximum(x, dilation=dilation), 2 * dilation
    # Where a pool drops the last row of a patch, the map goes on for a place or two.
    return x[:, :height, :width]


class DilatedConv(nn.Module):
  """A convolution with a bias and without padding whose taps lie apart.

  Attributes:
    features: O, number of output channels.
    kernel_size: taps of a side.
    stride: step of the window in places.
    dilation: places from one tap to the next.
    dtype: type of the computation; parameters are float32.
  """

  features: int
  kernel_size: int
  stride: int = 1
  dilation: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[N, H, W, C] -> [N, (H - e) // s + 1, (W - e) // s + 1, O], e = (taps - 1) dilation + 1."""
    shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
    kernel = self.param('kernel', kaiming_fan_out, shape, jnp.float32).astype(self.dtype)
    bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
    x = x.astype(self.dtype)
    if self.dilation == 1:
      y = conv2d(x, kernel, stride=self.stride)
    else:
      y = lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(self.stride, self.stride),
        padding='VALID',
        rhs_dilation=(self.dilation, self.dilation),
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      )
    return y + bias.astype(self.dtype)


def windows_maximum(x: jax.Array, *, dilation: int = 1) -> jax.Array:
  """Largest of four places, ``dilation`` apart, at stride 1.

  Args:
    x: [N, H, W, C].
    dilation: d, in places.

  Returns:
    [N, H - d, W - d, C].

  >>> windows_maximum(jnp.arange(6.0).reshape(1, 2, 3, 1)).ravel().tolist()
  [4.0, 5.0]
  """
  x = jnp.maximum(x[:, dilation:], x[:, :-dilation])
  return jnp.maximum(x[:, :, dilation:], x[:, :, :-dilation])


def pad_to_cells(image: jax.Array, *, field: int, stride: int) -> jax.Array:
  """Mirrors the border of images so that every cell of ``stride`` pixels has its patch.

  Args:
    image: [N, H, W, C].
    field: p, side of a patch in pixels.
    stride: s, pixels between patches, at most p.

  Returns:
    [N, (h - 1) s + p, (w - 1) s + p, C] with h = ceil(H / s): one patch for each cell, its centre
    within half a pixel of the cell's.
  """
  chex.assert_rank(image, 4)
  padding = []
  for side in image.shape[1:3]:
    before = (field - stride + 1) // 2
    after = (-(-side // stride) - 1) * stride + field - side - before
    padding.append((before, after))
  return jnp.pad(image, ((0, 0), *padding, (0, 0)), mode='reflect')
