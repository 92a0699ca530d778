"""A folder of class sub-folders of images: the layout for one's own data."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from jaxdefect.data import decode
from jaxdefect.data.lots import read_lots
from jaxdefect.data.source import Note, Source


def make(
  *,
  dir: str | os.PathLike[str],
  classes: Sequence[str] | None = None,
  suffixes: Sequence[str] = decode.SUFFIXES,
  sixteen_bit_range: tuple[int, int] = decode.FULL_RANGE,
  lots: str | os.PathLike[str] = '',
  name: str = 'folder',
) -> Source:
  """Opens ``dir/<class>/**/<image>``; images may differ in size and kind.

  Classes and images come in sorted order, whatever order the file system gives. What starts with
  a dot, and files that are no pictures, are ignored.

  Args:
    dir: the folder.
    classes: the sub-folders to use, in this order; None takes all of them, sorted.
    suffixes: file endings that count as images, for example ``('.jpg',)`` where masks lie beside
      the images as PNG.
    sixteen_bit_range: the (low, high) window of gray images with more than 8 bits; see
      ``decode.read_image``.
    lots: a CSV file with the columns ``image`` (path below ``dir``) and ``lot`` (lot, session or
      part of that picture, which no split tears apart); '' knows none.
    name: what the data set is called.

  Returns:
    The images, named by their path below ``dir``.

  Raises:
    FileNotFoundError: ``dir`` or a class folder is missing.
    ValueError: there are no class folders, one of them holds no image, or the file of lots does
      not fit.
  """
  root = _existing(dir)
  if classes is None:
    classes = sorted(
      entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith('.')
    )
  if not classes:
    held = 'images but no class folders' if images_below(root, suffixes) else 'no class folders'
    raise ValueError(f'The folder {root} holds {held}; put the images of each class in one.')
  paths, labels = [], []
  for label, one in enumerate(classes):
    if not (root / one).is_dir():
      raise FileNotFoundError(f'The folder {root} has no class folder {one!r}.')
    found = images_below(root / one, suffixes)
    if not found:
      raise ValueError(f'The class folder {root / one} holds no images ({", ".join(suffixes)}).')
    paths += found
    labels += [label] * len(found)
  source = _source(name, tuple(classes), root, paths, labels, sixteen_bit_range)
  source = dataclasses.replace(source, notes=_telling_endings(source))
  return dataclasses.replace(source, groups=read_lots(lots, source.names)) if lots else source


def _telling_endings(source: Source) -> tuple[Note, ...]:
  """File formats that go with a class: a network may learn how pictures were compressed."""
  endings = np.array([pathlib.PurePath(name).suffix.lower() for name in source.names])
  found = []
  for label, one in enumerate(source.classes):
    own = source.labels == label
    if own.all():
      continue
    for ending in sorted(set(endings[own])):
      share, elsewhere = (endings[own] == ending).mean(), (endings[~own] == ending).mean()
      if share - elsewhere >= 0.5:
        found.append(f'{one}: {share:.0%} {ending}, the others {elsewhere:.0%}')
  what = 'classes that their file format tells apart, which a network may learn'
  return (Note(what, tuple(found)),) if found else ()


def unlabelled(
  *,
  dir: str | os.PathLike[str],
  suffixes: Sequence[str] = decode.SUFFIXES,
  sixteen_bit_range: tuple[int, int] = decode.FULL_RANGE,
) -> Source:
  """Opens the pictures below a folder whose classes nobody knows; the one class is ``'unknown'``.

  Args:
    dir: the folder, searched with all folders below it; or a single picture.
    suffixes: file endings that count as images.
    sixteen_bit_range: as in ``make``.

  Returns:
    The images, named by their path below ``dir``, all with label 0.
  """
  root = pathlib.Path(dir)
  paths = [root] if root.is_file() else images_in(root, suffixes=suffixes)
  root = root.parent if root.is_file() else root
  return _source('unlabelled', ('unknown',), root, paths, [0] * len(paths), sixteen_bit_range)


def images_in(
  dir: str | os.PathLike[str], *, suffixes: Sequence[str] = decode.SUFFIXES
) -> list[pathlib.Path]:
  """Lists the pictures in a folder and all folders below it, sorted by their path.

  Args:
    dir: the folder.
    suffixes: file endings that count as images, in any case.

  Returns:
    The paths; never empty.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: it holds no pictures, or one whose name is no valid UTF-8.
  """
  root = _existing(dir)
  paths = images_below(root, suffixes)
  if not paths:
    raise ValueError(f'The folder {root} holds no images ({", ".join(suffixes)}).')
  return paths


def images_below(root: pathlib.Path, suffixes: Sequence[str]) -> list[pathlib.Path]:
  """As ``images_in``, but an empty list where there is nothing."""
  suffixes = [suffixes] if isinstance(suffixes, str) else suffixes
  endings = tuple(suffix.lower() for suffix in suffixes)
  found = []
  for folder, below, files in os.walk(root, followlinks=True):
    parents = pathlib.Path(os.path.abspath(folder)).parents
    if os.path.realpath(folder) in map(os.path.realpath, parents):
      below.clear()  # a link to a folder that it lies in
      continue
    below[:] = [one for one in below if not one.startswith('.')]
    found += [
      pathlib.Path(folder, one)
      for one in files
      if one.lower().endswith(endings) and not one.startswith('.')
    ]
  for path in found:
    if not _is_text(str(path)):
      raise ValueError(f'The file name {str(path)!a} is no valid UTF-8; rename the file.')
  return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _is_text(name: str) -> bool:
  """False for bytes of another encoding, which Python carries as lone surrogates."""
  return not any('\ud800' <= letter <= '\udfff' for letter in name)


def _existing(dir: str | os.PathLike[str]) -> pathlib.Path:
  root = pathlib.Path(dir)
  if not root.is_dir():
    kind = 'is a file, not a folder' if root.exists() else 'does not exist'
    raise FileNotFoundError(f'The folder {root} {kind}.')
  return root


def _source(
  name: str,
  classes: tuple[str, ...],
  root: pathlib.Path,
  paths: Sequence[pathlib.Path],
  labels: Sequence[int],
  sixteen_bit_range: tuple[int, int],
) -> Source:
  decoder = functools.partial(decode.read_image, sixteen_bit_range=sixteen_bit_range)
  return Source(
    name=name,
    classes=classes,
    names=tuple(path.relative_to(root).as_posix() for path in paths),
    labels=np.asarray(labels, np.int32),
    read=lambda i: decoder(paths[i]),
  )
