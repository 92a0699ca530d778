"""Data sets, their splits and batches.

``sources.load(name, dir=...)`` opens a data set, ``splits`` divides it, ``train_batches`` and
``eval_batches`` turn a part of it into host batches, ``episode_batches`` several data sets into
episodes.
"""

from jaxdefect.data.batching import batch_spec, eval_batches, train_batches, unreadable, verify
from jaxdefect.data.box_columns import BoxCounts, count_boxes
from jaxdefect.data.episodes import episode_batches, episode_spec
from jaxdefect.data.pools import Pools, task_pools
from jaxdefect.data.source import Note, Source
from jaxdefect.data.sources import load, names
from jaxdefect.data.sources.folder import images_in, unlabelled

__all__ = [
  'BoxCounts',
  'Note',
  'Pools',
  'Source',
  'batch_spec',
  'count_boxes',
  'episode_batches',
  'episode_spec',
  'eval_batches',
  'images_in',
  'load',
  'names',
  'task_pools',
  'train_batches',
  'unlabelled',
  'unreadable',
  'verify',
]
