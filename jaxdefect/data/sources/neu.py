"""NEU-DET: hot-rolled steel strip, 6 defect types, 1800 images of 200 x 200 with boxes.

K. Song, Y. Yan, Applied Surface Science 285 (2013) 858-864; boxes: Y. He et al., IEEE Transactions
on Instrumentation and Measurement 69(4) (2020) 1493-1504.

An image's class for recognition is its file name; a box has its own class, and 188 of the 4189
boxes name another one than their image's.
"""

import os
import pathlib

import numpy as np

from jaxdefect.data import annotations, decode
from jaxdefect.data.source import Source
from jaxdefect.data.sources import folder

CLASSES = (
  'crazing',
  'inclusion',
  'patches',
  'pitted_surface',
  'rolled-in_scale',
  'scratches',
)


def make(*, dir: str | os.PathLike[str]) -> Source:
  """Opens ``dir/IMAGES/<class>_<n>.jpg`` and ``dir/ANNOTATIONS/<class>_<n>.xml``.

  The two folders may be written in any case (``images``, ``Annotations``). The pictures are gray
  stored as three equal channels, and are given as they are stored.

  Args:
    dir: the folder that holds the two.

  Returns:
    The images, with the annotations ``boxes`` (see ``annotations`` for the coordinates) and
    ``box_labels``.

  Raises:
    FileNotFoundError: a folder is missing.
    ValueError: an image has no XML, an XML names no image, or a class is none of the six.
  """
  images_dir, xml_dir = _sub_folder(dir, 'images'), _sub_folder(dir, 'annotations')
  paths = folder.images_in(images_dir)
  by_image = _read_annotations(xml_dir, {path.stem for path in paths})
  labels, boxes, box_labels = [], [], []
  for path in paths:
    kind = path.stem.rpartition('_')[0]
    if kind not in CLASSES:
      raise ValueError(f'The image {path} is not named <class>_<number> after a class of NEU-DET.')
    if path.stem not in by_image:
      raise ValueError(f'The image {path} has no annotation {path.stem}.xml in {xml_dir}.')
    voc = by_image[path.stem]
    labels.append(CLASSES.index(kind))
    boxes.append(voc.boxes)
    box_labels.append(np.asarray([CLASSES.index(one) for one in voc.names], np.int32))
  return Source(
    name='neu',
    classes=CLASSES,
    names=tuple(path.relative_to(images_dir).as_posix() for path in paths),
    labels=np.asarray(labels, np.int32),
    read=lambda i: decode.read_image(paths[i]),
    annotations={'boxes': boxes, 'box_labels': box_labels},
  )


def _sub_folder(dir: str | os.PathLike[str], name: str) -> pathlib.Path:
  root = pathlib.Path(dir)
  if not root.is_dir():
    raise FileNotFoundError(f'The folder {root} does not exist.')
  found = sorted(one for one in root.iterdir() if one.is_dir() and one.name.lower() == name)
  if not found:
    raise FileNotFoundError(f'The folder {root} has no folder {name.upper()}, which NEU-DET has.')
  return found[0]


def _read_annotations(
  xml_dir: pathlib.Path, stems: set[str]
) -> dict[str, annotations.VocAnnotation]:
  by_image = {}
  for path in sorted(xml_dir.glob('*.xml')):
    if path.name.startswith('.'):
      continue
    voc = annotations.read_voc(path)
    # 174 of the official files name their image without the ending.
    stem = voc.filename if voc.filename in stems else pathlib.PurePath(voc.filename).stem
    if stem not in stems:
      raise ValueError(f'The annotation {path} names the image {voc.filename!r}, which is missing.')
    if stem in by_image:
      raise ValueError(f'The annotation {path} is the second one for the image {voc.filename!r}.')
    strange = set(voc.names) - set(CLASSES)
    if strange:
      raise ValueError(
        f'The annotation {path} has a box of class {min(strange)!r}, which NEU-DET has not.'
      )
    by_image[stem] = voc
  return by_image
