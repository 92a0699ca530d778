"""Magnetic-Tile: gray pictures of magnetic tiles, five defects and none, with pixel masks.

Y. Huang et al., 'Surface defect saliency of magnetic tile', The Visual Computer 36 (2020) 85-96.

A file is named ``exp<k>_num_<frame>``. The six series exp1 to exp6 are six exposures of one tile:
``exp1_num_524``, ``exp2_num_542``, ..., ``exp6_num_628`` are the same tile, each brighter than the
last, and the 1344 pictures show some 210 tiles (20 with a blowhole, 16 with a break, 11 with a
crack, 7 frayed, 17 uneven). A split that takes no heed of it has nearly every tile on both sides.
"""

import os
import pathlib
import re
from collections.abc import Iterable

from jaxdefect.data import products
from jaxdefect.data.source import Source
from jaxdefect.data.sources import folder

GOOD = 'MT_Free'
DEFECTS = ('MT_Blowhole', 'MT_Break', 'MT_Crack', 'MT_Fray', 'MT_Uneven')

_NAME = re.compile(r'exp(\d+)_num_(\d+)')


def make(*, dir: str | os.PathLike[str], max_gap: int = 100) -> Source:
  """Opens ``dir/MT_<type>/Imgs/<name>.jpg`` with a mask ``<name>.png`` beside each.

  All pictures are put in the order of their frames. One follows its predecessor in the same group
  when it is of a later series (the next exposure of the tile), or at most ``max_gap`` frames away.

  Args:
    dir: the folder that holds the six folders ``MT_<type>``.
    max_gap: frames.

  Returns:
    The images with the annotations ``kind`` (``'blowhole'``, ``'break'``, ``'crack'``, ``'fray'``,
    ``'uneven'``, ``''``), ``mask`` (uint8 [H, W], 1 from gray level 128 of the file on; those of
    four images of *uneven* are empty in the official set too) and ``groups``, one per tile.

  Raises:
    FileNotFoundError: a folder, or the mask of a defective image, is missing.
    ValueError: a folder holds no image, or a name has no series and frame.
  """
  root = pathlib.Path(dir)
  if not root.is_dir():
    raise FileNotFoundError(f'The folder {root} does not exist.')
  found = []
  for kind in (GOOD, *DEFECTS):
    if not (root / kind).is_dir():
      raise FileNotFoundError(f'The folder {root} has no folder {kind}, which Magnetic-Tile has.')
    for path in folder.images_in(root / kind, suffixes=('.jpg', '.jpeg')):
      mask = None if kind == GOOD else path.with_suffix('.png')
      name = '' if kind == GOOD else kind.removeprefix('MT_').lower()
      found.append(products.Picture(path, kind=name, mask=mask))
  tile = _tiles((one.path for one in found), max_gap)
  pictures = [one._replace(group=tile[one.path]) for one in found]
  return products.to_source('magnetic_tile', root, pictures, masks=True)


def _tiles(paths: Iterable[pathlib.Path], max_gap: int) -> dict[pathlib.Path, str]:
  """The group of each picture, called after its first frame."""
  shots = []
  for path in paths:
    match = _NAME.fullmatch(path.stem)
    if match is None:
      raise ValueError(f'The image {path} is not named exp<series>_num_<frame>.')
    series, frame = map(int, match.groups())
    shots.append((frame, series, path))
  tile: dict[pathlib.Path, str] = {}
  before, group = None, ''
  for frame, series, path in sorted(shots):
    if before is None or (frame - before[0] > max_gap and series <= before[1]):
      group = f'tile {frame}'
    tile[path], before = group, (frame, series)
  return tile
