"""ResNet-50 and the data pipeline on a CPU, against PyTorch in the same run.

    python -m benchmarks.cpu --threads=2

Writes ``benchmarks/results/cpu-<processor>.json``. On a machine with other work, PyTorch's OpenMP
threads spin while they wait for each other, and its times become several times longer than its
work; OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0 makes the comparison fair again. Whether they are set
is part of the written result. Peak memory is that of a process of its own: by how much it grows in
a second step.
"""

import argparse
import importlib
import json
import os
import pathlib
import tempfile
from typing import Any

from benchmarks import timing

CASES = ('train_step', 'three_views', 'inference', 'pipeline')
CONTENDERS = {
  'jaxdefect': ('ours', {}),
  'PyTorch': ('peers', {}),
  'PyTorch channels_last': ('peers', {'channels_last': True}),
}


def prepare(contender: str, case: str, shape: dict[str, Any]) -> Any:
  """The call of one contender; only its own library is imported."""
  side, settings = CONTENDERS[contender]
  module = importlib.import_module(f'benchmarks.{side}')
  return getattr(module, case)(**settings, **shape)


def peaks(case: str, shape: dict[str, Any], threads: int) -> dict[str, int | None]:
  """Peak memory of all contenders, in bytes; prints it too."""
  options = {'cases': case, 'threads': threads, **shape}
  options['backbone'] = options.pop('name')
  arguments = [f'--{name}={value}' for name, value in options.items()]
  found = {}
  for contender in CONTENDERS:
    arguments_of_one = (*arguments, f'--peak={contender}')
    found[contender] = timing.answer_of_process('benchmarks.cpu', *arguments_of_one)
    print(f'  {contender:32s} {(found[contender] or 0) / 1e6:9.0f} MB', flush=True)
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description='CPU benchmarks against PyTorch.')
  parser.add_argument('--threads', type=int, default=2, help='threads of both sides')
  parser.add_argument('--backbone', default='resnet50')
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--side', type=int, default=224)
  parser.add_argument('--rounds', type=int, default=11)
  parser.add_argument('--cases', nargs='+', choices=CASES, default=CASES)
  parser.add_argument('--peak', help=argparse.SUPPRESS)  # the contender; asked by ``peaks``
  arguments = parser.parse_args()

  timing.use_threads(arguments.threads, keep_memory=not arguments.peak)
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  shape = {'name': arguments.backbone, 'batch': arguments.batch, 'side': arguments.side}
  if arguments.peak:
    print(json.dumps(timing.growth(prepare(arguments.peak, arguments.cases[0], shape))))
    return

  import torch

  torch.set_num_threads(arguments.threads)
  cases = {}

  def measure(case: str, contenders: dict, **settings: Any) -> None:
    times = timing.take_turns(contenders, rounds=arguments.rounds, **settings)
    ratios = timing.compare(times, ours='jaxdefect')
    timing.show(case, times, ratios)
    cases[case] = {'seconds': times, 'ours_over': ratios}

  for case in ('train_step', 'three_views', 'inference'):
    if case in arguments.cases:
      measure(case, {name: prepare(name, case, shape) for name in CONTENDERS})
      cases[case]['peak_bytes'] = peaks(case, shape, arguments.threads)
  if 'pipeline' in arguments.cases:
    from benchmarks import pipeline

    with tempfile.TemporaryDirectory() as root:
      batch, batches, ahead = 32, 16, 12
      streams = pipeline.streams(
        pathlib.Path(root), batch=batch, side=arguments.side, workers=arguments.threads
      )
      contenders = {name: pipeline.take(one, batches) for name, one in streams.items()}
      # What was made ahead while others had their turn does not count.
      before = {name: pipeline.take(one, ahead) for name, one in streams.items()}
      measure('pipeline', contenders, warmup=1, before=before)
    for name, row in cases['pipeline']['seconds'].items():
      row['images_per_second'] = batch * batches / row['median']
      print(f'  {name:32s} {row["images_per_second"]:9.0f} images/s')
  name = 'cpu' if arguments.backbone == 'resnet50' else f'cpu-{arguments.backbone}'
  path = timing.write_results(
    name, timing.processor(), cases, threads=arguments.threads, shape=shape
  )
  print(f'wrote {path}')


if __name__ == '__main__':
  main()
