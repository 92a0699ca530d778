"""Train step and inference on a GPU, against PyTorch in the same run.

    python -m benchmarks.gpu

One command for the whole suite: ResNet-50 and ResNet-18, deformable convolution, a meta-step of
MAML, PatchCore (in float32 alone), and the detector, float32 and bfloat16. The peer runs plain and
as its documentation tunes it: channels_last, autocast, ``torch.compile``, cuDNN's own search.
Writes into ``benchmarks/results/`` ``gpu-<device>.json``, ``deform-conv-<device>.json``,
``maml-<device>.json``, ``patchcore-<device>.json`` and ``detector-<device>.json``. Needs jax with
CUDA, flax, optax, torch, and for PatchCore pillow, and nothing else (but the detector, which comes
last, whatever its method imports); torchvision and anomalib, here or in another interpreter, are
met where they are found.
"""

import argparse
import os
import sys


def main() -> None:
  parser = argparse.ArgumentParser(description='GPU benchmarks against PyTorch.')
  parser.add_argument('--backbones', nargs='+', default=['resnet50', 'resnet18'])
  parser.add_argument('--batch', type=int, default=128)
  parser.add_argument('--side', type=int, default=224)
  parser.add_argument('--rounds', type=int, default=15)
  parser.add_argument('--repeats', type=int, default=5, help='steps per timed call')
  parser.add_argument('--no-compile', action='store_true', help='leave torch.compile out')
  parser.add_argument('--torchvision-python', help='an interpreter that has torchvision')
  parser.add_argument('--anomalib-python', help='an interpreter with torch and anomalib')
  arguments = parser.parse_args()

  # Both frameworks live in one process: neither may take all of the memory.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')

  import jax
  import jax.numpy as jnp
  import torch

  from benchmarks import deform_conv, detector, maml, ours, patchcore, peers, timing

  if jax.default_backend() != 'gpu' or not torch.cuda.is_available():
    raise SystemExit('benchmarks.gpu needs a GPU that both jax and torch see.')
  torch.backends.cudnn.benchmark = True
  # The same arithmetic on both sides: XLA's default for float32 on this hardware is TF32.
  torch.backends.cudnn.allow_tf32 = True
  torch.backends.cuda.matmul.allow_tf32 = True
  cases = {}
  for name in arguments.backbones:
    shape = {
      'name': name,
      'batch': arguments.batch,
      'side': arguments.side,
      'repeats': arguments.repeats,
    }
    for case in ('train_step', 'inference'):
      for half in (False, True):
        dtype = jnp.bfloat16 if half else jnp.float32
        peer = getattr(peers, case)
        contenders = {
          'jaxdefect': getattr(ours, case)(dtype=dtype, **shape),
          'PyTorch': peer(device='cuda', half=half, **shape),
          'PyTorch channels_last': peer(device='cuda', half=half, channels_last=True, **shape),
        }
        if not arguments.no_compile:
          contenders['PyTorch channels_last, compiled'] = peer(
            device='cuda', half=half, channels_last=True, compiled=True, **shape
          )
        times = timing.take_turns(contenders, rounds=arguments.rounds, warmup=3)
        ratios = timing.compare(times, ours='jaxdefect')
        title = f'{name} {case} {"bfloat16" if half else "float32"}'
        timing.show(title, times, ratios)
        cases[title] = {'seconds': times, 'ours_over': ratios}
        # A partial file would be lost with the machine.
        timing.write_results('gpu', torch.cuda.get_device_name(), cases, shape=shape)
  path = timing.write_results(
    'gpu',
    torch.cuda.get_device_name(),
    cases,
    batch=arguments.batch,
    side=arguments.side,
    steps_per_call=arguments.repeats,
  )
  print(f'wrote {path}')
  torchvision_python = arguments.torchvision_python or deform_conv.default_torchvision()
  path = deform_conv.measure(
    torchvision_python=torchvision_python,
    version='v1',
    threads=os.cpu_count() or 1,
    rounds=arguments.rounds,
    repeats=20,
  )
  print(f'wrote {path}')
  path = maml.measure(threads=os.cpu_count() or 1, rounds=arguments.rounds)
  print(f'wrote {path}')
  path = patchcore.measure(
    python=arguments.anomalib_python or sys.executable,
    threads=os.cpu_count() or 1,
    rounds=arguments.rounds,
    fit_rounds=3,
  )
  print(f'wrote {path}')
  path = detector.measure(
    torchvision_python=torchvision_python,
    threads=os.cpu_count() or 1,
    rounds=arguments.rounds,
    repeats=arguments.repeats,
  )
  print(f'wrote {path}')


if __name__ == '__main__':
  main()
