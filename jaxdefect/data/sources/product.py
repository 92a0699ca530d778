"""One's own product as a task: a folder with good pictures and folders of defective ones."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxdefect.data import decode, products
from jaxdefect.data.lots import read_lots
from jaxdefect.data.source import Source
from jaxdefect.data.sources import folder


def make(
  *,
  dir: str | os.PathLike[str],
  good: str = 'good',
  masks: str | os.PathLike[str] | None = None,
  suffixes: Sequence[str] = decode.SUFFIXES,
  name: str = '',
  needs_defects: bool = True,
  lots: str | os.PathLike[str] = '',
  sixteen_bit_range: tuple[int, int] = decode.FULL_RANGE,
) -> Source:
  """Opens ``dir/good/**/<image>`` and ``dir/<kind of defect>/**/<image>``.

  Every sub-folder but ``good`` is a kind of defect, whatever it is called. Files beside the folders
  are ignored.

  Args:
    dir: the folder of the product.
    good: the folder of the good pictures, in any case.
    masks: a folder outside ``dir`` with ``<kind>/<image>.png`` or ``<kind>/<image>_mask.png``, of
      the image's size, white where the part is defective, for every defective image; None for a
      task without masks.
    suffixes: file endings that count as images.
    name: of the task; ``''`` takes the folder's.
    needs_defects: False allows a folder with good pictures alone, where no defect is known yet.
    lots: a CSV file with the columns ``image`` and ``lot`` (lot, session or part, which
      no split tears apart and of which one picture sets a threshold); '' knows none.
    sixteen_bit_range: the (low, high) window of gray images with more than 8 bits; see
      ``decode.read_image``.

  Returns:
    The images, named by their path below ``dir``, with the annotations ``kind`` (the folder, or
    ``''``) and, with ``masks``, ``mask`` (uint8 [H, W]).

  Raises:
    FileNotFoundError: the folder, the one of the good pictures, or a mask is missing.
    ValueError: a folder holds no image, there is no folder of defective ones, or the file of lots
      does not fit.
  """
  root = pathlib.Path(dir)
  below = _folders(root)
  good_folders = [one for one in below if one.name.lower() == good.lower()]
  if not good_folders:
    raise FileNotFoundError(f'The folder {root} has no folder {good!r} of good pictures.')
  if masks is not None and not pathlib.Path(masks).is_dir():
    raise FileNotFoundError(f'The folder {masks} of masks does not exist.')
  pictures = []
  for one in below:
    kind = '' if one in good_folders else one.name
    for path in folder.images_in(one, suffixes=suffixes):
      mask = None
      if masks is not None and kind:
        mask = _mask(pathlib.Path(masks) / path.relative_to(root))
      pictures.append(products.Picture(path, kind=kind, mask=mask))
  title = name or root.resolve().name
  source = products.to_source(
    title,
    root,
    pictures,
    masks=masks is not None,
    needs_defects=needs_defects,
    sixteen_bit_range=sixteen_bit_range,
  )
  return dataclasses.replace(source, groups=read_lots(lots, source.names)) if lots else source


def tasks(
  *,
  dir: str | os.PathLike[str],
  good: str = 'good',
  sixteen_bit_range: tuple[int, int] = decode.FULL_RANGE,
) -> dict[str, Source]:
  """Opens a folder of product folders: each of its sub-folders is one task.

  Args:
    dir: the folder; what starts with a dot is ignored.
    good: as in ``make``.
    sixteen_bit_range: as in ``make``.

  Returns:
    The tasks by the name of their folder, sorted.

  Raises:
    FileNotFoundError: a folder is missing; every sub-folder must be a product.
    ValueError: there are no sub-folders, or as ``make``.
  """
  below = _folders(pathlib.Path(dir))
  if not below:
    raise ValueError(f'The folder {dir} holds no folders; put each product in one.')
  settings: Any = {'good': good, 'sixteen_bit_range': sixteen_bit_range}
  return {one.name: make(dir=one, **settings) for one in below}


def _folders(root: pathlib.Path) -> list[pathlib.Path]:
  if not root.is_dir():
    raise FileNotFoundError(f'The folder {root} does not exist.')
  found = (one for one in root.iterdir() if one.is_dir() and not one.name.startswith('.'))
  return sorted(found, key=lambda one: one.name)


def _mask(image: pathlib.Path) -> pathlib.Path:
  """The file that is there, or the first that could be."""
  named = [image.with_name(f'{image.stem}{ending}.png') for ending in ('', '_mask')]
  return next((one for one in named if one.is_file()), named[0])
