"""Faster R-CNN in plain PyTorch.

Shape legend: N images, H x W native pixels, h x w pixels of the canvas, P proposals, K classes,
D detections, F embedding size.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jaxdefect.convert.twins.backbone import Backbone, backbone
from jaxdefect.convert.twins.box_head import BoxEmbedder, BoxPredictor, GSBoxHead, MLPBoxHead
from jaxdefect.convert.twins.deform_conv import DeformConv
from jaxdefect.convert.twins.deployed import Deployed
from jaxdefect.convert.twins.gsconv import GS_NORMS
from jaxdefect.convert.twins.pyramid import FPN, GSFPN, RPNHead
from jaxdefect.convert.twins.regions import (
  anchor_shapes,
  best_detections,
  clipped_boxes,
  decoded_boxes,
  grid_of_anchors,
  pooled_regions,
  proposed_regions,
)
from jaxdefect.convert.twins.resampling import letterboxed

_POOL = 7  # bins of a region along each axis
_BOX_CODER = (10.0, 10.0, 5.0, 5.0)


class Detector(Deployed, family='faster_rcnn'):
  """Boxes with a class and a score each, a fixed number per picture (``methods.faster_rcnn``).

  Pictures keep their proportions: each lies at the upper left of the network's canvas.

  Args:
    network: a module from ``backbone``.
    neck: ``'fpn'`` or ``'gs_fpn'``.
    neck_channels: channels of every pyramid map.
    first_stage: stage of the finest pyramid map.
    extra_levels: coarser maps by pooling, from which no region is pooled.
    anchor_sizes: one side per pyramid map, pixels of the canvas.
    anchor_ratios: height / width.
    box_head: ``'mlp'`` or ``'gs'``.
    head_width: of the dense layers.
    norm: in the GS neck and head, ``'batch'`` or ``'group'``.
    classifier: ``'linear'`` or ``'prototype'``.
    embedding: F.
    temperature: of the cosines to prototypes.
    background: ``'linear'`` or ``'prototype'``.
    proposals_before: boxes per pyramid map that enter suppression.
    proposals: P.
    score_threshold: detections score above it.
    nms_threshold: overlap that two detections of a class may have.
    max_detections: D.
    settings: of ``Deployed``; with prototypes ``memory`` holds ``prototypes`` [1 + K, F], the
      background's first, and ``discriminants`` [C, F + 1] of the last C classes, where classes
      were added so.
  """

  outputs = ('boxes', 'scores', 'labels', 'valid')
  anchors: Tensor
  prototypes: Tensor
  discriminants: Tensor | None

  def __init__(
    self,
    network: Backbone,
    *,
    neck: str,
    neck_channels: int,
    first_stage: int,
    extra_levels: int,
    anchor_sizes: Sequence[float],
    anchor_ratios: Sequence[float],
    box_head: str,
    head_width: int,
    norm: str,
    classifier: str,
    embedding: int,
    temperature: float,
    background: str,
    proposals_before: int,
    proposals: int,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    **settings: Any,
  ):
    super().__init__(**settings)
    for name, value, allowed in (
      ('neck', neck, ('fpn', 'gs_fpn')),
      ('box_head', box_head, ('mlp', 'gs')),
      ('norm', norm, tuple(GS_NORMS)),
      ('classifier', classifier, ('linear', 'prototype')),
      ('background', background, ('linear', 'prototype')),
    ):
      if value not in allowed:
        raise ValueError(f'{name} is {value!r}; it can be {", ".join(allowed)}')
    self.backbone = network
    inputs = _stage_features(network)[first_stage - 1 :]
    if len(inputs) + extra_levels != len(anchor_sizes):
      raise ValueError(
        f'anchor_sizes has {len(anchor_sizes)} entries for {len(inputs) + extra_levels} maps'
      )
    self.first_stage, self.pooled_levels = first_stage, len(inputs)
    shapes = anchor_shapes(anchor_sizes, anchor_ratios)
    self.register_buffer('anchors', shapes, persistent=False)  # [maps, ratios, 4]
    if neck == 'fpn':
      self.neck = FPN(inputs, neck_channels, extra_levels=extra_levels)
    else:
      self.neck = GSFPN(inputs, neck_channels, extra_levels=extra_levels, norm=norm)
    self.rpn = RPNHead(neck_channels, len(anchor_ratios))
    if box_head == 'mlp':
      self.box_head = MLPBoxHead(neck_channels, _POOL, head_width)
    else:
      self.box_head = GSBoxHead(neck_channels, norm=norm)
    self.prototypical, self.linear_background = classifier == 'prototype', background == 'linear'
    features = self.box_head.features
    if self.prototypical:
      self.predictor = BoxEmbedder(features, embedding, background=self.linear_background)
      memory = settings.get('memory') or {}
      if 'prototypes' not in memory:
        raise ValueError("classifier='prototype' without prototypes predicts nothing")
      if 'discriminants' not in memory:
        self.discriminants = None
    else:
      self.predictor = BoxPredictor(features, len(self.classes))
    self.temperature = float(temperature)
    self.proposals_before, self.proposals = proposals_before, proposals
    self.score_threshold, self.nms_threshold = float(score_threshold), float(nms_threshold)
    self.max_detections = max_detections

  @classmethod
  def build(
    cls,
    *,
    stages: int | None = None,
    width: int = 64,
    deformable: str | None = None,
    deformable_from: int = 2,
    **arguments: Any,
  ) -> Deployed:
    """As of ``Deployed``; the arguments above and ``backbone`` make the network."""
    window = {}
    if deformable is not None:
      made = functools.partial(DeformConv, version=deformable)
      window = {'window': made, 'window_from': deformable_from}
    network = backbone(arguments.pop('backbone'), stages=stages, width=width, **window)
    return cls(network, **arguments)

  def resized(self, images: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] -> canvases [N, h, w, 3], whole numbers 0..255."""
    if self.image_size is None or images.ndim != 4:
      return super().resized(images)
    return letterboxed(images, self.image_size, self.interpolation)[0]

  def inspect(self, pixels: Tensor, size: Tensor | None = None) -> tuple[Tensor, ...]:
    """Detections on canvases.

    Args:
      pixels: [N, h, w, 3].
      size: [N or 1, 2] (height, width) of the pictures on them; None for whole canvases.

    Returns:
      [N, D, 4] boxes in pixels of the canvas, [N, D] scores, labels and bool.
    """
    high, wide = pixels.shape[1:3]
    if size is None:
      size = torch.tensor([[high, wide]], dtype=torch.float32, device=pixels.device)
    maps = self.neck(self.backbone.maps(self.normalised(pixels))[self.first_stage - 1 :])
    # Not from the sides of the maps, which are rounded up.
    strides = [2 ** (self.first_stage + 1 + level) for level in range(len(maps))]
    anchors = [
      grid_of_anchors(shapes, (one.shape[2], one.shape[3]), stride)
      for one, stride, shapes in zip(maps, strides, self.anchors)
    ]
    found, valid = proposed_regions(
      self.rpn(maps),
      anchors,
      size,
      num_before=self.proposals_before,
      num_after=self.proposals,
    )
    pooled = pooled_regions(maps[: self.pooled_levels], found, strides, _POOL)
    described, deltas = self.predictor(self.box_head(pooled))
    scores = self.logits(described).softmax(-1)[:, 1:].unflatten(0, (-1, self.proposals))
    deltas = deltas.reshape(scores.shape[0], self.proposals, -1, 4)  # [N, P, 1 or K + 1, 4]
    if not self.prototypical:
      deltas = deltas[:, :, 1:]  # without the background's
    boxes = decoded_boxes(deltas, found[:, :, None], _BOX_CODER)
    return best_detections(
      scores,
      clipped_boxes(boxes, size[:, None, None]),
      valid,
      score_threshold=self.score_threshold,
      iou_threshold=self.nms_threshold,
      num_after=self.max_detections,
    )

  def logits(self, described: Tensor) -> Tensor:
    """What the predictor says of regions [R, ...] -> [R, 1 + K], the background first."""
    if not self.prototypical:
      return described
    size = self.prototypes.shape[1]
    vectors = nn.functional.normalize(described[:, :size], dim=1)
    known = nn.functional.normalize(self.prototypes, dim=1)
    logits = (vectors @ known.T).clamp(-1, 1) / self.temperature
    if self.linear_background:
      # Starts where a cosine of one half stands.
      logits = torch.cat([0.5 / self.temperature + described[:, size:], logits[:, 1:]], dim=1)
    if self.discriminants is None:
      return logits
    # Log-odds against all that was known before.
    odds = vectors @ self.discriminants[:, :-1].T + self.discriminants[:, -1]
    return torch.cat([logits, logits.logsumexp(1, keepdim=True) + odds], dim=1)

  def forward(self, images: Tensor) -> tuple[Tensor, ...]:
    """uint8 [N, H, W, 3] -> the ``outputs``, boxes in pixels of these images."""
    if self.image_size is None or images.ndim != 4 or images.shape[-1] != 3:
      return self.inspect(self.resized(images))  # which complains of images that are none
    pixels, size, scale = letterboxed(images, self.image_size, self.interpolation)
    boxes, *rest = self.inspect(pixels, size[None])
    return boxes / scale, *rest


def _stage_features(network: Backbone) -> list[int]:
  """Channels of every map of a network."""
  was = network.training
  with torch.no_grad():
    maps = network.eval().maps(torch.zeros(1, 3, 32, 32))
  network.train(was)
  return [one.shape[1] for one in maps]
