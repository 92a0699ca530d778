"""Data sets, their splits and batches.

``sources.load(name, dir=...)`` opens a data set, ``splits`` divides it, ``train_batches`` and
``eval_batches`` turn a part of it into host batches.
"""

from jaxdefect.data.batching import eval_batches, train_batches, verify
from jaxdefect.data.source import Source
from jaxdefect.data.sources import load, names
from jaxdefect.data.sources.folder import images_in, unlabelled

__all__ = [
  'Source',
  'eval_batches',
  'images_in',
  'load',
  'names',
  'train_batches',
  'unlabelled',
  'verify',
]
