"""A backbone with pooled features and heads.

Shape legend: N images, H x W pixels, C channels, F features, K classes, D projected features.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdefect.models.backbone import Backbone
from jaxdefect.models.pooling import global_average_pool


class Recognition(NamedTuple):
  """What a ``Recogniser`` gives.

  Attributes:
    feature_map: [N, h, w, C] the last map, ``tap`` added.
    features: [N, F] its mean over pixels, F = C.
    logits: [N, K], or None without classes.
    projection: [N, D], or None without a projection.
  """

  feature_map: jax.Array
  features: jax.Array
  logits: jax.Array | None
  projection: jax.Array | None


class ProjectionMLP(nn.Module):
  """Dense layers with ReLU between them, none behind the last.

  Layers are named ``'0'``, ``'2'``, ... as in a ``torch.nn.Sequential(Linear, ReLU, Linear)``.

  Attributes:
    features: sizes of the layers, the last is the output's.
    dtype: type of the computation; parameters are float32.
  """

  features: Sequence[int]
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[N, F] -> [N, features[-1]]."""
    for index, size in enumerate(self.features):
      if index:
        x = nn.relu(x)
      x = nn.Dense(size, dtype=self.dtype, name=str(2 * index))(x)
    return x


class Recogniser(nn.Module):
  """Pooled features of a backbone, class logits and a projection.

  Parameters lie under ``backbone``, ``fc`` (a dense layer) and ``projection``.

  Attributes:
    backbone: a module from ``models.backbone``.
    num_classes: K; None makes no ``fc`` and ``logits`` is None.
    projection: sizes (hidden ..., D) of the MLP, or the module itself; None makes none and
      ``projection`` is None.
    dtype: type of the projection's computation; logits are float32 at least.
  """

  backbone: Backbone
  num_classes: int | None = None
  projection: tuple[int, ...] | ProjectionMLP | None = None
  dtype: Any = jnp.float32

  def __post_init__(self) -> None:
    if isinstance(self.projection, Sequence):
      # A field that holds a module names its parameters.
      self.projection = ProjectionMLP(tuple(self.projection), dtype=self.dtype, parent=None)
    super().__post_init__()

  @nn.nowrap
  def frozen(self, path: tuple[str, ...]) -> bool:
    """Says whether the parameter at ``path`` gets no gradient."""
    return path[0] == 'backbone' and self.backbone.frozen(path[1:])

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    train: bool = False,
    valid: jax.Array | None = None,
    tap: jax.Array | None = None,
  ) -> Recognition:
    """Recognises images.

    Args:
      x: [N, H, W, 3] normalised images.
      train: True normalises with the statistics of the batch.
      valid: [N] bool, images that count in the statistics. None counts all.
      tap: added to the last map, so that its gradient is the map's. None adds nothing.

    Returns:
      A ``Recognition``.
    """
    feature_map = self.backbone(x, train=train, valid=valid, tap=tap)[-1]
    features = global_average_pool(feature_map)
    logits = projected = None
    if self.num_classes is not None:
      logits = nn.Dense(self.num_classes, dtype=features.dtype, name='fc')(features)
    if isinstance(self.projection, ProjectionMLP):
      projected = self.projection(features)
    return Recognition(feature_map, features, logits, projected)
