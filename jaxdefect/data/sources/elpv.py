"""ELPV: 2624 solar cells, electroluminescence, each with the probability that it is defective.

S. Deitsch et al., Solar Energy 185 (2019) 455-468; C. Buerhop-Lutz et al., EU PVSEC 2018. Experts
graded each cell: 0 (functional), 1/3 (functional, not sure), 2/3 (defective, not sure), 1.
"""

import dataclasses
import os
import pathlib

import numpy as np

from jaxdefect.data import products
from jaxdefect.data.source import Source

LABELS = 'labels.csv'
CELLS = ('mono', 'poly')
# By thirds of the probability.
GRADES = ('good', 'possibly good', 'possibly defective', 'defect')


def make(
  *,
  dir: str | os.PathLike[str],
  cells: str | None = None,
  threshold: float = 0.5,
  grades: bool = False,
) -> Source:
  """Opens ``dir/labels.csv`` and the images that it names.

  Each line holds a path below ``dir``, the probability, and the kind of cell, with blanks between.

  Args:
    dir: the folder of ``labels.csv``.
    cells: ``'mono'`` or ``'poly'`` for cells of mono- or polycrystalline silicon alone, which are
      two products; None takes both.
    threshold: a cell counts as defective from this probability on, in (0, 1].
    grades: whether the classes are the experts' four grades, for the probabilities 0, 1/3, 2/3 and
      1, instead of two; ``threshold`` means nothing then.

  Returns:
    The images with the annotations ``probability`` (float32), ``cell`` (``'mono'`` or
    ``'poly'``) and ``kind`` (``'defect'`` or ``''``: the types are not labelled; with ``grades``
    the grade of what is not good).

  Raises:
    FileNotFoundError: the list, or an image that it names, is missing.
    ValueError: a line is malformed, or an argument is not allowed.
  """
  if cells is not None and cells not in CELLS:
    raise ValueError(f'cells must be one of {", ".join(CELLS)}, or None for both, got {cells!r}.')
  if not 0 < threshold <= 1:
    raise ValueError(f'threshold must lie in (0, 1], got {threshold}.')
  root = pathlib.Path(dir)
  path = root / LABELS
  if not path.is_file():
    raise FileNotFoundError(f'The list {path}, which ELPV has, does not exist.')
  rows = []
  for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1):
    parts = line.split()
    if not parts:
      continue
    try:
      name, probability, cell = parts[0], float(parts[1]), parts[2]
    except (IndexError, ValueError):
      raise ValueError(
        f'Line {number} of {path} is not a file, a probability and a kind of cell: {line!r}.'
      ) from None
    if not 0 <= probability <= 1 or cell not in CELLS:
      raise ValueError(
        f'Line {number} of {path} must have a probability in 0..1 and mono or poly, '
        f'got {parts[1]} and {cell}.'
      )
    if cells is None or cell == cells:
      rows.append((root / name, probability, cell))
  missing = [one for one, *_ in rows if not one.is_file()]
  if missing:
    raise FileNotFoundError(
      f'The image {missing[0]} of {path} does not exist ({len(missing)} such in all).'
    )
  rows.sort(key=lambda row: row[0].as_posix())
  # Thirds are written with many digits, but not with all.
  grade = [round(3 * p) for _, p, _ in rows]
  if grades:
    kinds = [GRADES[g] if g else '' for g in grade]
  else:
    kinds = ['defect' if p >= threshold - 1e-6 else '' for _, p, _ in rows]
  source = products.to_source(
    f'elpv_{cells}' if cells else 'elpv',
    root,
    [products.Picture(one, kind) for (one, *_), kind in zip(rows, kinds)],
    columns={
      'probability': tuple(np.float32(p) for _, p, _ in rows),
      'cell': tuple(cell for *_, cell in rows),
    },
  )
  if not grades:
    return source
  return dataclasses.replace(source, classes=GRADES, labels=np.asarray(grade, np.int32))
