"""Splits for detection: counted in boxes, made of whole images, with one test part for all.

The test part is drawn first, then the validation part, then whatever trains. So with one seed and
one share for testing, the test images are the same whether all boxes train, or ten of each class,
or those of some classes alone. The order is that of ``splits``: ``sha256(seed, name)``, images of
one group never on two sides. Images without a box are stratified as a class of their own.

Shape legend: N images, K classes.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxdefect.data.drawing import Drawing, limit, require_positive, rounded
from jaxdefect.data.source import Source
from jaxdefect.data.split_record import PARTS, Split


def boxes_fraction(
  source: Source,
  *,
  train: float,
  seed: int,
  groups: Sequence[int] | np.ndarray | None = None,
  validation: float = 0.0,
  max_test: int | None = None,
  max_per_class: Mapping[str, int] | None = None,
) -> Split:
  """Trains on a share of the images; tests on ``1 - train - validation`` of them.

  Of the n_c images of label c, ``floor(test * n_c + 1/2)`` test, as many of whole groups as fit,
  then the same for validation; all others train.

  Args:
    source: the data set, with boxes.
    train: share for training, in (0, 1]; 1 leaves the test empty.
    seed: which images.
    groups: [N] group number of each image, as ``duplicates.find`` returns; None calls it.
    validation: share for validation.
    max_test: at most so many test images, labels in proportion; None keeps all.
    max_per_class: training images to keep of those whose label is a class, for an imbalanced
      split: ``{'scratches': 80}``; classes that are not named, and the other parts, stay whole.
      Images of other labels may hold boxes of the class still; the report counts them.

  Returns:
    The split. Its report has, for each part, ``images``, ``images_without_boxes``, and per class
    ``counts`` (images of that label), ``images_with`` (images that hold the class) and ``boxes``;
    ``unused`` counts the images that could train and do not.

  Raises:
    ValueError: the shares make no sense, or a class would have no box in a part.
  """
  test = _test_share(train, validation)
  drawing, table = Drawing(source, seed, groups), _table(source)
  parts = _shares(drawing, table, test=test, validation=validation)
  kept = dict(max_per_class or {})
  for name, number in kept.items():
    require_positive(f'max_per_class[{name!r}]', number)
    label = source.class_number(name)
    surplus = set([i for i in parts['train'] if source.labels[i] == label][number:])
    parts['train'] = [i for i in parts['train'] if i not in surplus]
  _require_boxes(source, table, parts, shares={'validation': validation, 'test': test})
  settings = {
    'train': train,
    'validation': validation,
    'max_test': max_test,
    'max_per_class': {name: int(number) for name, number in kept.items()},
  }
  return _split(drawing, table, 'boxes_fraction', settings, parts, max_test)


def boxes_few_shot(
  source: Source,
  *,
  boxes_per_class: int,
  seed: int,
  groups: Sequence[int] | np.ndarray | None = None,
  test: float = 0.2,
  validation: float = 0.0,
  max_test: int | None = None,
) -> Split:
  """Trains on whole images until every class has at least ``boxes_per_class`` boxes.

  Greedy: the class that has the fewest boxes so far (ties: the rarer one) takes the next image
  that holds it, and no image is taken once every class has enough. An image brings all its boxes,
  so a class can get more than was asked for; the report says how many. For one seed the images of
  10 boxes are among those of 30, and the other parts do not depend on the number at all.

  Args:
    source: the data set, with boxes. Classes that have no box anywhere are passed over.
    boxes_per_class: k, the least number of training boxes of each class.
    seed: which images.
    groups: as in ``boxes_fraction``; at most one image of a group trains.
    test: share of the images for testing.
    validation: share of the images for validation.
    max_test: as in ``boxes_fraction``.

  Returns:
    The split; the report is that of ``boxes_fraction``.

  Raises:
    ValueError: the shares make no sense, or a class has too few boxes.
  """
  require_positive('boxes_per_class', boxes_per_class)
  if not (0 <= test < 1 and 0 <= validation < 1 and test + validation < 1 - 1e-9):
    raise ValueError(
      f'test and validation must lie in [0, 1) and leave something to train on, '
      f'got {test} and {validation}.'
    )
  drawing, table = Drawing(source, seed, groups), _table(source)
  parts = _shares(drawing, table, test=test, validation=validation)
  present = np.flatnonzero(table.sum(axis=0))
  parts['train'] = _until_enough(
    drawing, table, parts['train'], present, boxes_per_class, setting='boxes_per_class'
  )
  _require_boxes(source, table, parts, shares={'validation': validation, 'test': test})
  settings = {
    'boxes_per_class': boxes_per_class,
    'test': test,
    'validation': validation,
    'max_test': max_test,
  }
  return _split(drawing, table, 'boxes_few_shot', settings, parts, max_test)


def boxes_unseen(
  source: Source,
  *,
  unseen: Sequence[str],
  shots: int,
  seed: int,
  groups: Sequence[int] | np.ndarray | None = None,
  train: float = 0.7,
  validation: float = 0.0,
  max_test: int | None = None,
) -> Split:
  """Trains without some classes, and keeps a few boxes of each of them as references.

  The parts are drawn as in ``boxes_fraction``. Then every image that holds a box of an unseen
  class, and every near-copy of one, leaves the training and validation parts: it would train the
  detector to call that class background. References are drawn from those images as
  ``boxes_few_shot`` draws. The test part is the common one and holds all classes.

  Args:
    source: the data set, with boxes.
    unseen: names of the classes that training must not see.
    shots: least number of reference boxes of each unseen class; for one seed the images of 5 are
      among those of 10.
    seed: which images.
    groups: as in ``boxes_fraction``; at most one image of a group is a reference.
    train: share for training, before the images with unseen classes leave it.
    validation: share for validation, likewise.
    max_test: as in ``boxes_fraction``.

  Returns:
    The split, with ``references``; the report is that of ``boxes_fraction``.

  Raises:
    ValueError: a class is unknown, none or all are unseen, the shares make no sense, a class that
      trains would have no box in a part, or an unseen one too few.
  """
  require_positive('shots', shots)
  test = _test_share(train, validation)
  unseen = [unseen] if isinstance(unseen, str) else unseen
  hidden = sorted({source.class_number(name) for name in unseen})
  table = _table(source)
  seen = [int(c) for c in np.flatnonzero(table.sum(axis=0)) if c not in hidden]
  if not hidden or not seen:
    raise ValueError(
      f'unseen must name some but not all of {", ".join(source.classes)}, '
      f'got {", ".join(unseen) or "none"}.'
    )
  drawing = Drawing(source, seed, groups)
  parts = _shares(drawing, table, test=test, validation=validation)
  holding = {i for i in range(len(source)) if table[i, hidden].any()}
  away = {drawing.groups[i] for i in holding}
  outside_test = set(parts['train']) | set(parts['validation'])
  pool = [i for i in drawing.order if i in holding and i in outside_test]
  for part in ('train', 'validation'):
    parts[part] = [i for i in parts[part] if drawing.groups[i] not in away]
  parts['references'] = _until_enough(drawing, table, pool, hidden, shots, setting='shots')
  _require_boxes(source, table, parts, shares={'validation': validation, 'test': test}, seen=seen)
  settings = {
    'unseen': [source.classes[c] for c in hidden],
    'shots': shots,
    'train': train,
    'validation': validation,
    'max_test': max_test,
  }
  return _split(drawing, table, 'boxes_unseen', settings, parts, max_test)


def _test_share(train: float, validation: float) -> float:
  if not (0 < train <= 1 and 0 <= validation < 1 and train + validation <= 1 + 1e-9):
    raise ValueError(
      f'train must lie in (0, 1] and validation in [0, 1 - train], got {train} and {validation}.'
    )
  test = 1 - train - validation
  return test if test > 1e-9 else 0.0


def _table(source: Source) -> np.ndarray:
  """Boxes of each class in each image, [N, K]."""
  if 'box_labels' not in source.annotations:
    raise ValueError(f'{source.name} has no boxes, which a split by boxes needs.')
  table = np.zeros((len(source), len(source.classes)), np.int32)
  for i, labels in enumerate(source.annotations['box_labels']):
    np.add.at(table[i], np.asarray(labels, int), 1)
  if not table.any():
    raise ValueError(f'{source.name} has no box in any of its {len(source)} images.')
  return table


def _shares(
  drawing: Drawing, table: np.ndarray, *, test: float, validation: float
) -> dict[str, list[int]]:
  """Test first and independent of the rest, then validation; the others train."""
  labels, classes = drawing.source.labels, table.shape[1]
  strata = np.where(table.any(axis=1), labels, classes)  # Without boxes: a stratum of its own.
  sizes = np.bincount(strata, minlength=classes + 1)
  room = {'test': rounded(test * sizes), 'validation': rounded(validation * sizes)}
  parts: dict[str, list[int]] = {'train': [], 'validation': [], 'test': []}
  for members in drawing.whole_groups():
    needed = np.bincount(strata[members], minlength=classes + 1)
    fits = [part for part in room if (needed <= room[part]).all()]
    if fits:
      room[fits[0]] -= needed
    parts[fits[0] if fits else 'train'] += members
  return parts


def _until_enough(
  drawing: Drawing,
  table: np.ndarray,
  pool: Sequence[int],
  classes: Iterable[int],
  number: int,
  *,
  setting: str,
) -> list[int]:
  """Images of ``pool`` in its order, until each of ``classes`` has ``number`` boxes.

  Which image comes next does not depend on ``number``, so a smaller one takes fewer of the same.
  """
  classes = list(classes)
  total = table[list(pool)].sum(axis=0)
  waiting = {c: iter([i for i in pool if table[i, c]]) for c in classes}
  have = np.zeros(table.shape[1], int)
  taken: list[int] = []
  while True:
    poorest = min(classes, key=lambda c: (have[c], total[c], c))
    if have[poorest] >= number:
      return taken
    image = next((i for i in waiting[poorest] if drawing.groups[i] not in drawing.used), None)
    if image is None:
      source = drawing.source
      raise ValueError(
        f'Class {source.classes[poorest]!r} of {source.name} has {have[poorest]} boxes in '
        f'different images outside the test and validation parts, but {setting} is {number}.'
      )
    drawing.used.add(drawing.groups[image])
    taken.append(image)
    have += table[image]


def _require_boxes(
  source: Source,
  table: np.ndarray,
  parts: Mapping[str, Sequence[int]],
  *,
  shares: Mapping[str, float],
  seen: Sequence[int] | None = None,
) -> None:
  """Every class that has boxes has some in every part that was asked for; the test all classes."""
  present = [int(c) for c in np.flatnonzero(table.sum(axis=0))]
  wanted = {'train': 1.0, **shares}
  for part, share in wanted.items():
    for c in (present if seen is None or part == 'test' else seen) if share else ():
      if not table[list(parts[part]), c].any():
        total = int(table[:, c].sum())
        images = int(table[:, c].astype(bool).sum())
        without = '' if seen is None or part == 'test' else ' without unseen classes'
        raise ValueError(
          f'Class {source.classes[c]!r} of {source.name} has {total} boxes in {images} images, '
          f'which leaves none for {part}{without}.'
        )


def _split(
  drawing: Drawing,
  table: np.ndarray,
  kind: str,
  settings: dict,
  parts: Mapping[str, Sequence[int]],
  max_test: int | None,
) -> Split:
  """The split with what each part holds counted."""
  source = drawing.source
  test = limit(source, parts['test'], max_test)
  split = drawing.split(
    kind, settings, parts['train'], parts['validation'], test, parts.get('references', ())
  )
  report = dict(split.report)
  inside = sum(len(getattr(split, part)) for part in PARTS)
  untested = len(parts['test']) - len(test)
  report['untested'] = untested
  report['unused'] = len(source) - inside - len(report['left_out']) - untested
  rows = {part: table[list(getattr(split, part))] for part in PARTS if getattr(split, part)}
  report['images'] = {part: len(of_part) for part, of_part in rows.items()}
  report['images_without_boxes'] = {
    part: int((~of_part.any(axis=1)).sum()) for part, of_part in rows.items()
  }
  for name, values in (('boxes', table), ('images_with', table.astype(bool))):
    report[name] = {
      part: dict(zip(source.classes, values[list(getattr(split, part))].sum(axis=0).tolist()))
      for part in rows
    }
  return dataclasses.replace(split, report=report)
