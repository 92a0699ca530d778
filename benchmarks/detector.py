"""A training step and an inference of Faster R-CNN (ResNet-50-FPN), against torchvision's.

    python -m benchmarks.detector --threads=2 --torchvision-python=PATH

PATH is any Python interpreter with torch and torchvision; without it only our plain detector and
our whole method (deformable convolution v2, GS neck and head, prototypes) are compared. The plain
one starts from the same weights as torchvision's and sees the same images and boxes: noise of
640 x 640, 6 classes, 8 boxes per image; stem, stage 1 and BatchNorm frozen, 5 levels, 2000
proposals and 512 regions in training, 1000 proposals in inference, SGD with momentum. Both must
give the same scores, and losses as close as their random samples allow.

What differs: torchvision runs eagerly (plain, and channels_last) and its suppression sees only the
candidates above the score threshold, of which we take the best 400; it resizes its images, by a
factor of 1; ours come as bytes, torchvision's as floats. Our sizes are fixed: 1000 proposals are
pooled where torchvision may have fewer left.

Everyone takes turns; peak memory is what a pass needs beyond its inputs and the parameters. On a
GPU, which both then need, bfloat16 (theirs: autocast) is timed beside float32. Writes
``benchmarks/results/detector-<device>.json``. See ``benchmarks.cpu`` for the settings of glibc and
OpenMP that make timings on a shared machine fair; here both thresholds must be 17179869184, since a
step of the whole method takes more than 4 GiB (and 2.5 times as long where these are faulted in
again every time).
"""

import argparse
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import timing
from benchmarks.deform_conv import Torchvision, default_torchvision, take_turns
from benchmarks.detector_peer import CLASSES, LAYOUTS, RATE, pictures

PASSES = ('train step', 'inference')
VARIANTS: dict[str, dict[str, Any]] = {
  'jaxdefect': {},
  'jaxdefect, whole method': {
    'deformable': 'v2',
    'neck': 'gs_fpn',
    'box_head': 'gs',
    'classifier': 'prototype',
  },
}
# Ours -> torchvision's names of the parts.
PARTS = {
  'backbone': 'backbone.body',
  'neck': 'backbone.fpn',
  'rpn': 'rpn.head',
  'box_head': 'roi_heads.box_head',
  'predictor': 'roi_heads.box_predictor',
}


def batch_of(num: int, side: int) -> dict[str, Any]:
  """The batch of ``pictures``, as our methods read it."""
  import jax
  import jax.numpy as jnp

  made = pictures(num, side)
  batch = made | {
    'label': made['box_label'][:, 0],
    'valid': np.ones(num, bool),
    'index': np.arange(num, dtype=np.int32),
    'box_valid': np.ones(made['boxes'].shape[:2], bool),
    'size': np.full((num, 2), side, np.float32),
    'scale': np.ones(num, np.float32),
  }
  return jax.tree.map(jnp.asarray, batch)


def make_state(method: Any, batch: dict[str, Any]) -> Any:
  """A fresh state whose activations and scores have the size that a trained network's have."""
  import jax

  from jaxdefect.contracts import DataSpec

  spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), batch)
  classes = tuple(f'class {label}' for label in range(CLASSES))
  state = jax.jit(lambda key: method.init(key, DataSpec(spec, classes, (1,) * CLASSES)))(
    jax.random.key(0)
  )

  def tempered(path: Any, leaf: Any) -> Any:
    words = [entry.key for entry in path]
    if words[-2:] == ['bn3', 'scale']:
      return leaf / 4  # or every residual block would double the variance
    if words[-2:] == ['cls_score', 'kernel']:
      return leaf * 20  # scores that differ from region to region
    if words[-2:] == ['cls_score', 'bias']:
      return leaf.at[0].add(1.5)  # most regions are background
    return leaf

  return state._replace(params=jax.tree_util.tree_map_with_path(tempered, state.params))


def torchvision_weights(state: Any) -> dict[str, np.ndarray]:
  """The plain detector's parameters under torchvision's names.

  Args:
    state: of a method with ``classifier='linear'`` and plain parts.

  Returns:
    A state dict of numpy arrays.
  """
  from jaxdefect.convert import torch_params

  variables = {'params': state.params, 'batch_stats': state.model_state['batch_stats']}
  renamed = {}
  for name, array in torch_params.to_state_dict(variables).items():
    part, rest = name.split('.', 1)
    renamed[f'{PARTS[part]}.{rest}'] = array
  return renamed


