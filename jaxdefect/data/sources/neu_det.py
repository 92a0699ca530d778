"""NEU-DET for detection: the images and boxes of ``neu``, but the boxes decide the class.

188 of the 4189 boxes name another class than their image's file, and 61 of the 1800 images hold
more boxes of another class than of their file's.
"""

import os

from jaxdefect.data import annotations
from jaxdefect.data.source import Source
from jaxdefect.data.sources import neu

CLASSES = neu.CLASSES


def make(*, dir: str | os.PathLike[str], bad_boxes: str = 'error') -> Source:
  """Opens the official layout; see ``neu.make``.

  Args:
    dir: the folder that holds ``IMAGES`` and ``ANNOTATIONS``.
    bad_boxes: ``'error'`` or ``'repair'``; see ``annotations.fit_boxes``.

  Returns:
    The images with the annotations ``boxes`` and ``box_labels``; ``labels`` is the class of most
    boxes. ``notes`` lists the boxes of another class than their file's.

  Raises:
    FileNotFoundError: a folder is missing.
    ValueError: as ``neu.make``.
  """
  findings = annotations.Findings(f'NEU-DET in {dir}')
  annotated = neu.read(dir)
  for one in annotated:
    of_file = neu.file_class(one)
    for kind, where in zip(one.labels, one.places):
      if kind != of_file:
        findings.note(
          "boxes of another class than their file's, kept as the box has it",
          f'{where} ({CLASSES[kind]})',
        )
  return annotations.to_source('neu_det', CLASSES, annotated, findings, bad_boxes=bad_boxes)
