"""Images of the user's own with one COCO JSON file of boxes."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from jaxdefect.data import annotations as boxes
from jaxdefect.data import decode
from jaxdefect.data.annotations.unmentioned import with_unmentioned
from jaxdefect.data.source import Source
from jaxdefect.data.sources import folder


def make(
  *,
  dir: str | os.PathLike[str],
  annotations: str | os.PathLike[str],
  classes: Sequence[str] | None = None,
  bad_boxes: str = 'error',
  unmentioned: str = 'leave_out',
  suffixes: Sequence[str] = decode.SUFFIXES,
  sixteen_bit_range: tuple[int, int] = decode.FULL_RANGE,
  name: str = 'coco',
) -> Source:
  """Opens a folder of images and a COCO "instances" file.

  Only the headers of the images are read. Every repair, and everything that is left out, is in
  ``Source.notes`` by file and id; see ``annotations.read_coco``, ``annotations.fit_boxes`` and
  ``annotations.to_source`` for what is a note and what an error.

  Args:
    dir: the folder below which the file names of the JSON are looked up.
    annotations: the JSON; a relative path is looked up below ``dir`` first, then from the
      working directory.
    classes: names of the categories to use, in this order; a box of another one is an error.
      None takes all, in the order of their ids.
    bad_boxes: ``'error'`` or ``'repair'``; see ``annotations.fit_boxes``.
    unmentioned: images below ``dir`` that the JSON does not list: ``'leave_out'``, ``'negative'``
      (a good part) or ``'error'``. Listed images without a box are negatives in any case.
    suffixes: file endings that count as images when ``dir`` is searched for unmentioned ones.
    sixteen_bit_range: as in ``decode.read_image``.
    name: what the data set is called.

  Returns:
    The images by name, with the annotations ``boxes`` and ``box_labels``, and ``crowd_boxes``
    ([m, 4] float32, as written) where the file marks regions of many objects.

  Raises:
    FileNotFoundError: the folder or the JSON is missing.
    ValueError: one sentence with the first offender of a kind and how many there are.
  """
  pictures = folder.images_in(dir, suffixes=suffixes)
  root = pathlib.Path(dir)
  path = root / annotations
  path = path if path.exists() else pathlib.Path(annotations)
  findings = boxes.Findings(f'The annotations {path}')
  coco = boxes.read_coco(path, findings)
  kept = tuple(coco.classes if classes is None else classes)
  absent = [one for one in kept if one not in coco.classes]
  if absent:
    raise ValueError(
      f'The annotations {path} have no category {absent[0]!r}; they have {", ".join(coco.classes)}.'
    )
  number = [kept.index(one) if one in kept else -1 for one in coco.classes]
  annotated, crowds = [], {}
  for i, file in enumerate(coco.files):
    if not (root / file).is_file():
      findings.error(f'images that are missing below {root}', file)
      continue
    for id, label in zip(coco.ids[i], coco.labels[i]):
      if number[label] < 0:
        findings.error(
          f'boxes of a category that is not among classes ({", ".join(kept)})',
          f'annotation {id} on {file} ({coco.classes[label]})',
        )
    crowds[file] = coco.crowds[i].astype(np.float32)
    annotated.append(
      boxes.Annotated(
        name=file,
        path=root / file,
        size=coco.sizes[i],
        boxes=coco.boxes[i],
        labels=np.asarray(number, np.int32)[coco.labels[i]],
        places=[f'annotation {id} on {file}' for id in coco.ids[i]],
      )
    )
  annotated = with_unmentioned(annotated, pictures, root, findings, unmentioned=unmentioned)
  columns = {}
  if any(map(len, crowds.values())):
    none = np.zeros((0, 4), np.float32)
    columns['crowd_boxes'] = [crowds.get(one.name, none) for one in annotated]
  return boxes.to_source(
    name,
    kept,
    annotated,
    findings,
    bad_boxes=bad_boxes,
    columns=columns,
    sixteen_bit_range=sixteen_bit_range,
  )
