"""Checkpoints of a run: the one file that knows Orbax.

A checkpoint holds the arrays of a ``State`` by name (``params/conv1/kernel``), and beside them,
as JSON, what else a run needs to go on as if nothing had happened: the key, the state of the data
iterator, the open log window. ``D/checkpoints/<step>`` is written under another name and moved
when it is complete, so a kill leaves the previous one.
"""

import contextlib
import math
import os
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxdefect.contracts import DataSpec, Method, State
from jaxdefect.train import processes


class Restored(NamedTuple):
  """A checkpoint read back: the state (host arrays) and the JSON record saved beside it."""

  state: State
  record: dict[str, Any]


class Checkpoints:
  """The checkpoints of one run: the newest and, where a metric is given, the best are kept.

  Of several processes all save and restore together, and process 0 writes.

  Args:
    directory: folder of the run; checkpoints go to its sub-folder ``checkpoints``.
  """

  def __init__(self, directory: str | os.PathLike):
    self._directory = _folder(directory)
    self._manager = _manager(self._directory, writes=True)

  def save(self, state: State, record: dict[str, Any], *, metric: float | None = None) -> None:
    """Writes a checkpoint, complete when this returns.

    Args:
      state: unreplicated state; its ``step`` names the checkpoint.
      record: JSON, given back by :meth:`restore`.
      metric: larger is better; the checkpoint with the largest is kept (the later of equals).
    """
    step = int(state.step)
    arrays = {name: np.asarray(leaf) for name, leaf in _named_leaves(state).items()}
    about = {name: [list(array.shape), str(array.dtype)] for name, array in arrays.items()}
    written = self._manager.save(
      step,
      args=ocp.args.Composite(
        # Orbax refuses arrays without elements; their shape says all there is to know.
        state=ocp.args.PyTreeSave({k: v for k, v in arrays.items() if v.size}),
        run=ocp.args.JsonSave({'arrays': about, 'metric': metric, 'record': record}),
      ),
      # Worse than any: what has no metric is never the best, and Orbax does not warn.
      metrics={'metric': -math.inf if metric is None else metric},
    )
    if not written:
      raise RuntimeError(f'Orbax declined to write step {step} into {self._directory}.')

  def restore(self, template: State) -> Restored | None:
    """Reads the newest checkpoint that is whole, and removes broken ones that are newer.

    Args:
      template: ``State`` of ``jax.ShapeDtypeStruct``, see :func:`make_template`.

    Returns:
      The checkpoint, or None where the run has none.

    Raises:
      ValueError: the checkpoint is of another architecture, or none of them can be read.
    """
    broken: dict[pathlib.Path, str] = {}
    restored = None
    for step in sorted(self._manager.all_steps(), reverse=True):
      path = self._directory / str(step)
      try:
        restored = _read(self._manager, path, template)
        break
      except _BrokenError as error:
        broken[path] = str(error)

    damaged = [path for path in broken if any(path.iterdir())]
    if damaged and restored is None:
      raise ValueError(f'The checkpoint {damaged[0]} cannot be read: {broken[damaged[0]]}')
    if broken:
      processes.wait('all processes have read the checkpoints')
      for path in broken:
        # Orbax takes it for a finished step, and would never write that step again.
        if processes.is_writer():
          shutil.rmtree(path)
      processes.wait('broken checkpoints are removed')
      self._manager.reload()
    return restored

  def close(self) -> None:
    self._manager.close()


def make_template(method: Method, spec: DataSpec) -> State:
  """Shapes of a method's ``State``, without computing anything."""
  return jax.eval_shape(lambda key: method.init(key, spec), jax.random.key(0))


