"""Fair timing: contenders take turns, medians and quartiles are kept, results are whole files."""

import ctypes
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

RESULTS = pathlib.Path(__file__).parent / 'results'
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'torch', 'onnxruntime', 'numpy')


def use_threads(number: int, *, keep_memory: bool = True) -> None:
  """Gives the process so many processors, and what our launchers give theirs, before JAX starts.

  Args:
    number: of processors; XLA makes one thread for each that it may run on.
    keep_memory: freed memory stays with the process, which serves both sides; it would hide what a
      step needs.
  """
  from jaxdefect import train
  from jaxdefect.models import ynnpack

  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:number])
  if keep_memory:
    train.keep_freed_memory()
  ynnpack.leave_convolutions_to_eigen()


def take_turns(
  contenders: dict[str, Callable[[], object]],
  *,
  rounds: int,
  warmup: int = 2,
  before: dict[str, Callable[[], object]] | None = None,
) -> dict[str, dict[str, float]]:
  """Times every contender once per round, so that a slow moment of the machine hits them all.

  Args:
    contenders: name -> a call that returns when its work is done.
    rounds: how often each is timed.
    warmup: calls of each that are not timed.
    before: name -> what to do right before that contender's clock starts.

  Returns:
    name -> wall seconds ``median``, ``quartile_1``, ``quartile_3``, ``least``,
    ``percentile_95``, ``percentile_99``, and ``cpu_median``, the processor seconds of all threads
    (waiting in a spin loop counts).
  """
  for call in contenders.values():
    for _ in range(warmup):
      call()
  wall: dict[str, list[float]] = {name: [] for name in contenders}
  cpu: dict[str, list[float]] = {name: [] for name in contenders}
  for _ in range(rounds):
    for name, call in contenders.items():
      if before is not None:
        before[name]()
      start, start_cpu = time.perf_counter(), time.process_time()
      call()
      wall[name].append(time.perf_counter() - start)
      cpu[name].append(time.process_time() - start_cpu)
  return {
    name: {
      'median': float(np.median(values)),
      'quartile_1': float(np.quantile(values, 0.25)),
      'quartile_3': float(np.quantile(values, 0.75)),
      'least': float(np.min(values)),
      'percentile_95': float(np.quantile(values, 0.95)),
      'percentile_99': float(np.quantile(values, 0.99)),
      'cpu_median': float(np.median(cpu[name])),
      'rounds': len(values),
    }
    for name, values in wall.items()
  }


def compare(times: dict[str, dict[str, float]], *, ours: str) -> dict[str, dict[str, float]]:
  """Our time over each peer's, from medians, least wall times and processor times."""
  mine = times[ours]
  return {
    name: {key: mine[key] / peer[key] for key in ('median', 'least', 'cpu_median')}
    for name, peer in times.items()
    if name != ours
  }


def growth(call: Callable[[], object]) -> int | None:
  """By how many bytes a second call makes this process larger; None where Linux does not say."""
  call()
  try:
    ctypes.CDLL(None).malloc_trim(0)  # or what the first call freed would not be counted
    pathlib.Path('/proc/self/clear_refs').write_text('5')  # the peak starts again from here
    before = _status_bytes('VmRSS')
    call()
    return _status_bytes('VmHWM') - before
  except (OSError, AttributeError):
    return None


def answer_of_process(module: str, *arguments: str) -> Any:
  """What ``python -m module`` prints last, as JSON: memory is measured in a process of its own.

  Args:
    module: to run.
    arguments: of it.

  Returns:
    The decoded line.
  """
  # Memory that glibc keeps would hide what a step needs.
  environment = {k: v for k, v in os.environ.items() if k != 'GLIBC_TUNABLES'}
  command = [sys.executable, '-m', module, *arguments]
  answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
  if answer.returncode:
    raise SystemExit(f'{" ".join(command[1:])} ended with {answer.returncode}; see above.')
  return json.loads(answer.stdout.splitlines()[-1])


def _status_bytes(name: str) -> int:
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name + ':'))


def show(
  case: str, times: dict[str, dict[str, float]], ratios: dict[str, dict[str, float]]
) -> None:
  """Prints one case as a small table."""
  print(case)
  for name, row in times.items():
    quartiles = f'{1e3 * row["quartile_1"]:.1f}-{1e3 * row["quartile_3"]:.1f}'
    line = f'  {name:32s} {1e3 * row["median"]:9.1f} ms  ({quartiles})'
    if name in ratios:
      ratio = ratios[name]
      line += f'   ours / this: {ratio["median"]:.2f} (cpu time {ratio["cpu_median"]:.2f})'
    print(line, flush=True)


def write_results(name: str, device: str, cases: dict[str, Any], **facts: Any) -> pathlib.Path:
  """Writes ``results/<name>-<device>.json`` at once or not at all.

  Args:
    name: of the benchmark.
    device: name of the processor or accelerator.
    cases: what was measured.
    **facts: anything else worth knowing (threads, settings).

  Returns:
    The path of the file.
  """
  report = {
    'benchmark': name,
    'device': device,
    'date': time.strftime('%Y-%m-%d'),
    'python': platform.python_version(),
    'versions': {package: _version(package) for package in PACKAGES},
    'environment': {
      key: os.environ[key]
      for key in ('XLA_FLAGS', 'GLIBC_TUNABLES', 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')
      if key in os.environ
    },
    'load_average': os.getloadavg()[0],
    **facts,
    'cases': cases,
  }
  path = _path(name, device)
  path.parent.mkdir(exist_ok=True)
  part = path.with_suffix('.part')
  part.write_text(json.dumps(report, indent=2) + '\n')
  part.replace(path)
  return path


def read_cases(name: str, device: str) -> dict[str, Any]:
  """What ``write_results`` has written before; nothing where it has not."""
  path = _path(name, device)
  return json.loads(path.read_text())['cases'] if path.exists() else {}


def _path(name: str, device: str) -> pathlib.Path:
  slug = re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')
  return RESULTS / f'{name}-{slug}.json'


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def processor() -> str:
  """The processor's own name, as Linux knows it."""
  try:
    for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
      if line.startswith('model name'):
        return line.split(':', 1)[1].strip()
  except OSError:
    pass
  return platform.processor() or platform.machine()
