"""Every Pallas kernel against its twin in XLA and torchvision's operator, on a GPU.

    python -m benchmarks.kernels --torchvision-python=PATH
    python -m benchmarks.kernels --interpret

PATH is any Python interpreter with torch and torchvision. Deformable convolution and the nearest of
a bank, in bfloat16 and float32; what RoIAlign, suppression and the scatter-add below the gradients
take in XLA, which have no kernel; and other tiles for the kernels. A case that fails leaves the
text of its error, and one whose results are not the twin's is not timed. Everyone takes turns;
writes ``benchmarks/results/kernels-<device>.json`` after every case.

``--groups`` runs some of the cases, and the others stay as they are; ``--results`` names another
folder. ``--interpret`` runs them on any device, tiny and step by step: no time is kept, a case that
fails or differs ends the program, and the results go to a temporary folder.
"""

import argparse
import functools
import math
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.deform_conv import (
  SIZES,
  Torchvision,
  compiled,
  default_torchvision,
  passes_of,
  take_turns,
)
from benchmarks.torchvision_peer import PASSES, arrays

TWIN, KERNEL, PEER = 'XLA', 'Pallas', 'torchvision'
Case = dict[str, Any]
# Patches of 1 and 8 images among 9,809 vectors, and of 1 among a million, as in PatchCore's.
SEARCHES = ((784, 9_809, 384), (6_272, 9_809, 384), (784, 1_000_000, 384))
REGIONS = (2, 80, 80, 256, 1000)  # [N, H, W, C, R]
BOXES = 2_000
TINY = {
  'sizes': ((1, 5, 6, 16, 16),),
  'searches': ((5, 40, 24),),
  'regions': (1, 6, 6, 4, 3),
  'boxes': 20,
}
GROUPS = ('convolutions', 'searches', 'without_kernel', 'tiles')


def attempt(
  cases: dict[str, Case], title: str, measure: Callable[[], Case], write: Callable[[], Any]
) -> None:
  """Puts what ``measure`` returns under the title, or the text of its error, and writes."""
  start = time.perf_counter()
  try:
    cases[title] = measure()
  except (Exception, SystemExit) as error:  # one case must not cost the others
    cases[title] = {'error': _text(error)}
    print(f'{title}\n  {cases[title]["error"]}', flush=True)
  cases[title]['took_seconds'] = time.perf_counter() - start
  write()


def _text(error: BaseException) -> str:
  return f'{type(error).__name__}: {error}'[:2000]


def difference(ours: Any, theirs: Any) -> float:
  """Largest distance of two arrays over the largest number; of integers, the share that differs."""
  ours, theirs = np.asarray(ours), np.asarray(theirs)
  if np.issubdtype(ours.dtype, np.integer):
    return float((ours != theirs).mean())
  ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
  return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))


def meet(
  makers: dict[str, Callable[[], Case]], *, title: str, rounds: int, tolerance: float
) -> Case:
  """Makes the contenders, compares their results with the first one's and times those that agree.

  Args:
    makers: name -> what makes it: as ``deform_conv.compiled`` returns, a peer without results.
    title: of the case.
    rounds: how often everyone has a turn.
    tolerance: of results, see ``difference``; of means of a peer at least 0.02.

  Returns:
    Seconds, the first contender's over the others', differences, peak memory, and the errors of
    those that could not be made or differ. The first one's error is raised.
  """
  from benchmarks import timing

  first = next(iter(makers))
  sides, errors, differences = {first: makers[first]()}, {}, {}
  for name in list(makers)[1:]:
    try:
      side = makers[name]()
      differences[name], agreed = _compare(side, sides[first], tolerance)
      if not agreed:
        raise ValueError(f'the results differ from those of {first}: {differences[name]}.')
      sides[name] = side
    except (Exception, SystemExit) as error:  # a contender must not cost the others
      errors[name] = _text(error)
  times = take_turns({name: side['call'] for name, side in sides.items()}, rounds=rounds)
  ratios = timing.compare(times, ours=first)
  timing.show(title, times, {})
  for name, ratio in ratios.items():
    print(f'  {first} / {name}: {ratio["median"]:.2f}')
  for name, text in errors.items():
    print(f'  {name}: {text}')
  return {
    'seconds': times,
    f'{first}_over': ratios,
    'difference': differences,
    'peak_bytes': {name: side['peak_bytes'] for name, side in sides.items()},
    'dtypes': {name: side['dtype'] for name, side in sides.items() if 'dtype' in side},
    'errors': errors,
  }


def _compare(side: Case, first: Case, tolerance: float) -> tuple[Any, bool]:
  """What was compared, and whether it is near enough."""
  if 'results' in side:
    apart = [difference(*pair) for pair in zip(side['results'], first['results'], strict=True)]
    return apart, all(one <= tolerance for one in apart)  # what is no number is not
  means = [side['means'], first['means']]
  return means, np.allclose(*means, rtol=max(tolerance, 0.02))


