"""Deformable convolution against the textbook's formulation and torchvision's operator.

    python -m benchmarks.deform_conv --threads=2 --torchvision-python=PATH

PATH is any Python interpreter with torch and torchvision; without it only the textbook is met. On
a GPU, which both then need, bfloat16 is timed beside float32 (torchvision in float16 where it has
no bfloat16). Everyone takes turns; peak memory is what a pass needs beyond its inputs. Writes
``benchmarks/results/deform-conv-<device>.json``. See ``benchmarks.cpu`` for the settings of glibc
and OpenMP that make timings on a shared machine fair.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import timing
from benchmarks.torchvision_peer import PASSES, arrays

# [N, H, W, C, O]: the 3x3 convolutions of a ResNet-50 at 640 x 640, batch 2.
SIZES = ((2, 160, 160, 64, 64), (2, 80, 80, 128, 128), (2, 40, 40, 256, 256), (2, 20, 20, 512, 512))


def textbook(x, offset, kernel, mask=None):
  """Four gathers on [N, H, W, C], as the equation is written; 3x3, stride 1, padding 1.

  Args:
    x: [N, H, W, C].
    offset: [N, H, W, 18].
    kernel: [3, 3, C, O].
    mask: [N, H, W, 9] or None.

  Returns:
    [N, H, W, O].
  """
  import jax.numpy as jnp

  num, height, width, _ = x.shape
  offset = offset.astype(jnp.float32).reshape(num, height, width, 9, 2)
  tap_y, tap_x = jnp.meshgrid(jnp.arange(-1.0, 2.0), jnp.arange(-1.0, 2.0), indexing='ij')
  y = offset[..., 0] + jnp.arange(height)[:, None, None] + tap_y.ravel()
  z = offset[..., 1] + jnp.arange(width)[:, None] + tap_x.ravel()
  image = jnp.arange(num)[:, None, None, None]
  samples = 0.0
  for row in (jnp.floor(y), jnp.floor(y) + 1):
    for column in (jnp.floor(z), jnp.floor(z) + 1):
      inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
      share = jnp.where(inside, (1 - jnp.abs(y - row)) * (1 - jnp.abs(z - column)), 0.0)
      index = (
        image,
        jnp.clip(row, 0, height - 1).astype(jnp.int32),
        jnp.clip(column, 0, width - 1).astype(jnp.int32),
      )
      samples += share[..., None].astype(x.dtype) * x[index]
  if mask is not None:
    samples *= mask[..., None]
  return jnp.einsum('nhwkc,kco->nhwo', samples, kernel.reshape(9, *kernel.shape[2:]))


def passes_of(function: Callable, made: dict[str, Any]) -> dict[str, tuple[Callable, list[Any]]]:
  """Both passes of a convolution of ``made``: the function and what it is called with."""
  import jax

  inputs = [made[name] for name in ('x', 'offset', 'kernel', 'mask') if name in made]

  def both(cotangent, *inputs):
    y, pullback = jax.vjp(function, *inputs)
    return y, *pullback(cotangent)

  return dict(zip(PASSES, ((function, inputs), (both, [made['cotangent'], *inputs]))))


def compiled(body: Callable, operands: list[Any], repeats: int) -> dict[str, Any]:
  """One of our programs: what to call, peak memory, results and their means."""
  import jax
  import jax.numpy as jnp

  program = jax.jit(body).lower(*operands).compile()
  memory = program.memory_analysis()
  assert memory is not None

  def call() -> dict[str, float]:
    result = None
    start, start_cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
      result = program(*operands)
    jax.block_until_ready(result)
    seconds = {'wall': time.perf_counter() - start, 'cpu': time.process_time() - start_cpu}
    return {key: value / repeats for key, value in seconds.items()}

  results = jax.tree.leaves(program(*operands))
  return {
    'call': call,
    'peak_bytes': memory.temp_size_in_bytes + memory.output_size_in_bytes,
    'results': results,
    'means': [float(jnp.abs(one).astype(jnp.float32).mean()) for one in results],
  }


class Torchvision:
  """The peer's process, asked line by line."""

  def __init__(
    self,
    python: str,
    device: str,
    threads: int,
    repeats: int,
    *,
    module: str = 'benchmarks.torchvision_peer',
  ):
    root = str(pathlib.Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get('PYTHONPATH')])]
    self.process = subprocess.Popen(
      [python, '-m', module, device, str(threads), str(repeats)],
      env=os.environ | {'PYTHONPATH': os.pathsep.join(paths)},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    self.versions = self._answer()

  def passes(self, shape: tuple[int, ...], version: str, dtype: str) -> dict[str, dict]:
    """As ``compiled`` of both passes; where torchvision lacks bfloat16 it answers with float16."""
    facts = self.ask(make={'shape': shape, 'version': version, 'dtype': dtype})
    return {
      name: {
        'call': lambda name=name: self.ask(run=name),
        'peak_bytes': facts['peak_bytes'][name],
        'means': facts['means'][: 1 if name == 'forward' else None],
        'dtype': facts['dtype'],
      }
      for name in PASSES
    }

  def ask(self, **request: Any) -> dict[str, Any]:
    assert self.process.stdin is not None
    self.process.stdin.write(json.dumps(request) + '\n')
    self.process.stdin.flush()
    return self._answer()

  def close(self) -> None:
    assert self.process.stdin is not None
    self.process.stdin.close()
    self.process.wait()

  def _answer(self) -> dict[str, Any]:
    assert self.process.stdout is not None
    line = self.process.stdout.readline()
    if not line:
      raise SystemExit('the torchvision interpreter ended; its own message is above.')
    return json.loads(line)


def take_turns(
  calls: dict[str, Callable[[], dict[str, float]]], *, rounds: int, warmup: int = 1
) -> dict[str, dict[str, float]]:
  """As ``timing.take_turns``, for contenders that hold the clock themselves."""
  for call in calls.values():
    for _ in range(warmup):
      call()
  turns: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
  for _ in range(rounds):
    for name, call in calls.items():
      turns[name].append(call())
  result = {}
  for name, seconds in turns.items():
    wall = [one['wall'] for one in seconds]
    result[name] = {
      'median': float(np.median(wall)),
      'quartile_1': float(np.quantile(wall, 0.25)),
      'quartile_3': float(np.quantile(wall, 0.75)),
      'least': float(np.min(wall)),
      'cpu_median': float(np.median([one['cpu'] for one in seconds])),
      'rounds': rounds,
    }
  return result


def measure(
  *, torchvision_python: str | None, version: str, threads: int, rounds: int, repeats: int
) -> pathlib.Path:
  """Times all sizes on JAX's default device.

  Args:
    torchvision_python: an interpreter that has torchvision, or None.
    version: 'v1', or 'v2' with a mask.
    threads: of the peer; ours are set before JAX starts.
    rounds: how often everyone has a turn.
    repeats: passes per turn.

  Returns:
    The path of the written results.
  """
  import jax
  import jax.numpy as jnp

  from jaxdefect import ops

  on_gpu = jax.default_backend() == 'gpu'
  peer = None
  if torchvision_python:
    peer = Torchvision(torchvision_python, 'cuda' if on_gpu else 'cpu', threads, repeats)
  device = jax.devices()[0].device_kind if on_gpu else timing.processor()
  cases: dict[str, Any] = {}
  path = pathlib.Path()
  for dtype in ('float32', 'bfloat16') if on_gpu else ('float32',):
    for shape in SIZES:
      made = {name: jnp.asarray(a, dtype) for name, a in arrays(shape, version).items()}
      functions = {
        'jaxdefect': lambda x, offset, kernel, mask=None: ops.deform_conv2d(
          x, offset, kernel, mask, padding=1
        ),
        'textbook': textbook,
      }
      sides = {
        side: {name: compiled(*one, repeats) for name, one in passes_of(function, made).items()}
        for side, function in functions.items()
      }
      if peer is not None:
        sides['torchvision'] = peer.passes(shape, version, dtype)
      for name in PASSES:
        means = {side: passes[name]['means'] for side, passes in sides.items()}
        for side, theirs in means.items():
          if not np.allclose(means['jaxdefect'], theirs, rtol=0.02):
            raise SystemExit(f'jaxdefect and {side} differ at {shape} {dtype}: {means}.')
        times = take_turns(
          {side: passes[name]['call'] for side, passes in sides.items()}, rounds=rounds
        )
        ratios = timing.compare(times, ours='jaxdefect')
        title = f'{"x".join(map(str, shape))} {dtype} {name}'
        timing.show(title, times, ratios)
        cases[title] = {
          'seconds': times,
          'ours_over': ratios,
          'peak_bytes': {side: passes[name]['peak_bytes'] for side, passes in sides.items()},
          'column_matrix_bytes': made['x'].nbytes * 9,
          'dtypes': {side: passes[name].get('dtype', dtype) for side, passes in sides.items()},
        }
        for side, size in cases[title]['peak_bytes'].items():
          print(f'  {side:32s} {0 if size is None else size / 1e6:9.0f} MB')
        # Written after every case: a partial file would be lost with the machine.
        path = timing.write_results(
          'deform-conv' if version == 'v1' else f'deform-conv-{version}',
          device,
          cases,
          threads=None if on_gpu else threads,
          passes_per_turn=repeats,
          peer_versions=peer.versions if peer is not None else None,
        )
  if peer is not None:
    peer.close()
  return path


def default_torchvision() -> str | None:
  """This interpreter, where it has torchvision."""
  return sys.executable if importlib.util.find_spec('torchvision') else None


def main() -> None:
  parser = argparse.ArgumentParser(description='Deformable convolution against its peers.')
  parser.add_argument('--torchvision-python', help='an interpreter that has torchvision')
  parser.add_argument('--version', choices=('v1', 'v2'), default='v1', help='v2 has a mask')
  parser.add_argument('--threads', type=int, default=2, help='threads of both sides on a CPU')
  parser.add_argument('--rounds', type=int, default=11)
  parser.add_argument('--repeats', type=int, default=1, help='passes per turn')
  arguments = parser.parse_args()

  timing.use_threads(arguments.threads)
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  path = measure(
    torchvision_python=arguments.torchvision_python or default_torchvision(),
    version=arguments.version,
    threads=arguments.threads,
    rounds=arguments.rounds,
    repeats=arguments.repeats,
  )
  print(f'wrote {path}')


if __name__ == '__main__':
  main()
