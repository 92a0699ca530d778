"""What one batch of examples looks like, on the host and on the device.

Shape legend: N examples (padding included), H x W pixels, C channels, M boxes.

A batch is a plain ``dict`` of arrays, so that it is a pytree everywhere:

========= ============ ==================================================================
key       shape, dtype meaning
========= ============ ==================================================================
``image`` [N,H,W,C] u8 pixels, 0..255, already at the network's size
``label`` [N] int32    class of the image
``valid`` [N] bool     False marks padding, which must change nothing
``index`` [N] int32    place of the example in its source; the seed of its own randomness
========= ============ ==================================================================

Tasks add keys; they never change the meaning of these four. Detection, with M boxes per image
(padding included):

============= =============== ===============================================================
``boxes``     [N,M,4] float32 edges (x0, y0, x1, y1) in pixels of ``image``, 0 at its corner
``box_label`` [N,M] int32     class of the box
``box_valid`` [N,M] bool      False marks padding; an image without any box is a valid negative
``size``      [N,2] float32   (height, width) of the picture inside ``image``; the rest is padding
``scale``     [N] float32     pixels of ``image`` per pixel of the picture as it was read
============= =============== ===============================================================

Comparison with a part that has no defect:

============= ===================== =========================================================
``reference`` [N,R,H,W,C] uint8     pictures of good parts to compare each image with
============= ===================== =========================================================

A step that learns to learn takes an episode batch: ``{'support': ..., 'query': ...}``, two of the
batches above (with ``reference``) whose arrays have one more leading axis, the tasks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

Batch = dict[str, Any]


@dataclass(frozen=True)
class References:
  """A handful of labelled pictures that a method adapts to.

  Attributes:
    classes: names of the classes that ``label`` counts in ``batches``.
    batches: a stream of padded batches that can be iterated again and again; never one array.
    validation: an optional second stream, for early stopping and calibration.
  """

  classes: tuple[str, ...]
  batches: Iterable[Batch]
  validation: Iterable[Batch] | None = None


def example_keys(key: jax.Array, index: jax.Array) -> jax.Array:
  """Gives every example a random key of its own.

  The key depends on the example's ``index`` alone, so neither the place in the batch, nor
  padding, nor the number of devices changes what is drawn.

  Args:
    key: typed PRNG key, already folded with the step.
    index: [N] integers, ``batch['index']``.

  Returns:
    [N] typed PRNG keys.

  >>> keys = example_keys(jax.random.key(0), jnp.array([3, 5]))
  >>> bool(keys[1] == jax.random.fold_in(jax.random.key(0), 5))
  True
  """
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(index))
