"""What a two-stage detector should have said: sampled anchors and regions with their targets.

Shape legend: A anchors, M true boxes (padded), P proposals, S sampled; one image, vmap for more.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxdefect.ops.boxes import encode_boxes
from jaxdefect.ops.matching import POSITIVE, match_boxes, sample_matches

Weights = tuple[float, float, float, float]


class AnchorTargets(NamedTuple):
  """The anchors of one image that enter the loss of the proposal network.

  Attributes:
    indices: [S] int32, places among the anchors.
    positive: [S] bool, the anchor should find an object.
    deltas: [S, 4] the box it should give, encoded; meaningful where positive.
    valid: [S] bool; False where fewer anchors could be sampled.
  """

  indices: jax.Array
  positive: jax.Array
  deltas: jax.Array
  valid: jax.Array


class RegionTargets(NamedTuple):
  """The regions of one image that enter the loss of the second stage.

  Attributes:
    boxes: [S, 4] the regions, pixels; zeros where not valid.
    label: [S] int32, 0 is the background, k + 1 is class k.
    deltas: [S, 4] the box that the region should give, encoded; meaningful where positive.
    positive: [S] bool.
    valid: [S] bool.
  """

  boxes: jax.Array
  label: jax.Array
  deltas: jax.Array
  positive: jax.Array
  valid: jax.Array


def anchor_targets(
  key: jax.Array,
  anchors: jax.Array,
  boxes: jax.Array,
  box_valid: jax.Array,
  *,
  num: int,
  high: float = 0.7,
  low: float = 0.3,
  positive_fraction: float = 0.5,
  weights: Weights = (1.0, 1.0, 1.0, 1.0),
) -> AnchorTargets:
  """Samples anchors of one image, each box's best anchors being positive in any case.

  Args:
    key: typed PRNG key of this image.
    anchors: [A, 4] pixels.
    boxes: [M, 4] true boxes, pixels.
    box_valid: [M] bool.
    num: S.
    high: IoU from which an anchor is positive.
    low: IoU below which it is negative; between the two it counts for nothing.
    positive_fraction: at most this share of the sample is positive.
    weights: of the box coder.

  Returns:
    ``AnchorTargets``.
  """
  chex.assert_shape([anchors, boxes], (None, 4))
  matches = match_boxes(anchors, boxes, box_valid, high=high, low=low, allow_low_quality=True)
  sample = sample_matches(key, matches.kind, num=num, positive_fraction=positive_fraction)
  chosen = anchors[sample.indices]
  deltas = encode_boxes(boxes[matches.target[sample.indices]], chosen, weights)
  positive = sample.positive & sample.valid
  return AnchorTargets(
    sample.indices, positive, jnp.where(positive[:, None], deltas, 0.0), sample.valid
  )


def region_targets(
  key: jax.Array,
  proposals: jax.Array,
  proposal_valid: jax.Array,
  boxes: jax.Array,
  labels: jax.Array,
  box_valid: jax.Array,
  *,
  num: int,
  threshold: float = 0.5,
  positive_fraction: float = 0.25,
  weights: Weights = (10.0, 10.0, 5.0, 5.0),
) -> RegionTargets:
  """Samples regions of one image from its proposals and its true boxes.

  Args:
    key: typed PRNG key of this image.
    proposals: [P, 4] pixels.
    proposal_valid: [P] bool.
    boxes: [M, 4] true boxes, pixels; they are candidates too, so that there is always a positive.
    labels: [M] their classes, from 0.
    box_valid: [M] bool.
    num: S.
    threshold: IoU from which a region is of the box's class, below it is background.
    positive_fraction: at most this share of the sample is positive.
    weights: of the box coder.

  Returns:
    ``RegionTargets``.
  """
  chex.assert_shape([proposals, boxes], (None, 4))
  candidates = jnp.concatenate([proposals, boxes])
  usable = jnp.concatenate([proposal_valid, box_valid])
  matches = match_boxes(candidates, boxes, box_valid, high=threshold, low=threshold)
  sample = sample_matches(
    key, matches.kind, num=num, positive_fraction=positive_fraction, valid=usable
  )
  target = matches.target[sample.indices]
  positive = sample.positive & sample.valid
  chosen = jnp.where(sample.valid[:, None], candidates[sample.indices], 0.0)
  deltas = encode_boxes(boxes[target], chosen, weights)
  return RegionTargets(
    boxes=chosen,
    label=jnp.where(positive, labels[target] + 1, 0),
    deltas=jnp.where(positive[:, None], deltas, 0.0),
    positive=positive,
    valid=sample.valid,
  )


def label_boxes(
  boxes: jax.Array,
  true: jax.Array,
  labels: jax.Array,
  valid: jax.Array,
  *,
  threshold: float = 0.5,
) -> jax.Array:
  """The class of the true box that each box of one image finds.

  Args:
    boxes: [A, 4] pixels.
    true: [M, 4] true boxes, pixels.
    labels: [M] their classes.
    valid: [M] bool, False marks padding.
    threshold: least IoU.

  Returns:
    [A] labels, -1 for boxes that find nothing.
  """
  matches = match_boxes(boxes, true, valid, high=threshold, low=threshold)
  return jnp.where(matches.kind == POSITIVE, labels[matches.target], -1)
