"""What a data set looks like to everything else: random access to labelled images.

Shape legend: N images, K classes, H x W native pixels, C channels (1 or 3).
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

_SHOWN = 5


class Note(NamedTuple):
  """One kind of thing that was found when a data set was opened, and every place of it.

  Attributes:
    what: the kind, for example ``'images without any box, kept as negatives'``.
    where: the places, by file and number.

  >>> print(Note('images without any box', ('a.jpg', 'b.jpg')))
  images without any box: 2 (a.jpg, b.jpg)
  """

  what: str
  where: tuple[str, ...]

  def __str__(self) -> str:
    more = len(self.where) - _SHOWN
    shown = ', '.join(self.where[:_SHOWN]) + (f', and {more} more' if more > 0 else '')
    return f'{self.what}: {len(self.where)} ({shown})'


@dataclass(frozen=True)
class LazyColumn(Sequence):
  """One annotation of all images, made when it is asked for.

  Attributes:
    size: N.
    read: ``i -> annotation`` of image i; may be called from several threads.
  """

  size: int
  read: Callable[[int], Any]

  def __len__(self) -> int:
    return self.size

  def __getitem__(self, i):
    if isinstance(i, slice):
      return [self.read(k) for k in range(self.size)[i]]
    return self.read(range(self.size)[i])


@dataclass(frozen=True, eq=False)
class Source:
  """Random access to the labelled images of one data set; decoding is lazy.

  Attributes:
    name: what the data set is called in splits and reports.
    classes: [K] class names; ``labels`` counts in them.
    names: [N] a stable, unique id per image (its relative path, the number of its map).
    labels: [N] int32, the class of each image; where the boxes decide it, the class of most of
      them (ties: the lowest number), and 0 for an image without a box.
    read: ``i -> uint8 [H, W, C]``, native size; may be called from several threads; raises a
      ``ValueError`` that names the file when it cannot be decoded.
    groups: [N] lot, session or known duplicate of each image, or None. Images with the same
      non-empty group stay on one side of every split; ``''`` is an image on its own.
    annotations: optional columns of N entries each: ``'boxes'`` ([n, 4] float32, xyxy, absolute
      pixels from the upper left corner of the image), ``'box_labels'`` ([n] int32, counting in
      ``classes``), ``'multi_hot'`` ([8] uint8), ``'reference'`` (uint8 [H, W, C], the picture of
      the same part without a defect, read when it is asked for), ``'mask'`` ([H, W], not zero
      where the part is defective), ``'kind'`` (name of the defect, ``''`` for a good
      part), ...
    notes: what was found, repaired or left out when the data set was opened.
  """

  name: str
  classes: tuple[str, ...]
  names: tuple[str, ...]
  labels: np.ndarray
  read: Callable[[int], np.ndarray]
  groups: tuple[str, ...] | None = None
  annotations: Mapping[str, Sequence[Any]] = field(default_factory=dict)
  notes: tuple[Note, ...] = ()

  def __post_init__(self):
    labels = np.ascontiguousarray(self.labels, np.int32)
    labels.setflags(write=False)
    object.__setattr__(self, 'labels', labels)
    columns = {'labels': labels, **self.annotations}
    if self.groups is not None:
      columns['groups'] = self.groups
    for column, values in columns.items():
      if len(values) != len(self.names):
        raise ValueError(
          f'{self.name}: {column} has {len(values)} entries for {len(self.names)} images.'
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < len(self.classes):
      raise ValueError(
        f'{self.name}: labels must lie in 0..{len(self.classes) - 1}, '
        f'got {labels.min()}..{labels.max()}.'
      )
    for what, values in (('image', self.names), ('class', self.classes)):
      name, times = Counter(values).most_common(1)[0] if values else ('', 1)
      if times > 1:
        raise ValueError(f'{self.name}: the {what} name {name!r} occurs {times} times.')

  def __len__(self) -> int:
    return len(self.names)

  def counts(
    self, indices: Iterable[int] | None = None, *, classes: Sequence[str] | None = None
  ) -> tuple[int, ...]:
    """Images per class, of all or of ``indices``, in the order of ``classes`` (default: all)."""
    labels = self.labels if indices is None else self.labels[np.asarray(list(indices), int)]
    numbers = np.bincount(labels, minlength=len(self.classes))
    places = [self.class_number(name) for name in (self.classes if classes is None else classes)]
    return tuple(int(numbers[place]) for place in places)

  def box_counts(
    self, indices: Iterable[int] | None = None, *, classes: Sequence[str] | None = None
  ) -> tuple[int, ...]:
    """Boxes per class, in all images or in ``indices``, in the order of ``classes`` (all)."""
    if 'box_labels' not in self.annotations:
      raise ValueError(f'{self.name} has no boxes, only a class for each image.')
    numbers = np.zeros(len(self.classes), int)
    for i in range(len(self)) if indices is None else indices:
      labels = np.asarray(self.annotations['box_labels'][int(i)], int)
      numbers += np.bincount(labels, minlength=len(self.classes))
    places = [self.class_number(name) for name in (self.classes if classes is None else classes)]
    return tuple(int(numbers[place]) for place in places)

  def subset(self, places: Sequence[int]) -> 'Source':
    """The images at ``places`` alone, in that order, with their groups and annotations."""
    kept = [int(i) for i in places]

    def taken(values: Sequence[Any]) -> LazyColumn:
      return LazyColumn(len(kept), lambda k: values[kept[k]])

    return dataclasses.replace(
      self,
      names=tuple(self.names[i] for i in kept),
      labels=self.labels[kept],
      read=lambda k: self.read(kept[k]),
      groups=None if self.groups is None else tuple(self.groups[i] for i in kept),
      annotations={name: taken(values) for name, values in self.annotations.items()},
    )

  def class_number(self, name: str) -> int:
    """The label of class ``name``; a plain sentence when there is no such class."""
    if name not in self.classes:
      raise ValueError(
        f'{self.name} has no class {name!r}; its classes are {", ".join(self.classes)}.'
      )
    return self.classes.index(name)
