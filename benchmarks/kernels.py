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
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.deform_conv import SIZES, Torchvision, default_torchvision, take_turns
from benchmarks.kernel_cases import (
  TWIN,
  Case,
  convolutions,
  searches,
  tiles,
  without_kernel,
)

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
