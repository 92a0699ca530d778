"""Backbones by name."""

from typing import Any

import jax.numpy as jnp

from jaxdefect.models.efficientnet import EfficientNet
from jaxdefect.models.mobilenet_v2 import MobileNetV2
from jaxdefect.models.resnet import BasicBlock, Bottleneck, ResNet
from jaxdefect.models.resnet_v2 import ResNetV2

Backbone = ResNet | ResNetV2 | MobileNetV2 | EfficientNet

RESNETS = {
  'resnet10': (BasicBlock, (1, 1, 1, 1)),
  'resnet18': (BasicBlock, (2, 2, 2, 2)),
  'resnet34': (BasicBlock, (3, 4, 6, 3)),
  'resnet50': (Bottleneck, (3, 4, 6, 3)),
  'resnet101': (Bottleneck, (3, 4, 23, 3)),
}
# Factors on the channels and on the blocks of B0.
EFFICIENTNETS = {'efficientnet_b0': (1.0, 1.0), 'efficientnet_b3': (1.2, 1.4)}
NAMES = (*RESNETS, 'mobilenet_v2', 'resnet50_v2', 'mobilenet_v2_gluon', *EFFICIENTNETS)


def backbone(
  name: str,
  *,
  stages: int | None = None,
  width: int = 64,
  frozen_stages: int = 0,
  update_statistics: bool = True,
  dtype: Any = jnp.float32,
  axis_name: str | None = None,
  deformable: str | None = None,
  deformable_from: int = 2,
  remat: bool = False,
) -> Backbone:
  """Makes a convolutional network that gives one feature map per stage.

  The module is called as ``module(x, *, train=False, valid=None, tap=None)`` on normalised images
  [N, H, W, 3] and returns a tuple of maps, finest first, the map of stage k at stride
  ``2**(k + 1)``. Its variables are ``params`` and ``batch_stats``; ``module.frozen(path)`` says
  which parameters get no gradient, ``module.stage_features`` the channels of every map.

  Args:
    name: resnet18, resnet34, resnet50, resnet101, mobilenet_v2, efficientnet_b0, efficientnet_b3
      (interchangeable with torchvision's), resnet50_v2 or mobilenet_v2_gluon (with MXNet Gluon's);
      resnet10 (one block per stage, for training from nothing).
    stages: the network ends after this stage, 1 to 4. None means all four.
    width: channels of a ResNet's stem and first stage; 64 is the published network.
    frozen_stages: k >= 1 gives the stem and the first k stages no gradient, so that their
      backward pass is not computed, and leaves their statistics as they are. 0 trains everything.
    update_statistics: False normalises with the running statistics also in training.
    dtype: type of the computation; parameters and statistics stay float32.
    axis_name: device axis over which a batch is spread.
    deformable: ``'v1'`` or ``'v2'`` turns every 3x3 convolution of the last stages of a ResNet
      into a deformable one (see ``DeformConv``). Plain weights still load, and at the start the
      network is the plain one.
    deformable_from: first stage with deformable convolutions; 2 gives the last three of four.
    remat: keeps only what enters a block (resnet50_v2: a stage) for the backward pass, and computes
      the inside again there: less memory, more time, the same numbers. Reverse mode only.

  Returns:
    A linen module.

  Raises:
    ValueError: for an unknown name, a number of stages that the network does not have, or
      deformable convolutions where there are none.

  >>> backbone('resnet18', stages=3).stage_features
  (64, 128, 256)
  """
  if name not in NAMES:
    raise ValueError(f"backbone name must be one of {', '.join(NAMES)}, got '{name}'.")
  if stages is None:
    stages = 4
  if stages not in (1, 2, 3, 4):
    raise ValueError(f'stages must be 1, 2, 3, 4 or None (all), got {stages}.')
  if frozen_stages not in range(stages + 1):
    raise ValueError(
      f'frozen_stages must be between 0 and {stages} (the stages there are), got {frozen_stages}.'
    )
  if deformable not in (None, 'v1', 'v2'):
    raise ValueError(f"deformable must be 'v1', 'v2' or None, got {deformable!r}.")
  if deformable is not None and name not in RESNETS:
    raise ValueError(
      f"deformable is '{deformable}'; of the backbones only {', '.join(RESNETS)} have deformable "
      f"convolutions, got '{name}'."
    )
  if deformable is not None and deformable_from not in range(1, stages + 1):
    raise ValueError(
      f'deformable_from must be between 1 and {stages} (the stages there are), '
      f'got {deformable_from}.'
    )
  settings: dict[str, Any] = {
    'frozen_stages': frozen_stages,
    'update_statistics': update_statistics,
    'dtype': dtype,
    'axis_name': axis_name,
    'remat': remat,
  }
  if name in RESNETS:
    block, depths = RESNETS[name]
    return ResNet(
      block=block,
      depths=depths[:stages],
      width=width,
      deformable=deformable,
      deformable_from=deformable_from,
      **settings,
    )
  if width != 64:
    raise ValueError(f'width is {width}; {name} has its published width only (64 or nothing).')
  if name in EFFICIENTNETS:
    channels, blocks = EFFICIENTNETS[name]
    return EfficientNet(width=channels, depth=blocks, stages=stages, **settings)
  if name == 'resnet50_v2':
    return ResNetV2(depths=(3, 4, 6, 3)[:stages], **settings)
  return MobileNetV2(stages=stages, gluon=name == 'mobilenet_v2_gluon', **settings)


def is_frozen(module: Backbone, path: tuple[str, ...]) -> bool:
  """Says whether a parameter of a backbone gets no gradient.

  Args:
    module: what ``backbone`` returned.
    path: names from the root of ``params`` to the parameter.

  Returns:
    True for a parameter of the stem or of a frozen stage.

  >>> is_frozen(backbone('resnet18', frozen_stages=2), ('layer3.0', 'conv1', 'kernel'))
  False
  """
  return module.frozen(path)
