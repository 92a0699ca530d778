"""Episodes for learning to learn: a few support and query images of several tasks in each step.

Shape legend: T tasks per step, S support or Q query images per task, R references per image,
h x w the network's size.

A step's batch is a dict of two batches with a leading task axis::

  {'support': {'image' [T,S,h,w,3] u8, 'label' [T,S] i32, 'valid' [T,S] bool, 'index' [T,S] i32,
               'reference' [T,S,R,h,w,3] u8},
   'query': the same with Q}

A task is a ``Source`` of the classes ``'good'`` (label 0) and ``'defect'`` (1). ``index`` is the
image's place in its source plus the number of images of the tasks before it, so that no two images
share one. References are pictures of good parts of the same product: those that the source gives
each image (``'reference'``, repeated to R), or else good images drawn from the support pool.

Everything is a function of (seed, step): H. Zhang et al., PeerJ Computer Science 9 (2023) e1264,
Algorithm 1, draws 64 and 20 images of each task at random; here half of them are good and half
defective, whatever a task holds.
"""

import functools
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from jaxdefect.contracts import Batch
from jaxdefect.data.batching import GIBIBYTE
from jaxdefect.data.image_cache import ImageCache
from jaxdefect.data.in_threads import each
from jaxdefect.data.pools import Pools, task_pools
from jaxdefect.data.products import CLASSES
from jaxdefect.data.source import Source

if TYPE_CHECKING:
  import grain

_STEPS = 2**40  # Without end, as far as anybody will see.
_DEFECT = CLASSES.index('defect')


def episode_spec(
  tasks_per_step: int,
  image_size: tuple[int, int],
  *,
  support: int,
  query: int,
  references: int = 1,
) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
  """The shapes and types of one step's episodes, as ``DataSpec.batch`` wants them.

  Args:
    tasks_per_step: T (per device).
    image_size: (h, w).
    support: S.
    query: Q.
    references: R.

  Returns:
    One ``jax.ShapeDtypeStruct`` per key of the two batches.

  >>> spec = episode_spec(4, (64, 64), support=16, query=8, references=2)
  >>> spec['query']['reference'].shape
  (4, 8, 2, 64, 64, 3)
  """
  shapes = {
    'image': ((*image_size, 3), np.uint8),
    'label': ((), np.int32),
    'valid': ((), np.bool_),
    'index': ((), np.int32),
    'reference': ((references, *image_size, 3), np.uint8),
  }
  return {
    part: {
      key: jax.ShapeDtypeStruct((tasks_per_step, number, *shape), dtype)
      for key, (shape, dtype) in shapes.items()
    }
    for part, number in (('support', support), ('query', query))
  }


def episode_batches(
  tasks: Mapping[str, Source],
  *,
  tasks_per_step: int,
  support: int,
  query: int,
  image_size: tuple[int, int],
  seed: int,
  references: int = 1,
  interpolation: str = 'bilinear',
  support_fraction: float = 0.7,
  images_per_task: int | None = None,
  groups: Mapping[str, Sequence[int] | np.ndarray] | None = None,
  shard: tuple[int, int] = (0, 1),
  cache_bytes: int = GIBIBYTE,
  num_threads: int = 2,
) -> 'grain.DatasetIterator':
  """Endless episodes of one shape that resume exactly.

  Tasks come in rounds, each in another order, so that each is met equally often; where T does not
  divide their number, a step on the border of two rounds can hold a task twice, with other images.
  Each task's images are divided once into a support and a query pool (``task_pools``). A draw
  holds half good and half defective images (one more good where the number is odd), and no image
  twice where the pool has enough of the class.

  Every image is decoded once before the first step, so that a damaged one stops a run at its start;
  they stay in memory as far as ``cache_bytes`` reach.

  Args:
    tasks: the tasks by name.
    tasks_per_step: T, over all processes.
    support: S, images per task to adapt to.
    query: Q, images per task that score the adapted network.
    image_size: (h, w).
    seed: of pools and draws; the same seed gives the same episodes.
    references: R, pictures of good parts beside each image.
    interpolation: ``'bilinear'`` (antialiased) or ``'nearest'``.
    support_fraction: share of the support pool, as in ``task_pools``.
    images_per_task: as in ``task_pools``: 20 is the 20-shot protocol.
    groups: groups of the images of some tasks by name, as ``duplicates.find`` returns them; it is
      called for all others (one more pass over their images).
    shard: (rank, count) of this process. Each gets T / count tasks, and together they hold the
      episodes that one process would get.
    cache_bytes: how much memory decoded images may take.
    num_threads: threads that make batches ahead.

  Returns:
    A grain iterator over host batches, ``valid`` all True; ``get_state()`` and ``set_state()``
    continue it at the very next batch.

  Raises:
    ValueError: one sentence: an argument is not allowed, an image cannot be read, or a task has no
      good or no defective images, or too few.
  """
  rank, count = shard
  if not 0 <= rank < count:
    raise ValueError(f'shard must be (rank, count) with 0 <= rank < count, got {shard}.')
  if tasks_per_step < 1 or tasks_per_step % count:
    raise ValueError(
      f'tasks_per_step must be a positive multiple of {count}, got {tasks_per_step}.'
    )
  if tasks_per_step > len(tasks):
    raise ValueError(f'tasks_per_step is {tasks_per_step}, but there are {len(tasks)} tasks.')
  for name, value, least in (
    ('support', support, 2),
    ('query', query, 2),
    ('references', references, 1),
    ('seed', seed, 0),
    ('image_size', min(image_size), 1),
  ):
    if value < least:
      raise ValueError(f'{name} must be at least {least}, got {value}.')
  strangers = set(groups or ()) - set(tasks)
  if strangers:
    raise ValueError(f'groups names {min(strangers)!r}, which is none of the tasks.')
  pools = {
    name: task_pools(
      name,
      source,
      seed=seed,
      support_fraction=support_fraction,
      images_per_task=images_per_task,
      groups=None if groups is None else groups.get(name),
    )
    for name, source in tasks.items()
  }
  cache = ImageCache(image_size, interpolation, cache_bytes=cache_bytes)
  starts = np.cumsum([0, *(len(source) for source in tasks.values())])
  drawn = [
    _Task(name, source, pools[name], int(start), seed=seed, references=references, cache=cache)
    for (name, source), start in zip(tasks.items(), starts)
  ]
  for task in drawn:
    task.load()
  import grain  # only here: methods can be used where it is not installed

  def episodes(step: int) -> Batch:
    places = range(step * tasks_per_step + rank, (step + 1) * tasks_per_step, count)
    found = []
    for place in places:
      visit, turn = divmod(place, len(drawn))
      found.append(drawn[_round(seed, visit, len(drawn))[turn]].episode(visit, support, query))
    return jax.tree.map(lambda *rows: np.stack(rows), *found)

  options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads)
  return iter(grain.MapDataset.range(_STEPS).map(episodes).to_iter_dataset(options))


