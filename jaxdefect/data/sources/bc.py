"""Bottle caps (BC defects): 710 good and 268 defective caps, colour, 63 pairs being exact copies.

H. Zhang et al., 'Adaptive visual detection of industrial product defects', PeerJ Computer Science 9
(2023) e1264, doi 10.7717/peerj-cs.1264, Table 1. The pictures were taken one after another, and 63
were saved twice: a random split has copies on both sides (``leakage.naive_leak`` counts them).
"""

import csv
import hashlib
import os
import pathlib
from collections import Counter
from collections.abc import Sequence

from jaxdefect.data import products
from jaxdefect.data.in_threads import each
from jaxdefect.data.source import Source
from jaxdefect.data.sources import folder

MANIFEST = 'manifest.csv'
_COLUMNS = {'file', 'exact_duplicate_group'}

# Folders of the good and of the defective caps; the second pair is how the authors named theirs.
_LAYOUTS = (('good', 'defect'), ('0', '1'))


def make(*, dir: str | os.PathLike[str]) -> Source:
  """Opens ``dir/good`` and ``dir/defect``, or ``dir/0`` and ``dir/1`` as the authors have them.

  Args:
    dir: the folder that holds the two. Its ``manifest.csv``, where there is one, has the columns
      ``file`` (a path below ``dir``) and ``exact_duplicate_group`` (a number, or nothing).

  Returns:
    The images with the annotation ``kind`` (``'defect'`` or ``''``: the types are not labelled).
    ``groups`` are the manifest's; without a manifest, files of the same bytes are one group.

  Raises:
    FileNotFoundError: a folder is missing.
    ValueError: a folder holds no image, or the manifest is none, or names other images.
  """
  root = pathlib.Path(dir)
  if not root.is_dir():
    raise FileNotFoundError(f'The folder {root} does not exist.')
  found = [names for names in _LAYOUTS if all((root / one).is_dir() for one in names)]
  if not found:
    raise FileNotFoundError(f'The folder {root} has no folders good and defect (or 0 and 1).')
  paths = {kind: folder.images_in(root / one) for one, kind in zip(found[0], ('', 'defect'))}
  every = [path for of_kind in paths.values() for path in of_kind]
  names = [path.relative_to(root).as_posix() for path in every]
  manifest = root / MANIFEST
  groups = _listed(manifest, names) if manifest.is_file() else _same_bytes(every)
  kinds = [kind for kind, of_kind in paths.items() for _ in of_kind]
  pictures = [
    products.Picture(path, kind=kind, group=group)
    for path, kind, group in zip(every, kinds, groups)
  ]
  return products.to_source('bc', root, pictures)


def _listed(manifest: pathlib.Path, names: Sequence[str]) -> list[str]:
  """The manifest's group of each image."""
  with manifest.open(newline='', encoding='utf-8-sig') as file:
    rows = list(csv.DictReader(file))
  if not rows or not _COLUMNS.issubset(rows[0]):
    raise ValueError(f'The manifest {manifest} has no columns {" and ".join(sorted(_COLUMNS))}.')
  group = {row['file']: (row['exact_duplicate_group'] or '').strip() for row in rows}
  for what, strangers in (
    ('does not name', set(names) - set(group)),
    ('names, but there is no image', set(group) - set(names)),
  ):
    if strangers:
      raise ValueError(
        f'The manifest {manifest} {what} {min(strangers)!r} ({len(strangers)} in all).'
      )
  return [group[name] and f'copy {group[name]}' for name in names]


def _same_bytes(paths: Sequence[pathlib.Path]) -> list[str]:
  """The sha256 of each file that another one equals, ``''`` of the others."""
  sums = each(lambda i: hashlib.sha256(paths[i].read_bytes()).hexdigest(), range(len(paths)))
  times = Counter(sums)
  return [one if times[one] > 1 else '' for one in sums]