def load(directory: str | os.PathLike, template: State, *, step: int | str | None = None) -> State:
  """Reads the state of a run, for evaluation and export, in this process alone.

  Args:
    directory: folder of the run.
    template: ``State`` of ``jax.ShapeDtypeStruct``, see :func:`make_template`.
    step: ``'latest'``; ``'best'``, the one with the largest metric (the latest where no
      checkpoint has one), also meant by None; or the number of a step.

  Returns:
    The state, on the default device.

  Raises:
    ValueError: no such checkpoint, or one of another architecture.
  """
  folder = _folder(directory)
  if not folder.is_dir():
    raise ValueError(f'{directory} holds no checkpoints.')
  with contextlib.closing(_manager(folder, writes=False)) as manager:
    metrics = {}
    for saved in manager.all_steps():
      with contextlib.suppress(_BrokenError):
        metrics[saved] = _read_run(manager, saved)['metric']

    measured = {saved: value for saved, value in metrics.items() if value is not None}
    if step in (None, 'best') and measured:
      step = max(measured, key=lambda saved: (measured[saved], saved))
    elif step in (None, 'best', 'latest') and metrics:
      step = max(metrics)
    if step not in metrics:
      kept = ', '.join(map(str, sorted(metrics))) or 'none'
      wanted = f'step {step}' if isinstance(step, int) else f'checkpoint {step or "at all"!r}'
      raise ValueError(f'{directory} holds no {wanted}; steps that can be read: {kept}.')
    path = folder / str(step)
    try:
      return jax.tree.map(jnp.array, _read(manager, path, template).state)
    except _BrokenError as error:
      raise ValueError(f'The checkpoint {path} cannot be read: {error}') from None


class _BrokenError(Exception):
  """A checkpoint that is empty or half there."""


def _folder(directory) -> pathlib.Path:
  return pathlib.Path(directory).resolve() / 'checkpoints'


def _manager(folder: pathlib.Path, *, writes: bool) -> ocp.CheckpointManager:
  policy = checkpoint_managers.AnyPreservationPolicy(
    [
      checkpoint_managers.LatestN(1),
      checkpoint_managers.BestN(get_metric_fn=_metric, n=1, keep_checkpoints_without_metrics=False),
    ]
  )
  return ocp.CheckpointManager(
    folder,
    options=ocp.CheckpointManagerOptions(
      create=writes,
      cleanup_tmp_directories=writes,
      # Donated buffers must not be overwritten while they are still being written out.
      enable_async_checkpointing=False,
      # Who only reads waits for nobody.
      multiprocessing_options=ocp.options.MultiprocessingOptions(
        primary_host=0 if writes else jax.process_index(),
        active_processes=None if writes else {jax.process_index()},
        barrier_sync_key_prefix=None if writes else f'reader_{jax.process_index()}',
      ),
      # Without best_fn Orbax does not store metrics, and a resumed run would forget its best.
      best_fn=_metric,
      preservation_policy=policy,
    ),
  )


def _metric(metrics: Any) -> float:
  return metrics['metric']


def _named_leaves(state: Any) -> dict[str, Any]:
  """``{'params/conv1/kernel': leaf}``; names survive what optax and Orbax do to containers."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(state)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}


def _read_run(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
  """The JSON beside the arrays of a step."""
  try:
    return manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))['run']
  except Exception as error:  # Orbax raises many kinds for a folder that is not whole.
    raise _BrokenError(_one_line(error)) from error


def _read(manager: ocp.CheckpointManager, path: pathlib.Path, template: State) -> Restored:
  """One checkpoint, checked against the template."""
  run = _read_run(manager, int(path.name))
  wanted = _named_leaves(template)
  _check_architecture(run['arrays'], wanted, path)

  item = {name: np.zeros(v.shape, v.dtype) for name, v in wanted.items() if v.size}
  as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in item}
  try:
    arrays = manager.restore(
      int(path.name),
      args=ocp.args.Composite(state=ocp.args.PyTreeRestore(item=item, restore_args=as_numpy)),
    )['state']
  except Exception as error:
    raise _BrokenError(_one_line(error)) from error
  leaves = [arrays[name] if v.size else np.zeros(v.shape, v.dtype) for name, v in wanted.items()]
  return Restored(jax.tree.unflatten(jax.tree.structure(template), leaves), run['record'])


def _one_line(error: Exception) -> str:
  return ' '.join(f'{type(error).__name__}: {error}'.split())[:200]


def _check_architecture(there: dict[str, list], here: dict[str, Any], path: pathlib.Path) -> None:
  """Compares names, shapes and dtypes, parameters first (a ``State`` lists them first)."""
  here_about = {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in here.items()}
  ours = [name for name in here_about if there.get(name) != here_about[name]]
  theirs = [name for name in there if name not in here_about]
  for name in sorted(ours + theirs, key=lambda name: not name.startswith('params/')):
    was, expected = (
      f'{about[name][1]}{about[name][0]}' if name in about else 'missing'
      for about in (there, here_about)
    )
    raise ValueError(
      f'The checkpoint {path} is of another architecture: '
      f'{name} is {was} there and {expected} here.'
    )