def our_passes(
  variant: str, *, side: int, train_batch: int, batch: int, half: bool, repeats: int
) -> tuple[dict[str, dict[str, Any]], Any]:
  """Compiles a training step and an inference of ours.

  Args:
    variant: of ``VARIANTS``.
    side: of the images, pixels.
    train_batch: images of the training step.
    batch: images of the inference.
    half: bfloat16.
    repeats: passes per call.

  Returns:
    ``{pass: {'call': clocked call, 'peak_bytes': int, 'compile_seconds': float, 'result': ...}}``
    and the state they start from.
  """
  import jax
  import jax.numpy as jnp
  import optax

  from jaxdefect.contracts import to_fitted
  from jaxdefect.methods import faster_rcnn

  def method(proposals: int) -> Any:
    return faster_rcnn.make(
      optimizer=optax.sgd(RATE, momentum=0.9),
      proposals_before=proposals,
      proposals=proposals,
      dtype=jnp.bfloat16 if half else jnp.float32,
      **VARIANTS[variant],
    )

  seen = {'train step': batch_of(train_batch, side), 'inference': batch_of(batch, side)}
  trainer = method(2000)
  state = make_state(trainer, seen['train step'])
  fitted = to_fitted(state, tuple(f'class {label}' for label in range(CLASSES)))
  key = jax.random.key(1)

  start = time.perf_counter()
  step = jax.jit(trainer.step, donate_argnums=1).lower(key, state, seen['train step']).compile()
  between = time.perf_counter()
  predict = jax.jit(method(1000).predict).lower(fitted, seen['inference']).compile()
  seconds = (between - start, time.perf_counter() - between)
  moving = jax.tree.map(jnp.copy, state)

  def train() -> Any:
    nonlocal moving
    moving, scalars = step(key, moving, seen['train step'])
    return scalars

  passes = {}
  for name, program, body, compiling in zip(
    PASSES, (step, predict), (train, lambda: predict(fitted, seen['inference'])), seconds
  ):
    memory = program.memory_analysis()
    assert memory is not None
    passes[name] = {
      'result': jax.device_get(body()),
      'call': _clocked(body, repeats),
      'peak_bytes': memory.temp_size_in_bytes
      + memory.output_size_in_bytes
      - memory.alias_size_in_bytes,
      'compile_seconds': compiling,
    }
  return passes, state


def _clocked(body: Callable[[], Any], repeats: int) -> Callable[[], dict[str, float]]:
  import jax

  def call() -> dict[str, float]:
    result = None
    start, start_cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
      result = body()
    jax.block_until_ready(result)
    seconds = {'wall': time.perf_counter() - start, 'cpu': time.process_time() - start_cpu}
    return {key: value / repeats for key, value in seconds.items()}

  return call


def their_passes(
  peer: Torchvision, state: Any, **settings: Any
) -> tuple[dict[str, dict[str, dict[str, Any]]], dict[str, Any]]:
  """Hands the weights to the peer: its passes per memory layout, and its whole answer."""
  with tempfile.TemporaryDirectory() as folder:
    weights = os.path.join(folder, 'weights.npz')
    np.savez(weights, **torchvision_weights(state))  # pyright: ignore[reportArgumentType]
    facts = peer.ask(make={'weights': weights, **settings})
  sides = {
    'torchvision' + layout: {
      name: {
        'call': lambda name=name + layout: peer.ask(run=name),
        'peak_bytes': facts['peak_bytes'][name + layout],
      }
      for name in PASSES
    }
    for layout in LAYOUTS
  }
  return sides, facts


def check(ours: dict[str, dict[str, Any]], facts: dict[str, Any], half: bool) -> dict[str, Any]:
  """Compares results, ends the program where they are not those of one network.

  Args:
    ours: passes of the plain variant.
    facts: the peer's answer.
    half: bfloat16, whose boxes may change places; only the losses are compared.

  Returns:
    Losses and numbers of detections, for the record.
  """
  loss = {'jaxdefect': np.divide(*ours['train step']['result']['loss']).item()}
  loss['torchvision'] = facts['loss']
  found = ours['inference']['result']
  scores = found.scores[0][found.valid[0]]
  theirs = np.asarray(facts['scores'])
  counts = {'jaxdefect': len(scores), 'torchvision': len(theirs)}
  agreed = np.isclose(*loss.values(), rtol=0.15)
  if not half:
    shorter = min(counts.values())
    agreed &= abs(len(scores) - len(theirs)) <= 2
    agreed &= np.allclose(scores[:shorter], theirs[:shorter], rtol=0.02, atol=0.002)
  if not agreed:
    raise SystemExit(
      f'jaxdefect and torchvision differ: losses {loss}, {counts} detections, '
      f'best scores {scores[:5]} and {theirs[:5]}.'
    )
  return {'losses': loss, 'detections': counts}


