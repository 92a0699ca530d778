"""Drawn products, made on the spot: 36 tasks of six textures, three marks and two tones."""

import functools
import itertools
from collections.abc import Sequence

import numpy as np

from jaxdefect.data import products, synthetic_products
from jaxdefect.data.source import LazyColumn, Source
from jaxdefect.data.synthetic_products import MARKS, TONES, ProductSample
from jaxdefect.data.synthetic_textures import TEXTURES


def make(
  *,
  texture: str,
  mark: str,
  tone: str,
  num_good: int = 60,
  num_defect: int = 60,
  size: int = 128,
  seed: int = 0,
  first: int = 0,
) -> Source:
  """Opens one task; a picture is made when it is read.

  A picture depends on ``(texture, mark, tone, seed, size)``, its class and its number alone, so a
  larger task holds the smaller one, and another ``first`` gives fresh pictures for testing.

  Args:
    texture: ``'rolled'``, ``'woven'``, ``'cast'``, ``'ribbed'``, ``'lathed'`` or ``'printed'``.
    mark: ``'stain'``, ``'scratch'`` or ``'hole'``.
    tone: ``'dark'`` (black on white) or ``'bright'`` (white on black).
    num_good: pictures without a mark.
    num_defect: pictures with one to three marks.
    size: side of the square picture, pixels.
    seed: another seed, other products of these names.
    first: number of the first picture of each class.

  Returns:
    Colour pictures [size, size, 3] named like ``'woven-stain-dark/defect/000012'`` (with another
    seed ``'woven-stain-dark-3/...'``), with the annotations ``kind`` (the mark, or ``''``) and
    ``mask`` (uint8 [size, size], 1 at every pixel that a mark changes). The source is called
    ``'synthetic/woven-stain-dark'``.

  Raises:
    ValueError: an argument is not allowed.

  >>> source = make(texture='woven', mark='stain', tone='dark', num_good=2, num_defect=3)
  >>> source.counts(), source.names[2], source.read(0).shape
  ((2, 3), 'woven-stain-dark/defect/000000', (128, 128, 3))
  """
  synthetic_products.check(texture=texture, mark=mark, tone=tone, size=size, seed=seed)
  for argument, value, least in (
    ('num_good', num_good, 1),
    ('num_defect', num_defect, 1),
    ('first', first, 0),
  ):
    if value < least:
      raise ValueError(f'synthetic_tasks: {argument} must be at least {least}, got {value}.')
  labels = [0] * num_good + [1] * num_defect
  numbers = [*range(first, first + num_good), *range(first, first + num_defect)]
  look = {'texture': texture, 'mark': mark, 'tone': tone, 'size': size, 'seed': seed}

  @functools.lru_cache(maxsize=16)  # The picture and its mask are mostly asked for together.
  def sample(i: int) -> ProductSample:
    return synthetic_products.generate(numbers[i], labels[i], **look)

  title = f'{texture}-{mark}-{tone}' + (f'-{seed}' if seed else '')
  names = [
    f'{title}/{products.CLASSES[label]}/{number:06d}' for label, number in zip(labels, numbers)
  ]
  return Source(
    name=f'synthetic/{title}',
    classes=products.CLASSES,
    names=tuple(names),
    labels=np.asarray(labels, np.int32),
    read=lambda i: sample(range(len(labels))[i]).image.copy(),
    annotations={
      'kind': tuple(mark if label else '' for label in labels),
      'mask': LazyColumn(len(labels), lambda i: sample(i).mask.copy()),
    },
  )


def tasks(
  *,
  textures: Sequence[str] = tuple(TEXTURES),
  marks: Sequence[str] = tuple(MARKS),
  tones: Sequence[str] = TONES,
  num_good: int = 60,
  num_defect: int = 60,
  size: int = 128,
  seed: int = 0,
) -> dict[str, Source]:
  """Opens every combination of textures, marks and tones, by the name of its source.

  Args:
    textures: as in ``make``, several.
    marks: likewise.
    tones: likewise.
    num_good: as in ``make``.
    num_defect: likewise.
    size: likewise.
    seed: likewise.

  Returns:
    The tasks.
  """
  opened = [
    make(
      texture=texture,
      mark=mark,
      tone=tone,
      num_good=num_good,
      num_defect=num_defect,
      size=size,
      seed=seed,
    )
    for texture, mark, tone in itertools.product(textures, marks, tones)
  ]
  return {source.name: source for source in opened}
