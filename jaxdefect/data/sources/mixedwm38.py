"""MixedWM38: wafer maps of 52 x 52 dies, 8 basic defects in 38 combinations.

J. Wang et al., 'Deformable convolutional networks for efficient mixed-type wafer defect pattern
recognition', IEEE Transactions on Semiconductor Manufacturing 33(4) (2020).
"""

import os
import pathlib
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from jaxdefect.data.source import Source

# Columns of arr_1: Center, Donut, Edge-Loc, Edge-Ring, Loc, Near-full, Scratch, Random.
BASIC = ('C', 'D', 'EL', 'ER', 'L', 'NF', 'S', 'R')

# The order of Table V of Phuong et al. 2024; parts of a name in the order of BASIC.
CLASSES = (
  *('Normal', 'C', 'D', 'EL', 'ER', 'L', 'NF', 'S', 'R'),
  *('C+EL', 'C+ER', 'C+L', 'C+S', 'D+EL', 'D+ER', 'D+L', 'D+S'),
  *('EL+L', 'EL+S', 'ER+L', 'ER+S', 'L+S'),
  *('C+EL+L', 'C+EL+S', 'C+ER+L', 'C+ER+S', 'C+L+S', 'D+EL+L', 'D+EL+S', 'D+ER+L', 'D+ER+S'),
  *('D+L+S', 'EL+L+S', 'ER+L+S'),
  *('C+EL+L+S', 'C+ER+L+S', 'D+EL+L+S', 'D+ER+L+S'),
)

# Gray level of a cell: no die, good die, failed die; the few official cells of 3 count as failed.
LEVELS = np.asarray([0, 127, 255, 255], np.uint8)


def make(*, dir: str | os.PathLike[str]) -> Source:
  """Opens the official npz: ``arr_0`` [N, 52, 52] of 0..3 and ``arr_1`` [N, 8] of 0 and 1.

  Args:
    dir: the npz file, or a folder that holds just one.

  Returns:
    The maps as gray images [52, 52, 1] with the levels 0, 127, 255, named by their number in the
    file, with the annotation ``multi_hot`` ([8] uint8, columns ``BASIC``). Enlarging them is up
    to batching, where ``interpolation='nearest'`` keeps the levels.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: its arrays are not those of MixedWM38.
  """
  path = _find(dir)
  try:
    with np.load(path, allow_pickle=False) as file:
      if not {'arr_0', 'arr_1'} <= set(file):
        raise ValueError(f'it has {", ".join(sorted(file)) or "no arrays"}, not arr_0 and arr_1')
      maps, marks = file['arr_0'], file['arr_1']
    _check(maps, marks)
    labels = _pattern_labels(marks)
  except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
    reason = ' '.join(str(error).split()).rstrip('.')
    raise ValueError(f'The file {path} is no MixedWM38 file: {reason}.') from error
  maps = maps.astype(np.uint8)
  return Source(
    name='mixedwm38',
    classes=CLASSES,
    names=tuple(f'{number:05d}' for number in range(len(maps))),
    labels=labels,
    read=lambda i: LEVELS[maps[i]][..., None],  # [52, 52, 1]
    annotations={'multi_hot': marks.astype(np.uint8)},
  )


def _find(dir: str | os.PathLike[str]) -> pathlib.Path:
  path = pathlib.Path(dir)
  if not path.exists():
    raise FileNotFoundError(f'The file {path} does not exist.')
  if path.is_file():
    return path
  found = sorted(one for one in path.glob('*.npz') if not one.name.startswith('.'))
  if not found:
    raise FileNotFoundError(f'The folder {path} holds no npz file.')
  if len(found) > 1:
    raise ValueError(f'The folder {path} holds {len(found)} npz files; name the one to open.')
  return found[0]


def _check(maps: np.ndarray, marks: np.ndarray) -> None:
  kinds = (maps.dtype.kind, marks.dtype.kind)
  if maps.ndim != 3 or maps.shape[1:] != (52, 52) or marks.shape != (len(maps), len(BASIC)):
    raise ValueError(
      f'arr_0 and arr_1 must be [N, 52, 52] and [N, 8], '
      f'but are {list(maps.shape)} and {list(marks.shape)}'
    )
  if not all(kind in 'iu' for kind in kinds):
    raise ValueError(f'its arrays must hold integers, but hold {maps.dtype} and {marks.dtype}')
  if not len(maps):
    raise ValueError('it holds no maps')
  if maps.min() < 0 or maps.max() > 3:
    raise ValueError(f'arr_0 must hold 0..3, but holds {maps.min()}..{maps.max()}')
  if marks.min() < 0 or marks.max() > 1:
    raise ValueError(f'arr_1 must hold 0 and 1, but holds {marks.min()}..{marks.max()}')


def _pattern_labels(marks: np.ndarray) -> np.ndarray:
  number = {name: label for label, name in enumerate(CLASSES)}
  labels = np.empty(len(marks), np.int32)
  for i, row in enumerate(marks):
    name = pattern(row)
    if name not in number:
      raise ValueError(f'map {i} is marked {name}, which is none of the 38 patterns')
    labels[i] = number[name]
  return labels


def pattern(row: Sequence[int] | np.ndarray) -> str:
  """The name of a row of marks.

  >>> pattern([1, 0, 1, 0, 0, 0, 1, 0])
  'C+EL+S'
  >>> pattern([0] * 8)
  'Normal'
  """
  return '+'.join(name for name, mark in zip(BASIC, row) if mark) or 'Normal'
