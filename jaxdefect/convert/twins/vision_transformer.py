"""Vision transformers in plain PyTorch; keys are those of DINOv2's own files.

Shape legend: N images, 3 channels, H x W pixels, h x w patches, T tokens, D features.

Stage k ends after k quarters of the blocks; all maps have the grid of the patches, each normalised
by the last LayerNorm.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.backbone import NETWORKS, Backbone


class SelfAttention(nn.Module):
  """Multi-head attention; Q, K and V are one layer."""

  def __init__(self, features: int, heads: int):
    super().__init__()
    self.heads = heads
    self.qkv = nn.Linear(features, 3 * features)
    self.proj = nn.Linear(features, features)

  def forward(self, x: Tensor) -> Tensor:
    count, tokens, features = x.shape
    qkv = self.qkv(x).reshape(count, tokens, 3, self.heads, features // self.heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [N, heads, T, d] each
    weights = (q @ k.mT * (features // self.heads) ** -0.5).softmax(-1)
    return self.proj((weights @ v).transpose(1, 2).reshape(count, tokens, features))


class TokenMLP(nn.Module):
  """Two layers with the exact GELU between them."""

  def __init__(self, features: int):
    super().__init__()
    self.fc1 = nn.Linear(features, 4 * features)
    self.fc2 = nn.Linear(4 * features, features)

  def forward(self, x: Tensor) -> Tensor:
    return self.fc2(nn.functional.gelu(self.fc1(x)))


class LayerScale(nn.Module):
  """One factor per feature."""

  def __init__(self, features: int):
    super().__init__()
    self.gamma = nn.Parameter(torch.ones(features))

  def forward(self, x: Tensor) -> Tensor:
    return x * self.gamma


class TransformerBlock(nn.Module):
  """Attention and an MLP, each behind a LayerNorm and beside a skip."""

  def __init__(self, features: int, heads: int, *, scaled: bool):
    super().__init__()
    self.norm1 = nn.LayerNorm(features, eps=1e-6)
    self.attn = SelfAttention(features, heads)
    self.ls1 = LayerScale(features) if scaled else nn.Identity()
    self.norm2 = nn.LayerNorm(features, eps=1e-6)
    self.mlp = TokenMLP(features)
    self.ls2 = LayerScale(features) if scaled else nn.Identity()

  def forward(self, x: Tensor) -> Tensor:
    x = x + self.ls1(self.attn(self.norm1(x)))
    return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
  """A linear layer on the pixels of every patch."""

  def __init__(self, features: int, patch: int):
    super().__init__()
    self.proj = nn.Conv2d(3, features, patch, patch)

  def forward(self, x: Tensor) -> Tensor:
    return self.proj(x)


class VisionTransformer(Backbone):
  """A vision transformer without classifier, up to a stage.

  Args:
    stages: 1 to 4.
    head_features: features of a head; 64 is the published network.
    blocks: of all four stages.
    heads: of the attention.
    patch: pixels of a patch's side.
    grid: patches of a side of the images that it was trained with.
    scaled: whether blocks have LayerScale.
    registers: further tokens.
    antialias: how position vectors reach another grid, see ``bicubic_resampling``.
    offset: the same.
  """

  def __init__(
    self,
    stages: int = 4,
    head_features: int = 64,
    *,
    blocks: int,
    heads: int,
    patch: int,
    grid: int,
    scaled: bool = False,
    registers: int = 0,
    antialias: bool = False,
    offset: float = 0.0,
  ):
    super().__init__()
    features = heads * head_features
    self.stages, self.num_features = stages, features
    self.grid, self.patch, self.registers = grid, patch, registers
    self.antialias, self.offset = antialias, offset
    self.ends = tuple(stage * blocks // 4 for stage in range(1, stages + 1))
    self.patch_embed = PatchEmbed(features, patch)
    self.cls_token = nn.Parameter(torch.zeros(1, 1, features))
    self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, features))
    if registers:
      self.register_tokens = nn.Parameter(torch.zeros(1, registers, features))
    self.blocks = nn.Sequential(
      *(TransformerBlock(features, heads, scaled=scaled) for _ in range(self.ends[-1]))
    )
    self.norm = nn.LayerNorm(features, eps=1e-6)

  def maps(self, x: Tensor) -> tuple[Tensor, ...]:
    if x.shape[2] % self.patch or x.shape[3] % self.patch:
      raise ValueError(
        f'images are {x.shape[2]} x {x.shape[3]} pixels; this vision transformer needs sides that '
        f'are multiples of {self.patch}'
      )
    x = self.patch_embed(x)
    count, features, height, width = x.shape
    x = torch.cat([self.cls_token.expand(count, -1, -1), x.flatten(2).mT], dim=1)
    x = x + self._places(height, width)
    if self.registers:
      notes = self.register_tokens.expand(count, -1, -1)
      x = torch.cat([x[:, :1], notes, x[:, 1:]], dim=1)
    maps = []
    for number, block in enumerate(self.blocks, start=1):
      x = block(x)
      if number in self.ends:
        patches = self.norm(x)[:, 1 + self.registers :]
        maps.append(patches.mT.reshape(count, features, height, width))
    return tuple(maps)

  def _places(self, height: int, width: int) -> Tensor:
    """Position vectors of the class token and of a grid, [1, 1 + h * w, D]."""
    if (height, width) == (self.grid, self.grid):
      return self.pos_embed
    own = self.pos_embed[0, 1:].reshape(self.grid, self.grid, -1).permute(2, 0, 1)
    rows, columns = (
      bicubic_resampling(self.grid, want, antialias=self.antialias, offset=self.offset).to(own)
      for want in (height, width)
    )
    resized = (rows @ own @ columns.T).flatten(1).T  # [h * w, D]
    return torch.cat([self.pos_embed[:, :1], resized[None]], dim=1)


def bicubic_resampling(have: int, want: int, *, antialias: bool, offset: float) -> Tensor:
  """[want, have] float64: one axis of a bicubic interpolation, as PyTorch does it.

  With ``antialias`` the kernel widens as the grid shrinks; ``offset`` is added to ``want`` where
  the step is computed.
  """
  step, a = have / (want + offset), -0.5 if antialias else -0.75
  place = (torch.arange(want, dtype=torch.float64) + 0.5) * step - 0.5
  stretch = max(1.0, step) if antialias else 1.0
  reach = math.ceil(2 * stretch) + 1
  near = place.floor().long()[:, None] + torch.arange(-reach, reach + 1)
  x = ((near - place[:, None]) / stretch).abs()
  inner = ((a + 2) * x - (a + 3)) * x * x + 1
  outer = a * (((x - 5) * x + 8) * x - 4)
  weight = torch.where(x <= 1, inner, torch.where(x < 2, outer, torch.zeros_like(x)))
  if antialias:
    weight = torch.where((near >= 0) & (near < have), weight, torch.zeros_like(weight))
  matrix = torch.zeros(want, have, dtype=torch.float64)
  row = torch.arange(want)[:, None].expand_as(near)
  matrix.index_put_((row, near.clamp(0, have - 1)), weight, accumulate=True)
  return matrix / matrix.sum(1, keepdim=True)


# (blocks, heads) by the letter of a name.
TRANSFORMER_SIZES = {'s': (12, 6), 'b': (12, 12), 'l': (24, 16)}


def _transformer(letter: str, **settings: Any):
  def make_transformer(stages: int, width: int) -> VisionTransformer:
    blocks, heads = TRANSFORMER_SIZES[letter]
    return VisionTransformer(stages, width, blocks=blocks, heads=heads, **settings)

  return make_transformer


DINOV2 = {'patch': 14, 'grid': 37, 'scaled': True}
NETWORKS |= {
  **{f'dinov2_vit{letter}14': _transformer(letter, **DINOV2, offset=0.1) for letter in 'sbl'},
  **{
    f'dinov2_vit{letter}14_reg': _transformer(letter, **DINOV2, registers=4, antialias=True)
    for letter in 'sbl'
  },
  **{f'vit_{letter}16': _transformer(letter, patch=16, grid=14, antialias=True) for letter in 'sb'},
}
