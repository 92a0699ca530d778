"""A data set that a TFDS builder has written, without TensorFlow."""

import io
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets
from PIL import Image

from jaxdefect.data import decode
from jaxdefect.data.source import LazyColumn, Source

# Annotations that are kept as features of their own, one word or one number for each image.
TEXTS = ('kind', 'official', 'cell')
NUMBERS = ('probability',)
_COLUMNS = {'label', 'name', 'group', 'objects', 'multi_hot', *TEXTS, *NUMBERS}


def make(*, name: str, dir: str | os.PathLike[str], split: str = 'train') -> Source:
  """Opens a built TFDS data set of images and labels.

  Reads what ``tfds_builders`` write, and any array_record data set with the features ``image``
  and ``label``; ``name``, ``group``, ``objects``, ``multi_hot``, ``mask``, ``kind``, ``official``,
  ``cell`` and ``probability`` are taken where they are.

  Args:
    name: the data set's name, for example ``'neu'``, with its config where it has several,
      ``'mvtec/bottle'``; it names the source too.
    dir: the TFDS ``data_dir``.
    split: a TFDS split, slices included (``'train[:50%]'``).

  Returns:
    The images; boxes in absolute pixels.

  Raises:
    FileNotFoundError: there is no such built data set.
    ValueError: it is no set of images with labels, has no such split, or has several configs.
  """
  root = pathlib.Path(dir)
  versions = sorted(root.glob(f'{name}/**/dataset_info.json'))
  if not versions:
    raise FileNotFoundError(f'The folder {root} holds no built TFDS data set {name!r}.')
  configs = sorted({one.parent.parent.relative_to(root).as_posix() for one in versions})
  if len(configs) > 1:
    raise ValueError(f'The TFDS data set {name!r} has several configs: {", ".join(configs)}.')
  name = configs[0]
  builder: Any = tensorflow_datasets.builder_from_directory(versions[-1].parent)
  features: Any = builder.info.features
  if features is None or not {'image', 'label'} <= set(features):
    raise ValueError(f'The TFDS data set {name!r} in {root} has no image and label.')
  try:
    # We decode the pictures ourselves: TFDS needs OpenCV for it, and turns gray into colour.
    undecoded = {
      key: tensorflow_datasets.decode.SkipDecoding() for key in ('image', 'mask') if key in features
    }
    rows: Any = builder.as_data_source(split=split, decoders=undecoded)
  except (ValueError, NotImplementedError) as error:
    reason = ' '.join(str(error).split()).rstrip('.')
    raise ValueError(f'The TFDS data set {name!r} cannot give {split!r}: {reason}.') from error
  rows = _ByName(rows) if 'name' in features else rows
  columns: dict[str, list[Any]] = {key: [] for key in _COLUMNS & set(features)}
  with_boxes = 'objects' in columns and {'box', 'label'} <= set(features['objects'].keys())
  shapes = []
  for i in range(len(rows)):
    row = rows[i]
    for key in columns:
      columns[key].append(row[key])
    if with_boxes:
      with Image.open(io.BytesIO(row['image'])) as picture:
        shapes.append((picture.height, picture.width))

  def read(i: int, *, key: str = 'image') -> np.ndarray:
    try:
      return decode.decode(rows[i][key])
    except ValueError as error:
      raise ValueError(
        f'{key.capitalize()} {i} of {name} in {root} cannot be read: {error}.'
      ) from error

  def texts(key: str) -> tuple[str, ...] | None:
    if key not in columns:
      return None
    return tuple(one.decode() if isinstance(one, bytes) else str(one) for one in columns[key])

  annotations: dict[str, Sequence[Any]] = {}
  if with_boxes:
    found = columns['objects']
    annotations['boxes'] = [_absolute(one['box'], shape) for one, shape in zip(found, shapes)]
    annotations['box_labels'] = [np.asarray(one['label'], np.int32) for one in found]
  if 'multi_hot' in columns:
    annotations['multi_hot'] = [np.asarray(one, np.uint8) for one in columns['multi_hot']]
  if 'mask' in features:
    annotations['mask'] = LazyColumn(len(rows), lambda i: read(i, key='mask')[..., 0])
  annotations |= {key: found for key in TEXTS if (found := texts(key)) is not None}
  annotations |= {key: columns[key] for key in NUMBERS if key in columns}
  return Source(
    name=name,
    classes=tuple(features['label'].names),
    names=texts('name') or tuple(f'{i:06d}' for i in range(len(rows))),
    labels=np.asarray(columns['label'], np.int32),
    read=read,
    groups=texts('group'),
    annotations=annotations,
  )


class _ByName:
  """The rows in the order of their names: TFDS shuffles them when it writes."""

  def __init__(self, rows: Any):
    self._rows = rows
    self._order = sorted(range(len(rows)), key=lambda i: rows[i]['name'])

  def __len__(self) -> int:
    return len(self._order)

  def __getitem__(self, i: int) -> Any:
    return self._rows[self._order[i]]


def _absolute(boxes: Any, shape: tuple[int, int]) -> np.ndarray:
  """ymin, xmin, ymax, xmax in 0..1 -> x0, y0, x1, y1 in pixels, [n, 4]."""
  height, width = shape
  y0, x0, y1, x1 = np.asarray(boxes, np.float32).reshape(-1, 4).T
  return np.stack([x0 * width, y0 * height, x1 * width, y1 * height], axis=1).astype(np.float32)
