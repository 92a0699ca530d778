"""How fast an exported model inspects: python -m launch.speed --model=EXPORT --images=DIR.

EXPORT is what launch.convert wrote: a folder (run by PyTorch) or an ONNX file (by ONNX Runtime).
Every stage of an inspection is timed alone, one picture at a time: decoding, resizing, inference,
and what makes a verdict of numbers; then batches give the throughput.

--fps=10 plays a camera instead: a picture arrives every 1/10 s, whether the last one is done or
not; what finds the model busy waits, --queue of them at most, and one more is dropped.
--out=FILE.json keeps the figures.
"""

import collections
import itertools
import json
import pathlib
import time
from typing import Any

import numpy as np
import rich.console
import rich.table
from absl import flags

from jaxdefect import data
from jaxdefect.convert import exported, parity
from jaxdefect.data import decode
from launch import command, exported_run
from launch.versions import versions

_WARMUP = 3
_STAGES = ('decode', 'resize', 'infer', 'resize and infer', 'verdict', 'in all')


def define(values: flags.FlagValues) -> None:
  flags.DEFINE_string('model', None, 'what launch.convert wrote', flag_values=values)
  flags.DEFINE_string('images', None, 'folder of pictures', flag_values=values)
  flags.DEFINE_float('seconds', 20.0, 'how long to measure', flag_values=values)
  flags.DEFINE_integer('batch', 16, 'pictures of a batch, for the throughput', flag_values=values)
  flags.DEFINE_float('fps', 0.0, 'pictures per second of a camera', flag_values=values)
  flags.DEFINE_integer('queue', 4, 'pictures of the camera that may wait', flag_values=values)
  flags.DEFINE_string('out', '', 'JSON file to write', flag_values=values)


def main(values: flags.FlagValues) -> None:
  command.require(values, 'model', 'images')
  if values.seconds <= 0 or values.batch < 1 or values.fps < 0 or values.queue < 0:
    raise ValueError('--seconds and --batch must be above 0, --fps and --queue not below')
  run = exported_run.open_run(pathlib.Path(values.model))
  source = data.unlabelled(
    dir=values.images, sixteen_bit_range=tuple(run.config.data.sixteen_bit_range)
  )
  data.verify(source, range(len(source)))
  result: dict[str, Any] = {'model': run.directory.name, 'pictures': len(source)}
  if values.fps:
    result['camera'] = camera(
      run, source, fps=values.fps, queue=values.queue, seconds=values.seconds
    )
  else:
    result['ms'] = stages(run, source, seconds=values.seconds / 2)
    result |= throughput(run, source, batch=values.batch, seconds=values.seconds / 2)
  _show(result)
  if values.out:
    kept = json.dumps({**result, 'versions': versions()}, indent=1)
    pathlib.Path(values.out).write_text(kept + '\n')


def stages(
  run: exported_run.ExportedRun, source: data.Source, *, seconds: float
) -> dict[str, dict[str, float]]:
  """Milliseconds of each stage, one picture at a time.

  Resizing is part of the graph: its time is that of a picture less that of the same picture at the
  network's size, where resizing has nothing to do but to copy.

  Args:
    run: an exported model.
    source: pictures; they are taken in turn.
    seconds: how long to measure.

  Returns:
    Stage -> ``p50``, ``p95``, ``p99`` and ``mean``.
  """
  size = tuple(run.config.data.image_size)
  taken: dict[str, list[float]] = collections.defaultdict(list)
  end = time.perf_counter() + seconds
  for turn, place in enumerate(itertools.cycle(range(len(source)))):
    marks = [time.perf_counter()]
    picture = source.read(place)
    marks.append(time.perf_counter())
    said = exported.run(run.model, [picture])
    marks.append(time.perf_counter())
    run.verdict(parity.predictions(said))
    marks.append(time.perf_counter())
    small = decode.resize(picture, size)
    started = time.perf_counter()
    if not _fixed(run):
      exported.run(run.model, [small])
    alone = time.perf_counter() - started
    if turn >= _WARMUP:
      read, whole, told = np.diff(marks)
      parts = {'decode': read, 'verdict': told, 'in all': marks[-1] - marks[0]}
      if _fixed(run):
        parts['resize and infer'] = whole
      else:
        parts |= {'resize': max(0.0, whole - alone), 'infer': min(whole, alone)}
      for name, value in parts.items():
        taken[name].append(1000 * value)
    if marks[-1] > end and turn > _WARMUP + 4:
      return {name: _percentiles(taken[name]) for name in _STAGES if name in taken}
  raise AssertionError  # a cycle does not end


