"""GSConv and what slim necks build from it: GS bottleneck and VoV-GSCSP.

Shape legend: N images (or regions), H x W pixels, C channels.

Half of a GSConv's channels come from a dense convolution, the other half from a depthwise one that
reads the first half, so it needs about half of the parameters; a shuffle then mixes the halves.
The paper describes it as depthwise followed by pointwise ('phantom convolution'), which would be
another layer (a depthwise separable convolution); built here is the GSConv that it names. Of the
shuffles in circulation both are here by name. Nothing has a bias, as a normalisation follows
every convolution. The activation is SiLU by default, that of the YOLO necks which GSConv was made
for; the paper names none.

References:
  Li et al., `Slim-neck by GSConv <https://arxiv.org/abs/2206.02424>`_; Xia & Long, section 3.3.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.convolution import Conv
from jaxdefect.models.normalization import BatchNorm

Activation = Callable[[jax.Array], jax.Array]
Norm = Callable[..., nn.Module]  # takes name and dtype, makes a BatchNorm or alike


def shuffle_channels(x: jax.Array, *, order: str = 'interleave') -> jax.Array:
  """Reorders channels so that the two halves of them mix.

  Args:
    x: [..., C], C even.
    order: ``'interleave'`` takes the halves in turn (GSConv's paper and its v8 code);
      ``'split'`` takes the even channels, then the odd ones (its v5 code), which is the inverse.

  Returns:
    [..., C].

  Raises:
    ValueError: for an unknown order.

  >>> print(shuffle_channels(jnp.arange(8)))
  [0 4 1 5 2 6 3 7]
  >>> print(shuffle_channels(jnp.arange(8), order='split'))
  [0 2 4 6 1 3 5 7]
  """
  if order not in ('interleave', 'split'):
    raise ValueError(f"shuffle order must be 'interleave' or 'split', got '{order}'.")
  half = x.shape[-1] // 2
  pairs = (2, half) if order == 'interleave' else (half, 2)
  return x.reshape(*x.shape[:-1], *pairs).swapaxes(-1, -2).reshape(x.shape)


class ConvNorm(nn.Module):
  """Convolution (``'0'``), normalisation (``'1'``) and activation; stride 1 keeps the size.

  Attributes:
    features: number of output channels.
    kernel_size: side of the window in pixels; half of it is padded.
    stride: step of the window in pixels.
    groups: as of ``Conv``.
    activation: function of the normalised values, or None.
    norm: makes the normalisations; BatchNorm as published. With few images per step GroupNorm
      computes the same in training and prediction, which BatchNorm does not.
    dtype: type of the computation; parameters are float32.
  """

  features: int
  kernel_size: int = 1
  stride: int = 1
  groups: int = 1
  activation: Activation | None = nn.silu
  norm: Norm = BatchNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), features]."""
    size, groups = self.kernel_size, self.groups
    x = Conv(self.features, size, self.stride, size // 2, groups, dtype=self.dtype, name='0')(x)
    x = self.norm(dtype=self.dtype, name='1')(x, use_running_average=running, valid=valid)
    return x if self.activation is None else self.activation(x)


class GSConv(nn.Module):
  r"""Dense to half of the channels, depthwise on that half, both concatenated and shuffled.

  .. math::
    d = \phi(\mathrm{BN}(w_{k \times k} * x)), \qquad
    y = \mathrm{shuffle}([d,\; \phi(\mathrm{BN}(v_{5 \times 5} \star d))])

  where :math:`*` is dense and :math:`\star` depthwise. Parameters lie under ``dense`` and
  ``depthwise``.

  Attributes:
    features: number of output channels, even.
    kernel_size: k, side of the dense window in pixels; the depthwise one is 5x5.
    stride: step of the dense window in pixels.
    shuffle: ``'interleave'`` or ``'split'``, see ``shuffle_channels``.
    activation: phi behind both halves, or None.
    norm: makes the normalisations, see ``ConvNorm``.
    dtype: type of the computation; parameters are float32.
  """

  features: int
  kernel_size: int = 3
  stride: int = 1
  shuffle: str = 'interleave'
  activation: Activation | None = nn.silu
  norm: Norm = BatchNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """Convolves.

    Args:
      x: [N, H, W, C].
      running: True normalises with the running statistics.
      valid: [N] bool, images that count in the statistics. None counts all.

    Returns:
      [N, ceil(H / stride), ceil(W / stride), features].
    """
    if self.features % 2:
      raise ValueError(f'features is {self.features}; the halves of a GSConv need an even number.')
    half = self.features // 2
    settings: dict[str, Any] = {
      'activation': self.activation,
      'norm': self.norm,
      'dtype': self.dtype,
    }
    dense = ConvNorm(half, self.kernel_size, self.stride, name='dense', **settings)
    depthwise = ConvNorm(half, 5, groups=half, name='depthwise', **settings)
    x = dense(x, running=running, valid=valid)
    x = jnp.concatenate([x, depthwise(x, running=running, valid=valid)], axis=-1)
    return shuffle_channels(x, order=self.shuffle)


class GSBottleneck(nn.Module):
  """GSConv 1x1 to half the channels, GSConv 3x3 back without activation, plus a 1x1 shortcut.

  Parameters lie under ``conv1``, ``conv2`` and ``shortcut``. ``features`` is a multiple of 4; the
  other attributes are as of ``GSConv``.
  """

  features: int
  shuffle: str = 'interleave'
  activation: Activation | None = nn.silu
  norm: Norm = BatchNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """[N, H, W, C] -> [N, H, W, features]; arguments as of ``GSConv``."""
    settings: dict[str, Any] = {'norm': self.norm, 'dtype': self.dtype}
    halved = GSConv(
      self.features // 2,
      1,
      shuffle=self.shuffle,
      activation=self.activation,
      name='conv1',
      **settings,
    )
    restored = GSConv(
      self.features, 3, shuffle=self.shuffle, activation=None, name='conv2', **settings
    )
    shortcut = ConvNorm(self.features, activation=None, name='shortcut', **settings)
    y = restored(halved(x, running=running, valid=valid), running=running, valid=valid)
    return y + shortcut(x, running=running, valid=valid)


class VoVGSCSP(nn.Module):
  """Half of the channels pass GS bottlenecks, the other half goes straight; 1x1 mixes them.

  1x1 to ``features / 2`` (``reduce``) and GS bottlenecks (``blocks.0``, ...); beside it 1x1 to
  ``features / 2`` (``skip``); [skip, processed] are concatenated and mixed by 1x1 (``fuse``).

  Attributes:
    features: number of output channels, a multiple of 8.
    blocks: number of GS bottlenecks.
    shuffle, activation, norm, dtype: as of ``GSConv``.
  """

  features: int
  blocks: int = 1
  shuffle: str = 'interleave'
  activation: Activation | None = nn.silu
  norm: Norm = BatchNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, running: bool, valid: jax.Array | None = None) -> jax.Array:
    """[N, H, W, C] -> [N, H, W, features]; arguments as of ``GSConv``."""
    if self.features % 8:
      raise ValueError(
        f'features is {self.features}; VoV-GSCSP halves them three times and needs a multiple of 8.'
      )
    settings: dict[str, Any] = {
      'activation': self.activation,
      'norm': self.norm,
      'dtype': self.dtype,
    }
    hidden = self.features // 2
    y = ConvNorm(hidden, name='reduce', **settings)(x, running=running, valid=valid)
    for index in range(self.blocks):
      block = GSBottleneck(hidden, shuffle=self.shuffle, name=f'blocks.{index}', **settings)
      y = block(y, running=running, valid=valid)
    skip = ConvNorm(hidden, name='skip', **settings)(x, running=running, valid=valid)
    y = jnp.concatenate([skip, y], axis=-1)
    return ConvNorm(self.features, name='fuse', **settings)(y, running=running, valid=valid)
