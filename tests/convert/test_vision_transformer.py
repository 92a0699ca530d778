"""Vision transformers from DINOv2's and timm's files, and out to PyTorch again.

Shape legend: N images, T tokens, D features, H x W pixels.
"""

import functools

import jax
import numpy as np
import pytest
import torch
from torch import nn

from jaxdefect import models
from jaxdefect.convert import torch_params, twins, weights_from_torch

# (patch, blocks, heads, grid, LayerScale, registers, antialias, offset), by hand.
_SHAPES = {
  'dinov2_vits14': (14, 12, 6, 37, True, 0, False, 0.1),
  'dinov2_vitb14': (14, 12, 12, 37, True, 0, False, 0.1),
  'dinov2_vitl14': (14, 24, 16, 37, True, 0, False, 0.1),
  'dinov2_vits14_reg': (14, 12, 6, 37, True, 4, True, 0.0),
  'dinov2_vitl14_reg': (14, 24, 16, 37, True, 4, True, 0.0),
  'vit_s16': (16, 12, 6, 14, False, 0, True, 0.0),
  'vit_b16': (16, 12, 12, 14, False, 0, True, 0.0),
}


class _Scale(nn.Module):
  def __init__(self, size):
    super().__init__()
    self.gamma = nn.Parameter(torch.ones(size))

  def forward(self, x):
    return self.gamma * x


class _Attention(nn.Module):
  def __init__(self, size, heads):
    super().__init__()
    self.heads = heads
    self.qkv, self.proj = nn.Linear(size, 3 * size), nn.Linear(size, size)

  def forward(self, x):
    parts = [p.unflatten(2, (self.heads, -1)).transpose(1, 2) for p in self.qkv(x).chunk(3, 2)]
    mixed = nn.functional.scaled_dot_product_attention(*parts)
    return self.proj(mixed.transpose(1, 2).flatten(2))


class _Block(nn.Module):
  def __init__(self, size, heads, scaled):
    super().__init__()
    self.norm1, self.norm2 = nn.LayerNorm(size, eps=1e-6), nn.LayerNorm(size, eps=1e-6)
    self.attn = _Attention(size, heads)
    self.mlp = nn.Module()
    self.mlp.fc1, self.mlp.fc2 = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)
    if scaled:
      self.ls1, self.ls2 = _Scale(size), _Scale(size)
    self.scaled = scaled

  def forward(self, x):
    y = self.attn(self.norm1(x))
    x = x + (self.ls1(y) if self.scaled else y)
    y = self.mlp.fc2(nn.functional.gelu(self.mlp.fc1(self.norm2(x))))
    return x + (self.ls2(y) if self.scaled else y)


