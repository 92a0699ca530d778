"""The whole suite on a GPU in one call of ten minutes, against PyTorch in the same run.

    python -m benchmarks.gpu --results=FOLDER
    python -m benchmarks.gpu --rehearse

Training and inference of a ResNet-50 in bfloat16 and float32, with the fractions of the device's
measured matrix rate and memory bandwidth; the Pallas kernels against XLA and torchvision; the
detector, PatchCore (in float32 alone) and a meta-step of MAML. The peer runs plain and as its
documentation tunes it: channels_last, autocast, ``torch.compile``, cuDNN's own search.

Each part is a process of its own with a limit of time, so that none costs another its results, and
each case is written when it is done: ``gpu-<device>.json``, ``kernels-<device>.json``,
``detector-<device>.json``, ``patchcore-<device>.json``, ``maml-<device>.json``, and in
``gpu-suite-<device>.json`` how the parts ended, the text of their errors, and what there was no
time for: ``--parts`` runs that in a second call. Needs jax with CUDA, flax, optax, torch, and for
PatchCore pillow, and nothing else; torchvision and anomalib, here or in another interpreter, are
met where they are found.

``--rehearse`` runs all of it once on any device, tiny, the kernels step by step where there is no
GPU, into a temporary folder.
"""

import argparse
import functools
import inspect
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks import timing
from benchmarks.deform_conv import default_torchvision
from benchmarks.kernels import GROUPS, TINY, attempt

OURS = 'jaxdefect'
# The most important first; seconds that a part may take at most.
LIMITS = {
  'resnet': 200,
  'convolutions': 120,
  'searches': 60,
  'without_kernel': 45,
  'detector': 150,
  'patchcore': 100,
  'tiles': 90,
  'maml': 150,
}


def resnet(arguments: argparse.Namespace) -> None:
  """ResNets: what is reached of the device's rates, then against PyTorch."""
  import jax

  from benchmarks import rates

  cases: dict[str, Any] = {}
  write = functools.partial(
    timing.write_results,
    'gpu',
    _device(),
    cases,
    batch=arguments.batch,
    side=arguments.side,
    steps_per_call=arguments.repeats,
  )
  small = {'side': 64, 'numbers': 2**10} if arguments.rehearse else {}
  rated = functools.partial(rates.device_rates, rounds=arguments.rounds, **small)
  attempt(cases, 'device', rated, write)
  print(cases['device'], flush=True)
  for name in arguments.backbones:
    for half in (True, False):
      for case in ('train_step', 'inference'):
        title = f'{name} {case} {"bfloat16" if half else "float32"}'
        against = functools.partial(_against_pytorch, name, case, half, title, arguments)
        attempt(cases, title, lambda against=against: against(cases, write), write)
        jax.clear_caches()


def _against_pytorch(
  name: str,
  case: str,
  half: bool,
  title: str,
  arguments: argparse.Namespace,
  cases: dict[str, Any],
  write: Callable[[], Any],
) -> dict[str, Any]:
  """One case: ours alone, which is written at once, then in turns with the peers."""
  import jax.numpy as jnp

  from benchmarks import ours, rates

  shape = {
    'name': name,
    'batch': arguments.batch,
    'side': arguments.side,
    'repeats': arguments.repeats,
  }
  calls = {OURS: getattr(ours, case)(dtype=jnp.bfloat16 if half else jnp.float32, **shape)}
  alone = timing.take_turns(calls, rounds=arguments.rounds)
  module, x = ours.recogniser(name), jnp.zeros((arguments.batch, arguments.side, arguments.side, 3))
  flops = rates.product_flops(module.apply, ours.variables(module), x)
  found = {
    'seconds': alone,
    'use': rates.use(
      seconds=alone[OURS]['median'] / arguments.repeats,
      images=arguments.batch,
      # Backward is two products for each of forward.
      model_flops=3 * flops if case == 'train_step' else flops,
      cost=inspect.getclosurevars(calls[OURS]).nonlocals['compiled'].cost_analysis(),
      rates=cases['device'],
      dtype='bfloat16' if half else 'float32',
    ),
    'errors': {},
  }
  cases[title] = found
  write()
  print(title, found['use'], flush=True)

  variants: dict[str, dict[str, bool]] = {
    'PyTorch': {},
    'PyTorch channels_last': {'channels_last': True},
  }
  if not arguments.no_compile:
    variants['PyTorch channels_last, compiled'] = {'channels_last': True, 'compiled': True}
  for variant, settings in variants.items():
    try:
      calls[variant] = _peer(case, half, settings | shape)
    except Exception as error:  # a peer must not cost the others
      found['errors'][variant] = f'{type(error).__name__}: {error}'[:2000]
      print(f'{variant}: {found["errors"][variant]}', flush=True)
  times = timing.take_turns(calls, rounds=arguments.rounds)
  ratios = timing.compare(times, ours=OURS)
  timing.show(title, times, ratios)
  return found | {'seconds': times, 'seconds_alone': alone, 'ours_over': ratios}


