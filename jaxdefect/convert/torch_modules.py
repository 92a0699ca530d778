"""What ``launch.convert --to=torch`` writes, as plain PyTorch modules; runs without JAX.

On a machine with torch alone, ``pip install --no-deps jaxdefect`` is all that is needed::

  from jaxdefect.convert import torch_modules

  model = torch_modules.load('recogniser.pth')
  scores, probabilities = model(images)     # uint8 [N, H, W, 3], at model.image_size
  model.classes[int(probabilities[0].argmax())]

Shape legend: N images, H x W pixels, F pooled features, D embedding, K classes, M references.
"""

import functools
import pathlib
import pickle
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jaxdefect.convert.torch_backbones import (
  Backbone,
  MobileNetV2,
  MobileNetV2Gluon,
  ResNet,
  ResNetV2,
)
from jaxdefect.convert.torch_deployed import Deployed
from jaxdefect.convert.torch_efficientnet import EfficientNet
from jaxdefect.convert.torch_medetection import MeDetection
from jaxdefect.convert.torch_patchcore import Hybrid, PatchCore

__all__ = [
  'FAMILIES',
  'FORMAT_VERSION',
  'Backbone',
  'Classifier',
  'Deployed',
  'EfficientNet',
  'Hybrid',
  'MeDetection',
  'MobileNetV2',
  'MobileNetV2Gluon',
  'PatchCore',
  'Recogniser',
  'ResNet',
  'ResNetV2',
  'backbone',
  'load',
  'make',
]

FORMAT_VERSION = 1
FAMILIES = ('classifier', 'recogniser', 'medetection', 'patchcore', 'hybrid')

_RESNETS = {'resnet10': 10, 'resnet18': 18, 'resnet34': 34, 'resnet50': 50, 'resnet101': 101}
_OTHERS = {
  'mobilenet_v2': MobileNetV2,
  'mobilenet_v2_gluon': MobileNetV2Gluon,
  'resnet50_v2': ResNetV2,
  'efficientnet_b0': functools.partial(EfficientNet, 'b0'),
  'efficientnet_b3': functools.partial(EfficientNet, 'b3'),
}


def backbone(name: str, *, stages: int | None = None, width: int = 64) -> Backbone:
  """Makes a network without classifier by the name that it has in ``models.backbone``.

  Args:
    name: resnet10, resnet18, resnet34, resnet50, resnet101, mobilenet_v2, mobilenet_v2_gluon,
      resnet50_v2, efficientnet_b0 or efficientnet_b3.
    stages: 1 to 4; None means all four.
    width: channels of a ResNet's first stage.

  Returns:
    The module, with random weights.

  Raises:
    ValueError: an unknown name or number of stages.
  """
  stages = 4 if stages is None else stages
  if stages not in (1, 2, 3, 4):
    raise ValueError(f'stages must be 1, 2, 3, 4 or None (all), got {stages!r}')
  if name in _RESNETS:
    return ResNet(_RESNETS[name], stages, width=width)
  if name in _OTHERS:
    return _OTHERS[name](stages)
  raise ValueError(f'backbone {name!r} must be one of {", ".join((*_RESNETS, *_OTHERS))}')


class _Recognition(Deployed):
  """A backbone behind the pixels, whose features classes are told from."""

  def __init__(
    self,
    network: Backbone,
    *,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    classes: Sequence[str] | None,
    image_size: Sequence[int] | None,
  ):
    names = [str(k) for k in range(num_classes)] if classes is None else list(classes)
    if len(names) != num_classes:
      raise ValueError(f'classes has {len(names)} names, num_classes is {num_classes}')
    super().__init__(classes=names, mean=mean, std=std, image_size=image_size)
    self.backbone = network

  def features(self, images: Tensor) -> Tensor:
    """Normalises pixels and runs the backbone; uint8 [N, H, W, 3] -> [N, F]."""
    return self.backbone(self.normalised(images))


