"""What a two-stage detector finds in images: regions, described, with corrected boxes.

Shape legend: N images, H x W pixels, P regions per image, F features of a region, K classes.
"""

import functools
from typing import Any, NamedTuple

import jax

from jaxdefect.models.detector import Detector, Pyramid
from jaxdefect.ops import clip_boxes, decode_boxes, select_proposals


class Regions(NamedTuple):
  """The regions that a detector looks at.

  Attributes:
    described: [N, P, F] class logits or embeddings.
    boxes: [N, P, 1 or K + 1, 4] corrected boxes, pixels, cut at the image.
    valid: [N, P] bool.
  """

  described: jax.Array
  boxes: jax.Array
  valid: jax.Array


def propose(
  pyramid: Pyramid, size: jax.Array, *, num_before: int, num_after: int
) -> tuple[jax.Array, jax.Array]:
  """The proposals of every image, see ``ops.select_proposals``; no gradient passes.

  Args:
    pyramid: of the images.
    size: [N, 2] (height, width) of the pictures, pixels.
    num_before: boxes per pyramid map that enter suppression.
    num_after: P.

  Returns:
    [N, P, 4] boxes and [N, P] bool.
  """
  select = functools.partial(
    select_proposals, level_sizes=pyramid.level_sizes, num_before=num_before, num_after=num_after
  )
  return jax.vmap(select, (0, 0, None, 0))(
    pyramid.objectness, pyramid.deltas, pyramid.anchors, size
  )


def find_regions(
  module: Detector,
  variables: Any,
  x: jax.Array,
  size: jax.Array,
  *,
  num_before: int,
  num_after: int,
  box_coder: tuple[float, float, float, float],
) -> Regions:
  """Both stages of a detector, without a verdict on the classes.

  Args:
    module: the detector.
    variables: its variables.
    x: [N, H, W, 3] normalised images.
    size: [N, 2] (height, width) of the pictures, pixels.
    num_before: as in ``propose``.
    num_after: as in ``propose``.
    box_coder: weights of the second stage's boxes.

  Returns:
    The ``Regions``.
  """
  pyramid: Any = module.apply(variables, x, method='pyramid')
  found, valid = propose(pyramid, size, num_before=num_before, num_after=num_after)
  outputs: Any = module.apply(variables, pyramid, found, method='regions')
  deltas = outputs[1].reshape(*found.shape[:2], -1, 4)  # [N, P, 1 or K + 1, 4]
  boxes = decode_boxes(deltas, found[:, :, None], box_coder)
  return Regions(outputs[0], jax.vmap(clip_boxes)(boxes, size), valid)
