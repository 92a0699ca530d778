"""One device or many, in one process or many: the same step under ``jit``, ``shard_map``, ``pmap``.

Shape legend: D devices over all processes, P processes, N examples of a batch over all devices.

On many devices the state is replicated, the batch is split, and the key is the same everywhere:
randomness is per example, so it does not depend on the split.
"""

import hashlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS_NAME = 'devices'


class Layout(NamedTuple):
  """The devices of a run and how the step is spread over them; made by :func:`layout`.

  Attributes:
    devices: D.
    mesh: all of them along :data:`AXIS_NAME`; None for one device.
    transform: ``'shard_map'``: arrays keep their global shapes. ``'pmap'``: states and batches have
      a leading axis of the devices.
  """

  devices: int = 1
  mesh: Mesh | None = None
  transform: Literal['shard_map', 'pmap'] = 'shard_map'


ONE = Layout()


def layout(devices: int, *, transform: Literal['shard_map', 'pmap'] = 'shard_map') -> Layout:
  """Chooses D devices, as many from each process.

  Args:
    devices: D, over all processes.
    transform: ``'pmap'`` is the older way, for one process; both train the same.

  Returns:
    The ``Layout``; with one process and one device nothing is spread.

  Raises:
    ValueError: D is no multiple of the processes, or more than there are.
  """
  processes, local = jax.process_count(), jax.local_devices()
  share, rest = divmod(devices, processes)
  if rest or share < 1:
    raise ValueError(
      f'devices is {devices}, but the run has {processes} processes; it can be '
      f'{", ".join(str(processes * n) for n in range(1, len(local) + 1))}.'
    )
  if share > len(local):
    where = 'this process' if processes == 1 else f'each of the {processes} processes'
    raise ValueError(f'devices is {devices}; {where} has {len(local)} of kind {local[0].platform}.')
  if devices == 1:
    return ONE
  if transform == 'pmap' and processes > 1:
    raise ValueError(
      f"transform is 'pmap', but the run has {processes} processes; use 'shard_map'."
    )
  chosen = [
    [device for device in jax.devices() if device.process_index == process][:share]
    for process in range(processes)
  ]
  return Layout(devices, Mesh(np.concatenate(chosen), (AXIS_NAME,)), transform)


def axis_name(devices: int) -> str | None:
  """The axis that a method must be made with: ``make(axis_name=axis_name(devices))``."""
  return AXIS_NAME if devices > 1 else None


def compile_step(step: Callable, on: Layout) -> Callable:
  """Compiles ``step(key, state, batch) -> (State, scalars)`` for one device or many.

  The state is donated: the caller must not read it again after the call. With a mesh, values that
  the step says are the same on all devices are taken at its word (``check_vma=False``; the check
  would also sum gradients of replicated parameters a second time); :func:`check_replicas` looks.

  Args:
    step: traceable; sums over :data:`AXIS_NAME` itself where there is more than one device.
    on: the devices.

  Returns:
    The compiled function of a key, a :func:`replicate`-d state and a :func:`shard`-ed batch.
  """
  if on.mesh is None:
    return jax.jit(step, donate_argnums=1)
  if on.transform == 'pmap':
    return jax.pmap(
      step,
      axis_name=AXIS_NAME,
      in_axes=(None, 0, 0),
      donate_argnums=1,
      devices=list(on.mesh.devices),
    )
  everywhere, split = PartitionSpec(), PartitionSpec(AXIS_NAME)
  spread = jax.shard_map(
    step,
    mesh=on.mesh,
    in_specs=(everywhere, everywhere, split),
    out_specs=(everywhere, everywhere),
    check_vma=False,
  )

  def train_step(data, impl, state, batch):
    return spread(jax.random.wrap_key_data(data, impl=impl), state, batch)

  compiled = jax.jit(train_step, static_argnums=1, donate_argnums=2)

  def call(key, state, batch):
    # A typed key belongs to one process; its numbers can be handed to all of them.
    return compiled(np.asarray(jax.random.key_data(key)), jax.random.key_impl(key), state, batch)

  return call


def shard(batch: Any, on: Layout) -> Any:
  """Spreads host arrays over the devices; one device leaves them as they are.

  Args:
    batch: arrays [N/P, ...], this process's share of the batch.
    on: the devices.

  Returns:
    Global arrays [N, ...] (``shard_map``), or [D, N/D, ...] (``pmap``).

  Raises:
    ValueError: the share cannot be split evenly over the devices of this process.
  """
  if on.mesh is None:
    return batch
  local = on.devices // jax.process_count()

  def split(leaf):
    if leaf.shape[0] % local:
      raise ValueError(
        f'A batch of {leaf.shape[0]} examples cannot be split evenly over {local} devices.'
      )
    if on.transform == 'pmap':
      return leaf.reshape(local, leaf.shape[0] // local, *leaf.shape[1:])
    return jax.make_array_from_process_local_data(along, np.asarray(leaf))

  along = NamedSharding(on.mesh, PartitionSpec(AXIS_NAME))
  return jax.tree.map(split, batch)


def replicate(tree: Any, on: Layout) -> Any:
  """Copies every leaf, the same in all processes, to every device.

  The copies are fresh, strongly typed buffers: safe to donate, and no step compiles twice.

  Returns:
    The tree with leaves as they were, or [D, ...] (``pmap``).
  """
  if on.mesh is None:
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype=leaf.dtype), tree)
  if on.transform == 'pmap':
    return jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf, leaf.dtype)] * on.devices), tree)
  everywhere = NamedSharding(on.mesh, PartitionSpec())

  def copy(leaf):
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, everywhere, lambda _: host.copy())

  return jax.tree.map(copy, tree)


def unreplicate(tree: Any, on: Layout) -> Any:
  """The copy of a replicated tree on this process's first device."""
  if on.mesh is None:
    return tree
  if on.transform == 'pmap':
    return jax.tree.map(lambda leaf: leaf[0], tree)
  return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def check_replicas(state: Any, on: Layout) -> None:
  """Raises if devices hold different states, as they do when a step forgets to sum over them.

  Args:
    state: replicated state.
    on: its devices; nothing is compared for one.

  Raises:
    ValueError: the copies differ.
  """
  if on.mesh is None:
    return
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    first, *others = (np.asarray(part.data) for part in leaf.addressable_shards)
    if not all(np.array_equal(first, other, equal_nan=True) for other in others):
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      raise ValueError(_disagreement(on, f'about {name}'))
    digest.update(first.tobytes())
  if jax.process_count() > 1:
    mine = np.frombuffer(digest.digest(), np.uint32)
    if (multihost_utils.process_allgather(mine) != mine).any():
      raise ValueError(_disagreement(on, 'between processes'))


def _disagreement(on: Layout, where: str) -> str:
  return (
    f'The {on.devices} devices disagree {where} after the first step; '
    f'make the method with axis_name={AXIS_NAME!r}.'
  )
