"""ResNet-50 and the data pipeline on a CPU, against PyTorch in the same run.

    python -m benchmarks.cpu --threads=2

Writes ``benchmarks/results/cpu-<processor>.json``. On a machine with other work, PyTorch's OpenMP
threads spin while they wait for each other, and its times become several times longer than its
work; OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0 makes the comparison fair again. Whether they are set
is part of the written result.
"""

import argparse
import os
import pathlib
import tempfile
from typing import Any

from benchmarks import timing

CASES = ('train_step', 'three_views', 'inference', 'pipeline')


def main() -> None:
  parser = argparse.ArgumentParser(description='CPU benchmarks against PyTorch.')
  parser.add_argument('--threads', type=int, default=2, help='threads of both sides')
  parser.add_argument('--backbone', default='resnet50')
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--side', type=int, default=224)
  parser.add_argument('--rounds', type=int, default=11)
  parser.add_argument('--cases', nargs='+', choices=CASES, default=CASES)
  arguments = parser.parse_args()

  timing.use_threads(arguments.threads)
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')

  import torch

  from benchmarks import ours, peers

  torch.set_num_threads(arguments.threads)
  shape = {'name': arguments.backbone, 'batch': arguments.batch, 'side': arguments.side}
  cases = {}

  def measure(case: str, contenders: dict, **settings: Any) -> None:
    times = timing.take_turns(contenders, rounds=arguments.rounds, **settings)
    ratios = timing.compare(times, ours='jaxdefect')
    timing.show(case, times, ratios)
    cases[case] = {'seconds': times, 'ours_over': ratios}

  for case in ('train_step', 'three_views', 'inference'):
    if case in arguments.cases:
      contenders = {
        'jaxdefect': getattr(ours, case)(**shape),
        'PyTorch': getattr(peers, case)(**shape),
        'PyTorch channels_last': getattr(peers, case)(channels_last=True, **shape),
      }
      measure(case, contenders)
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
