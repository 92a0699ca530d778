"""One meta-step of second-order MAML, against PyTorch's double backward in the same run.

    python -m benchmarks.maml --threads=2

Four tasks of 16 + 16 images of 128 x 128, 4Conv-32 with batch statistics and one logit, 1 and 5
inner steps, the exact second-order gradient of the mean query loss, Adam. Both sides start from the
same weights and see the same images; a run ends where their losses or meta-gradients differ. What
the peer does is in ``maml_peer``; ours is ``optim.maml_losses`` with its defaults, and beside it
without rematerialisation and, on a GPU, with tasks unrolled as on a CPU.

On a CPU the peak memory of a step is that of a process of its own: the largest resident set during
a second step minus the one before it. On a GPU it is what the frameworks say. See
``benchmarks.cpu`` for the settings of glibc and OpenMP that make timings on a shared machine fair.
Writes ``benchmarks/results/maml-<device>.json``.
"""

import argparse
import json
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import timing

INNER_RATE = 0.001  # small enough for five steps on noise not to amplify rounding
OUTER_RATE = 1e-6  # too small to change what the next step has to do
STEPS = (1, 5)
SIZES = {'tasks': 4, 'support': 16, 'query': 16, 'side': 128, 'width': 32}
VARIANTS: dict[str, dict[str, Any]] = {
  'jaxdefect': {},
  'jaxdefect, no remat': {'remat': False},
  'jaxdefect, unrolled': {'unroll': True},
}


def images(tasks: int, number: int, side: int, seed: int) -> dict[str, np.ndarray]:
  """Standard normal images [T, N, side, side, 3] and labels of both classes [T, N]."""
  random = np.random.default_rng(seed)
  x = random.normal(size=(tasks, number, side, side, 3)).astype(np.float32)
  return {'x': x, 'y': np.tile(np.arange(number) % 2, (tasks, 1)).astype(np.float32)}


