"""Five steps of a method, on one device or many: what the tests of parallel training compare.

As a script, ``python parallel_run.py RANK COUNT PORT STARTS.pickle OUT.npz``, it is one of several
processes that train methods together from the states that ``starts`` gave; process 0 writes.
"""

import functools
import pathlib
import pickle
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdefect import methods
from jaxdefect.contracts import References
from jaxdefect.optim import accumulation
from jaxdefect.train import parallel
from tests.method_batches import ANOMALY, EPISODIC, spec, training_batch

STEPS = 5
TASKS, IMAGES = 8, 16  # of a batch over all devices


# As on an accelerator, where the program of one part serves all.
_scanned = functools.partial(accumulation.sum_over_parts, unroll=False)
SCANNED = (accumulation, 'sum_over_parts', _scanned)


class Way(NamedTuple):
  """How precisely a method trains, and how near the parameters must then be."""

  dtype: Any
  optimizer: optax.GradientTransformation
  tolerance: float


WAYS = {
  'float64': Way(jnp.float64, optax.adam(1e-3), 1e-9),
  # Adam would turn rounding into steps of the learning rate where a gradient is nearly zero.
  'float32': Way(jnp.float32, optax.sgd(1e-4), 1e-5),
}


def train(
  name: str,
  way: str,
  devices: int,
  *,
  state: Any = None,
  views: bool = False,
  transform: Any = 'shard_map',
) -> dict[str, np.ndarray]:
  """Trains a small method of that name; of several processes each takes its share of the rows.

  Args:
    name: of the method.
    way: of ``WAYS``.
    devices: over all processes.
    state: to start from, of ``start``; None makes it.
    views: whether the method draws random views of its images, where it has any.
    transform: of ``parallel.layout``.

  Returns:
    The loss of every step as ``'loss'``, and the parameters by name.
  """
  state = start(name, way) if state is None else state
  with jax.enable_x64(WAYS[way].dtype == jnp.float64), mock.patch.object(*SCANNED):
    method = _method(name, way, devices, views)
    on = parallel.layout(devices, transform=transform)
    step = parallel.compile_step(method.step, on)
    key = jax.random.key(0)
    state, found = parallel.replicate(state, on), []
    for number in range(STEPS):
      state, scalars = step(key, state, parallel.shard(share(batch(name, number)), on))
      if number == 0:
        parallel.check_replicas(state, on)
      total, weight = (np.reshape(value, -1)[0] for value in jax.device_get(scalars['loss']))
      found.append(total / weight)
    leaves = jax.tree_util.tree_leaves_with_path(parallel.unreplicate(state, on).params)
    named = {jax.tree_util.keystr(p, simple=True, separator='/'): np.asarray(x) for p, x in leaves}
    return {'loss': np.asarray(found), **named}


@functools.cache
def start(name: str, way: str) -> Any:
  """The state that all begin with."""
  dtype = WAYS[way].dtype
  with jax.enable_x64(dtype == jnp.float64), mock.patch.object(*SCANNED):
    method, key = _method(name, way, 1, False), jax.random.key(0)
    drawn = _drawn(name)
    # What Adam and SGD begin with is zeros.
    rules = jax.eval_shape(lambda key: method.init(key, spec(name)), key).opt_state
    state = drawn._replace(opt_state=jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), rules))
    state = jax.tree.map(
      lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, state
    )
    if name in ANOMALY:
      state = method.prepare(key, state, References(('good',), [training_batch(name)]))
    return jax.device_get(state)


@functools.cache
def _drawn(name: str) -> Any:
  """What ``init`` draws; compiling it is a quarter of what a training compiles."""
  with jax.enable_x64(False):
    method = _method(name, 'float32', 1, False)
    return jax.device_get(jax.jit(lambda key: method.init(key, spec(name)))(jax.random.key(0)))


def starts(names: Sequence[str]) -> bytes:
  """What other processes begin with."""
  return pickle.dumps({(name, way): start(name, way) for name in names for way in WAYS})


def _method(name: str, way: str, devices: int, views: bool) -> Any:
  # Importing the tests makes arrays, and processes must know each other before.
  from tests.method_settings import SMALL, VIEWS

  dtype, optimizer, _ = WAYS[way]
  settings = {**SMALL[name], 'optimizer': optimizer, 'dtype': dtype}
  if views and name in VIEWS:
    settings['augmentation'] = VIEWS[name]
  if name in EPISODIC:  # one after the other: eight side by side take minutes to compile
    settings['accumulate'] = TASKS // devices
  return methods.load(name)(**settings, axis_name=parallel.axis_name(devices))


def batch(name: str, number: int) -> dict:
  """A batch whose last rows are padding, so that devices have different weights."""
  if name in EPISODIC:
    return training_batch(name, 3 * (TASKS - 1), padding=3, first=TASKS * number)
  return training_batch(name, IMAGES - 3, padding=3, first=IMAGES * number)


def share(tree: dict) -> dict:
  """The rows of this process."""

  def rows(leaf):
    size = len(leaf) // jax.process_count()
    return leaf[jax.process_index() * size :][:size]

  return jax.tree.map(rows, tree)


if __name__ == '__main__':
  rank, count, port = map(int, sys.argv[1:4])
  jax.distributed.initialize(f'localhost:{port}', count, rank)
  trained = {}
  for (name, way), state in pickle.loads(pathlib.Path(sys.argv[4]).read_bytes()).items():
    result = train(name, way, len(jax.devices()), state=state)
    trained |= {f'{name}|{way}|{key}': value for key, value in result.items()}
  if rank == 0:
    np.savez(sys.argv[5], **trained)
