"""What a run says while it runs: the log, the bar, and the clock that both read."""

import concurrent.futures
import contextlib
import os
import time
from collections.abc import Iterator

import jax

from jaxdefect.train.metric_log import MetricLog, Window
from jaxdefect.train.position import Position
from jaxdefect.train.progress import Progress


class Report:
  """Collects the scalars of steps and shows their means, in ``metrics.jsonl`` and on the bar.

  Images per second leave out the time that evaluations take. The stall is the time in which the
  host waits for the next batch and the device, done with all steps so far, has nothing to do.

  Args:
    directory: folder of the run, or None to write no log.
    steps: length of the run.
    position: where the run goes on from.
    start: finished steps there, or None for a run that begins.
    progress: show a bar or lines.
    tensorboard: write TensorBoard event files too.
  """

  def __init__(
    self,
    directory: str | os.PathLike | None,
    steps: int,
    position: Position,
    *,
    start: int | None,
    progress: bool,
    tensorboard: bool,
  ):
    self._log = None
    if directory is not None:
      self._log = MetricLog(directory, step=start, tensorboard=tensorboard)
    self._window = Window(position.window)
    self._mark = time.perf_counter()
    self._began = self._mark - position.seconds
    # It waits for the device beside the host, to know when a step was done.
    self._watch = concurrent.futures.ThreadPoolExecutor(1)
    self._done: concurrent.futures.Future[float] | None = None
    self._bar = Progress(steps, start=start or 0, enabled=progress)
    if start is not None:
      self._bar.note(f'{directory} holds a run of {start} steps; going on from there.')

  def push(self, step: int, scalars: dict, images: int) -> None:
    """Takes the scalars of one step, still on the device."""
    self._done = self._watch.submit(_when_ready, scalars)
    self._window.push(step, scalars, images)

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Around the wait for the next batch: what of it the device spends idle is the stall."""
    began = time.perf_counter()
    yield
    if self._done is not None and self._done.done():
      self._window.stalled += time.perf_counter() - max(began, self._done.result())

  def collect(self) -> None:
    """Waits for the device and adds up what it computed; raises where that is not finite."""
    self._window.collect()
    now = time.perf_counter()
    self._window.seconds += now - self._mark
    self._mark = now

  def log(self, step: int) -> None:
    """Ends a log interval."""
    self.collect()
    means = self._window.flush()
    if means:
      self._bar.update(step, means)
      self._write(step, means)

  def evaluation(self, step: int, metrics: dict[str, float]) -> None:
    """Shows the metrics of an evaluation; in the log their names start with ``evaluation/``."""
    self._mark = time.perf_counter()
    self._bar.note(f'step {step}: ' + '  '.join(f'{k} {v:.4f}' for k, v in metrics.items()))
    self._write(step, {f'evaluation/{name}': value for name, value in metrics.items()})

  def record(self) -> tuple[dict, float]:
    """The open window and the seconds so far, for a checkpoint; raises as :meth:`collect`."""
    self.collect()
    return self._window.record(), time.perf_counter() - self._began

  def close(self) -> None:
    self._watch.shutdown()
    self._bar.close()
    if self._log is not None:
      self._log.close()

  def _write(self, step, values) -> None:
    if self._log is not None:
      self._log.write(step, {'seconds': time.perf_counter() - self._began} | values)


def _when_ready(scalars: dict) -> float:
  """The time at which the device has computed them."""
  jax.block_until_ready(scalars)
  return time.perf_counter()
