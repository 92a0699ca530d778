"""X-SDD: hot-rolled steel strip, 7 defect types, 1360 images of about 128 x 128.

X. Feng et al., 'X-SDD: A new benchmark for hot rolled steel strip surface defects detection',
Symmetry 13(4) (2021) 706.
"""

import os

from jaxdefect.data.source import Source
from jaxdefect.data.sources import folder

CLASSES = (
  'finishing roll printing',
  'iron sheet ash',
  'oxide scale of plate system',
  'oxide scale of temperature system',
  'red iron',
  'slag inclusion',
  'surface scratch',
)


def make(*, dir: str | os.PathLike[str]) -> Source:
  """Opens the folder with the seven class folders, as it is distributed (names with blanks).

  Args:
    dir: the folder that holds the class folders.

  Returns:
    The images, named by their path below ``dir``.
  """
  return folder.make(dir=dir, classes=CLASSES, name='xsdd')