def measure(
  *,
  torchvision_python: str | None,
  side: int = 640,
  train_batch: int = 2,
  batch: int = 1,
  threads: int,
  rounds: int,
  repeats: int,
) -> pathlib.Path:
  """Times both passes of everyone on JAX's default device.

  Args:
    torchvision_python: an interpreter that has torchvision, or None.
    side: of the images, pixels.
    train_batch: images of a training step.
    batch: images of an inference.
    threads: of the peer; ours are set before JAX starts.
    rounds: how often everyone has a turn.
    repeats: passes per turn.

  Returns:
    The path of the written results.
  """
  import jax

  on_gpu = jax.default_backend() == 'gpu'
  device = jax.devices()[0].device_kind if on_gpu else timing.processor()
  sizes = {'side': side, 'train_batch': train_batch, 'batch': batch}
  cases: dict[str, Any] = {}
  path = pathlib.Path()
  peer = None
  if torchvision_python:
    peer = Torchvision(
      torchvision_python,
      'cuda' if on_gpu else 'cpu',
      threads,
      repeats,
      module='benchmarks.detector_peer',
    )
  for half in (False, True) if on_gpu else (False,):
    sides: dict[str, dict[str, dict[str, Any]]] = {}
    agreement = None
    for variant in VARIANTS:
      sides[variant], state = our_passes(variant, half=half, repeats=repeats, **sizes)
      if peer is not None and variant == 'jaxdefect':
        theirs, facts = their_passes(peer, state, half=half, **sizes)
        agreement = check(sides[variant], facts, half)
        sides |= theirs
    for name, num in zip(PASSES, (train_batch, batch)):
      times = take_turns({s: passes[name]['call'] for s, passes in sides.items()}, rounds=rounds)
      ratios = timing.compare(times, ours='jaxdefect')
      title = f'{name} {num}x{side}x{side} {"bfloat16" if half else "float32"}'
      timing.show(title, times, ratios)
      cases[title] = {
        'seconds': times,
        'ours_over': ratios,
        'peak_bytes': {s: passes[name]['peak_bytes'] for s, passes in sides.items()},
        'compile_seconds': {v: sides[v][name]['compile_seconds'] for v in VARIANTS},
        'agreement': agreement,
      }
      for s, size in cases[title]['peak_bytes'].items():
        print(f'  {s:32s} {0 if size is None else size / 1e6:9.0f} MB')
      # Written after every case: a partial file would be lost with the machine.
      path = timing.write_results(
        'detector' if side == 640 else f'detector-{side}',
        device,
        cases,
        threads=None if on_gpu else threads,
        passes_per_turn=repeats,
        peer_versions=peer.versions if peer is not None else None,
      )
  if peer is not None:
    peer.close()
  return path


def main() -> None:
  parser = argparse.ArgumentParser(description="Faster R-CNN against torchvision's.")
  parser.add_argument('--torchvision-python', help='an interpreter that has torchvision')
  parser.add_argument('--threads', type=int, default=2, help='threads of both sides on a CPU')
  parser.add_argument('--size', type=int, default=640, help='side of the images, pixels')
  parser.add_argument('--train-batch', type=int, default=2, help='images of a training step')
  parser.add_argument('--batch', type=int, default=1, help='images of an inference')
  parser.add_argument('--rounds', type=int, default=11)
  parser.add_argument('--repeats', type=int, default=1, help='passes per turn')
  arguments = parser.parse_args()

  timing.use_threads(arguments.threads)
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  path = measure(
    torchvision_python=arguments.torchvision_python or default_torchvision(),
    side=arguments.size,
    train_batch=arguments.train_batch,
    batch=arguments.batch,
    threads=arguments.threads,
    rounds=arguments.rounds,
    repeats=arguments.repeats,
  )
  print(f'wrote {path}')


if __name__ == '__main__':
  main()
