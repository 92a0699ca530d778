"""PatchCore's coreset and scoring against anomalib's and a plain PyTorch one, in the same run.

    python -m benchmarks.patchcore --threads=2 --anomalib-python=PATH

PATH is any Python interpreter with torch and, where it is to be met, anomalib; without it this one
is taken. Coreset: 10 % of 50,000 x 384, with the random projection. Scoring: nearest neighbours of
the 784 patches of 1 and of 8 images in a bank of 9,809 x 384, image scores with re-weighting,
smooth maps; and 1 image against a bank of 1,000,000, with its peak memory beyond the bank. Vectors
are clustered synthetic ones; where JAXDEFECT_DATA holds bottle caps, also their ResNet-18 features
at 256 pixels; beside them PyTorch's matrix product of queries and bank, which every side
contains. All in float32 of full precision. A run ends where the scores differ or our coreset
covers worse. See ``benchmarks.cpu`` for the settings of OpenMP that make timings on a shared
machine fair. Writes ``benchmarks/results/patchcore-<device>.json``; with ``--cases`` the others
stay as they are.
"""

import argparse
import functools
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import timing
from benchmarks.deform_conv import Torchvision, take_turns
from benchmarks.patchcore_peer import NEIGHBOURS, PLACES, SIDE, SIGMA, clustered

NUM, PATCHES, BANK, LARGE = 5_000, 50_000, 9_809, 1_000_000
DIM = 128  # of our projection, and of the plain peer's
OURS = 'jaxdefect'
CASES = ('score', 'coreset', 'large')
PRODUCT = 'matrix product alone'  # queries times bank, PyTorch


