"""Which images train, which choose, which test: repeatable, stratified, no copy on two sides.

Every split orders the images by ``sha256(seed, name)`` and takes from the front, class by class.
The order therefore depends on neither the file system nor a library's random numbers, and with
one seed the 10 images of a class are among its 20. Images of one group (near-copies, one lot)
never lie on two sides; what a group leaves over is in no part and is reported.
"""

from collections.abc import Sequence

import numpy as np

from jaxdefect.data.box_splits import boxes_few_shot, boxes_fraction, boxes_unseen
from jaxdefect.data.drawing import Drawing, limit, require_positive, rounded
from jaxdefect.data.good_parts import GOOD
from jaxdefect.data.source import Source
from jaxdefect.data.split_record import Split, read, write

__all__ = [
  'Split',
  'boxes_few_shot',
  'boxes_fraction',
  'boxes_unseen',
  'few_defects',
  'few_shot',
  'fraction',
  'good_only',
  'read',
  'unseen_classes',
  'write',
]


def few_shot(
  source: Source,
  *,
  per_class: int,
  seed: int,
  groups: Sequence[int] | np.ndarray | None = None,
  validation_per_class: int = 0,
  max_test: int | None = None,
) -> Split:
  """Trains on ``per_class`` images of every class and tests on the rest.

  At most one image of a group trains; the others of that group go nowhere.

  Args:
    source: the data set.
    per_class: k, training images per class.
    seed: which ones.
    groups: [N] group number of each image, as ``duplicates.find`` returns; None calls it (one
      pass over the images; hand the result over when you make several splits).
    validation_per_class: further images per class for validation, one per group too.
    max_test: at most so many test images, classes in proportion; None keeps all.

  Returns:
    The split.

  Raises:
    ValueError: a class has too few different images, at least one being needed for the test.
  """
  require_positive('per_class', per_class)
  drawing = Drawing(source, seed, groups)
  needed = per_class + validation_per_class + 1
  for name in source.classes:
    drawing.require(name, needed, f'{per_class} for training (per_class)', validation_per_class)
  train = [i for name in source.classes for i in drawing.take(name, per_class)]
  validation = [i for name in source.classes for i in drawing.take(name, validation_per_class)]
  test = limit(source, drawing.rest(source.classes), max_test)
  settings = {'per_class': per_class, 'validation_per_class': validation_per_class}
  return drawing.split('few_shot', settings | {'max_test': max_test}, train, validation, test)


def fraction(
  source: Source,
  *,
  train: float,
  seed: int,
  groups: Sequence[int] | np.ndarray | None = None,
  validation: float = 0.0,
  max_test: int | None = None,
) -> Split:
  """Trains on a share of every class and tests on the rest; groups stay whole.

  Class c of n_c images gets ``floor(train * n_c + 1/2)`` training images; where groups do not fit
  into that number, as many as fit.

  Args:
    source: the data set.
    train: share for training, in (0, 1]; 1 leaves the test empty.
    seed: which images.
    groups: as in ``few_shot``.
    validation: share for validation.
    max_test: as in ``few_shot``.

  Returns:
    The split.

  Raises:
    ValueError: the shares make no sense, or a class would be missing from a part.
  """
  if not (0 < train <= 1 and 0 <= validation < 1 and train + validation <= 1 + 1e-9):
    raise ValueError(
      f'train must lie in (0, 1] and validation in [0, 1 - train], got {train} and {validation}.'
    )
  drawing = Drawing(source, seed, groups)
  sizes = np.asarray(source.counts())
  room = {
    'train': rounded(train * sizes),
    'validation': rounded(validation * sizes),
  }
  parts: dict[str, list[int]] = {'train': [], 'validation': [], 'test': []}
  for members in drawing.whole_groups():
    needed = np.bincount(source.labels[members], minlength=len(sizes))
    fits = [part for part in room if (needed <= room[part]).all()]
    if fits:
      room[fits[0]] -= needed
    parts[fits[0] if fits else 'test'] += members
  wanted = {'train': True, 'validation': validation > 0, 'test': train + validation < 1 - 1e-9}
  for part, needed in wanted.items():
    for name, number in zip(source.classes, source.counts(parts[part])):
      if needed and not number:
        different = drawing.different(name)
        raise ValueError(
          f'Class {name!r} of {source.name} has {source.counts(classes=[name])[0]} images '
          f'({different} different), which leaves none for {part} at train={train:g}.'
        )
  test = limit(source, parts['test'], max_test)
  settings = {'train': train, 'validation': validation, 'max_test': max_test}
  return drawing.split('fraction', settings, parts['train'], parts['validation'], test)


