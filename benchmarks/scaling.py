"""Time and memory of our steps against their size, beside PyTorch where it has the same step.

    python -m benchmarks.scaling --threads=2

One axis at a time: the batch, the size of the images and the number of classes of a recogniser's
training step (ResNet-18, SGD with momentum; PyTorch's own beside it), boxes per image and proposals
of a detector's training step (Faster R-CNN on three stages of a ResNet-18), and the memory bank of
PatchCore's scoring (784 patches of 384 features; beside it ``torch.cdist`` and its minimum, which
leave out the re-weighting and the map). More devices are not timed: what they cost is predicted
(``benchmarks.collectives``). Peak memory is what XLA sets aside beyond the inputs.

Takes some five minutes on two cores, most of it compiling. Writes
``benchmarks/results/scaling-<device>.json``; with ``--axes`` the other axes stay as they are. See
``benchmarks.cpu`` for the settings of glibc and OpenMP that make timings on a shared machine fair.
"""

import argparse
import functools
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import timing

OURS = 'jaxdefect'
# Values along each axis, and what else is fixed on it.
AXES = {
  'cpu': {
    'batch': (2, 4, 8, 16, 32),
    'image size': (64, 96, 128, 160, 224),
    'classes': (10, 100, 1000, 10_000),
    'boxes': (8, 32, 128, 512),
    'proposals': (100, 400, 1600),
    'bank': (1000, 10_000, 100_000),
  },
  'gpu': {
    'batch': (16, 32, 64, 128, 256),
    'image size': (64, 128, 224, 448),
    'classes': (10, 1000, 10_000, 100_000),
    'boxes': (8, 32, 128, 512),
    'proposals': (100, 400, 1600),
    'bank': (1000, 10_000, 100_000, 1_000_000),
  },
}
FIXED: dict[str, dict[str, Any]] = {
  'cpu': {
    'recogniser': {'backbone': 'resnet18', 'batch': 8, 'side': 96, 'classes': 1000},
    'detector': {'backbone': 'resnet18', 'stages': 3, 'batch': 2, 'side': 160, 'classes': 6},
  },
  'gpu': {
    'recogniser': {'backbone': 'resnet18', 'batch': 64, 'side': 224, 'classes': 1000},
    'detector': {'backbone': 'resnet18', 'stages': 3, 'batch': 8, 'side': 640, 'classes': 6},
  },
}
BOXES, PROPOSALS = 8, 400  # of the detector, where they are no axis
FEATURES = 384
Side = dict[str, Any]


def compiled_step(method: Any, batch: dict[str, np.ndarray], classes: int) -> Side:
  """A method's training step.

  Args:
    method: made for one device.
    batch: its batch.
    classes: that it tells apart.

  Returns:
    A call that makes a step and waits for it, ``peak_bytes`` and ``compile_seconds``.
  """
  import jax

  from jaxdefect.contracts import DataSpec

  names = tuple(f'class {label}' for label in range(classes))
  shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), batch)
  spec = DataSpec(shapes, names, (1,) * classes)
  key = jax.random.key(0)
  state = jax.jit(lambda key: method.init(key, spec))(key)
  held = jax.device_put(batch)
  start = time.perf_counter()
  program = jax.jit(method.step, donate_argnums=1).lower(key, state, held).compile()
  seconds = time.perf_counter() - start

  def call() -> Any:
    nonlocal state
    state, scalars = program(key, state, held)
    return jax.block_until_ready(scalars)

  return {'call': call, 'peak_bytes': _peak_bytes(program), 'compile_seconds': seconds}


def recogniser(*, backbone: str, batch: int, side: int, classes: int) -> Side:
  """The training step of a classifier; arguments as ``FIXED`` has them."""
  import optax

  from jaxdefect.methods import classifier

  method = classifier.make(optimizer=optax.sgd(1e-3, momentum=0.9), backbone=backbone)
  made = _pictures(batch, side) | {'label': np.arange(batch, dtype=np.int32) % classes}
  return compiled_step(method, made, classes)


def detector(
  *, backbone: str, stages: int, batch: int, side: int, classes: int, boxes: int, proposals: int
) -> Side:
  """The training step of a Faster R-CNN whose images are full of boxes; arguments as ``FIXED``."""
  import optax

  from jaxdefect.methods import faster_rcnn

  method = faster_rcnn.make(
    optimizer=optax.sgd(1e-4, momentum=0.9),
    backbone=backbone,
    stages=stages,
    neck_channels=64,
    head_width=256,
    anchor_sizes=tuple(32.0 * 2**level for level in range(stages + 1)),
    proposals_before=proposals,
    proposals=proposals,
    regions=min(64, proposals),
  )
  random = np.random.default_rng(0)
  corner = random.uniform(0, 0.7 * side, (batch, boxes, 2))
  edges = np.concatenate([corner, corner + random.uniform(8, 0.3 * side, corner.shape)], axis=-1)
  made = _pictures(batch, side) | {
    'boxes': edges.astype(np.float32),
    'box_label': random.integers(0, classes, (batch, boxes), np.int32),
    'box_valid': np.ones((batch, boxes), bool),
    'size': np.full((batch, 2), side, np.float32),
    'scale': np.ones(batch, np.float32),
  }
  return compiled_step(method, made, classes)


