"""Vision transformers, interchangeable with DINOv2's and timm's.

Shape legend: N images, H x W pixels, p pixels of a patch's side, h x w = H/p x W/p patches,
T tokens (one for the class, R registers, h * w patches), D features.

Joining the path of a parameter with dots gives the key of DINOv2's own files, but for the last
word::

  cls_token, pos_embed, register_tokens            the same
  patch_embed / proj / kernel                      patch_embed.proj.weight
  blocks.0 / attn / qkv / kernel                   blocks.0.attn.qkv.weight
  blocks.0 / ls1 / gamma                           blocks.0.ls1.gamma
  norm / scale                                     norm.weight

A stage is a quarter of the blocks, and all maps have the grid of the patches. Each is normalised by
the last LayerNorm, as DINOv2's ``get_intermediate_layers`` does.

=====================  =====  ======  =====  ====  ==========  =========  ==================
name                   patch  blocks      D     h  LayerScale  registers  trained at
=====================  =====  ======  =====  ====  ==========  =========  ==================
``dinov2_vits14``         14      12    384     6  yes                 0  518 x 518
``dinov2_vitb14``         14      12    768    12  yes                 0  518 x 518
``dinov2_vitl14``         14      24   1024    16  yes                 0  518 x 518
``dinov2_vit?14_reg``     14         as above      yes                 4  518 x 518
``vit_s16``               16      12    384     6  no                  0  224 x 224
``vit_b16``               16      12    768    12  no                  0  224 x 224
=====================  =====  ======  =====  ====  ==========  =========  ==================

**Two conventions for other sizes.** Position vectors are resampled to the grid of the image by
``ops.resize_bicubic``, in the convention under which the weights were used: DINOv2 without
registers does not antialias and has an offset of 0.1 places; DINOv2 with registers and timm's plain
transformers antialias, without offset. (timm antialiases for DINOv2 without registers too: its
features for sizes other than 518 differ a little from DINOv2's own, which are those here.)

References:
  Dosovitskiy et al., `An Image is Worth 16x16 Words <https://arxiv.org/abs/2010.11929>`_.
  Oquab et al., `DINOv2 <https://arxiv.org/abs/2304.07193>`_.
  Darcet et al., `Vision Transformers Need Registers <https://arxiv.org/abs/2309.16588>`_.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.convolution import Conv
from jaxdefect.models.transformer_block import TransformerBlock, layer_norm
from jaxdefect.ops import resize_bicubic

_SIZES = {
  's': {'blocks': 12, 'heads': 6},
  'b': {'blocks': 12, 'heads': 12},
  'l': {'blocks': 24, 'heads': 16},
}
_DINOV2 = {'patch': 14, 'grid': 37, 'scaled': True}
VISION_TRANSFORMERS: dict[str, dict[str, Any]] = {
  **{f'dinov2_vit{k}14': {**size, **_DINOV2, 'offset': 0.1} for k, size in _SIZES.items()},
  **{
    f'dinov2_vit{k}14_reg': {**size, **_DINOV2, 'registers': 4, 'antialias': True}
    for k, size in _SIZES.items()
  },
  **{f'vit_{k}16': {**_SIZES[k], 'patch': 16, 'grid': 14, 'antialias': True} for k in 'sb'},
}
_TOKENS = nn.initializers.truncated_normal(0.02)


class VisionTransformer(nn.Module):
  """A vision transformer without classifier, up to a stage.

  Attributes:
    blocks: how many there are in four stages; a multiple of four.
    heads: of the attention.
    head_features: features of a head; D is as many for each head.
    patch: p.
    grid: patches of a side of the images that it was trained with.
    scaled: whether blocks have LayerScale.
    registers: R, tokens that hold nothing but the network's own notes.
    antialias: of ``ops.resize_bicubic``, and so is ``offset``.
    stages: how many of the four stages there are.
    dtype: type of the computation; parameters stay float32.
  """

  blocks: int = 12
  heads: int = 6
  head_features: int = 64
  patch: int = 14
  grid: int = 37
  scaled: bool = False
  registers: int = 0
  antialias: bool = False
  offset: float = 0.0
  stages: int = 4
  dtype: Any = jnp.float32

  @property
  def stage_features(self) -> tuple[int, ...]:
    """Features of every map."""
    return (self.heads * self.head_features,) * self.stages

  @nn.nowrap
  def frozen(self, path: tuple[str, ...]) -> bool:
    """Says that no parameter is trained: it describes images, and that is all."""
    del path
    return True

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
    """Describes the patches of images.

    Args:
      x: [N, H, W, 3] normalised images.
      train: changes nothing.

    Returns:
      One map [N, h, w, D] per stage.

    Raises:
      ValueError: a side of the images is no multiple of p.
    """
    del train
    count, height, width, _ = x.shape
    if height % self.patch or width % self.patch:
      raise ValueError(
        f'images are {height} x {width} pixels; a vision transformer with patches of '
        f'{self.patch} x {self.patch} needs sides that are multiples of {self.patch}.'
      )
    features = self.heads * self.head_features
    x = _PatchEmbed(features, self.patch, dtype=self.dtype, name='patch_embed')(x)
    size = (x.shape[1], x.shape[2])
    x = x.reshape(count, -1, features)

    def token(name: str, number: int) -> jax.Array:
      return self.param(name, _TOKENS, (1, number, features), jnp.float32)

    def repeated(tokens: jax.Array) -> jax.Array:
      return jnp.broadcast_to(tokens.astype(self.dtype), (count, *tokens.shape[1:]))

    x = jnp.concatenate([repeated(token('cls_token', 1)), x], axis=1)
    places = self._places(token('pos_embed', 1 + self.grid**2), size)
    x = x + repeated(places)
    if self.registers:
      notes = repeated(token('register_tokens', self.registers))
      x = jnp.concatenate([x[:, :1], notes, x[:, 1:]], axis=1)  # they are at no place

    norm = layer_norm('norm', self.dtype)
    maps = []
    for stage in range(self.stages):
      for index in range(stage * self.blocks // 4, (stage + 1) * self.blocks // 4):
        block = TransformerBlock(self.heads, self.scaled, dtype=self.dtype, name=f'blocks.{index}')
        x = block(x)
      maps.append(norm(x)[:, 1 + self.registers :].reshape(count, *size, features))
    return tuple(maps)

  def _places(self, embedding: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Position vectors [1, 1 + grid^2, D] for a grid of another size, [1, 1 + h * w, D]."""
    if size == (self.grid, self.grid):
      return embedding
    own = embedding[0, 1:].reshape(self.grid, self.grid, -1)
    resized = resize_bicubic(own, size, antialias=self.antialias, offset=self.offset)
    patches = resized.reshape(1, -1, embedding.shape[-1]).astype(embedding.dtype)
    return jnp.concatenate([embedding[:, :1], patches], axis=1)