def convolutions(
  sizes: tuple, peer: Torchvision | None, repeats: int, implementation: str
) -> Iterator[tuple[str, dict[str, Callable[[], Case]]]]:
  """Deformable convolution, title and makers of each case."""
  import jax.numpy as jnp

  from jaxdefect import ops

  for dtype in ('bfloat16', 'float32'):
    for shape in sizes:
      made = {name: jnp.asarray(a, dtype) for name, a in arrays(shape, 'v1').items()}
      ways = {
        side: passes_of(functools.partial(ops.deform_conv2d, padding=1, implementation=name), made)
        for side, name in ((TWIN, 'xla'), (KERNEL, implementation))
      }
      for name in PASSES:
        makers: dict[str, Callable[[], Case]] = {
          side: functools.partial(compiled, *passes[name], repeats) for side, passes in ways.items()
        }
        if peer is not None:
          makers[PEER] = lambda name=name, shape=shape, dtype=dtype: peer.passes(
            shape, 'v1', dtype
          )[name]
        yield f'deform_conv2d {"x".join(map(str, shape))} {dtype} {name}', makers


def searches(
  sizes: tuple, repeats: int, implementation: str
) -> Iterator[tuple[str, dict[str, Callable[[], Case]]]]:
  """The nearest of a bank, title and makers of each case."""
  import jax
  import jax.numpy as jnp
  from jax import lax

  from jaxdefect import ops
  from jaxdefect.ops.kernels import nearest_neighbors as fused

  interpret = implementation == 'pallas_interpret'
  thirds = lax.DotAlgorithmPreset.TF32_TF32_F32_X3

  def in_thirds(queries, bank):
    # A CPU knows no such products.
    precision = lax.Precision.HIGHEST if interpret else thirds
    norm = jnp.square(bank).sum(1)
    _, index = fused.nearest(queries, bank, norm, precision=precision, interpret=interpret)
    return jnp.sqrt(jnp.square(queries - bank[index]).sum(-1))[:, None], index[:, None]

  for num, size, features in sizes:
    keys = jax.random.split(jax.random.key(0))
    whole = [
      jax.random.normal(key, (n, features)) + 3 for key, n in zip(keys, (num, size), strict=True)
    ]
    for dtype in ('bfloat16', 'float32'):
      operands = [array.astype(dtype) for array in whole]
      bodies: dict[str, Callable] = {
        TWIN: functools.partial(ops.nearest_neighbors, implementation='xla'),
        KERNEL: functools.partial(ops.nearest_neighbors, implementation=implementation),
      }
      if dtype == 'float32':
        bodies[f'{KERNEL}, three parts in TF32'] = in_thirds
      makers = {
        side: functools.partial(compiled, body, operands, repeats) for side, body in bodies.items()
      }
      yield f'nearest of {size} x {features} for {num}, {dtype}', makers