def _fixed(run: exported_run.ExportedRun) -> bool:
  """Whether the model takes pictures of one size alone."""
  return bool((run.model.described.get('input') or {}).get('static'))


def throughput(
  run: exported_run.ExportedRun, source: data.Source, *, batch: int, seconds: float
) -> dict[str, Any]:
  """Pictures per second in batches, with decoding them and without.

  Args:
    run: an exported model.
    source: pictures; they are taken in turn.
    batch: pictures of a batch.
    seconds: how long to measure.

  Returns:
    ``images_per_second``, ``images_per_second_decoded`` and ``batch``.
  """
  places = itertools.cycle(range(len(source)))
  count, reading, running = 0, 0.0, 0.0
  exported.run(run.model, [source.read(next(places)) for _ in range(batch)], batch_size=batch)
  while reading + running < seconds or not count:
    started = time.perf_counter()
    pictures = [source.read(next(places)) for _ in range(batch)]
    decoded = time.perf_counter()
    exported.run(run.model, pictures, batch_size=batch)
    reading += decoded - started
    running += time.perf_counter() - decoded
    count += batch
  return {
    'images_per_second': count / (reading + running),
    'images_per_second_decoded': count / running,
    'batch': batch,
  }


def camera(
  run: exported_run.ExportedRun, source: data.Source, *, fps: float, queue: int, seconds: float
) -> dict[str, Any]:
  """A picture every 1 / fps seconds; reading it is part of its time.

  Args:
    run: an exported model.
    source: pictures; they are taken in turn.
    fps: pictures per second.
    queue: pictures that may wait while one is inspected.
    seconds: how long the camera runs.

  Returns:
    ``arrived``, ``inspected``, ``dropped``, and ``latency_ms`` from arrival to verdict.
  """
  places = itertools.cycle(range(len(source)))
  for _ in range(_WARMUP):
    run.inspect(source.read(next(places)))
  total = max(1, round(fps * seconds))
  waiting: collections.deque[float] = collections.deque()
  latencies: list[float] = []
  arrived = dropped = 0
  free = 0.0  # when the last picture was done
  start = time.perf_counter()
  while arrived < total or waiting:
    now = time.perf_counter() - start
    while arrived < total and arrived / fps <= now:
      # Who finds the model free is served; of those that came while it was not, so many may wait.
      if len(waiting) < queue or (not waiting and arrived / fps >= free):
        waiting.append(arrived / fps)
      else:
        dropped += 1
      arrived += 1
    if not waiting:
      time.sleep(max(0.0, arrived / fps - (time.perf_counter() - start)))
      continue
    since = waiting.popleft()
    run.inspect(source.read(next(places)))
    free = time.perf_counter() - start
    latencies.append(1000 * (free - since))
  return {
    'fps': fps,
    'arrived': arrived,
    'inspected': len(latencies),
    'dropped': dropped,
    'latency_ms': _percentiles(latencies),
  }


def _percentiles(values: list[float]) -> dict[str, float]:
  p50, p95, p99 = (float(np.percentile(values, q)) for q in (50, 95, 99))
  return {'p50': p50, 'p95': p95, 'p99': p99, 'mean': float(np.mean(values)), 'n': len(values)}


def _show(result: dict[str, Any]) -> None:
  """The figures as a table."""
  camera_of = result.get('camera')
  rows = {'from arrival to verdict': camera_of['latency_ms']} if camera_of else result['ms']
  table = rich.table.Table(title=f'{result["model"]}, one picture at a time, ms')
  for heading in ('stage', 'p50', 'p95', 'p99', 'mean', 'n'):
    table.add_column(heading, justify='left' if heading == 'stage' else 'right')
  for name, row in rows.items():
    table.add_row(
      name, *(f'{row[key]:.1f}' for key in ('p50', 'p95', 'p99', 'mean')), f'{row["n"]}'
    )
  rich.console.Console().print(table)
  if camera_of:
    print(
      f'{camera_of["fps"]:g} pictures/s: {camera_of["arrived"]} arrived, '
      f'{camera_of["inspected"]} inspected, {camera_of["dropped"]} dropped'
    )
  else:
    print(
      f'batches of {result["batch"]}: {result["images_per_second"]:.1f} pictures/s with decoding, '
      f'{result["images_per_second_decoded"]:.1f} without'
    )


if __name__ == '__main__':
  command.run(define, main)