class _Task:
  """Draws the episodes of one task."""

  def __init__(
    self,
    name: str,
    source: Source,
    pools: Pools,
    start: int,
    *,
    seed: int,
    references: int,
    cache: ImageCache,
  ):
    self._name, self._source, self._start = name, source, start
    self._pools = {'support': np.asarray(pools.support), 'query': np.asarray(pools.query)}
    self._groups = np.asarray(pools.groups)
    # By name: another task more or less leaves the draws of this one as they are.
    self._seed = (seed, zlib.crc32(name.encode()))
    self._references = references
    self._cache = cache
    self._own = source.annotations.get('reference')
    self._good = np.asarray([i for i in pools.support if source.labels[i] != _DEFECT], int)
    if self._own is None and len(set(self._groups[self._good])) < 2:
      raise ValueError(
        f'The task {name!r} has less than 2 different good images to learn from, and an image '
        'cannot be its own reference.'
      )

  def load(self) -> None:
    """Decodes every image once; the first that cannot be read is an error."""

    def one(i: int) -> None:
      self._image(i)
      if self._own is not None:
        self._own_reference(i)

    each(one, np.concatenate(list(self._pools.values())).tolist())

  def episode(self, visit: int, support: int, query: int) -> dict[str, Batch]:
    """The episode of the round ``visit``: one support and one query batch, without a task axis."""
    dice = np.random.default_rng([*self._seed, visit])
    return {
      part: self._batch(dice, self._pools[part], number)
      for part, number in (('support', support), ('query', query))
    }

  def _batch(self, dice: np.random.Generator, pool: np.ndarray, number: int) -> Batch:
    labels = self._source.labels[pool]
    defects = number // 2
    images = dice.permutation(
      np.concatenate(
        [
          _without_replacement(dice, pool[labels != _DEFECT], number - defects),
          _without_replacement(dice, pool[labels == _DEFECT], defects),
        ]
      )
    )
    return {
      'image': np.stack([self._image(i) for i in images]),
      'label': self._source.labels[images],
      'valid': np.ones(number, bool),
      'index': (images + self._start).astype(np.int32),
      'reference': np.stack([self._reference(dice, i) for i in images]),
    }

  def _reference(self, dice: np.random.Generator, image: int) -> np.ndarray:
    """uint8 [R, h, w, 3]; never the image itself, nor a copy of it."""
    if self._own is not None:
      return np.repeat(self._own_reference(image)[None], self._references, axis=0)
    others = np.extract(self._groups[self._good] != self._groups[image], self._good)
    chosen = _without_replacement(dice, others, self._references)
    return np.stack([self._image(i) for i in chosen])

  def _image(self, i: int) -> np.ndarray:
    return self._cache.image((self._name, int(i)), lambda: self._source.read(int(i)))

  def _own_reference(self, i: int) -> np.ndarray:
    own = self._source.annotations['reference']
    return self._cache.image((self._name, int(i), 'reference'), lambda: own[int(i)])


def _without_replacement(dice: np.random.Generator, pool: np.ndarray, number: int) -> np.ndarray:
  """``number`` of the pool, none twice before all were drawn once."""
  turns = [dice.permutation(pool) for _ in range(-(-number // len(pool)))]
  return np.concatenate(turns)[:number] if turns else pool[:0]


@functools.lru_cache(maxsize=64)
def _round(seed: int, visit: int, number: int) -> np.ndarray:
  """The order of the tasks in a round."""
  return np.random.default_rng([seed, visit]).permutation(number)
