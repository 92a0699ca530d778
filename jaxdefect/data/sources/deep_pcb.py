"""DeepPCB: circuit boards, 640 x 640, with six defect types and a template of every image.

S. Tang et al., 'Online PCB Defect Detector on a New PCB Defect Dataset', arXiv:1902.06197. Most
defects were painted in by the set's authors.
"""

import os
import pathlib

import numpy as np

from jaxdefect.data import annotations, decode
from jaxdefect.data.source import LazyColumn, Source
from jaxdefect.data.sources import folder

# In the order of the set's types 1..6.
CLASSES = ('open', 'short', 'mousebite', 'spur', 'spurious_copper', 'pin-hole')
SIZE = (640, 640)
LISTS = ('trainval', 'test')


def make(*, dir: str | os.PathLike[str], bad_boxes: str = 'error') -> Source:
  """Opens the official ``PCBData``: pairs of images, ``trainval.txt`` and ``test.txt``.

  ``PCBData/group<g>/<g>/<id>_test.jpg`` is the image, ``<id>_temp.jpg`` beside it the template, a
  board of the same layout without a defect; ``PCBData/group<g>/<g>_not/<id>.txt`` has a line
  ``x0 y0 x1 y1 type`` (blanks or commas) for each box. The two lists name ``<id>.jpg`` and its text
  file. Where the lists are cut to some of the groups, the others need not be there.

  Args:
    dir: the folder ``PCBData``, or the one that holds it.
    bad_boxes: ``'error'`` or ``'repair'``; see ``annotations.fit_boxes``.

  Returns:
    The images by name, with the annotations ``boxes``, ``box_labels``, ``reference`` (the template,
    uint8 [H, W, C], read when it is asked for; C may differ from the image's, since a few files
    are stored in three channels) and ``official`` (``'trainval'`` or ``'test'``, the list that
    names the image). Pairs that neither list names are left out and noted.

  Raises:
    FileNotFoundError: the folder or a list is missing.
    ValueError: a listed file is missing, a line is malformed, a type is none of 1..6, or a box
      does not fit its image; one sentence with the first offender and how many there are.
  """
  root = pathlib.Path(dir)
  root = root / 'PCBData' if (root / 'PCBData').is_dir() else root
  pictures = folder.images_in(root, suffixes=('_test.jpg',))
  findings = annotations.Findings(f'DeepPCB in {root}')
  official: dict[str, str] = {}
  annotated = []
  for name in LISTS:
    for image, text in _listed(root / f'{name}.txt', findings):
      one = _annotated(root, image, text, findings)
      if one is None:
        continue
      if one.name in official:
        findings.error('images that are listed more than once', one.name)
        continue
      official[one.name] = name
      annotated.append(one)
  annotated.sort(key=lambda one: one.name)
  for path in pictures:
    if path.relative_to(root).as_posix() not in official:
      findings.note('images that no list names, left out', path.relative_to(root).as_posix())
  templates = [_template(one.path) for one in annotated]
  for path in templates:
    if path.is_file() and annotations.image_size(path) != SIZE:
      findings.error(f'templates that are not {SIZE[1]} x {SIZE[0]}', path.name)
  return annotations.to_source(
    'deep_pcb',
    CLASSES,
    annotated,
    findings,
    bad_boxes=bad_boxes,
    columns={
      'reference': LazyColumn(len(templates), lambda i: decode.read_image(templates[i])),
      'official': [official[one.name] for one in annotated],
    },
  )


def _listed(path: pathlib.Path, findings: annotations.Findings) -> list[tuple[str, str]]:
  """Image and text file of each line of a list."""
  if not path.is_file():
    raise FileNotFoundError(f'The list {path}, which DeepPCB has, does not exist.')
  rows = []
  for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1):
    parts = line.split()
    if len(parts) == 2:
      rows.append((parts[0], parts[1]))
    elif parts:
      findings.error('lines that do not name an image and a text file', f'{path.name}:{number}')
  return rows


def _annotated(
  root: pathlib.Path, image: str, text: str, findings: annotations.Findings
) -> annotations.Annotated | None:
  listed = root / image
  path = listed.with_name(f'{listed.stem}_test{listed.suffix}')
  missing = [one for one in (path, _template(path), root / text) if not one.is_file()]
  for one in missing:
    findings.error('listed files that are missing', one.relative_to(root).as_posix())
  if missing:
    return None
  rows, places = [], []
  lines = (root / text).read_text(encoding='utf-8').splitlines()
  for number, line in enumerate(lines, start=1):
    parts, where = line.replace(',', ' ').split(), f'{text}:{number}'
    if not parts:
      continue
    try:
      x0, y0, x1, y1, kind = map(int, parts)
    except ValueError:
      findings.error('lines that are not five whole numbers', f'{where} ({line.strip()})')
      continue
    if not 1 <= kind <= len(CLASSES):
      findings.error(f'boxes of a type that is not among 1..{len(CLASSES)}', f'{where} ({kind})')
      continue
    rows.append((x0, y0, x1, y1, kind - 1))
    places.append(where)
  table = np.asarray(rows, np.float64).reshape(-1, 5)
  return annotations.Annotated(
    name=path.relative_to(root).as_posix(),
    path=path,
    size=SIZE,
    boxes=table[:, :4],
    labels=table[:, 4].astype(np.int32),
    places=places,
  )


def _template(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(path.name.replace('_test', '_temp'))
