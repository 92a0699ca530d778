"""Random views against torchvision's own transforms, in the same run: rotate, bend, brighten.

    python -m benchmarks.augmentation --threads=2 --torchvision-python=PATH

PATH is any Python interpreter with torch and torchvision; without it this one is taken. 32 byte
images of 224 x 224: a free rotation, an elastic deformation of torchvision's default strength and
smoothness, and brightness; then the same without the deformation. Ours is
``data.augment.random_views``, compiled, with a draw for every image. torchvision's transforms draw
once per call: views that differ need a call per image, which is what counts; a single draw for the
whole batch stands beside it for information. As its documentation advises it gets byte tensors.
Everyone takes turns. A run ends where the two sides do not bend equally. See ``benchmarks.cpu``
for the settings of glibc and OpenMP that make timings on a shared machine fair. Writes
``benchmarks/results/augmentation-<device>.json``.
"""

import argparse
import functools
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import timing
from benchmarks.augmentation_peer import PASSES, pictures
from benchmarks.deform_conv import Torchvision, default_torchvision, take_turns

SHAPE = (32, 224, 224, 3)
ANGLE, BRIGHTNESS = 180.0, 0.2
ALPHA, SIGMA = 50.0, 5.0  # torchvision's defaults; sigma in pixels
OURS = 'jaxdefect'
# The same root mean square displacement: torchvision's is alpha / 2 times that of uniform noise
# (1 / sqrt 3) after a Gaussian (1 / (2 sigma sqrt pi)), ours 0.28 of the greatest.
DISPLACEMENT = ALPHA / 2 / 3**0.5 / (2 * SIGMA * np.pi**0.5)  # pixels, per axis
VIEW = {
  **{'crop_scale': (1.0, 1.0), 'crop_ratio': (1.0, 1.0), 'quarter_turns': False, 'flips': False},
  **{'angle': ANGLE, 'brightness': BRIGHTNESS},
}
BENT = {'elastic': round(DISPLACEMENT / 0.28 / SHAPE[1], 4), 'elastic_sigma': SIGMA / SHAPE[1]}


def ours(view: dict[str, Any], repeats: int) -> Callable[[], dict[str, float]]:
  """A timed call of compiled views; every one draws anew."""
  import jax

  from jaxdefect.data import augment

  image, index = jax.device_put(pictures(SHAPE)), jax.device_put(np.arange(SHAPE[0]))
  keys = iter(range(sys.maxsize))

  @jax.jit
  def views(step: Any, image: Any, index: Any) -> Any:
    return augment.random_views(jax.random.fold_in(jax.random.key(0), step), image, index, **view)

  def call() -> dict[str, float]:
    start, start_cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
      result = views(next(keys), image, index)
      jax.block_until_ready(result)
    seconds = {'wall': time.perf_counter() - start, 'cpu': time.process_time() - start_cpu}
    return {key: value / repeats for key, value in seconds.items()}

  return call


def displacement() -> float:
  """Root mean square of our elastic displacement, in pixels per axis."""
  import jax

  from jaxdefect.data import elastic

  reach = BENT['elastic'] * min(SHAPE[1:3])
  shape = (16, *elastic.node_grid(SHAPE[1:3], BENT['elastic_sigma']))
  nodes = jax.random.uniform(jax.random.key(0), shape, minval=-reach, maxval=reach)
  field = elastic.smooth_field(nodes, SHAPE[1:3], sigma=BENT['elastic_sigma'])
  return float((field**2).mean() ** 0.5)


def measure(*, python: str, threads: int, rounds: int, repeats: int) -> pathlib.Path:
  """Times both sides on JAX's default device.

  Args:
    python: an interpreter with torch and torchvision.
    threads: of the peer; ours are set before JAX starts.
    rounds: how often everyone has a turn.
    repeats: batches per turn.

  Returns:
    The path of the written results.
  """
  import jax

  on_gpu = jax.default_backend() == 'gpu'
  device = jax.devices()[0].device_kind if on_gpu else timing.processor()
  peer = Torchvision(
    python,
    'cuda' if on_gpu else 'cpu',
    threads,
    repeats,
    module='benchmarks.augmentation_peer',
  )
  cases: dict[str, Any] = {}
  path = pathlib.Path()
  for name, view, alpha in (
    ('rotate + elastic + brightness', VIEW | BENT, ALPHA),
    ('rotate + brightness', VIEW, 0.0),
  ):
    settings = {'angle': ANGLE, 'alpha': alpha, 'sigma': SIGMA, 'brightness': BRIGHTNESS}
    theirs = peer.ask(make={'shape': SHAPE, **settings})['displacement']
    moved = {OURS: displacement() if alpha else 0.0, 'torchvision': theirs}
    if not np.allclose(moved[OURS], theirs, rtol=0.2):
      raise SystemExit(f'the two sides do not bend equally: {moved} pixels.')
    calls = {OURS: ours(view, repeats)}
    calls |= {f'torchvision, {one}': functools.partial(peer.ask, run=one) for one in PASSES}
    times = take_turns(calls, rounds=rounds, warmup=2)
    ratios = timing.compare(times, ours=OURS)
    title = f'{name}, {"x".join(map(str, SHAPE))} uint8'
    timing.show(title, times, ratios)
    per_image = {side: row['median'] / SHAPE[0] for side, row in times.items()}
    for side, seconds in per_image.items():
      print(f'  {side:32s} {1e3 * seconds:9.3f} ms per image, {1 / seconds:8.1f} images/s')
    cases[title] = {
      'seconds': times,
      'ours_over': ratios,
      'ms_per_image': {side: 1e3 * seconds for side, seconds in per_image.items()},
      'images_per_second': {side: 1 / seconds for side, seconds in per_image.items()},
      'displacement_pixels': moved,
      'settings': {OURS: view, 'torchvision': settings},
    }
    # Written after every case: a partial file would be lost with the machine.
    path = timing.write_results(
      'augmentation',
      device,
      cases,
      threads=None if on_gpu else threads,
      batches_per_turn=repeats,
      peer_versions=peer.versions,
    )
  peer.close()
  return path


def main() -> None:
  parser = argparse.ArgumentParser(description='Random views against torchvision.')
  parser.add_argument('--torchvision-python', help='an interpreter that has torchvision')
  parser.add_argument('--threads', type=int, default=2, help='threads of both sides on a CPU')
  parser.add_argument('--rounds', type=int, default=11)
  parser.add_argument('--repeats', type=int, default=1, help='batches per turn')
  arguments = parser.parse_args()

  python = arguments.torchvision_python or default_torchvision()
  if python is None:
    parser.error('--torchvision-python is needed: this interpreter has no torchvision.')
  timing.use_threads(arguments.threads)
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  path = measure(
    python=python,
    threads=arguments.threads,
    rounds=arguments.rounds,
    repeats=arguments.repeats,
  )
  print(f'wrote {path}')


if __name__ == '__main__':
  main()