def _peer(case: str, half: bool, settings: dict[str, Any]) -> Callable[[], object]:
  """PyTorch's side, called once, as ``torch.compile`` works at the first call."""
  import torch

  from benchmarks import peers

  torch.backends.cudnn.benchmark = True
  # The same arithmetic on both sides: XLA's default for float32 on this hardware is TF32.
  torch.backends.cudnn.allow_tf32 = True
  torch.backends.cuda.matmul.allow_tf32 = True
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  call = getattr(peers, case)(device=device, half=half, **settings)
  call()
  return call


def kernels(arguments: argparse.Namespace) -> None:
  """One group of cases of ``benchmarks.kernels``."""
  import jax

  from benchmarks import kernels

  kernels.measure(
    torchvision_python=_torchvision(arguments),
    threads=os.cpu_count() or 1,
    rounds=arguments.rounds,
    repeats=1 if arguments.rehearse else 10,
    sizes=TINY if arguments.rehearse else None,
    groups=(arguments.run,),
    interpret=arguments.rehearse and jax.default_backend() != 'gpu',
  )


def detector(arguments: argparse.Namespace) -> None:
  """A training step and an inference of the detector."""
  from benchmarks import detector

  small = {}
  if arguments.rehearse:
    small = {'side': 64, 'train_batch': 1}
    detector.VARIANTS = {OURS: {}}  # the whole method compiles for minutes on a CPU
  detector.measure(
    torchvision_python=_torchvision(arguments),
    threads=os.cpu_count() or 1,
    rounds=arguments.rounds,
    repeats=arguments.repeats,
    **small,
  )


def patchcore(arguments: argparse.Namespace) -> None:
  """PatchCore's coreset and scoring."""
  from benchmarks import patchcore

  if arguments.rehearse:
    patchcore.NUM, patchcore.PATCHES, patchcore.BANK, patchcore.LARGE = 40, 400, 300, 2_000
  patchcore.measure(
    python=arguments.anomalib_python or sys.executable,
    threads=os.cpu_count() or 1,
    rounds=arguments.rounds,
    fit_rounds=1 if arguments.rehearse else 3,
  )


def maml(arguments: argparse.Namespace) -> None:
  """A meta-step of second order."""
  from benchmarks import maml

  small = {}
  if arguments.rehearse:
    small = {
      'sizes': {'tasks': 2, 'support': 2, 'query': 2, 'side': 32, 'width': 4},
      'steps': (1,),
    }
  maml.measure(threads=os.cpu_count() or 1, rounds=arguments.rounds, **small)


PARTS = {
  'resnet': resnet,
  'detector': detector,
  'patchcore': patchcore,
  'maml': maml,
} | dict.fromkeys(GROUPS, kernels)


def _device() -> str:
  import jax

  on_gpu = jax.default_backend() == 'gpu'
  return jax.devices()[0].device_kind if on_gpu else timing.processor()


def _torchvision(arguments: argparse.Namespace) -> str | None:
  return arguments.torchvision_python or default_torchvision()


