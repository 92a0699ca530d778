"""A hold-out that is set aside once, known by its pixels, and refused to all training from then on.

"For a 50-sample training run, we typically hold out 15 samples as a seeded test set, never used in
training" (source P). What is set aside by name comes back under another one: a folder is sorted
anew, a picture is saved again, the next shift photographs the same part. So a hold-out keeps the
sha256 of the pixels, and near-copies and further pictures of a held-out lot count as known too.

Shape legend: N images of a source, n labelled ones.
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdefect.data import duplicates, samples
from jaxdefect.data.samples import Samples
from jaxdefect.data.source import Source
from jaxdefect.data.split_record import pixel_sums

FORMAT = 1
# Where a data set's own folder keeps it.
FILE = 'hold_out.json'


class HoldOut(NamedTuple):
  """The images that are set aside.

  Attributes:
    data: name of the data set.
    seed: that drew them.
    images: name -> (class, sha256 of the pixels).
  """

  data: str
  seed: int
  images: dict[str, tuple[str, str]]


class Divided(NamedTuple):
  """A data set with a hold-out.

  Attributes:
    free: places of what may train.
    held: places of what is set aside.
  """

  free: list[int]
  held: list[int]


def draw(given: Samples, size: int, *, seed: int) -> np.ndarray:
  """Chooses what is set aside: each class in proportion, and whole groups alone.

  Where groups are lots or sessions, the hold-out is of sessions of its own.

  Args:
    given: the labelled images with their groups.
    size: how many; fewer where whole groups do not fill it.
    seed: of the order.

  Returns:
    Places in the samples, rising.

  Raises:
    ValueError: a class would have no image in the hold-out, or fewer than two left.
  """
  total = np.bincount(given.labels, minlength=len(given.classes))
  if not len(total) <= size < len(given.names):
    raise ValueError(
      f'A hold-out of {size} cannot be set aside from {len(given.names)} images of {len(total)} '
      f'classes; it can be {len(total)} to {len(given.names) - 1}.'
    )
  held = samples.draw(given, _shared(size, total), seed=seed)
  kept = np.bincount(given.labels[held], minlength=len(given.classes))
  for name, inside, all_ in zip(given.classes, kept.tolist(), total.tolist()):
    if not inside or all_ - inside < 2:
      raise ValueError(
        f'A hold-out of {size} in whole groups takes {inside} of the {all_} images of class '
        f'{name!r}; 1 to {max(all_ - 2, 1)} are needed. Choose another size, or label more.'
      )
  return held


def _shared(size: int, total: np.ndarray) -> np.ndarray:
  """``size`` divided as ``total`` is, by largest remainder; at least one of each class."""
  exact = size * total / total.sum()
  shares = np.maximum(np.floor(exact).astype(int), 1)
  while shares.sum() < size:
    shares[np.argmax(exact - shares)] += 1
  while shares.sum() > size and shares.max() > 1:
    shares[np.argmax(np.where(shares > 1, shares - exact, -np.inf))] -= 1
  return shares


def make(source: Source, places: Sequence[int] | np.ndarray, *, seed: int) -> HoldOut:
  """The hold-out of these places of a data set; their pixels are decoded for the sums."""
  places = [int(i) for i in places]
  sums = pixel_sums(source, places)
  return HoldOut(
    source.name,
    seed,
    {source.names[i]: (source.classes[source.labels[i]], one) for i, one in zip(places, sums)},
  )


def write(path: str | os.PathLike[str], held: HoldOut) -> None:
  """Writes the hold-out as JSON, whole or not at all; what was set aside before is kept.

  Args:
    path: the file, which must not exist yet.
    held: what is set aside.

  Raises:
    FileExistsError: there is a hold-out already. A second one would let the first one train.
  """
  path = pathlib.Path(path)
  if path.exists():
    raise FileExistsError(f'{path} holds a hold-out already, which stays what it is.')
  content = {'format': FORMAT, 'data': held.data, 'seed': held.seed, 'images': held.images}
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + '.partial')
  partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
  os.replace(partial, path)


def read(path: str | os.PathLike[str]) -> HoldOut:
  """Reads a hold-out back.

  Args:
    path: the file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is no hold-out.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'The hold-out {path} does not exist.')
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
    if content['format'] != FORMAT:
      raise ValueError(f'its format is {content["format"]}, and this version reads {FORMAT}')
    images = {name: (kind, pixels) for name, (kind, pixels) in content['images'].items()}
    return HoldOut(content['data'], int(content['seed']), images)
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f'The file {path} is no hold-out: {error or type(error).__name__}.') from error


def divide(source: Source, held: HoldOut, *, groups: np.ndarray | None = None) -> Divided:
  """Finds the held-out images in a data set, and refuses it where others give them away.

  Args:
    source: the data set. Held-out images may be missing from it: those that are there are set
      aside.
    held: the hold-out.
    groups: [N] as ``duplicates.find`` returns, which is called where None are given.

  Returns:
    The places of both parts.

  Raises:
    ValueError: a held-out image has changed, or another image is the same picture under another
      name, nearly a copy, or of the same lot.
  """
  sums = pixel_sums(source, range(len(source)))
  name_of = {pixels: name for name, (_, pixels) in held.images.items()}
  inside: list[int] = []
  for i, (name, pixels) in enumerate(zip(source.names, sums)):
    if name in held.images:
      if pixels != held.images[name][1]:
        raise ValueError(
          f'The held-out image {name} of {source.name} has changed since it was set aside.'
        )
      inside.append(i)
    elif pixels in name_of:
      raise _refused(source, i, name_of[pixels], 'is the same picture as')
  if inside:
    found = duplicates.find(source) if groups is None else np.asarray(groups)
    first = {int(found[i]): i for i in reversed(inside)}
    for i in sorted(set(range(len(source))) - set(inside)):
      if int(found[i]) in first:
        other = source.names[first[int(found[i])]]
        raise _refused(source, i, other, 'is nearly a copy of, or of one lot with,')
  chosen = set(inside)
  return Divided([i for i in range(len(source)) if i not in chosen], inside)


def refuse(source: Source, held: HoldOut) -> None:
  """Refuses pictures that are offered for training and are held out, under whatever name.

  Args:
    source: what is offered, from anywhere; its names count for nothing.
    held: the hold-out.

  Raises:
    ValueError: one of them has the very pixels of a held-out image.
  """
  name_of = {pixels: name for name, (_, pixels) in held.images.items()}
  for i, pixels in enumerate(pixel_sums(source, range(len(source)))):
    if pixels in name_of:
      raise _refused(source, i, name_of[pixels], 'is the same picture as')


def _refused(source: Source, i: int, name: str, relation: str) -> ValueError:
  return ValueError(
    f'The image {source.names[i]} of {source.name} {relation} {name}, which is held out and must '
    'never train; take it out of the data.'
  )