class Classifier(_Recognition):
  """Backbone, global average pooling and one linear layer ``fc``.

  Args:
    network: a module from ``backbone``.
    num_classes: K.
    mean: three numbers in 0..1, subtracted from pixels / 255.
    std: three numbers in 0..1, by which they are divided then.
    classes: K names; None numbers them.
    image_size: (height, width) that images must have; None takes any.
  """

  def __init__(
    self,
    network: Backbone,
    *,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    classes: Sequence[str] | None = None,
    image_size: Sequence[int] | None = None,
  ):
    super().__init__(
      network,
      num_classes=num_classes,
      mean=mean,
      std=std,
      classes=classes,
      image_size=image_size,
    )
    self.fc = nn.Linear(network.num_features, num_classes)

  def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 [N, H, W, 3] -> logits and their softmax, [N, K] each."""
    logits = self.fc(self.features(images))
    return logits, logits.softmax(-1)


class Recogniser(_Recognition):
  r"""Mean cosine similarity of an image to the references of every class.

  With the unit embedding :math:`e` of an image and :math:`r_m` of reference m,

  .. math:: s_k = \frac{1}{|R_k|} \sum_{m \in R_k} e^\top r_m, \qquad
    p = \operatorname{softmax}(\text{scale} \cdot s)

  A class is added by longer ``references`` and ``reference_labels``; nothing is trained.

  Args:
    network: a module from ``backbone``.
    num_classes: K.
    num_references: M.
    projection: sizes (hidden ..., D) of the MLP behind the pooling; None makes none.
    embedding: ``'projection'`` or ``'features'`` (the pooled features).
    scale: sharpness of the probabilities.
    mean: three numbers in 0..1, subtracted from pixels / 255.
    std: three numbers in 0..1, by which they are divided then.
    classes: K names; None numbers them.
    image_size: (height, width) that images must have; None takes any.
  """

  references: Tensor
  reference_labels: Tensor

  def __init__(
    self,
    network: Backbone,
    *,
    num_classes: int,
    num_references: int,
    projection: Sequence[int] | None = None,
    embedding: str = 'projection',
    scale: float = 1.0,
    mean: Sequence[float],
    std: Sequence[float],
    classes: Sequence[str] | None = None,
    image_size: Sequence[int] | None = None,
  ):
    super().__init__(
      network,
      num_classes=num_classes,
      mean=mean,
      std=std,
      classes=classes,
      image_size=image_size,
    )
    if embedding not in ('projection', 'features'):
      raise ValueError(f"embedding must be 'projection' or 'features', got {embedding!r}")
    if embedding == 'projection' and not projection:
      raise ValueError("embedding 'projection' needs the sizes of the projection, got none")
    self.projection = _mlp(network.num_features, projection) if projection else None
    self.embedding = embedding
    self.scale = float(scale)
    size = projection[-1] if projection and embedding == 'projection' else network.num_features
    self.register_buffer('references', torch.zeros(num_references, size))
    self.register_buffer('reference_labels', torch.zeros(num_references, dtype=torch.int64))

  def embed(self, images: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] -> unit vectors [N, D]."""
    vectors = self.features(images)
    if self.embedding == 'projection' and self.projection is not None:
      vectors = self.projection(vectors)
    return nn.functional.normalize(vectors, dim=-1)

  def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 [N, H, W, 3] -> mean cosine similarities and probabilities, [N, K] each."""
    member = nn.functional.one_hot(self.reference_labels, len(self.classes))  # [M, K]
    member = member.to(self.references.dtype)
    similarity = self.embed(images) @ self.references.T  # [N, M]
    scores = similarity @ member / member.sum(0).clamp(min=1)
    return scores, (self.scale * scores).softmax(-1)


def _mlp(inputs: int, sizes: Sequence[int]) -> nn.Sequential:
  """Linear layers with ReLU between them, none behind the last."""
  layers = nn.Sequential()
  for index, size in enumerate(sizes):
    if index:
      layers.append(nn.ReLU())
    layers.append(nn.Linear(inputs, size))
    inputs = size
  return layers


def make(family: str, arguments: dict[str, Any]) -> Any:
  """Builds the module of a deployed method.

  Args:
    family: of ``FAMILIES``.
    arguments: JSON-able; the keyword arguments of the class, with ``backbone``, ``stages`` and
      ``width`` where it has a network; for ``'hybrid'`` those of its two parts, each with its
      ``family``.

  Returns:
    The module in evaluation mode, with random weights.

  Raises:
    ValueError: an unknown family or unfit arguments.
  """
  if family not in FAMILIES:
    raise ValueError(f'family {family!r} must be one of {", ".join(FAMILIES)}')
  arguments = dict(arguments)
  try:
    if family == 'medetection':
      return MeDetection(**arguments).eval()
    if family == 'hybrid':
      return _hybrid(arguments).eval()
    network = backbone(
      arguments.pop('backbone'),
      stages=arguments.pop('stages', None),
      width=arguments.pop('width', 64),
    )
    made = {'classifier': Classifier, 'recogniser': Recogniser, 'patchcore': PatchCore}[family]
    return made(network, **arguments).eval()
  except TypeError as error:
    raise ValueError(f'arguments do not fit the family {family!r}: {error}') from error


def _hybrid(arguments: dict[str, Any]) -> Hybrid:
  del arguments['classes']  # the head's
  size = arguments.pop('image_size', None)
  parts = []
  for name in ('supervised', 'anomaly'):
    settings = {**arguments.pop(name), 'image_size': size}
    parts.append(make(settings.pop('family'), settings))
  return Hybrid(*parts, **arguments)


def load(path: str | pathlib.Path) -> Any:
  """Loads a file that ``convert.export.write`` wrote.

  Args:
    path: the file.

  Returns:
    The module in evaluation mode, on the CPU.

  Raises:
    ValueError: the file is missing, no export, or of a version that this code does not know.
  """
  if not pathlib.Path(path).is_file():
    raise ValueError(f'exported model {path} does not exist')
  try:
    holds = torch.load(path, map_location='cpu', weights_only=True)
  except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
    raise ValueError(f'{path} is not a readable PyTorch file') from error
  wanted = {'family', 'arguments', 'state_dict', 'version'}
  if not isinstance(holds, dict) or not wanted <= holds.keys():
    raise ValueError(f'{path} is no exported model: it must hold {", ".join(sorted(wanted))}')
  if holds['version'] != FORMAT_VERSION:
    raise ValueError(f'{path} has format {holds["version"]}, this version reads {FORMAT_VERSION}')
  module = make(holds['family'], holds['arguments'])
  try:
    module.load_state_dict(holds['state_dict'])
  except RuntimeError as error:
    reason = ' '.join(str(error).split())
    raise ValueError(f'{path} holds weights that do not fit its network: {reason}') from error
  return module