def run_part(command: list[str], limit: float) -> dict[str, Any]:
  """Runs a part in a process of its own.

  Args:
    command: that starts it.
    limit: seconds, after which it and what it has started are ended.

  Returns:
    Its 'seconds', and 'error' where it did not end well.
  """
  start = time.perf_counter()
  with tempfile.TemporaryFile('w+') as messages:
    process = subprocess.Popen(command, stderr=messages, start_new_session=True)
    try:
      failed = process.wait(limit)
      ended = f'ended with {failed}'
    except subprocess.TimeoutExpired:
      failed, ended = True, f'stopped after {limit:.0f} s; what it had written stays'
    finally:
      # It may have left peers behind, and so may Ctrl-C.
      if process.poll() is None or _group_lives(process.pid):
        os.killpg(process.pid, signal.SIGKILL)
      process.wait()
    messages.seek(0)
    last = messages.read()[-2000:]
  found: dict[str, Any] = {'seconds': time.perf_counter() - start}
  if failed:
    found['error'] = f'{ended}: {last}'
    print(found['error'], flush=True)
  return found


def _group_lives(group: int) -> bool:
  try:
    os.killpg(group, 0)
  except ProcessLookupError:
    return False
  return True


def suite(arguments: argparse.Namespace) -> None:
  """Runs the parts one after the other until the time is over."""
  # Both frameworks live in one process: neither may take all of the memory.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  if arguments.rehearse:
    os.environ.pop('JAXDEFECT_DATA', None)  # real features would take minutes
  end = time.monotonic() + arguments.seconds
  ask = 'from benchmarks import gpu; print(gpu._device())'
  answer = subprocess.run([sys.executable, '-c', ask], stdout=subprocess.PIPE, text=True)
  device = (answer.stdout.splitlines() or ['unknown'])[-1]
  cases: dict[str, Any] = {part: {'error': 'not run: no time was left'} for part in arguments.parts}
  for part in arguments.parts:
    left = end - time.monotonic()
    if left < 20 and not arguments.rehearse:
      print(f'{part}: {cases[part]["error"]}', flush=True)
      continue
    print(f'--- {part}', flush=True)
    command = [sys.executable, '-m', 'benchmarks.gpu', *sys.argv[1:], f'--run={part}']
    command += [f'--results={timing.RESULTS}']
    limit = 3600.0 if arguments.rehearse else min(left, LIMITS[part])
    cases[part] = run_part(command, limit)
    timing.write_results('gpu-suite', device, cases, limit_seconds=arguments.seconds)
  for part, found in cases.items():
    state = 'error' if 'error' in found else 'done'
    print(f'{part:16s} {found.get("seconds", 0):6.0f} s  {state}')
  print(f'wrote {timing.RESULTS}')
  if arguments.rehearse and any('error' in found for found in cases.values()):
    raise SystemExit('the rehearsal failed; see above.')


def main() -> None:
  parser = argparse.ArgumentParser(description='GPU benchmarks against PyTorch.')
  parser.add_argument('--parts', nargs='+', choices=list(LIMITS), default=list(LIMITS))
  parser.add_argument('--seconds', type=float, default=560, help='for all parts together')
  parser.add_argument('--backbones', nargs='+', default=['resnet50'])
  parser.add_argument('--batch', type=int, default=256)
  parser.add_argument('--side', type=int, default=224)
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--repeats', type=int, default=5, help='steps per timed call')
  parser.add_argument('--no-compile', action='store_true', help='leave torch.compile out')
  parser.add_argument('--torchvision-python', help='an interpreter that has torchvision')
  parser.add_argument('--anomalib-python', help='an interpreter with torch and anomalib')
  parser.add_argument('--results', type=pathlib.Path, help='folder of the results')
  parser.add_argument('--rehearse', action='store_true', help='once, tiny, on any device')
  parser.add_argument('--run', choices=list(LIMITS), help=argparse.SUPPRESS)  # of the suite
  arguments = parser.parse_args()
  if arguments.rehearse:
    tiny = {'backbones': ['resnet18'], 'batch': 2, 'side': 32, 'rounds': 1, 'repeats': 1}
    vars(arguments).update(tiny, no_compile=True)
  if arguments.results or arguments.rehearse:
    timing.RESULTS = arguments.results or pathlib.Path(tempfile.mkdtemp())
  if arguments.run is None:
    suite(arguments)
    return
  import jax

  if jax.default_backend() != 'gpu' and not arguments.rehearse:
    raise SystemExit('benchmarks.gpu needs a GPU that jax sees, or --rehearse.')
  PARTS[arguments.run](arguments)


if __name__ == '__main__':
  main()
