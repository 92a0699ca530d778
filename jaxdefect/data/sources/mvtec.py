"""MVTec AD: 15 products, good parts for training, good and defective ones with masks for testing.

P. Bergmann et al., 'MVTec AD: A comprehensive real-world dataset for unsupervised anomaly
detection', CVPR 2019. Paper C (H. Zhang et al., PeerJ Computer Science 9 (2023) e1264, Table 1)
takes the good parts of both halves as one: 'bottle' has 209 + 20 good ones there.
"""

import os
import pathlib

from jaxdefect.data import products
from jaxdefect.data.source import Source
from jaxdefect.data.sources import folder

CATEGORIES = (
  'bottle',
  'cable',
  'capsule',
  'carpet',
  'grid',
  'hazelnut',
  'leather',
  'metal_nut',
  'pill',
  'screw',
  'tile',
  'toothbrush',
  'transistor',
  'wood',
  'zipper',
)
PARTS = ('train', 'test')


def make(*, dir: str | os.PathLike[str], category: str) -> Source:
  """Opens one product of the official layout.

  ``dir/<category>/train/good/<nnn>.png``, ``dir/<category>/test/good/<nnn>.png``, and for each kind
  of defect ``test/<kind>/<nnn>.png`` with its mask ``ground_truth/<kind>/<nnn>_mask.png``. Other
  products in this layout open too: any folder is a category.

  Args:
    dir: the unpacked archive.
    category: the product's folder, see ``CATEGORIES``.

  Returns:
    The images of both halves, named by their path below the category, with the annotations ``kind``
    (the defect's folder, ``''`` for a good part), ``mask`` (uint8 [H, W]) and ``official``
    (``'train'`` or ``'test'``, the half that holds the image). The source is called
    ``'mvtec/<category>'``.

  Raises:
    FileNotFoundError: a folder or a mask is missing.
    ValueError: a folder holds no image, or the product has no good or no defective one.
  """
  root = pathlib.Path(dir)
  if not root.is_dir():
    raise FileNotFoundError(f'The folder {root} does not exist.')
  root = root / category
  if not root.is_dir():
    known = ', '.join(_categories(pathlib.Path(dir))) or 'none'
    raise FileNotFoundError(
      f'The folder {dir} has no category {category!r} of MVTec AD; it holds {known}.'
    )
  pictures, official = [], []
  for part in PARTS:
    if not (root / part / 'good').is_dir():
      raise FileNotFoundError(f'The folder {root / part} has no folder good, which MVTec AD has.')
    below = [one for one in (root / part).iterdir() if one.is_dir() and one.name[0] != '.']
    for one in sorted(below, key=lambda one: one.name):
      for path in folder.images_in(one):
        kind, mask = '', None
        if one.name != 'good':
          kind, mask = one.name, root / 'ground_truth' / one.name / f'{path.stem}_mask.png'
        pictures.append(products.Picture(path, kind=kind, mask=mask))
        official.append(part)
  return products.to_source(
    f'mvtec/{category}', root, pictures, masks=True, columns={'official': tuple(official)}
  )


def tasks(*, dir: str | os.PathLike[str]) -> dict[str, Source]:
  """Opens every product of the unpacked archive as a task of its own.

  Args:
    dir: the unpacked archive.

  Returns:
    The tasks by the name of their source, sorted.

  Raises:
    FileNotFoundError: the folder is missing.
    ValueError: it holds no product.
  """
  root = pathlib.Path(dir)
  if not root.is_dir():
    raise FileNotFoundError(f'The folder {root} does not exist.')
  found = _categories(root)
  if not found:
    raise ValueError(f'The folder {root} holds no folder with train/good in it.')
  return {f'mvtec/{one}': make(dir=root, category=one) for one in found}


def _categories(root: pathlib.Path) -> list[str]:
  return sorted(one.name for one in root.iterdir() if (one / 'train' / 'good').is_dir())
