"""Training scalars on their way from the device to ``metrics.jsonl`` (and TensorBoard)."""

import importlib
import json
import math
import os
import pathlib
from typing import Any

import jax
import numpy as np

# The device may be this many steps behind the host before the host waits.
RUN_AHEAD = 8


class Window:
  """Sums of scalars since the last line of the log.

  Steps hand in device arrays; nothing is fetched before :meth:`collect`, so the host can prepare
  the next batch while the device works. Sums are taken on the host, in float64 and in the order
  of the steps, so a resumed run adds up to the same bits.

  Attributes:
    seconds: time that the steps of the window took, kept by the caller.
    stalled: the part of it in which the device waited for data, kept by the caller.
  """

  def __init__(self, record: dict | None = None):
    record = record or {}
    self._sums: dict[str, list[float]] = {k: list(v) for k, v in record.get('sums', {}).items()}
    self._images: int = record.get('images', 0)
    self.seconds: float = record.get('seconds', 0.0)
    self.stalled: float = record.get('stalled', 0.0)
    self._pending: list[tuple[int, dict]] = []

  def push(self, step: int, scalars: dict, images: int) -> None:
    """Adds the scalars of one step, name -> (sum, count), still on the device."""
    self._pending.append((step, scalars))
    self._images += images
    if len(self._pending) > RUN_AHEAD:
      jax.block_until_ready(self._pending[-RUN_AHEAD][1])

  def collect(self) -> None:
    """Waits for the device, fetches what is pending and adds it up.

    Raises:
      FloatingPointError: a scalar is not finite; names the first step that shows it.
    """
    for step, scalars in jax.device_get(self._pending):
      for name, pair in sorted(scalars.items(), key=lambda item: item[0] != 'loss'):
        # Many devices report the same sum each.
        total, count = (float(np.reshape(value, -1)[0]) for value in pair)
        if not math.isfinite(total):
          raise FloatingPointError(
            f'Training stopped: {name} is {total} in step {step}; '
            'lower the learning rate, clip the gradient, or look at the data of that step.'
          )
        sums = self._sums.setdefault(name, [0.0, 0.0])
        sums[0] += total
        sums[1] += count
    self._pending = []

  def flush(self) -> dict[str, float]:
    """Means of what was collected, images per second and the stall; starts the next window."""
    means = {name: total / count for name, (total, count) in self._sums.items() if count}
    if self._images and self.seconds > 0:
      means['images_per_second'] = self._images / self.seconds
      means['data_stall'] = self.stalled / self.seconds
    self._sums, self._images, self.seconds, self.stalled = {}, 0, 0.0, 0.0
    return means

  def record(self) -> dict[str, Any]:
    """What was collected and not yet flushed, as JSON, for a checkpoint."""
    return {
      **{'sums': self._sums, 'images': self._images},
      **{'seconds': self.seconds, 'stalled': self.stalled},
    }


class MetricLog:
  """Lines of ``metrics.jsonl``: ``{"step": 20, "seconds": 4.1, "loss": 0.7, ...}``.

  Args:
    directory: folder of the run.
    step: the step that the run goes on from, or None for a run that begins; later lines, and a
      line that a crash has torn, are removed.
    tensorboard: also write TensorBoard event files below ``directory/tensorboard``.

  Raises:
    ValueError: tensorboard is asked for and not installed.
  """

  def __init__(
    self, directory: str | os.PathLike, *, step: int | None = None, tensorboard: bool = False
  ):
    self._writer = None
    if tensorboard:
      self._writer = tensorboard_summary().Writer(str(pathlib.Path(directory) / 'tensorboard'))
    path = pathlib.Path(directory) / 'metrics.jsonl'
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [] if step is None else [line for line in read(path) if line['step'] <= step]
    # Written beside and moved, so that a crash leaves the old lines or the new ones.
    fresh = path.with_suffix('.jsonl.tmp')
    fresh.write_text(''.join(json.dumps(line) + '\n' for line in kept))
    os.replace(fresh, path)
    self._file = path.open('a')

  def write(self, step: int, values: dict[str, float]) -> None:
    """Appends one line; a value that is not finite is written as null."""
    line = {name: value if math.isfinite(value) else None for name, value in values.items()}
    self._file.write(json.dumps({'step': step} | line) + '\n')
    self._file.flush()
    if self._writer is not None:
      for name, value in values.items():
        self._writer.add_scalar(name, value, step=step)

  def close(self) -> None:
    self._file.close()
    if self._writer is not None:
      self._writer.close()


def read(path: str | os.PathLike) -> list[dict[str, Any]]:
  """The lines of a ``metrics.jsonl``; a torn last line is left out, a missing file is empty."""
  path = pathlib.Path(path)
  lines = []
  for text in path.read_text().splitlines() if path.exists() else []:
    try:
      lines.append(json.loads(text))
    except json.JSONDecodeError:
      break
  return lines


def tensorboard_summary() -> Any:
  """TensorBoard's module of writers, or the sentence that it is not installed."""
  try:
    return importlib.import_module('tensorboard.summary')
  except ImportError:
    raise ValueError(
      'tensorboard is True, but the package is not installed; run: pip install tensorboard'
    ) from None
