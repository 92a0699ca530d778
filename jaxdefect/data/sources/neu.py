"""NEU-DET: hot-rolled steel strip, 6 defect types, 1800 images of 200 x 200 with boxes.

K. Song, Y. Yan, Applied Surface Science 285 (2013) 858-864; boxes: Y. He et al., IEEE Transactions
on Instrumentation and Measurement 69(4) (2020) 1493-1504.

An image's class for recognition is its file name; a box has its own class, and 188 of the 4189
boxes name another one than their image's. For detection, where the boxes decide, see ``neu_det``.
"""

import os
import pathlib

from jaxdefect.data import annotations
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
    ValueError: an image has no XML, an XML names no image, a class is none of the six, or a box
      or a size does not fit its image.
  """
  findings = annotations.Findings(f'NEU-DET in {dir}')
  annotated = read(dir)
  labels = [file_class(one) for one in annotated]
  return annotations.to_source('neu', CLASSES, annotated, findings, labels=labels)


def read(dir: str | os.PathLike[str]) -> list[annotations.Annotated]:
  """All images of the official layout with their boxes, in sorted order; raises as ``make``."""
  images_dir, xml_dir = _sub_folder(dir, 'images'), _sub_folder(dir, 'annotations')
  paths = folder.images_in(images_dir)
  by_image = _read_annotations(xml_dir, {path.stem for path in paths})
  found = []
  for path in paths:
    if path.stem not in by_image:
      raise ValueError(f'The image {path} has no annotation {path.stem}.xml in {xml_dir}.')
    xml, voc = by_image[path.stem]
    one = annotations.Annotated(
      name=path.relative_to(images_dir).as_posix(),
      path=path,
      size=voc.size,
      boxes=voc.boxes,
      labels=[CLASSES.index(name) for name in voc.names],
      places=[f'{xml.name} box {k}' for k in range(1, len(voc.names) + 1)],
    )
    file_class(one)
    found.append(one)
  return found


def file_class(one: annotations.Annotated) -> int:
  """The class that the file's name has."""
  kind = one.path.stem.rpartition('_')[0]
  if kind not in CLASSES:
    raise ValueError(
      f'The image {one.path} is not named <class>_<number> after a class of NEU-DET.'
    )
  return CLASSES.index(kind)


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
) -> dict[str, tuple[pathlib.Path, annotations.VocAnnotation]]:
  by_image = {}
  for path in sorted(xml_dir.glob('*.xml')):
    if path.name.startswith('.'):
      continue
    voc = annotations.read_voc(path, check=False)
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
    by_image[stem] = (path, voc)
  return by_image