class _PatchEmbed(nn.Module):
  """A dense layer on the pixels of every patch, as the convolution ``proj``."""

  features: int
  patch: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[N, H, W, 3] -> [N, h, w, D]."""
    settings = {'use_bias': True, 'kernel_init': nn.initializers.lecun_normal()}
    layer = Conv(self.features, self.patch, self.patch, dtype=self.dtype, name='proj', **settings)
    return layer(x)


def vision_transformer(
  name: str, *, stages: int | None = None, width: int = 64, dtype: Any = jnp.float32
) -> VisionTransformer:
  """Makes a vision transformer by name.

  Args:
    name: of ``VISION_TRANSFORMERS``.
    stages: the network ends after this quarter of its blocks, 1 to 4; None means all four.
    width: features of each head; 64 is the published network.
    dtype: type of the computation.

  Returns:
    The module; called on normalised images [N, H, W, 3] it returns one map [N, h, w, D] per stage.

  Raises:
    ValueError: an unknown name or number of stages.

  >>> vision_transformer('dinov2_vits14', stages=2).stage_features
  (384, 384)
  """
  if name not in VISION_TRANSFORMERS:
    raise ValueError(
      f"vision transformer must be one of {', '.join(VISION_TRANSFORMERS)}, got '{name}'."
    )
  stages = 4 if stages is None else stages
  if stages not in (1, 2, 3, 4):
    raise ValueError(f'stages must be 1, 2, 3, 4 or None (all), got {stages}.')
  settings = VISION_TRANSFORMERS[name]
  return VisionTransformer(head_features=width, stages=stages, dtype=dtype, **settings)
