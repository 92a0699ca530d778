"""One class per picture: a linear classifier, or similarity to references, in plain PyTorch.

What a score comes from is part of the outputs: Grad-CAM (Selvaraju et al. 2017) of the named class
against the mean of the others. Behind a mean over all places its gradient is the same everywhere
and is written down here, as ONNX has no autograd.

Shape legend: N images, h x w pixels, u x v places of the last map, F pooled features, D embedding,
K classes, M references.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.backbone import Backbone, backbone
from jaxdefect.convert.twins.deployed import Deployed


class Recognition(Deployed):
  """A backbone behind the pixels, whose features classes are told from.

  Args:
    network: a module from ``backbone``.
    num_classes: K.
    classes: K names; None numbers them.
    settings: of ``Deployed``.
  """

  outputs = ('scores', 'probabilities', 'evidence')

  def __init__(
    self,
    network: Backbone,
    *,
    num_classes: int,
    classes: Sequence[str] | None = None,
    **settings: Any,
  ):
    names = [str(k) for k in range(num_classes)] if classes is None else list(classes)
    if len(names) != num_classes:
      raise ValueError(f'classes has {len(names)} names, num_classes is {num_classes}')
    super().__init__(classes=names, **settings)
    self.backbone = network

  @classmethod
  def build(cls, *, stages: int | None = None, width: int = 64, **arguments: Any) -> Deployed:
    """As of ``Deployed``; ``backbone``, ``stages`` and ``width`` name the network."""
    network = backbone(arguments.pop('backbone'), stages=stages, width=width)
    return cls(network, **arguments)

  def places(self, pixels: Tensor) -> Tensor:
    """Normalises pixels and runs the backbone; [N, h, w, 3] -> its last map [N, F, u, v]."""
    return self.backbone.maps(self.normalised(pixels))[-1]

  def evidence(self, places: Tensor, slope: Tensor) -> Tensor:
    """Where features lie that speak for the named class.

    Args:
      places: [N, F, u, v].
      slope: [N, F] of its lead over the other classes, by the pooled features.

    Returns:
      [N, u, v], not negative.
    """
    share = slope / (places.shape[2] * places.shape[3])
    return (places * share[:, :, None, None]).sum(1).relu()


def lead_of_named(scores: Tensor) -> Tensor:
  """[N, K] factors of the scores in the largest one less the mean of the others."""
  count = scores.shape[1]
  named = torch.arange(count, device=scores.device) == scores.argmax(1, keepdim=True)
  return torch.where(named, 1.0, -1.0 / max(count - 1, 1))


class Classifier(Recognition, family='classifier'):
  """Backbone, global average pooling and one linear layer ``fc``; arguments of ``Recognition``."""

  def __init__(self, network: Backbone, *, num_classes: int, **settings: Any):
    super().__init__(network, num_classes=num_classes, **settings)
    self.fc = nn.Linear(network.num_features, num_classes)

  def inspect(self, pixels: Tensor) -> tuple[Tensor, ...]:
    """[N, h, w, 3] -> logits and their softmax, [N, K] each, and the evidence [N, u, v]."""
    places = self.places(pixels)
    logits = self.fc(places.mean((2, 3)))
    slope = lead_of_named(logits) @ self.fc.weight
    return logits, logits.softmax(-1), self.evidence(places, slope)


class Recogniser(Recognition, family='recogniser'):
  r"""Mean cosine similarity of an image to the references of every class.

  With the unit embedding :math:`e` of an image and :math:`r_m` of reference m,

  .. math:: s_k = \frac{1}{|R_k|} \sum_{m \in R_k} e^\top r_m, \qquad
    p = \operatorname{softmax}(\text{scale} \cdot s)

  A class is added by longer ``references`` and ``reference_labels``; nothing is trained.

  Args:
    network: a module from ``backbone``.
    num_classes: K.
    projection: sizes (hidden ..., D) of the MLP behind the pooling; None makes none.
    embedding: ``'projection'`` or ``'features'`` (the pooled features).
    scale: sharpness of the probabilities.
    settings: of ``Recognition``; ``memory`` holds ``references`` [M, D] and ``reference_labels``
      [M].
  """

  keeps = ('references', 'reference_labels')
  references: Tensor
  reference_labels: Tensor

  def __init__(
    self,
    network: Backbone,
    *,
    num_classes: int,
    projection: Sequence[int] | None = None,
    embedding: str = 'projection',
    scale: float = 1.0,
    **settings: Any,
  ):
    super().__init__(network, num_classes=num_classes, **settings)
    if embedding not in ('projection', 'features'):
      raise ValueError(f"embedding must be 'projection' or 'features', got {embedding!r}")
    if embedding == 'projection' and not projection:
      raise ValueError("embedding 'projection' needs the sizes of the projection, got none")
    self.projection = _mlp(network.num_features, projection) if projection else None
    self.embedding = embedding
    self.scale = float(scale)

  def embed(self, pixels: Tensor) -> Tensor:
    """[N, h, w, 3] -> unit vectors [N, D]."""
    vectors, _ = self._vectors(self.places(pixels).mean((2, 3)))
    return nn.functional.normalize(vectors, dim=-1)

  def inspect(self, pixels: Tensor) -> tuple[Tensor, ...]:
    """[N, h, w, 3] -> mean cosines and probabilities, [N, K] each, and the evidence [N, u, v]."""
    classes = torch.arange(len(self.classes), device=self.references.device)
    member = (self.reference_labels[:, None] == classes).to(self.references.dtype)  # [M, K]
    means = (member / member.sum(0).clamp(min=1)).T @ self.references  # [K, D]
    places = self.places(pixels)
    vectors, inputs = self._vectors(places.mean((2, 3)))
    length = vectors.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    unit = vectors / length
    scores = unit @ means.T
    # Back through the norm, which only lets pass what is across the vector, and the projection.
    slope = lead_of_named(scores) @ means
    slope = (slope - (slope * unit).sum(-1, keepdim=True) * unit) / length
    for layer, before in reversed(inputs):
      slope = slope @ layer.weight if isinstance(layer, nn.Linear) else slope * (before > 0)
    return scores, (self.scale * scores).softmax(-1), self.evidence(places, slope)

  def _vectors(self, pooled: Tensor) -> tuple[Tensor, list[tuple[nn.Module, Tensor]]]:
    """[N, F] -> what is compared, [N, D], and every layer behind the pooling with its input."""
    inputs: list[tuple[nn.Module, Tensor]] = []
    if self.embedding == 'projection' and self.projection is not None:
      for layer in self.projection:
        inputs.append((layer, pooled))
        pooled = layer(pooled)
    return pooled, inputs


def _mlp(inputs: int, sizes: Sequence[int]) -> nn.Sequential:
  """Linear layers with ReLU between them, none behind the last."""
  layers = nn.Sequential()
  for index, size in enumerate(sizes):
    if index:
      layers.append(nn.ReLU())
    layers.append(nn.Linear(inputs, size))
    inputs = size
  return layers
