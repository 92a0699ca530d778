"""Crops of a detection set as a task: NEU-DET has no good pictures, but good places beside boxes.

X-SDD has no boxes, so no part of its pictures is known to be good, and it cannot be a task.
"""

from collections.abc import Sequence
from typing import Any

from jaxdefect.data import crops, sources
from jaxdefect.data.source import Source


def make(
  *,
  source: str = 'neu_det',
  classes: Sequence[str] | str | None = None,
  crop: int = 64,
  per_image: int = 2,
  **settings: Any,
) -> Source:
  """Opens a data set with boxes and cuts good and defective crops out of each picture.

  The boxes of NEU-DET are generous, and a good crop is only as good as nothing was marked in it.
  Each of its classes is a surface of its own, so a task of one class is the cleaner one; of
  pitted_surface nearly all pictures are covered by their boxes.

  Args:
    source: a data set with boxes, one of ``sources.names()``.
    classes: only boxes of these classes are defects of this task, and only pictures that hold one
      are used; None means all.
    crop: side of a crop, pixels.
    per_image: at most so many defective, and as many good, crops of each picture.
    **settings: handed to the data set, ``dir`` above all.

  Returns:
    The crops; see ``crops.crop_source``. Named ``'box_crops/neu_det'``, or with classes
    ``'box_crops/neu_det/scratches'``.

  Raises:
    ValueError: as ``crops.crop_source``, or there is no such data set.
  """
  classes = (classes,) if isinstance(classes, str) else classes
  parts = ['box_crops', source, *(['+'.join(classes)] if classes else [])]
  whole = sources.load(source, **settings)
  return crops.crop_source(
    whole, name='/'.join(parts), crop=crop, per_image=per_image, classes=classes
  )
