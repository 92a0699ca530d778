"""Which box learns which target, and which boxes a loss looks at.

Shape legend: A boxes (anchors or regions), M targets (ground truth, padding included).

Both functions work on one image; ``vmap`` them over images.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.ops.boxes import box_iou

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


class Matches(NamedTuple):
  """What each box is to learn.

  Attributes:
    target: [A] int32, the target of highest IoU, ties to the lowest index; 0 without targets.
      Meaningful where ``kind`` is 1.
    kind: [A] int8: 1 positive, 0 negative, -1 ignored.
    iou: [A] IoU with that target, 0 without targets.
  """

  target: jax.Array
  kind: jax.Array
  iou: jax.Array


class Sample(NamedTuple):
  """A fixed number of boxes for a loss.

  Attributes:
    indices: [num] int32 into the boxes; positives first, then negatives, then padding (0).
    positive: [num] bool, False for negatives and padding.
    valid: [num] bool, False marks padding.
  """

  indices: jax.Array
  positive: jax.Array
  valid: jax.Array


def match_boxes(
  boxes: jax.Array,
  targets: jax.Array,
  target_valid: jax.Array,
  *,
  high: float,
  low: float,
  allow_low_quality: bool = False,
) -> Matches:
  """Gives every box the target that it overlaps most: torchvision's Matcher.

  A box is positive if that IoU is at least ``high``, negative if it is below ``low``, and
  ignored between them. ``allow_low_quality`` brings back, for each target, every box that attains
  the target's highest IoU (to a relative 1e-6, since compilers round), as a positive of the
  target that *it* overlaps most, which may be another one. A target that no box overlaps brings
  back none (torchvision would bring back every box that overlaps nothing).

  Ren et al., "Faster R-CNN", 2015, section 3.1.2.

  Args:
    boxes: [A, 4] in pixels.
    targets: [M, 4] in pixels; M may be 0.
    target_valid: [M] bool, False marks padding. Without valid targets every box is negative.
    high: lowest IoU of a positive.
    low: IoU below which a box is negative; at most ``high``.
    allow_low_quality: True for a region proposal network, False for a box head.

  Returns:
    :class:`Matches`. No gradient passes.

  Raises:
    ValueError: if ``low`` is above ``high`` or not positive.

  >>> boxes = jnp.array([[0.0, 0, 4, 4], [0.0, 0, 4, 2], [8.0, 8, 9, 9]])
  >>> targets, valid = jnp.array([[0.0, 0, 4, 4], [8.0, 8, 9, 9]]), jnp.array([True, False])
  >>> match_boxes(boxes, targets, valid, high=0.7, low=0.3).kind.tolist()
  [1, -1, 0]
  """
  boxes, targets = jnp.asarray(boxes), jnp.asarray(targets)
  target_valid = jnp.asarray(target_valid, bool)
  chex.assert_shape([boxes, targets], (None, 4))
  chex.assert_shape(target_valid, targets.shape[:1])
  if not 0 < low <= high:
    raise ValueError(f'low must be above 0 and at most high, came as low={low}, high={high}.')

  # One target of padding stands in where there are none at all.
  if targets.shape[0] == 0:
    targets, target_valid = jnp.zeros((1, 4), targets.dtype), jnp.zeros(1, bool)
  # Padding lies below every IoU, so that a box which overlaps nothing names a real target.
  iou = jnp.where(target_valid, lax.stop_gradient(box_iou(boxes, targets)), -1)  # [A, M]
  target = jnp.argmax(iou, axis=-1).astype(jnp.int32)  # [A]
  best = jnp.max(iou, axis=-1, initial=0)  # [A]

  kind = jnp.where(best >= high, POSITIVE, jnp.where(best < low, NEGATIVE, IGNORED))
  if allow_low_quality:
    # A tolerance rather than equality: XLA may compute the IoU twice and round it differently.
    highest = jnp.max(iou, axis=0, initial=0)  # [M]
    attained = (iou >= highest * (1 - 1e-6)) & (highest > 0)
    kind = jnp.where(attained.any(axis=-1), POSITIVE, kind)
  return Matches(target, kind.astype(jnp.int8), best)


def sample_matches(
  key: jax.Array,
  kind: jax.Array,
  *,
  num: int,
  positive_fraction: float,
  valid: jax.Array | None = None,
) -> Sample:
  """Draws positives and negatives for a loss, without replacement.

  At most ``int(num * positive_fraction)`` positives; negatives fill up. With too few of them the
  rest is padding: positives are never drawn to make up for negatives.

  Each box has a random number of its own, made from ``key`` and its index: further boxes of
  padding behind do not change what is drawn.

  Args:
    key: typed PRNG key of this image.
    kind: [A] as in :class:`Matches`.
    num: length of the result; may be larger than A.
    positive_fraction: in 0..1.
    valid: [A] bool, False marks padding, which is never drawn; by default all are valid.

  Returns:
    :class:`Sample`.

  Raises:
    ValueError: if ``num`` is negative or ``positive_fraction`` outside 0..1.

  >>> kind = jnp.array([1, 0, -1, 0, 1])
  >>> sample = sample_matches(jax.random.key(0), kind, num=4, positive_fraction=0.25)
  >>> sample.positive.tolist(), sample.valid.tolist()
  ([True, False, False, False], [True, True, True, False])
  """
  kind = jnp.asarray(kind)
  valid = jnp.ones(kind.shape, bool) if valid is None else jnp.asarray(valid, bool)
  chex.assert_rank(kind, 1)
  chex.assert_equal_shape([kind, valid])
  if num < 0:
    raise ValueError(f'num must not be negative, came as {num}.')
  if not 0 <= positive_fraction <= 1:
    raise ValueError(f'positive_fraction must lie in 0..1, came as {positive_fraction}.')

  # JAX's generator makes the i-th number from the key and i alone.
  noise = jax.random.uniform(key, kind.shape)  # [A]
  most = int(num * positive_fraction)
  positives, num_positives = _draw(noise, valid & (kind == POSITIVE), most, num)
  negatives, num_negatives = _draw(noise, valid & (kind == NEGATIVE), num, num)

  # Positives, then negatives, then padding.
  slot = jnp.arange(num, dtype=jnp.int32)
  positive = slot < num_positives
  filled = slot < num_positives + num_negatives
  moved = jnp.roll(negatives, num_positives)
  indices = jnp.where(positive, positives, jnp.where(filled, moved, 0))
  return Sample(indices, positive, filled)


def _draw(noise, among, most: int, length: int) -> tuple[jax.Array, jax.Array]:
  """Up to ``most`` places where ``among`` is True: (indices [length] int32, how many)."""
  size = min(most, noise.shape[0])
  drawn, indices = lax.top_k(jnp.where(among, noise, -1), size)
  return jnp.pad(indices.astype(jnp.int32), (0, length - size)), jnp.sum(drawn >= 0)
