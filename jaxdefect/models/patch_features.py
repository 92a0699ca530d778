"""Patch features: what a backbone says about every place of an image (Roth et al. 2022, 3.1).

Shape legend: N images, H x W pixels, h x w places, C channels of a stage, D features of a place.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.frozen_backbone import FrozenBackbone


class PatchFeatures(nn.Module):
  """Locally averaged maps of some stages of a backbone, on one grid.

  Every map is averaged over a neighbourhood at stride 1 (zeros beyond the border count), brought
  bilinearly to the grid of the first of the stages, and all are concatenated along channels.
  Parameters lie under ``backbone``.

  Attributes:
    backbone: a module from ``models.backbone`` or ``models.frozen_backbone``.
    layers: stages, counted from 1, rising.
    neighbourhood: side of the window in places, odd; 1 takes the maps as they are.
  """

  backbone: FrozenBackbone
  layers: tuple[int, ...] = (2, 3)
  neighbourhood: int = 3

  def __post_init__(self) -> None:
    stages = len(self.backbone.stage_features)
    layers = tuple(self.layers)
    if (
      not layers
      or list(layers) != sorted(set(layers))
      or not set(layers) <= {*range(1, stages + 1)}
    ):
      raise ValueError(
        f'layers must be rising numbers from 1 to {stages} (the stages there are), got {layers}.'
      )
    if self.neighbourhood < 1 or self.neighbourhood % 2 == 0:
      raise ValueError(f'neighbourhood must be 1, 3, 5, ... places, got {self.neighbourhood}.')
    super().__post_init__()

  @property
  def features(self) -> int:
    """D, the features of a place."""
    return sum(self.backbone.stage_features[layer - 1] for layer in self.layers)

  @nn.nowrap
  def frozen(self, path: tuple[str, ...]) -> bool:
    """Says whether the parameter at ``path`` gets no gradient."""
    return path[0] == 'backbone' and self.backbone.frozen(path[1:])

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
    """[N, H, W, 3] normalised images -> [N, h, w, D] float32."""
    maps = self.backbone(image, train=train)
    return join_maps([neighbourhood_mean(maps[k - 1], self.neighbourhood) for k in self.layers])


def neighbourhood_mean(maps: jax.Array, side: int) -> jax.Array:
  """Mean over a window of ``side`` x ``side`` places at stride 1; zeros beyond the border count.

  Args:
    maps: [N, h, w, C].
    side: of the window, odd.

  Returns:
    [N, h, w, C], float32 at least.

  >>> (9 * neighbourhood_mean(jnp.ones((1, 3, 3, 1)), 3))[0, :, :, 0].round().tolist()[1]
  [6.0, 9.0, 6.0]
  """
  maps = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
  if side == 1:
    return maps
  # Rows, then columns, as sums of shifted views: a pooling runs as scalar loops on a CPU.
  height, width, reach = maps.shape[1], maps.shape[2], side // 2
  padded = jnp.pad(maps, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
  rows = sum(padded[:, i : i + height] for i in range(side))
  return sum(rows[:, :, j : j + width] for j in range(side)) / side**2  # pyright: ignore


def join_maps(maps: list[jax.Array]) -> jax.Array:
  """Brings maps [N, h_i, w_i, C_i] to the grid of the first and concatenates their channels.

  Args:
    maps: the first is the finest.

  Returns:
    [N, h_0, w_0, sum of C_i].
  """
  grid = maps[0].shape[1:3]
  return jnp.concatenate(
    [
      m
      if m.shape[1:3] == grid
      else jax.image.resize(m, (m.shape[0], *grid, m.shape[3]), 'bilinear')
      for m in maps
    ],
    axis=-1,
  )


def pooled_features(maps: jax.Array) -> jax.Array:
  """Mean over the places: [N, h, w, D] -> [N, D], one vector per image."""
  return maps.mean((1, 2))