def sets(sizes: dict[str, int]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Support and query sets of all tasks."""
  tasks, side = sizes['tasks'], sizes['side']
  return images(tasks, sizes['support'], side, 0), images(tasks, sizes['query'], side, 1)


def our_step(
  sizes: dict[str, int], *, steps: int, half: bool = False, **settings: Any
) -> tuple[Callable[[], Any], dict[str, np.ndarray], dict[str, Any]]:
  """Compiles a meta-step of ours.

  Args:
    sizes: as ``SIZES``.
    steps: of the inner loop.
    half: bfloat16.
    **settings: of ``optim.maml_losses``.

  Returns:
    A call that makes a step, waits for it and returns a function that reads the mean query loss and
    the gradients under PyTorch's names; the weights before it under PyTorch's names; and facts.
  """
  import jax
  import jax.numpy as jnp
  import optax

  from jaxdefect import models, optim
  from jaxdefect.convert import torch_params

  network = models.Conv4(sizes['width'], dtype=jnp.bfloat16 if half else jnp.float32)
  side = sizes['side']
  blank = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)

  def make(key: jax.Array) -> Any:
    y, variables = network.init_with_output(key, jnp.zeros(blank.shape), running=True)
    kernel = 0.02 * jax.random.normal(key, (y[0].size, 1))
    head = {'kernel': kernel, 'bias': jnp.zeros(1)}
    return {'body': variables['params'], 'fc': head}, variables['batch_stats']

  params, statistics = jax.jit(make)(jax.random.key(0))
  weights = torch_params.to_state_dict({'params': jax.device_get(params)})

  def loss(params: Any, batch: Any) -> jax.Array:
    y, _ = network.apply(
      {'params': params['body'], 'batch_stats': statistics},
      batch['x'],
      running=False,
      mutable=['batch_stats'],
    )
    flat = y.transpose(0, 3, 1, 2).reshape(y.shape[0], -1).astype(jnp.float32)  # PyTorch's order
    logit = (flat @ params['fc']['kernel'])[:, 0] + params['fc']['bias']
    return optax.sigmoid_binary_cross_entropy(logit, batch['y']).mean()

  optimizer = optax.adam(OUTER_RATE, b1=0.5)

  def step(params: Any, moments: Any, support: Any, query: Any) -> Any:
    def objective(params: Any) -> jax.Array:
      return optim.maml_losses(
        *(loss, params, support, query), learning_rate=INNER_RATE, num_steps=steps, **settings
      ).mean()

    value, gradient = jax.value_and_grad(objective)(params)
    updates, moments = optimizer.update(gradient, moments, params)
    return optax.apply_updates(params, updates), moments, value, gradient

  support, query = jax.device_put(sets(sizes))
  moments = optimizer.init(params)
  start = time.perf_counter()
  compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, moments, support, query).compile()
  facts: dict[str, Any] = {'compile_seconds': time.perf_counter() - start}
  memory = compiled.memory_analysis()
  if memory is not None:
    facts['peak_bytes'] = (
      memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    )

  def call() -> Any:
    nonlocal params, moments
    params, moments, value, gradient = jax.block_until_ready(
      compiled(params, moments, support, query)
    )
    return lambda: (
      float(value),
      torch_params.to_state_dict({'params': jax.device_get(gradient)}),
    )

  return call, weights, facts


def check(results: dict[str, tuple[float, dict[str, np.ndarray]]], half: bool) -> dict[str, Any]:
  """Compares losses and meta-gradients, ends the program where they are not those of one network.

  Args:
    results: contender -> mean query loss and gradients.
    half: bfloat16, whose gradients are recorded and not judged.

  Returns:
    For the record: losses, and the largest distance of a gradient to ours, relative to its length.
  """

  def flat(gradients: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(gradients[name]) for name in sorted(gradients)])

  loss, ours = results['jaxdefect'][0], flat(results['jaxdefect'][1])
  apart = {
    name: float(np.linalg.norm(flat(gradients) - ours) / np.linalg.norm(ours))
    for name, (_, gradients) in results.items()
  }
  losses = {name: value for name, (value, _) in results.items()}
  for name, distance in apart.items():
    # The first-order gradient would be 0.35 away.
    agreed = np.isclose(losses[name], loss, rtol=0.05 if half else 1e-3)
    if not (agreed and (half or distance < 0.01)):
      raise SystemExit(f'jaxdefect and {name} differ: losses {losses}, gradients {apart}.')
  return {'losses': losses, 'gradient_distance': apart}


def peak_of_process(
  contender: str, sizes: dict[str, int], *, steps: int, threads: int
) -> int | None:
  """Peak memory of a step in a process of its own, in bytes; None where Linux does not say."""
  options = {'peak': contender, 'steps': steps, 'threads': threads, **sizes}
  arguments = [f'--{name}={value}' for name, value in options.items()]
  return timing.answer_of_process('benchmarks.maml', *arguments)


def peak(contender: str, sizes: dict[str, int], steps: int, threads: int) -> int | None:
  """What ``peak_of_process`` starts."""
  if contender in VARIANTS:
    call, _, _ = our_step(sizes, steps=steps, **VARIANTS[contender])
  else:
    import torch

    from benchmarks import maml_peer

    torch.set_num_threads(threads)
    random = np.random.default_rng(0)
    width, cells = sizes['width'], sizes['side'] // 16
    shapes = maml_peer.Network(width, width * cells * cells).state_dict()
    weights = {
      name: random.normal(size=array.shape).astype(np.float32) / np.sqrt(max(1, array[0].numel()))
      for name, array in shapes.items()
    }
    call = their_step(contender, weights, sizes, steps=steps)
  return timing.growth(call)


def their_step(
  variant: str, weights: dict[str, np.ndarray], sizes: dict[str, int], **settings: Any
) -> Callable[[], Any]:
  """The peer's meta-step with these weights."""
  from benchmarks import maml_peer

  return maml_peer.meta_step(
    weights,
    *sets(sizes),
    inner_rate=INNER_RATE,
    outer_rate=OUTER_RATE,
    **maml_peer.VARIANTS[variant],
    **settings,
  )


def measure(
  *, threads: int, rounds: int, sizes: dict[str, int] | None = None, steps: tuple[int, ...] = STEPS
) -> pathlib.Path:
  """Times everyone on JAX's default device, and measures memory at the largest number of steps.

  Args:
    threads: of the peer on a CPU; ours are set before JAX starts.
    rounds: how often everyone has a turn.
    sizes: as ``SIZES``, which None takes.
    steps: numbers of inner steps.

  Returns:
    The path of the written results.
  """
  import jax
  import torch

  from benchmarks import maml_peer

  torch.set_num_threads(threads)
  sizes = sizes or SIZES
  on_gpu = jax.default_backend() == 'gpu'
  if on_gpu:
    torch.backends.cudnn.benchmark = True  # its own search; images have one size
    # The same arithmetic on both sides: XLA's default for float32 on a GPU is TF32.
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = True
  device = torch.cuda.get_device_name() if on_gpu else timing.processor()
  variants = [v for v in VARIANTS if on_gpu or v != 'jaxdefect, unrolled']  # what a CPU does anyway
  cases: dict[str, Any] = {}
  path = pathlib.Path()
  for half in (False, True) if on_gpu else (False,):
    for count in steps:
      calls: dict[str, Callable[[], Any]] = {}
      facts: dict[str, dict[str, Any]] = {}
      results, weights = {}, {}
      for variant in variants:
        calls[variant], weights, facts[variant] = our_step(
          sizes, steps=count, half=half, **VARIANTS[variant]
        )
        results[variant] = calls[variant]()()
      for variant, how in maml_peer.VARIANTS.items():
        if half and how.get('vmapped'):
          continue  # its double backward refuses autocast
        calls[variant] = their_step(
          variant, weights, sizes, steps=count, half=half, device='cuda' if on_gpu else 'cpu'
        )
        facts[variant] = {}
        before = _cuda_reset() if on_gpu else 0
        results[variant] = calls[variant]()()
        if on_gpu:
          facts[variant]['peak_bytes'] = torch.cuda.max_memory_allocated() - before
      agreement = check(results, half)
      times = timing.take_turns(calls, rounds=rounds, warmup=1)
      ratios = timing.compare(times, ours='jaxdefect')
      title = f'meta-step {count} inner step{"s" * (count > 1)} {"bfloat16" if half else "float32"}'
      timing.show(title, times, ratios)
      case: dict[str, Any] = {'seconds': times, 'ours_over': ratios, 'agreement': agreement}
      case['compile_seconds'] = {v: facts[v]['compile_seconds'] for v in variants}
      if on_gpu:
        case['peak_bytes'] = {c: facts[c].get('peak_bytes') for c in calls}
      elif count == max(steps):
        case['peak_bytes'] = {
          c: peak_of_process(c, sizes, steps=count, threads=threads) for c in calls
        }
      for name, size in case.get('peak_bytes', {}).items():
        print(f'  {name:32s} {0 if size is None else size / 1e6:9.0f} MB')
      cases[title] = case
      # Written after every case: a partial file would be lost with the machine.
      path = timing.write_results(
        'maml' if sizes == SIZES else f'maml-{sizes["side"]}',
        device,
        cases,
        threads=None if on_gpu else threads,
        sizes=sizes,
      )
  return path


def _cuda_reset() -> int:
  import torch

  torch.cuda.reset_peak_memory_stats()
  return torch.cuda.memory_allocated()


def main() -> None:
  parser = argparse.ArgumentParser(description="A meta-step against PyTorch's double backward.")
  parser.add_argument('--threads', type=int, default=2, help='threads of both sides on a CPU')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--steps', type=int, nargs='+', default=STEPS, help='of the inner loop')
  parser.add_argument('--peak', help=argparse.SUPPRESS)  # what ``peak_of_process`` asks for
  for name, value in SIZES.items():
    parser.add_argument(f'--{name}', type=int, default=value)
  arguments = parser.parse_args()
  sizes = {name: getattr(arguments, name) for name in SIZES}

  timing.use_threads(arguments.threads, keep_memory=not arguments.peak)
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  if arguments.peak:
    print(json.dumps(peak(arguments.peak, sizes, arguments.steps[0], arguments.threads)))
    return
  path = measure(
    threads=arguments.threads,
    rounds=arguments.rounds,
    sizes=sizes,
    steps=tuple(arguments.steps),
  )
  print(f'wrote {path}')


if __name__ == '__main__':
  main()