def samples(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
  """Shares [P, 9, 1, 4] and places [P, 9, 1, 4] of a convolution with offsets of two pixels."""
  num, height, width, _, _ = shape
  random = np.random.default_rng(0)
  tap, corner = np.argwhere(np.ones((3, 3))) - 1, np.argwhere(np.ones((2, 2)))
  grid = np.argwhere(np.ones((height, width))).reshape(1, height, width, 1, 2)
  where = grid + tap + 2 * random.normal(size=(num, height, width, 9, 2))
  low = np.floor(where)[..., None, :] + corner  # [N, H, W, 9, 4, 2]
  share = (1 - np.abs(where[..., None, :] - low)).prod(-1)
  place = np.clip(low, 0, (height - 1, width - 1)).astype(np.int32) @ (width, 1)
  place += np.arange(num)[:, None, None, None, None] * height * width
  return share.reshape(-1, 9, 1, 4).astype(np.float32), place.reshape(-1, 9, 1, 4).astype(np.int32)


def tiles(
  sizes: tuple, repeats: int, interpret: bool
) -> Iterator[tuple[str, dict[str, Callable[[], Case]]]]:
  """Other tiles for the fused product and its gradients, title and makers of each case."""
  import jax
  import jax.numpy as jnp

  from jaxdefect.ops.kernels import sampled_product as fused
  from jaxdefect.ops.sampled_product import sampled_product

  def twin(rows, share, kernel, place):
    return sampled_product(rows, share, kernel, place, 'xla')

  def twin_gradients(rows, share, kernel, g, place):
    return jax.vjp(functools.partial(twin, place=place), rows, share, kernel)[1](g)

  candidates = [
    fused.Blocks(),
    fused.Blocks(channels=64),
    fused.Blocks(pixels=128, channels=64, num_warps=8),
    fused.Blocks(pixels=32, num_stages=3),
    fused.Blocks(features=256, num_warps=8),
  ]
  for shape in sizes:
    share, place = (jnp.asarray(array) for array in samples(shape))
    pixels, channels, features = share.shape[0], *shape[3:]
    random = np.random.default_rng(0)
    rows, kernel, g = (
      jnp.asarray(random.normal(size=one) / np.sqrt(9 * channels), 'bfloat16')
      for one in ((pixels, channels), (9, channels, features), (pixels, features))
    )
    for name, ours, theirs, operands in (
      ('product', fused.product, twin, [rows, share, kernel, place]),
      ('gradients', fused.gradients, twin_gradients, [rows, share, kernel, g, place]),
    ):
      makers = {TWIN: functools.partial(compiled, theirs, operands, repeats)}
      for blocks in candidates[:1] if interpret else candidates:
        body = functools.partial(ours, blocks=blocks, interpret=interpret)
        makers['/'.join(map(str, blocks))] = functools.partial(compiled, body, operands, repeats)
      yield f'tiles of the {name} {"x".join(map(str, shape))} bfloat16', makers


def without_kernel(
  sizes: dict[str, Any], python: str | None, device: str, threads: int, repeats: int
) -> Iterator[tuple[str, dict[str, Callable[[], Case]]]]:
  """RoIAlign, suppression and a scatter-add as XLA makes them, title and makers of each case."""
  import jax
  import jax.numpy as jnp

  from jaxdefect import ops

  num, height, width, channels, regions = sizes['regions']
  random = np.random.default_rng(0)

  def boxes(number: int, side: int) -> np.ndarray:
    corner, size = random.uniform(0, side, (number, 2)), random.uniform(8, side / 2, (number, 2))
    return np.concatenate([corner, corner + size], 1).astype(np.float32)

  pooled = {
    'features': random.normal(size=(num, height, width, channels)).astype(np.float32),
    'boxes': boxes(regions, 8 * height),
    'batch_index': random.integers(0, num, regions),
    'cotangent': random.normal(size=(regions, 7, 7, channels)).astype(np.float32),
  }
  judged = {
    'boxes': boxes(sizes['boxes'], 600),
    'scores': random.uniform(size=sizes['boxes']).astype(np.float32),
  }

  def pool(features, boxes, batch_index):
    return ops.roi_align(features, boxes, batch_index, output_size=7, spatial_scale=1 / 8)

  def pool_both(cotangent, features, boxes, batch_index):
    y, pullback = jax.vjp(lambda features: pool(features, boxes, batch_index), features)
    return y, *pullback(cotangent)

  def kept(boxes, scores):
    index, valid = ops.nms(boxes, scores, iou_threshold=0.7, max_outputs=len(boxes))
    return valid.sum().astype(jnp.float32), jnp.where(valid, index, 0).sum()

  settings = {
    'roi_align': {'output_size': 7, 'spatial_scale': 1 / 8, 'sampling_ratio': 2},
    'nms': {'iou_threshold': 0.7},
  }
  order = ('features', 'boxes', 'batch_index')
  operands = [jnp.asarray(pooled[name]) for name in order]
  cases = [
    ('roi_align', PASSES[0], pool, operands, pooled),
    ('roi_align', PASSES[1], pool_both, [jnp.asarray(pooled['cotangent']), *operands], pooled),
    ('nms', PASSES[0], kept, [jnp.asarray(a) for a in judged.values()], judged),
  ]

  def their(operator: str, name: str, made: dict[str, np.ndarray]) -> Case:
    assert python is not None
    peer = Torchvision(python, device, threads, repeats, module='benchmarks.kernels_peer')
    with tempfile.TemporaryDirectory() as folder:
      path = os.path.join(folder, 'arrays.npz')
      np.savez(path, **made)  # pyright: ignore[reportArgumentType]
      facts = peer.ask(make={'operator': operator, 'arrays': path, 'settings': settings[operator]})
    return {
      'call': lambda: peer.ask(run=name),
      'means': facts['means'][name],
      'peak_bytes': facts['peak_bytes'][name],
    }

  for operator, name, body, operands, made in cases:
    makers = {TWIN: functools.partial(compiled, body, operands, repeats)}
    if python is not None:
      makers[PEER] = functools.partial(their, operator, name, made)
    size = 'x'.join(map(str, sizes['regions'])) if operator == 'roi_align' else sizes['boxes']
    yield f'{operator} {size} float32 {name}', makers

  # The gradient of the image: some versions of XLA add float32 with a loop where rows meet.
  shape = sizes['sizes'][min(1, len(sizes['sizes']) - 1)]
  pixels, features = math.prod(shape[:3]), shape[3]
  update = jnp.ones((9 * 4 * pixels, features))

  def add_rows(index, update):
    return jnp.zeros((pixels, features)).at[index].add(update)

  place = samples(shape)[1].ravel()
  for name, index in (('of a convolution', place), ('all in one row', np.zeros_like(place))):
    one = functools.partial(compiled, add_rows, [jnp.asarray(index), update], 1)
    yield f'scatter-add {"x".join(map(str, shape[:4]))} float32, {name}', {TWIN: one}


def measure(
  *,
  torchvision_python: str | None,
  threads: int,
  rounds: int,
  repeats: int,
  sizes: dict[str, Any] | None = None,
  groups: Sequence[str] = GROUPS,
  interpret: bool = False,
) -> pathlib.Path:
  """Runs the cases on JAX's default device.

  Args:
    torchvision_python: an interpreter that has torchvision, or None.
    threads: of the peer.
    rounds: how often everyone has a turn.
    repeats: passes per turn.
    sizes: as ``TINY``, by default those of this module's top.
    groups: some of ``GROUPS``; what was measured of the others before is kept.
    interpret: step by step; no time is kept, and what fails ends the program.

  Returns:
    The path of the written results.

  Raises:
    SystemExit: with ``interpret``, where a case failed or its results differ.
  """
  import jax

  from benchmarks import timing

  sizes = sizes or {'sizes': SIZES, 'searches': SEARCHES, 'regions': REGIONS, 'boxes': BOXES}
  on_gpu = jax.default_backend() == 'gpu'
  device = jax.devices()[0].device_kind if on_gpu else timing.processor()
  where = 'cuda' if on_gpu else 'cpu'
  implementation = 'pallas_interpret' if interpret else 'pallas'
  peer, peer_error = None, None
  if torchvision_python:
    try:
      peer = Torchvision(torchvision_python, where, threads, repeats)
    except SystemExit as error:
      peer_error = _text(error)
  benchmark = 'kernels-interpret' if interpret else 'kernels'
  cases = {} if set(groups) == set(GROUPS) else timing.read_cases(benchmark, device)
  write = functools.partial(
    timing.write_results,
    benchmark,
    device,
    cases,
    passes_per_turn=repeats,
    peer_versions=peer.versions if peer is not None else peer_error,
  )
  for group in groups:
    made = {
      'convolutions': lambda: convolutions(sizes['sizes'], peer, repeats, implementation),
      'searches': lambda: searches(sizes['searches'], repeats, implementation),
      'without_kernel': lambda: without_kernel(sizes, torchvision_python, where, threads, repeats),
      'tiles': lambda: tiles(sizes['sizes'][::2], repeats, interpret),
    }[group]()

    def every(made=made) -> Case:
      for title, makers in made:
        tolerance = 1e-5 if interpret and 'bfloat16' not in title else 0.02
        contest = functools.partial(meet, makers, title=title, rounds=rounds, tolerance=tolerance)
        attempt(cases, title, contest, write)
        if interpret:
          _refuse_errors(title, cases[title])
      return {}

    attempt(cases, group, every, write)  # what a group is made of may fail too
    if interpret:
      _refuse_errors(group, cases[group])
  if peer is not None:
    peer.close()
  return write()


def _refuse_errors(title: str, case: Case) -> None:
  """Ends the program where a case failed in part or whole; takes times of no meaning away."""
  if case.get('error') or case.get('errors'):
    raise SystemExit(f'{title}: {case.get("error") or case["errors"]}')
  for key in ('seconds', f'{TWIN}_over', 'took_seconds'):
    case.pop(key, None)


def main() -> None:
  parser = argparse.ArgumentParser(description='Pallas kernels against their twins in XLA.')
  parser.add_argument('--torchvision-python', help='an interpreter that has torchvision')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--repeats', type=int, default=10, help='passes per turn')
  parser.add_argument('--groups', nargs='+', choices=GROUPS, default=GROUPS)
  parser.add_argument('--results', type=pathlib.Path, help='folder of the results')
  parser.add_argument('--interpret', action='store_true', help='tiny, step by step, untimed')
  arguments = parser.parse_args()
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  from benchmarks import timing

  if arguments.results or arguments.interpret:
    timing.RESULTS = arguments.results or pathlib.Path(tempfile.mkdtemp())
  if arguments.interpret:
    path = measure(
      torchvision_python=None,
      threads=1,
      rounds=1,
      repeats=1,
      sizes=TINY,
      groups=arguments.groups,
      interpret=True,
    )
  else:
    import jax

    if jax.default_backend() != 'gpu':
      raise SystemExit('benchmarks.kernels needs a GPU, or --interpret.')
    path = measure(
      torchvision_python=arguments.torchvision_python or default_torchvision(),
      threads=os.cpu_count() or 1,
      rounds=arguments.rounds,
      repeats=arguments.repeats,
      groups=arguments.groups,
    )
  print(f'wrote {path}')


if __name__ == '__main__':
  main()
