"""What every exported model takes and knows, in plain PyTorch.

Shape legend: N images, H x W native pixels, h x w pixels of the network, C calibrating parts.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.resampling import stretched


class Deployed(nn.Module):
  """Decoded pixels of any size in, verdicts out; classes and thresholds beside the weights.

  Args:
    classes: names of the classes, in the order of the scores.
    mean: three numbers in 0..1, subtracted from pixels / 255.
    std: three numbers in 0..1, by which they are divided then.
    image_size: (height, width) of the network's images; None takes pictures as they come.
    interpolation: ``'bilinear'`` or ``'nearest'``.
    memory: what the method keeps beside its parameters: name -> (type, shape) of a buffer.
  """

  outputs: ClassVar[tuple[str, ...]] = ()  # names of what ``forward`` returns
  keeps: ClassVar[tuple[str, ...]] = ()  # names of ``memory``
  mean: Tensor
  std: Tensor

  def __init_subclass__(cls, family: str | None = None, **settings: Any):
    super().__init_subclass__(**settings)
    if family is not None:
      FAMILIES[family] = cls

  def __init__(
    self,
    *,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    image_size: Sequence[int] | None = None,
    interpolation: str = 'bilinear',
    memory: Mapping[str, tuple[str, Sequence[int]]] | None = None,
  ):
    super().__init__()
    self.classes = tuple(classes)
    self.image_size = None if image_size is None else (int(image_size[0]), int(image_size[1]))
    self.interpolation = interpolation
    # Part of the arguments, not of the weights.
    self.register_buffer('mean', torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
    self.register_buffer('std', torch.tensor(std).view(1, 3, 1, 1), persistent=False)
    memory = memory or {}
    missing = [name for name in self.keeps if name not in memory]
    if missing:
      raise ValueError(f'{type(self).__name__} without {missing[0]} predicts nothing: adapt first')
    for name, (kind, shape) in memory.items():
      self.register_buffer(name, torch.zeros(tuple(shape), dtype=getattr(torch, kind)))

  @classmethod
  def build(cls, **arguments: Any) -> 'Deployed':
    """The module out of JSON-able arguments, with random weights."""
    return cls(**arguments)

  def resized(self, images: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] -> [N, h, w, 3], whole numbers 0..255."""
    if images.ndim != 4 or images.shape[-1] != 3:
      raise ValueError(f'images must be [N, H, W, 3], came as {list(images.shape)}')
    if self.image_size is None:
      return images.float()
    return stretched(images, self.image_size, self.interpolation)

  def normalised(self, pixels: Tensor) -> Tensor:
    """[N, h, w, 3] pixels -> [N, 3, h, w]."""
    x = pixels.permute(0, 3, 1, 2).to(self.mean.dtype) / 255
    return (x - self.mean) / self.std

  def inspect(self, pixels: Tensor) -> tuple[Tensor, ...]:
    """What the model says of pictures at the network's size, [N, h, w, 3]: its ``outputs``."""
    raise NotImplementedError

  def forward(self, images: Tensor) -> tuple[Tensor, ...]:
    """uint8 [N, H, W, 3] -> the ``outputs``."""
    return self.inspect(self.resized(images))


class Inspector(Deployed):
  """An anomaly method: scores and maps, larger is more anomalous, and what is too much.

  Args:
    threshold: above which a part is flagged; None flags nothing.
    settings: of ``Deployed``; ``memory`` may hold ``good_scores`` [C], the scores of the good parts
      that set the threshold.
  """

  outputs = ('scores', 'maps', 'flagged', 'p_values')
  threshold: Tensor
  good_scores: Tensor | None

  def __init__(self, *, threshold: float | None = None, **settings: Any):
    super().__init__(**settings)
    limit = torch.tensor(torch.inf if threshold is None else threshold, dtype=torch.float32)
    self.register_buffer('threshold', limit, persistent=False)
    if 'good_scores' not in (settings.get('memory') or {}):
      self.good_scores = None

  def measure(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures at the network's size [N, h, w, 3] -> scores [N] and maps [N, rows, columns]."""
    raise NotImplementedError

  def inspect(self, pixels: Tensor) -> tuple[Tensor, ...]:
    """Scores, maps, whether the part is flagged [N], and p-values [N] (``p_value``)."""
    scores, maps = self.measure(pixels)
    return scores, maps, scores > self.threshold, self.p_value(scores)

  def p_value(self, scores: Tensor) -> Tensor:
    """[N] share of good parts, this one among them, that look at least as anomalous."""
    if self.good_scores is None:
      return torch.ones_like(scores)
    above = (self.good_scores >= scores[:, None]).sum(1)
    return (1 + above).to(scores.dtype) / (len(self.good_scores) + 1)


# Name of a family -> its class; a file of a family adds itself.
FAMILIES: dict[str, type[Deployed]] = {}


def make(family: str, arguments: Mapping[str, Any]) -> Any:
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
    raise ValueError(f'family {family!r} must be one of {", ".join(sorted(FAMILIES))}')
  try:
    return FAMILIES[family].build(**arguments).eval().requires_grad_(False)
  except TypeError as error:
    raise ValueError(f'arguments do not fit the family {family!r}: {error}') from error
