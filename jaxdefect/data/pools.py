"""The images of a task in two pools that share no picture: what is learned from, what scores it.

H. Zhang et al., PeerJ Computer Science 9 (2023) e1264: each task 'is divided into a support set and
a query set according to 7:3', and the 20-shot column of Table 2 trains on 20 images of each task.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdefect.data import duplicates, splits
from jaxdefect.data.drawing import Drawing
from jaxdefect.data.products import CLASSES
from jaxdefect.data.source import Source


class Pools(NamedTuple):
  """The two parts of a task, as places in its ``Source``.

  Attributes:
    support: images to learn from; references are good images of this pool.
    query: images to score with.
    groups: [N] group of each image of the source; no group is in both pools.
  """

  support: tuple[int, ...]
  query: tuple[int, ...]
  groups: tuple[int, ...]


def task_pools(
  task: str,
  source: Source,
  *,
  seed: int,
  support_fraction: float = 0.7,
  images_per_task: int | None = None,
  groups: Sequence[int] | np.ndarray | None = None,
) -> Pools:
  """Divides a task, class by class and group by group; ``splits.fraction`` in two parts.

  Args:
    task: what the task is called in error messages.
    source: its images, of the classes ``'good'`` and ``'defect'``.
    seed: which images.
    support_fraction: share of the support pool, in (0, 1).
    images_per_task: at first keeps only so many different images, half of them good (one more good
      than defective where the number is odd); None keeps all.
    groups: [N] group of each image, as ``duplicates.find`` returns; None calls it.

  Returns:
    The pools.

  Raises:
    ValueError: one sentence that names the task: its classes are others, or it has too few images
      for each class to be in both pools.
  """
  if source.classes != CLASSES:
    raise ValueError(
      f'The task {task!r} must have the classes {" and ".join(CLASSES)}, '
      f'but {source.name} has {", ".join(source.classes)}.'
    )
  if not 0 < support_fraction < 1:
    raise ValueError(f'support_fraction must lie in (0, 1), got {support_fraction}.')
  if images_per_task is not None and images_per_task < 2 * len(CLASSES):
    raise ValueError(f'images_per_task must be at least 4, got {images_per_task}.')
  for name, number in zip(CLASSES, source.counts()):
    if not number:
      raise ValueError(f'The task {task!r} has no {name} images.')
  groups = duplicates.find(source) if groups is None else groups
  drawing = Drawing(source, seed, groups)
  kept = list(range(len(source)))
  if images_per_task is not None:
    kept = []
    for name, number in zip(CLASSES, (-(-images_per_task // 2), images_per_task // 2)):
      different = drawing.different(name)
      if different < number:
        raise ValueError(
          f'The task {task!r} has {different} different {name} images, but images_per_task='
          f'{images_per_task} needs {number}.'
        )
      kept += drawing.take(name, number)
  try:
    split = splits.fraction(
      _part(source, kept),
      train=support_fraction,
      seed=seed,
      groups=[drawing.groups[i] for i in kept],
    )
  except ValueError as error:
    raise ValueError(f'The task {task!r} cannot be divided into two pools: {error}') from error
  support, query = (tuple(kept[place] for place in part) for part in (split.train, split.test))
  return Pools(support, query, tuple(drawing.groups))


def _part(source: Source, kept: Sequence[int]) -> Source:
  """The names and labels of some images; their pixels are not asked for."""
  return dataclasses.replace(
    source,
    names=tuple(source.names[i] for i in kept),
    labels=source.labels[list(kept)],
    groups=None,
    annotations={},
    notes=(),
  )