def bottle_caps(root: pathlib.Path, size: int) -> np.ndarray:
  """ResNet-18 features, stages 2 and 3 at 256 pixels, of the first good bottle caps.

  Args:
    root: the folder of the data sets.
    size: how many vectors.

  Returns:
    [size, 384] float32.
  """
  import jax
  import jax.numpy as jnp
  from PIL import Image

  from jaxdefect import models, ops
  from jaxdefect.convert import weights_from_torch

  loaded = weights_from_torch.load(
    'resnet18-imagenet-layer3-bnfolded',
    backbone='resnet18',
    stages=3,
    weights_dir=root / 'weights',
  )
  network = models.PatchFeatures(models.backbone('resnet18', stages=3))
  variables = {name: {'backbone': tree} for name, tree in loaded.variables.items()}

  @jax.jit
  def describe(image: jax.Array) -> Any:
    pixels = ops.normalize_pixels(image, mean=ops.IMAGENET_MEAN, std=ops.IMAGENET_STD)
    return network.apply(variables, pixels)

  found, paths = [], sorted((root / 'BC' / 'good').iterdir())
  for path in paths[: -(-size // 32**2)]:
    with Image.open(path) as opened:
      image = opened.convert('RGB').resize((256, 256), Image.Resampling.BILINEAR)
    found.append(np.asarray(describe(jnp.asarray(np.asarray(image))[None])).reshape(-1, 384))
  return np.concatenate(found)[:size]


def vectors(name: str) -> dict[str, np.ndarray]:
  """``features`` [50000, 384] to choose from, ``bank`` [9809, 384], ``queries`` [6272, 384]."""
  need = 8 * PLACES**2
  if name == 'clustered':
    features, queries = clustered(PATCHES), clustered(need, seed=2)
  else:
    made = bottle_caps(pathlib.Path(os.environ['JAXDEFECT_DATA']), PATCHES + need)
    features, queries = made[:PATCHES], made[PATCHES:]
  rows = np.random.default_rng(0).choice(PATCHES, BANK, replace=False)
  return {'features': features, 'bank': features[rows], 'queries': queries}


def clocked(body: Callable[[], Any]) -> Callable[[], dict[str, float]]:
  import jax

  def call() -> dict[str, float]:
    start, start_cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(body())
    return {'wall': time.perf_counter() - start, 'cpu': time.process_time() - start_cpu}

  return call


def choose(features: Any, *, dim: int) -> Any:
  """The coreset as ``methods.patchcore`` chooses it."""
  import jax

  from jaxdefect import ops

  key_project, key_choose = jax.random.split(jax.random.key(0))
  projected = ops.random_projection(key_project, features, dim=dim)
  return ops.k_center_greedy(projected, NUM, key=key_choose)


def score(queries: Any, bank: Any, *, num: int) -> Any:
  """Scores and maps as ``methods.patchcore`` makes them of features."""
  import jax.numpy as jnp

  from jaxdefect import ops
  from jaxdefect.methods.patchcore import rarity_factor

  distances, nearest = ops.nearest_neighbors(queries, bank)
  distances, nearest = distances.reshape(num, -1), nearest.reshape(num, -1)
  worst = distances.argmax(1)[:, None]
  patches = queries.reshape(num, PLACES**2, -1)  # [N, h w, D]
  patch = jnp.take_along_axis(patches, worst[:, :, None], axis=1)[:, 0]
  found = jnp.take_along_axis(nearest, worst, axis=1)[:, 0]
  factor = rarity_factor(patch, bank, found, neighbours=NEIGHBOURS)
  maps = ops.smooth_map(distances.reshape(num, PLACES, PLACES), size=(SIDE, SIDE), sigma=SIGMA)
  return distances.max(1) * factor, maps


def check_scores(ours: np.ndarray, theirs: dict[str, np.ndarray]) -> dict[str, int]:
  """How many scores each peer has otherwise; ends the program where none of them agrees with ours.

  Distances from a product of rounded norms (anomalib's) may take another of two neighbours that are
  about equally near, and the re-weighting is then another one's.
  """
  agrees = {one: np.isclose(ours, values, rtol=1e-3) for one, values in theirs.items()}
  if not np.any(list(agrees.values()), axis=0).all():
    raise SystemExit(f'no peer agrees with the scores of jaxdefect, {ours}: {theirs}.')
  return {one: int((~same).sum()) for one, same in agrees.items()}


def check_coresets(features: np.ndarray, chosen: dict[str, Any]) -> dict[str, float]:
  """Covering radii in all dimensions; ends the program where ours covers worse than a peer's."""
  import jax.numpy as jnp

  from jaxdefect import ops

  radius = {
    side: float(
      ops.covering_radius(jnp.asarray(features), jnp.asarray(features)[jnp.asarray(rows)])
    )
    for side, rows in chosen.items()
  }
  if any(radius[OURS] > 1.05 * theirs for theirs in radius.values()):
    raise SystemExit(f'the coreset of jaxdefect covers worse: {radius}.')
  return radius


def peak_bytes(program: Any, call: Callable[[], Any]) -> dict[str, int | None]:
  """What XLA sets aside, and by how much the process grows at most (on a CPU)."""
  memory = program.memory_analysis()
  return {
    'peak_bytes': memory.temp_size_in_bytes + memory.output_size_in_bytes,
    'process_growth_bytes': timing.growth(call),
  }


def measure(
  *, python: str, threads: int, rounds: int, fit_rounds: int, only: Sequence[str] = CASES
) -> pathlib.Path:
  """Times everyone on JAX's default device.

  Args:
    python: an interpreter with torch, and perhaps anomalib.
    threads: of the peers; ours are set before JAX starts.
    rounds: turns of each in scoring.
    fit_rounds: turns of each in choosing a coreset, and with the large bank.
    only: names of ``CASES``; what was measured of the others before is kept.

  Returns:
    The path of the written results.
  """
  import jax

  on_gpu = jax.default_backend() == 'gpu'
  device = jax.devices()[0].device_kind if on_gpu else timing.processor()
  peer = Torchvision(
    python, 'cuda' if on_gpu else 'cpu', threads, 1, module='benchmarks.patchcore_peer'
  )
  cases = {} if set(only) == set(CASES) else timing.read_cases('patchcore', device)

  def record(
    title: str, calls: dict[str, Callable], rounds: int, *, warmup: int = 1, **facts: Any
  ) -> pathlib.Path:
    times = take_turns(calls, rounds=rounds, warmup=warmup)
    ratios = timing.compare(times, ours=OURS)
    timing.show(title, times, ratios)
    print(f'  {facts}', flush=True)
    cases[title] = {'seconds': times, 'ours_over': ratios, **facts}
    # Written after every case: a partial file would be lost with the machine.
    return timing.write_results(
      'patchcore',
      device,
      cases,
      threads=None if on_gpu else threads,
      peer_versions=peer.versions,
      sizes={'patches': PATCHES, 'chosen': NUM, 'bank': BANK, 'patches_per_image': PLACES**2},
    )

  root = os.environ.get('JAXDEFECT_DATA')
  real = root is not None and (pathlib.Path(root) / 'BC' / 'good').is_dir()
  path = pathlib.Path()
  for name in ('clustered', 'bottle caps') if real else ('clustered',):
    made = vectors(name)
    with tempfile.TemporaryDirectory() as folder:
      file = os.path.join(folder, 'arrays.npz')
      np.savez(file, **made)  # pyright: ignore[reportArgumentType]
      facts = peer.ask(make={'arrays': file, 'num': NUM, 'dim': DIM})
    peers, dims = facts['peers'], facts['dims']
    features, bank, queries = (jax.device_put(made[k]) for k in ('features', 'bank', 'queries'))

    for num in (1, 8) if 'score' in only else ():
      batch = queries[: num * PLACES**2]
      program = jax.jit(functools.partial(score, num=num)).lower(batch, bank).compile()
      run = functools.partial(program, batch, bank)
      ours = np.asarray(run()[0])
      theirs = {one: np.array(peer.ask(answer=f'{one} score {num}')['values']) for one in peers}
      differing = check_scores(ours, theirs)
      calls = {OURS: clocked(run)}
      calls |= {one: lambda one=one, num=num: peer.ask(run=f'{one} score {num}') for one in peers}
      calls[PRODUCT] = lambda num=num: peer.ask(run=f'product {num}')
      peaks = {one: facts['peak_bytes'][f'{one} score {num}'] for one in peers}
      path = record(
        f'score {num} x {PLACES**2} patches, bank {BANK}, {name}',
        calls,
        rounds,
        peak_bytes={OURS: peak_bytes(program, run), **peaks},
        differing_scores=differing,
      )

    if 'coreset' not in only:
      continue
    # anomalib's number of dimensions follows from eps = 0.9; ours also takes part in that.
    sides = {OURS: DIM} | {f'{OURS} in {dim}': dim for dim in set(dims.values()) - {DIM}}
    calls, chosen = {}, {}
    for side, dim in sides.items():
      chooser = functools.partial(jax.jit(functools.partial(choose, dim=dim)), features)
      chosen[side] = chooser()
      calls[side] = clocked(chooser)
    for one in peers:
      chosen[one] = peer.ask(answer=f'{one} fit')['values']
      calls[one] = lambda one=one: peer.ask(run=f'{one} fit')
    path = record(
      f'coreset of {NUM} of {PATCHES} x 384, {name}',
      calls,
      fit_rounds,
      warmup=0,  # all have been called
      dimensions=sides | dims,
      covering_radius=check_coresets(made['features'], chosen),
    )
  del features, made
  if 'large' not in only:
    peer.close()
    return path

  large = jax.device_put(clustered(LARGE, seed=1))
  facts = peer.ask(large=LARGE)
  batch = queries[: PLACES**2]
  program = jax.jit(functools.partial(score, num=1)).lower(batch, large).compile()
  run = functools.partial(program, batch, large)
  calls = {OURS: clocked(run)}
  calls |= {one: lambda one=one: peer.ask(run=f'{one} large') for one in facts}
  path = record(
    f'score 1 x {PLACES**2} patches, bank {LARGE}',
    calls,
    fit_rounds,
    bank_bytes=large.nbytes,
    peak_bytes={OURS: peak_bytes(program, run), **facts},
  )
  peer.close()
  return path


def main() -> None:
  parser = argparse.ArgumentParser(description='PatchCore against its peers.')
  parser.add_argument('--anomalib-python', help='an interpreter with torch and anomalib')
  parser.add_argument('--threads', type=int, default=2, help='threads of both sides on a CPU')
  parser.add_argument('--cases', nargs='+', choices=CASES, default=CASES)
  parser.add_argument('--rounds', type=int, default=11, help='turns in scoring')
  parser.add_argument('--fit-rounds', type=int, default=3, help='turns in choosing a coreset')
  arguments = parser.parse_args()

  timing.use_threads(arguments.threads)
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  path = measure(
    python=arguments.anomalib_python or sys.executable,
    threads=arguments.threads,
    rounds=arguments.rounds,
    fit_rounds=arguments.fit_rounds,
    only=arguments.cases,
  )
  print(f'wrote {path}')


if __name__ == '__main__':
  main()
