"""DAGM 2007: ten generated textures with a labelled defect each, gray, 512 x 512.

M. Wieler, T. Hahn, 'Weakly supervised learning for industrial optical inspection', competition at
the DAGM symposium 2007. Classes 1 to 6 hold 1000 good and 150 defective pictures, 7 to 10 twice as
many. Masks are ellipses about the defect, wider than it: a score per pixel is held against those.
"""

import os
import pathlib

from jaxdefect.data import products
from jaxdefect.data.source import Source
from jaxdefect.data.sources import folder

PARTS = ('Train', 'Test')
LABELS = 'Labels.txt'
CATEGORIES = tuple(range(1, 11))


def make(*, dir: str | os.PathLike[str], category: int) -> Source:
  """Opens one class of the official layout.

  ``dir/Class<n>/{Train,Test}/<nnnn>.PNG``, beside them a folder ``Label`` with the ellipse
  ``<nnnn>_label.PNG`` of each defective picture, which is what makes it one. ``Labels.txt`` in it,
  where it is kept, is held against that: one number in its first line, then a line per picture with
  its number, 1 for a defective one, its file, and more. Unpacked one by one, the archives give
  ``Class<n>/Class<n>/``: fine too.

  Args:
    dir: the folder of the class folders.
    category: n, 1 to 10.

  Returns:
    The images of both halves, named like ``'Train/0576.PNG'``, with the annotations ``kind``
    (``'defect'`` or ``''``), ``mask`` (uint8 [H, W]) and ``official`` (``'train'`` or ``'test'``).
    The source is called ``'dagm/class<n>'``.

  Raises:
    FileNotFoundError: a folder is missing.
    ValueError: there is no such class, an ellipse belongs to no picture, or ``Labels.txt`` is
      malformed or says something else than the ellipses do.
  """
  if category not in CATEGORIES:
    raise ValueError(f'category must be a number from 1 to 10, got {category!r}.')
  root = pathlib.Path(dir) / f'Class{category}'
  root = root / root.name if (root / root.name).is_dir() else root
  pictures, official = [], []
  for part in PARTS:
    labels = root / part / 'Label'
    if not labels.is_dir():
      raise FileNotFoundError(f'The folder {labels}, which DAGM 2007 has, does not exist.')
    # By the number alone: copies differ in how they write the endings.
    ellipses = {one.stem.lower().removesuffix('_label'): one for one in folder.images_in(labels)}
    paths = [one for one in folder.images_in(root / part) if one.parent == root / part]
    strangers = set(ellipses) - {one.stem for one in paths}
    if strangers:
      raise ValueError(f'The ellipse {ellipses[min(strangers)]} belongs to no image.')
    if (labels / LABELS).is_file():
      _compare(labels / LABELS, {one.stem: one.stem in ellipses for one in paths})
    for path in paths:
      mask = ellipses.get(path.stem)
      pictures.append(products.Picture(path, kind='defect' if mask else '', mask=mask))
      official.append(part.lower())
  return products.to_source(
    f'dagm/class{category}', root, pictures, masks=True, columns={'official': tuple(official)}
  )


def tasks(*, dir: str | os.PathLike[str]) -> dict[str, Source]:
  """Opens every class that is there as a task of its own.

  Args:
    dir: the folder of the class folders.

  Returns:
    The tasks by the name of their source, class 1 first.

  Raises:
    FileNotFoundError: the folder is missing.
    ValueError: it holds no class of DAGM 2007.
  """
  root = pathlib.Path(dir)
  if not root.is_dir():
    raise FileNotFoundError(f'The folder {root} does not exist.')
  found = [n for n in CATEGORIES if (root / f'Class{n}').is_dir()]
  if not found:
    raise ValueError(f'The folder {root} holds no folder Class1 to Class10.')
  return {f'dagm/class{n}': make(dir=root, category=n) for n in found}


def _compare(path: pathlib.Path, defective: dict[str, bool]) -> None:
  """Holds the official list against what the ellipses say about each picture."""
  # The lists come with a byte-order mark, or without.
  for number, line in enumerate(path.read_text(encoding='utf-8-sig').splitlines(), start=1):
    parts = line.split()
    if len(parts) < 2:
      continue
    if len(parts) < 3 or parts[1] not in ('0', '1'):
      raise ValueError(
        f'Line {number} of {path} is not a number, 0 or 1, a file and more: {line.strip()!r}.'
      )
    image, marked = pathlib.PurePath(parts[2]).stem, parts[1] == '1'
    if image not in defective:
      raise ValueError(f'Line {number} of {path} names the image {parts[2]}, which is missing.')
    if marked != defective[image]:
      has = 'has an' if defective[image] else 'has no'
      raise ValueError(
        f'Line {number} of {path} has {parts[2]} as {"defective" if marked else "good"}, but it '
        f'{has} ellipse.'
      )