def unseen_classes(
  source: Source,
  *,
  train_classes: Sequence[str],
  shots: int,
  seed: int,
  groups: Sequence[int] | np.ndarray | None = None,
  validation_per_class: int = 0,
  max_test: int | None = None,
) -> Split:
  """Trains on all images of some classes; the other classes give references and test images.

  Args:
    source: the data set.
    train_classes: names of the classes to train on.
    shots: reference images per other class; for one seed those of 1 are among those of 3.
    seed: which ones.
    groups: as in ``few_shot``.
    validation_per_class: images per training class that validate instead of training.
    max_test: as in ``few_shot``.

  Returns:
    The split, with ``references``; ``validation`` is of the training classes, ``references`` and
    ``test`` are of the others.

  Raises:
    ValueError: a class is unknown, all classes train, or a class has too few images.
  """
  require_positive('shots', shots)
  known = [source.classes[source.class_number(name)] for name in train_classes]
  others = [name for name in source.classes if name not in known]
  if not known or not others:
    raise ValueError(
      f'train_classes must name some but not all of {", ".join(source.classes)}, '
      f'got {", ".join(train_classes) or "none"}.'
    )
  drawing = Drawing(source, seed, groups)
  for name in known:
    drawing.require(name, validation_per_class + 1, '1 for training', validation_per_class)
  validation = [i for name in known for i in drawing.take(name, validation_per_class)]
  train = drawing.rest(known)
  drawing.used.update(drawing.groups[i] for i in train)
  for name in others:
    drawing.require(name, shots + 1, f'{shots} as references', 0)
  references = [i for name in others for i in drawing.take(name, shots)]
  test = limit(source, drawing.rest(others), max_test)
  settings = {
    'train_classes': list(known),
    'shots': shots,
    'validation_per_class': validation_per_class,
    'max_test': max_test,
  }
  return drawing.split('unseen_classes', settings, train, validation, test, references)


def good_only(
  source: Source,
  *,
  train: float,
  seed: int,
  groups: Sequence[int] | np.ndarray | None = None,
  validation: float = 0.0,
  max_test: int | None = None,
) -> Split:
  """Trains and validates on good images alone; the other good ones and all the rest test.

  Of n images of the class ``'good'``, ``floor(train * n + 1/2)`` train; where groups do not fit
  into that number, as many as fit. A good image in one group with an image of another class goes
  to the test part with it. Only where the other good images are fewer than the shares ask for
  (every board of DeepPCB has good and defective crops), such groups train and validate as well;
  what is not good in them is left out then, and reported.

  Args:
    source: the data set; one of its classes is ``'good'``.
    train: share of the good images for training, in (0, 1].
    seed: which images.
    groups: as in ``few_shot``.
    validation: share of the good images for validation, by which thresholds are set.
    max_test: as in ``few_shot``.

  Returns:
    The split.

  Raises:
    ValueError: the shares make no sense, there is no class ``'good'``, or a part would be empty.
  """
  if not (0 < train <= 1 and 0 <= validation < 1 and train + validation <= 1 + 1e-9):
    raise ValueError(
      f'train must lie in (0, 1] and validation in [0, 1 - train], got {train} and {validation}.'
    )
  good = source.class_number(GOOD)
  drawing = Drawing(source, seed, groups)
  number = source.counts(classes=[GOOD])[0]
  room = _room(number, train, validation)
  wanted = list(room.values())
  parts: dict[str, list[int]] = {'train': [], 'validation': [], 'test': []}
  pure, mixed = [], []
  for members in drawing.whole_groups():
    (pure if all(source.labels[i] == good for i in members) else mixed).append(members)
  if sum(map(len, pure)) >= sum(wanted):
    parts['test'] += [i for members in mixed for i in members]
    mixed = []
  for members in pure + mixed:
    chosen = [i for i in members if source.labels[i] == good]
    fits = [part for part in room if 0 < len(chosen) <= room[part]]
    if fits:
      room[fits[0]] -= len(chosen)
    parts[fits[0] if fits else 'test'] += chosen if fits else members
  for part, share in (('train', train), ('validation', validation), ('test', 1)):
    if share and not parts[part]:
      raise ValueError(
        f'{source.name} has {number} good images ({drawing.different(GOOD)} different), which '
        f'leaves none for {part} at train={train:g} and validation={validation:g}.'
      )
  test = limit(source, parts['test'], max_test)
  settings = {'train': train, 'validation': validation, 'max_test': max_test}
  return drawing.split('good_only', settings, parts['train'], parts['validation'], test)


