"""DeepPCB as a task: crops of tested boards, each with the same crop of its template.

The template is what the Siamese network of MeDetection is made for: the same part without a defect,
registered to the pixel. Most defects were painted in by the set's authors; see ``deep_pcb``.
"""

import os

from jaxdefect.data import crops
from jaxdefect.data.source import Source
from jaxdefect.data.sources import deep_pcb

# Boards are black and white: a crop of which 2 % show the other one has 36.
MIN_CONTRAST = 36.0


def make(*, dir: str | os.PathLike[str], crop: int = 128, per_image: int = 6) -> Source:
  """Opens ``PCBData`` as ``deep_pcb`` does and cuts good and defective crops out of each board.

  Args:
    dir: the folder ``PCBData``, or the one that holds it.
    crop: side of a crop, pixels; boxes are 24 to 167 pixels wide.
    per_image: at most so many defective, and as many good, crops of each board.

  Returns:
    The crops; see ``crops.crop_source``. ``reference`` is the template's crop (uint8 [H, W, C]; C
    may differ from the image's, since a few files are stored in three channels); ``kind`` is the
    type of the defect, ``mask`` its box.

  Raises:
    FileNotFoundError: as ``deep_pcb``.
    ValueError: as ``deep_pcb`` and ``crops.crop_source``.
  """
  boards = deep_pcb.make(dir=dir)
  return crops.crop_source(
    boards, name='deep_pcb_pairs', crop=crop, per_image=per_image, min_contrast=MIN_CONTRAST
  )
