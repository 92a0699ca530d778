"""The only training loop. It knows no method's name."""

import contextlib
import math
import os
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdefect.contracts import Batch, DataSpec, Method, References, State
from jaxdefect.train import checkpoint, metric_log, parallel, processes
from jaxdefect.train.position import Position, from_json, to_json
from jaxdefect.train.report import Report


def fit(
  method: Method,
  key: jax.Array,
  spec: DataSpec,
  batches: Iterable[Batch],
  *,
  steps: int,
  directory: str | os.PathLike | None = None,
  pretrained: Any = None,
  references: References | None = None,
  evaluate: Callable[[State], dict[str, float]] | None = None,
  evaluate_every: int | None = None,
  best: str | None = None,
  log_every: int = 10,
  checkpoint_every: int | None = None,
  devices: int = 1,
  progress: bool = True,
  tensorboard: bool = False,
  stop: Callable[[], bool] | None = None,
) -> State:
  """Trains a method, or goes on with a run that was interrupted.

  On several processes (``train.processes``) each calls this with its own share of the batches and
  everything else the same; they see the same directory, and process 0 writes to it.

  A run is a function of its arguments: killed at any moment and started again with the same
  arguments, it ends with the same parameters and the same log as an uninterrupted one. The key,
  the position in the data and the open log window are part of a checkpoint; randomness within a
  step follows from the key and ``state.step``, with which ``method.step`` folds it
  (``optim.gradient_step`` does).

  Args:
    method: what to train.
    key: typed PRNG key.
    spec: what the data look like; its ``batch`` is one device's share.
    batches: endless stream of host batches. With a directory it must have ``get_state`` and
      ``set_state``, as grain's iterators have.
    steps: length of the run; 0 leaves the state as ``prepare`` makes it.
    directory: folder of the run, for ``checkpoints/`` and ``metrics.jsonl``. If it holds a run,
      that run goes on. None keeps nothing.
    pretrained: variables laid over the fresh ones, handed to ``method.init``.
    references: handed to ``method.prepare``, once before step 0. It must keep shapes.
    evaluate: state -> metrics, on one device, in every process. It must not keep the state: its
      buffers are overwritten by the next step.
    evaluate_every: steps between evaluations; the last step is evaluated in any case.
    best: metric of ``evaluate``, larger is better; its best checkpoint is kept beside the newest.
    log_every: steps between lines of ``metrics.jsonl``: means over that interval, sum / count.
    checkpoint_every: steps between checkpoints; evaluations and the last step write one too.
    devices: how many to train on, over all processes. For more than one the method must have been
      made with ``axis_name=parallel.AXIS_NAME``.
    progress: show a bar, or plain lines where there is no terminal.
    tensorboard: write TensorBoard event files too.
    stop: asked after each step; True ends the run there, with a checkpoint where there is a
      directory. Of several processes all must be told the same.

  Returns:
    The state after the last step, on one device.

  Raises:
    ValueError: an argument, or what the directory holds, does not fit, or a batch has other shapes
      than the first one had (the step would be compiled again).
    FloatingPointError: a scalar, and with it the loss or the gradient, is not finite.
    KeyboardInterrupt: ``stop`` was True before the last step.
  """
  check_arguments(
    steps=steps,
    evaluate=evaluate,
    evaluate_every=evaluate_every,
    best=best,
    log_every=log_every,
    checkpoint_every=checkpoint_every,
    tensorboard=tensorboard and directory is not None,
  )
  on = parallel.layout(devices)
  compilations = 0

  def train_step(key, state, batch):
    nonlocal compilations
    compilations += 1  # this runs when the step is compiled, not when it is called
    return method.step(key, state, batch)

  step = parallel.compile_step(train_step, on)
  stream: Any = iter(batches)
  with contextlib.ExitStack() as resources:
    store = None
    if directory is not None:
      if not (hasattr(stream, 'get_state') and hasattr(stream, 'set_state')):
        raise ValueError(
          'batches needs get_state and set_state for a run in a directory to resume.'
        )
      store = resources.enter_context(contextlib.closing(checkpoint.Checkpoints(directory)))

    restored = store.restore(checkpoint.make_template(method, spec)) if store else None
    if restored is not None:
      state, position = restored.state, from_json(restored.record)
      stream.set_state(position.data)
    else:
      state, position = _start(method, key, spec, pretrained, references)
    done = start = int(state.step)
    shapes, expected = '', 0
    processes.check_agreement(done, f'The step that {directory} goes on from')
    if done > steps:
      raise ValueError(f'steps is {steps}, but {directory} holds a run of {done} steps.')

    report = resources.enter_context(
      contextlib.closing(
        Report(
          directory if processes.is_writer() else None,
          steps,
          position,
          start=None if restored is None else start,
          progress=progress and processes.is_writer(),
          tensorboard=tensorboard,
        )
      )
    )
    state = parallel.replicate(state, on)
    finished = restored is not None and done == steps
    while not finished:
      if done < steps:
        with report.waiting():
          batch = _next(stream, done, steps)
        state, scalars = step(position.key, state, parallel.shard(batch, on))
        done += 1
        report.push(done, scalars, _num_images(batch) * jax.process_count())
        if done == start + 1:
          parallel.check_replicas(state, on)
          shapes, expected = _shapes(batch), compilations
        elif compilations > expected:
          raise ValueError(
            f'The batch of step {done} is {_shapes(batch)} and that of step {start + 1} was '
            f'{shapes}; all must be alike, or the step is compiled again for each.'
          )

      if _due(done, log_every, steps):
        report.log(done)
      metrics = {}
      if evaluate is not None and _due(done, evaluate_every, steps):
        report.collect()
        metrics = evaluate(parallel.unreplicate(state, on))
        metrics = {name: float(value) for name, value in metrics.items()}
        report.evaluation(done, metrics)
      stopped = stop is not None and done < steps and stop()
      if store is not None and (metrics or stopped or _due(done, checkpoint_every, steps)):
        window, seconds = report.record()
        here = Position(position.key, stream.get_state(), window, seconds)
        store.save(
          parallel.unreplicate(state, on), to_json(here), metric=_best_metric(metrics, best)
        )
      if stopped:
        raise KeyboardInterrupt(f'stopped after step {done} of {steps}')
      finished = done == steps
    return parallel.unreplicate(state, on)