def few_defects(
  source: Source,
  *,
  train: float,
  per_class: int,
  seed: int,
  groups: Sequence[int] | np.ndarray | None = None,
  validation: float = 0.0,
  max_test: int | None = None,
) -> Split:
  """Trains on a share of the good images and a few of every other class: what a factory has.

  Good images come as in ``good_only``, by whole groups in which all are good; of every other class
  ``per_class`` images train, one of a group. With one seed, good images are the same for every
  ``per_class``, and the 5 images of a class are among its 10. Validation is of good images.

  Args:
    source: the data set; one of its classes is ``'good'``.
    train: share of the good images for training, in (0, 1).
    per_class: training images of every other class.
    seed: which images.
    groups: as in ``few_shot``.
    validation: share of the good images for validation, by which thresholds are set.
    max_test: as in ``few_shot``.

  Returns:
    The split.

  Raises:
    ValueError: the shares make no sense, there is no class ``'good'``, or a class has too few
      different images for its part and one for the test.
  """
  require_positive('per_class', per_class)
  if not (0 < train < 1 and 0 <= validation < 1 and train + validation < 1):
    raise ValueError(
      f'train must lie in (0, 1) and validation in [0, 1 - train), got {train} and {validation}.'
    )
  drawing = Drawing(source, seed, groups)
  good = source.class_number(GOOD)
  number = source.counts(classes=[GOOD])[0]
  room = _room(number, train, validation)
  parts: dict[str, list[int]] = {'train': [], 'validation': []}
  for members in drawing.whole_groups():
    fits = [part for part in room if len(members) <= room[part]]
    if fits and all(source.labels[i] == good for i in members):
      room[fits[0]] -= len(members)
      parts[fits[0]] += members
      drawing.used.add(drawing.groups[members[0]])
  for part, share in (('train', train), ('validation', validation), ('test', 1)):
    if share and not parts.get(part, drawing.rest([GOOD])):
      raise ValueError(
        f'{source.name} has {number} good images, which leaves none for {part} at train={train:g} '
        f'and validation={validation:g}.'
      )
  others = [name for name in source.classes if name != GOOD]
  for name in others:
    drawing.require(name, per_class + 1, f'{per_class} for training (per_class)', 0)
  parts['train'] += [i for name in others for i in drawing.take(name, per_class)]
  test = limit(source, drawing.rest(source.classes), max_test)
  settings = {'train': train, 'per_class': per_class, 'validation': validation}
  settings['max_test'] = max_test
  return drawing.split('few_defects', settings, parts['train'], parts['validation'], test)


def _room(number: int, train: float, validation: float) -> dict[str, int]:
  """How many of so many good images each part has room for."""
  wanted = rounded(np.array([train, validation]) * number).tolist()
  return dict(zip(('train', 'validation'), wanted))
