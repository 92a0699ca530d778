"""Networks that describe images and are not trained: convolutional ones and vision transformers."""

from typing import Any

import jax.numpy as jnp

from jaxdefect.models.backbone import NAMES, Backbone, backbone
from jaxdefect.models.vision_transformer import (
  VISION_TRANSFORMERS,
  VisionTransformer,
  vision_transformer,
)

FrozenBackbone = Backbone | VisionTransformer


def frozen_backbone(
  name: str, *, stages: int | None = None, width: int = 64, dtype: Any = jnp.float32
) -> FrozenBackbone:
  """Makes a network for its feature maps alone.

  Args:
    name: of ``models.backbone`` or of ``models.VISION_TRANSFORMERS``. The maps of a transformer all
      have the grid of its patches, and its variables are ``params`` alone.
    stages: the network ends after this stage, 1 to 4. None means all four.
    width: channels of a ResNet's first stage, or features of a transformer's head; 64 is the
      published network.
    dtype: type of the computation; parameters and statistics stay float32.

  Returns:
    A module that is called on normalised images [N, H, W, 3] and returns one map per stage;
    BatchNorm uses its running statistics.

  Raises:
    ValueError: an unknown name, or a number of stages or a width that the network does not have.

  >>> frozen_backbone('vit_s16', stages=1).stage_features
  (384,)
  """
  if name in VISION_TRANSFORMERS:
    return vision_transformer(name, stages=stages, width=width, dtype=dtype)
  if name not in NAMES:
    known = ', '.join((*NAMES, *VISION_TRANSFORMERS))
    raise ValueError(f"backbone name must be one of {known}, got '{name}'.")
  return backbone(name, stages=stages, width=width, update_statistics=False, dtype=dtype)