def scoring(size: int, device: str) -> tuple[Side, Callable[[], Any]]:
  """PatchCore's scoring of one image against a bank of ``size``, and the peer's distances."""
  import jax
  import torch

  from benchmarks import patchcore
  from benchmarks.patchcore_peer import PLACES, clustered

  queries, bank = clustered(PLACES**2, features=FEATURES, seed=2), clustered(size)
  held = jax.device_put((queries, bank))
  start = time.perf_counter()
  program = jax.jit(functools.partial(patchcore.score, num=1)).lower(*held).compile()
  side = {
    'call': lambda: jax.block_until_ready(program(*held)),
    'peak_bytes': _peak_bytes(program),
    'compile_seconds': time.perf_counter() - start,
  }
  their_queries, their_bank = (torch.from_numpy(one).to(device) for one in (queries, bank))

  def nearest() -> Any:
    found = torch.cdist(their_queries, their_bank).min(1)
    if device == 'cuda':
      torch.cuda.synchronize()
    return found

  return side, nearest


def contenders(
  axis: str, value: int, fixed: dict[str, dict[str, Any]], device: str
) -> tuple[Side, dict[str, Callable[[], Any]]]:
  """Our side and the peers' calls at one place of an axis.

  Args:
    axis: a key of ``AXES``.
    value: the place.
    fixed: as ``FIXED``, of one kind of device.
    device: PyTorch's name of it.

  Returns:
    As ``compiled_step``, and name -> call.
  """
  from benchmarks import peers

  if axis == 'bank':
    side, nearest = scoring(value, device)
    return side, {'PyTorch, distances alone': nearest}
  if axis in ('boxes', 'proposals'):
    sizes: dict[str, Any] = {'boxes': BOXES, 'proposals': PROPOSALS, axis: value}
    return detector(**fixed['detector'], **sizes), {}
  settings: dict[str, Any] = fixed['recogniser'] | {{'image size': 'side'}.get(axis, axis): value}
  side = recogniser(**settings)
  if axis == 'classes':
    return side, {}  # the peer's number of classes is fixed
  step = functools.partial(
    peers.train_step,
    settings['backbone'],
    batch=settings['batch'],
    side=settings['side'],
    device=device,
  )
  return side, {'PyTorch': step(), 'PyTorch channels_last': step(channels_last=True)}


def measure(
  *,
  threads: int,
  rounds: int,
  axes: dict[str, Sequence[int]] | None = None,
  fixed: dict[str, dict[str, Any]] | None = None,
) -> pathlib.Path:
  """Times all places of all axes on JAX's default device.

  Args:
    threads: of the peer on a CPU; ours are set before JAX starts.
    rounds: how often each has a turn.
    axes: as ``AXES`` of one kind of device; None takes all of this one's. Where axes are left
      out, what was measured of them before is kept.
    fixed: as ``FIXED`` of one kind of device; None takes this one's.

  Returns:
    The path of the written results.
  """
  import jax
  import torch

  torch.set_num_threads(threads)
  kind = 'gpu' if jax.default_backend() == 'gpu' else 'cpu'
  name = jax.devices()[0].device_kind if kind == 'gpu' else timing.processor()
  fixed = fixed or FIXED[kind]
  axes = dict(axes or AXES[kind])
  cases = {
    title: case
    for title, case in timing.read_cases('scaling', name).items()
    if case['axis'] not in axes
  }
  path = pathlib.Path()
  for axis, values in axes.items():
    if kind == 'gpu':
      torch.backends.cudnn.benchmark = True
      # The same arithmetic on both sides: TF32 in networks, full precision in distances.
      torch.backends.cudnn.allow_tf32 = True
      torch.backends.cuda.matmul.allow_tf32 = axis != 'bank'
    for value in values:
      side, theirs = contenders(axis, value, fixed, 'cuda' if kind == 'gpu' else 'cpu')
      times = timing.take_turns({OURS: side['call'], **theirs}, rounds=rounds, warmup=2)
      ratios = timing.compare(times, ours=OURS)
      timing.show(f'{axis} {value}', times, ratios)
      print(f'  {side["peak_bytes"] / 1e6:.1f} MB, compiled in {side["compile_seconds"]:.1f} s')
      cases[f'{axis} {value}'] = {
        'axis': axis,
        'value': value,
        'seconds': times,
        'ours_over': ratios,
        'peak_bytes': {OURS: side['peak_bytes']},
        'compile_seconds': {OURS: side['compile_seconds']},
      }
      # Written after every case: a partial file would be lost with the machine.
      path = timing.write_results(
        'scaling',
        name,
        cases,
        threads=None if kind == 'gpu' else threads,
        fixed=fixed | {'boxes': BOXES, 'proposals': PROPOSALS},
      )
  return path


def _pictures(batch: int, side: int) -> dict[str, np.ndarray]:
  random = np.random.default_rng(0)
  return {
    'image': random.integers(0, 256, (batch, side, side, 3), np.uint8),
    'label': np.zeros(batch, np.int32),
    'valid': np.ones(batch, bool),
    'index': np.arange(batch, dtype=np.int32),
  }


def _peak_bytes(program: Any) -> int:
  memory = program.memory_analysis()
  return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes


def main() -> None:
  parser = argparse.ArgumentParser(description='Time and memory against size.')
  parser.add_argument('--threads', type=int, default=2, help='threads of both sides on a CPU')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--axes', nargs='+', choices=AXES['cpu'], default=list(AXES['cpu']))
  arguments = parser.parse_args()

  timing.use_threads(arguments.threads)
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  import jax

  kind = 'gpu' if jax.default_backend() == 'gpu' else 'cpu'
  path = measure(
    threads=arguments.threads,
    rounds=arguments.rounds,
    axes={axis: AXES[kind][axis] for axis in arguments.axes},
  )
  print(f'wrote {path}')


if __name__ == '__main__':
  main()
