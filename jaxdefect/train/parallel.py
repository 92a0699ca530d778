"""One device or many: the same step under ``jax.jit`` or ``jax.pmap``.

Shape legend: D devices, N examples of a batch over all devices.

On many devices the state is replicated, the batch is split, and the key is the same everywhere:
randomness is per example, so it does not depend on the split.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

AXIS_NAME = 'devices'


def axis_name(devices: int) -> str | None:
  """The axis that a method must be made with: ``make(axis_name=axis_name(devices))``."""
  return AXIS_NAME if devices > 1 else None


def compile_step(step: Callable, *, devices: int) -> Callable:
  """Compiles ``step(key, state, batch) -> (State, scalars)`` for one device or many.

  The state is donated: the caller must not read it again after the call.

  Args:
    step: traceable; sums over :data:`AXIS_NAME` itself where ``devices`` is more than one.
    devices: number of local devices.

  Returns:
    The compiled function; for many devices it takes and returns states and batches with a
    leading axis [D, ...], see :func:`replicate` and :func:`shard`.

  Raises:
    ValueError: more devices than there are.
  """
  available = jax.local_devices()
  if not 1 <= devices <= len(available):
    raise ValueError(
      f'devices is {devices}; this process has {len(available)} of kind {available[0].platform}.'
    )
  if devices == 1:
    return jax.jit(step, donate_argnums=1)
  return jax.pmap(
    step,
    axis_name=AXIS_NAME,
    in_axes=(None, 0, 0),
    donate_argnums=1,
    devices=available[:devices],
  )


def shard(batch: Any, devices: int) -> Any:
  """Splits host arrays [N, ...] into [D, N/D, ...]; one device leaves them as they are."""
  if devices == 1:
    return batch

  def split(leaf):
    if leaf.shape[0] % devices:
      raise ValueError(
        f'A batch of {leaf.shape[0]} examples cannot be split evenly over {devices} devices.'
      )
    return leaf.reshape(devices, leaf.shape[0] // devices, *leaf.shape[1:])

  return jax.tree.map(split, batch)


def replicate(tree: Any, devices: int) -> Any:
  """Copies every leaf to every device, [D, ...]; one device gets one copy without that axis.

  The copies are fresh, strongly typed buffers: safe to donate, and no step compiles twice.
  """
  if devices == 1:
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype=leaf.dtype), tree)
  return jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf, leaf.dtype)] * devices), tree)


def unreplicate(tree: Any, devices: int) -> Any:
  """The first device's copy of a replicated tree."""
  return tree if devices == 1 else jax.tree.map(lambda leaf: leaf[0], tree)


def check_replicas(state: Any, devices: int) -> None:
  """Raises if devices hold different states, as they do when a step forgets to sum over them.

  Args:
    state: replicated state, [D, ...].
    devices: D; nothing is compared for 1.

  Raises:
    ValueError: the copies differ.
  """
  if devices == 1:
    return
  for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(state)):
    if not all(np.array_equal(leaf[0], copy, equal_nan=True) for copy in leaf[1:]):
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      raise ValueError(
        f'The {devices} devices disagree about {name} after the first step; '
        f'make the method with axis_name={AXIS_NAME!r}.'
      )