class _Network(nn.Module):
  """The network from its papers, apart from the twin; keys are DINOv2's."""

  def __init__(self, name, head=64, num_classes=None):
    super().__init__()
    patch, blocks, heads, self.grid, scaled, registers, self.antialias, self.offset = _SHAPES[name]
    size = head * heads
    self.patch_embed = nn.Module()
    self.patch_embed.proj = nn.Conv2d(3, size, patch, patch)
    self.cls_token = nn.Parameter(torch.zeros(1, 1, size))
    self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, size))
    if scaled:
      self.mask_token = nn.Parameter(torch.zeros(1, size))
    if registers:
      self.register_tokens = nn.Parameter(torch.zeros(1, registers, size))
    self.registers = registers
    self.blocks = nn.ModuleList([_Block(size, heads, scaled) for _ in range(blocks)])
    self.norm = nn.LayerNorm(size, eps=1e-6)
    self.head = None if num_classes is None else nn.Linear(size, num_classes)

  def places(self, height, width):
    if height == width == self.grid:
      return self.pos_embed
    own = self.pos_embed[:, 1:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
    asked = {'size': (height, width)}
    if self.offset:
      factor = ((height + self.offset) / self.grid, (width + self.offset) / self.grid)
      asked = {'scale_factor': factor}
    own = nn.functional.interpolate(own, mode='bicubic', antialias=self.antialias, **asked)
    return torch.cat([self.pos_embed[:, :1], own.flatten(2).transpose(1, 2)], 1)

  def forward(self, x):
    """[N, 3, H, W] -> one map [N, h, w, D] per quarter of the blocks."""
    x = self.patch_embed.proj(x)
    count, _, height, width = x.shape
    x = torch.cat([self.cls_token.repeat(count, 1, 1), x.flatten(2).transpose(1, 2)], 1)
    x = x + self.places(height, width)
    if self.registers:
      x = torch.cat([x[:, :1], self.register_tokens.repeat(count, 1, 1), x[:, 1:]], 1)
    maps = []
    for number, block in enumerate(self.blocks, start=1):
      x = block(x)
      if number % (len(self.blocks) // 4) == 0:
        maps.append(self.norm(x)[:, 1 + self.registers :].unflatten(1, (height, width)))
    return maps


@functools.cache
def network(name, head=64, num_classes=None):
  """A network with random weights everywhere."""
  generator = torch.Generator().manual_seed(0)
  made = _Network(name, head, num_classes)
  with torch.no_grad():
    for key, value in made.named_parameters():
      if value.ndim in (2, 4) and key != 'mask_token':
        value.normal_(0.0, value[0].numel() ** -0.5, generator=generator)
      elif 'norm' in key and key.endswith('weight'):
        value.uniform_(0.5, 1.5, generator=generator)
      elif key.endswith('gamma'):
        value.uniform_(0.1, 0.8, generator=generator)
      else:
        value.normal_(0.0, 0.3, generator=generator)
  return made.eval()


def images(name, height=3, width=2):
  patch = _SHAPES[name][0]
  shape = (2, height * patch, width * patch, 3)
  return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def theirs(module, x):
  with torch.inference_mode():
    return [one.numpy() for one in module(torch.from_numpy(x).permute(0, 3, 1, 2))]


def check_same(ours, expected):
  for mine, other in zip(ours, expected, strict=True):
    assert other.std() > 0.5
    print(mine.shape, np.abs(mine - other).max(), np.abs(other).max())
    np.testing.assert_allclose(mine, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize('name', ['dinov2_vits14', 'dinov2_vits14_reg', 'vit_s16'])
def test_a_file_gives_the_same_maps(tmp_path, name):
  module = network(name, num_classes=5 if name == 'vit_s16' else None)
  torch.save(module.state_dict(), tmp_path / 'a.pth')
  loaded = weights_from_torch.load(tmp_path / 'a.pth', backbone=name)
  x = images(name)
  ours = jax.jit(models.vision_transformer(name).apply)(loaded.variables, x)
  check_same(ours, theirs(module, x))
  assert not loaded.folded
  if name == 'vit_s16':
    np.testing.assert_array_equal(loaded.head['kernel'], module.head.weight.detach().T)
  else:
    assert loaded.head is None


# The published widths are loaded above; here every shape of the table, four features to a head.
@pytest.mark.parametrize('name', _SHAPES)
def test_every_shape_and_its_twin_are_the_same(name):
  module = network(name, head=4)
  ours = models.vision_transformer(name, width=4)
  x = images(name, height=2, width=5)
  template = jax.eval_shape(ours.init, jax.random.key(0), x)
  state = {k: v.numpy() for k, v in module.state_dict().items() if k != 'mask_token'}
  variables = torch_params.from_state_dict(template, state)
  expected = theirs(module, x)
  check_same(jax.jit(ours.apply)(variables, x), expected)
  twin = twins.backbone(name, width=4).eval()
  again = torch_params.to_state_dict(variables)
  assert {key: value.shape for key, value in again.items()} == {
    key: value.shape for key, value in state.items()
  }
  twin.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in again.items()})
  with torch.inference_mode():
    maps = twin.maps(torch.from_numpy(x).permute(0, 3, 1, 2))
  check_same([one.permute(0, 2, 3, 1).numpy() for one in maps], expected)


@pytest.mark.parametrize('name', ['dinov2_vits14', 'vit_s16'])
def test_places_are_added_as_they_are_on_the_own_grid(name):
  side = _SHAPES[name][3]
  module, x = network(name, head=4), images(name, side, side)[:1]
  ours = models.vision_transformer(name, width=4, stages=1)
  state = module.state_dict()
  template = jax.eval_shape(ours.init, jax.random.key(0), x)
  keys = torch_params.to_state_dict(jax.tree.map(lambda s: np.zeros(s.shape), template))
  variables = torch_params.from_state_dict(template, {key: state[key] for key in keys})
  check_same(jax.jit(ours.apply)(variables, x), theirs(module, x)[:1])


def test_a_part_is_loaded_alone(tmp_path):
  torch.save(network('dinov2_vits14').state_dict(), tmp_path / 'a.pth')
  loaded = weights_from_torch.load(tmp_path / 'a.pth', backbone='dinov2_vits14', stages=2)
  names = {f'blocks.{i}' for i in range(6)} | {'cls_token', 'pos_embed', 'patch_embed', 'norm'}
  assert set(loaded.variables['params']) == names


def _timm_state(module):
  """timm's names: registers renamed, the class token's position added to it and left out."""
  state = dict(module.state_dict())
  del state['mask_token']
  state['reg_token'] = state.pop('register_tokens')
  state['cls_token'] = state['cls_token'] + state['pos_embed'][:, :1]
  state['pos_embed'] = state['pos_embed'][:, 1:].clone()
  return state


def test_timm_registers_load_to_the_same_network(tmp_path):
  name = 'dinov2_vits14_reg'
  torch.save(_timm_state(network(name)), tmp_path / 'vit_small_patch14_reg4_dinov2.lvd142m.pth')
  loaded = weights_from_torch.load(name, backbone=name, stages=1, weights_dir=tmp_path)
  x = images(name)
  ours = jax.jit(models.vision_transformer(name, stages=1).apply)(loaded.variables, x)
  check_same(ours, theirs(network(name), x)[:1])


@pytest.mark.parametrize(
  ('name', 'file'),
  [
    ('dinov2_vits14', 'dinov2_vits14_pretrain.pth'),
    ('dinov2_vitl14_reg', 'dinov2_vitl14_reg4_pretrain.pth'),
    ('dinov2_vitb14', 'vit_base_patch14_dinov2.lvd142m.safetensors'),
    ('vit_b16', 'vit_base_patch16_224.augreg_in21k_ft_in1k.safetensors'),
  ],
)
def test_files_are_found_by_the_names_that_they_are_published_under(tmp_path, name, file):
  (tmp_path / file).touch()
  (tmp_path / 'resnet18-5c106cde.pth').touch()
  assert weights_from_torch.find(name, weights_dir=tmp_path).name == file


@pytest.mark.parametrize(
  ('backbone', 'change', 'sentence'),
  [
    ('dinov2_vits14', {'blocks.3.ls1.gamma': None}, "holds no 'blocks.3.ls1.gamma'; the file ends"),
    ('dinov2_vits14', {'norm.bias': None}, "holds no 'norm.bias'; dinov2_vits14 needs it"),
    (
      'dinov2_vits14',
      {'pos_embed': torch.zeros(1, 257, 384)},
      r"'pos_embed' with shape \(1, 257, 384\); dinov2_vits14 needs \(1, 1370, 384\)",
    ),
    (
      'dinov2_vits14',
      {'blocks.0.mlp.w12.weight': torch.zeros(2)},
      "'blocks.0.mlp.w12.weight', whi",
    ),
    ('dinov2_vits14_reg', {}, "holds no 'register_tokens'"),
    ('vit_s16', {}, "'mask_token'|'blocks.0.ls1.gamma' and 23 more, which vit_s16 does not have"),
    ('resnet18', {}, "which resnet18 does not have: its keys are like 'layer1.0.conv1.weight'"),
  ],
)
def test_rejects_a_file_that_does_not_fit(tmp_path, backbone, change, sentence):
  state = {**network('dinov2_vits14').state_dict(), **change}
  torch.save({k: v for k, v in state.items() if v is not None}, tmp_path / 'a.pth')
  with pytest.raises(ValueError, match=sentence):
    weights_from_torch.load(tmp_path / 'a.pth', backbone=backbone)
