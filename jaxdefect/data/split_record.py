"""A split as a file: which image is in which part, and proof that it is still the same image."""

import collections
import json
import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxdefect.data import decode
from jaxdefect.data.in_threads import each
from jaxdefect.data.source import Source

PARTS = ('train', 'validation', 'test', 'references')
FORMAT = 1


@dataclass(frozen=True)
class Split:
  """The parts of a data set, as places in its ``Source``; no image is in two of them.

  Attributes:
    train: what training sees (and, but for unseen classes, what ``adapt`` refers to).
    validation: for choosing steps and thresholds; may be empty.
    test: for the reported figures alone.
    report: how it was made: ``kind``, ``seed``, the arguments, ``counts`` per part and class,
      ``near_duplicates`` (groups of two and more, by name) and ``left_out`` (names).
    references: the few images of each class that was not trained on (``unseen_classes`` alone).
  """

  train: tuple[int, ...]
  validation: tuple[int, ...]
  test: tuple[int, ...]
  report: dict[str, Any] = field(default_factory=dict)
  references: tuple[int, ...] = ()

  def __post_init__(self):
    seen = collections.Counter(i for part in PARTS for i in getattr(self, part))
    if seen and max(seen.values()) > 1:
      raise ValueError(f'The image at place {max(seen, key=seen.__getitem__)} is in two parts.')

  def groups(self, source: Source) -> np.ndarray:
    """[N] int, alike for near-copies and pictures of one part, which no split tears apart."""
    groups = np.arange(len(source))
    place = {name: i for i, name in enumerate(source.names)}
    for names in self.report.get('near_duplicates', ()):
      # What was left out of every part may be gone from the folder by now.
      there = [place[name] for name in names if name in place]
      groups[there] = there[:1]
    return groups


def write(path: str | os.PathLike[str], source: Source, split: Split) -> None:
  """Writes a split as JSON: part, class and sha256 of the pixels of each image by name.

  Nothing is left behind when it fails. The pixels are decoded for their sum, so the same images
  stored otherwise (another folder, array_record) still fit.

  Args:
    path: the file.
    source: the data set.
    split: the split of it.
  """
  path = pathlib.Path(path)
  content = {
    'format': FORMAT,
    'data': source.name,
    'classes': list(source.classes),
    'report': split.report,
  }
  for part in PARTS:
    places = getattr(split, part)
    sums = pixel_sums(source, places)
    content[part] = {
      source.names[i]: [source.classes[source.labels[i]], one] for i, one in zip(places, sums)
    }
  partial = path.with_name(path.name + '.partial')
  partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
  os.replace(partial, path)


def read(path: str | os.PathLike[str], source: Source, *, check_pixels: bool = True) -> Split:
  """Reads a split back, and refuses it when ``source`` does not hold the very same images.

  Images that ``source`` has beyond those of the split are in no part.

  Args:
    path: the file.
    source: the data set.
    check_pixels: whether to decode every image and compare its sum; otherwise names and classes.

  Returns:
    The split, as places in ``source``.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is no split, is of another data set, or an image is missing or has changed.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'The split {path} does not exist.')
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
    if content['format'] != FORMAT:
      raise ValueError(f'its format is {content["format"]}, and this version reads {FORMAT}')
    name, report = content['data'], dict(content['report'])
    rows = [
      (part, image, kind, pixels)
      for part in PARTS
      for image, (kind, pixels) in content[part].items()
    ]
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f'The file {path} is no split: {error or type(error).__name__}.') from error
  if name != source.name:
    raise ValueError(f'The split {path} belongs to the data set {name}, not to {source.name}.')
  place = {image: i for i, image in enumerate(source.names)}
  for _, image, kind, _ in rows:
    if image not in place:
      raise ValueError(f'The split {path} names the image {image}, which {source.name} has not.')
    now = source.classes[source.labels[place[image]]]
    if now != kind:
      raise ValueError(
        f'The split {path} has the image {image} as {kind!r}, but {source.name} has it as {now!r}.'
      )
  if check_pixels:
    sums = pixel_sums(source, [place[image] for _, image, _, _ in rows])
    for (_, image, _, then), now in zip(rows, sums):
      if now != then:
        raise ValueError(
          f'The image {image} of {source.name} has changed since the split {path} was written.'
        )
  parts = {part: tuple(place[image] for of, image, *_ in rows if of == part) for part in PARTS}
  return Split(**parts, report=report)


def pixel_sums(source: Source, places: Sequence[int]) -> list[str]:
  """``decode.pixel_hash`` of each image."""
  return each(lambda i: decode.pixel_hash(source.read(i)), places)