def _start(method, key, spec, pretrained, references) -> tuple[State, Position]:
  """The state before step 0."""
  init_key, prepare_key, run_key = jax.random.split(key, 3)
  # It runs once: LLVM's last level takes four times as long to compile, for the same bits.
  quick = {'xla_backend_optimization_level': 1} if jax.default_backend() == 'cpu' else None
  state = jax.jit(
    lambda key, pretrained: method.init(key, spec, pretrained=pretrained), compiler_options=quick
  )(init_key, pretrained)
  before = jax.eval_shape(lambda: state)
  state = jax.tree.map(jnp.asarray, method.prepare(prepare_key, state, references))
  if jax.eval_shape(lambda: state) != before:
    # A checkpoint is read back into the shapes that init alone makes.
    raise ValueError('prepare has changed the structure, shapes or dtypes of the state from init.')
  return state, Position(run_key)


def _due(done: int, every: int | None, steps: int) -> bool:
  return done == steps or (every is not None and done % every == 0)


def _next(batches, done: int, steps: int) -> Batch:
  try:
    return next(batches)
  except StopIteration:
    raise ValueError(
      f'batches ended after {done} of {steps} steps; training batches must repeat for ever.'
    ) from None


def _shapes(batch: Batch) -> str:
  leaves = jax.tree_util.tree_leaves_with_path(batch)
  named = ((jax.tree_util.keystr(p, simple=True, separator='/'), x) for p, x in leaves)
  return ', '.join(f'{name} {x.dtype}{list(x.shape)}' for name, x in named)


def _num_images(batch: Batch) -> int:
  valid = batch.get('valid')
  return len(jax.tree.leaves(batch)[0]) if valid is None else int(np.sum(valid))


def _best_metric(metrics: dict[str, float], best: str | None) -> float | None:
  """The value that decides which checkpoint is best; an undefined one decides nothing."""
  if best is None or not metrics:
    return None
  if best not in metrics:
    raise ValueError(f'best is {best!r}; evaluate returns {", ".join(sorted(metrics))}.')
  return metrics[best] if math.isfinite(metrics[best]) else None


def check_arguments(
  *,
  steps: int,
  evaluate: Callable[[State], dict[str, float]] | None,
  evaluate_every: int | None,
  best: str | None,
  log_every: int,
  checkpoint_every: int | None,
  tensorboard: bool,
) -> None:
  """Refuses settings that ``fit`` would refuse, for who writes something before calling it.

  Args:
    steps: as all others an argument of ``fit``.
    evaluate: may be None.
    evaluate_every: may be None.
    best: needs ``evaluate``.
    log_every: 1 or more.
    checkpoint_every: may be None.
    tensorboard: needs the package.

  Raises:
    ValueError: one of them does not fit.
  """
  if steps < 0:
    raise ValueError(f'steps is {steps}; it must be 0 or more.')
  periods = {
    'evaluate_every': evaluate_every,
    'log_every': log_every,
    'checkpoint_every': checkpoint_every,
  }
  for name, every in periods.items():
    if every is not None and every < 1:
      raise ValueError(f'{name} is {every}; it must be 1 or more, or None.')
  if best is not None and evaluate is None:
    raise ValueError(f'best is {best!r}, but there is no evaluate that could return it.')
  if tensorboard:
    metric_log.tensorboard_summary()
