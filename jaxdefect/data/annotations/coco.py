"""Boxes from COCO JSON.

Coordinates. COCO has the upper left corner and the size of a box, counted from the image's upper
left corner: ``(x, y, width, height) -> (x, y, x + width, y + height)``.

Shape legend: N images, n boxes of one of them.
"""

import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxdefect.data.annotations.findings import Findings


class CocoAnnotations(NamedTuple):
  """One COCO file, all ids resolved; the boxes are not held against the images yet.

  Attributes:
    classes: category names, in the order of their ids, which need not be contiguous.
    files: [N] file name of each image, with ``/`` between folders.
    sizes: [N] (height, width) of each image, or None where the file has none or zeros.
    boxes: [N] of [n, 4] float64, edges xyxy as written.
    labels: [N] of [n] int32, counting in ``classes``.
    ids: [N] of n annotation ids, as text.
    crowds: [N] of [m, 4] float64, regions of many objects (``iscrowd``), in none of ``boxes``.
  """

  classes: tuple[str, ...]
  files: tuple[str, ...]
  sizes: tuple[tuple[int, int] | None, ...]
  boxes: tuple[np.ndarray, ...]
  labels: tuple[np.ndarray, ...]
  ids: tuple[tuple[str, ...], ...]
  crowds: tuple[np.ndarray, ...]


def read_coco(path: str | os.PathLike[str], findings: Findings) -> CocoAnnotations:
  """Reads the boxes of one COCO file ("instances").

  Errors are: an image or category id, a file name or a category name that occurs twice; an
  annotation of an image or a category that the file does not list; an annotation without a box.
  Notes are: an annotation id that occurs twice (both kept), ``iscrowd`` regions (a box around
  many objects is the box of none; they are in ``crowds``), a category without any box.

  Args:
    path: the file.
    findings: takes the notes and errors.

  Returns:
    What the file holds.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is no COCO file, or holds an error; one sentence.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'The annotations {path} do not exist.')
  try:
    content = json.loads(path.read_text(encoding='utf-8-sig'))
  except ValueError as error:
    raise ValueError(f'The annotations {path} are no JSON: {error}.') from error
  tables = ('images', 'annotations', 'categories')
  if not isinstance(content, dict) or not all(isinstance(content.get(t), list) for t in tables):
    raise ValueError(f'The annotations {path} are no COCO file: {", ".join(tables)} must be lists.')
  categories = _by_id(content['categories'], 'name', findings, kind='category')
  images = _by_id(content['images'], 'file_name', findings, kind='image')
  findings.refuse()
  label = {id: place for place, id in enumerate(sorted(categories, key=_numbers_first))}
  rows: dict[Any, list[tuple[list[float], int, str]]] = {id: [] for id in images}
  crowds: dict[Any, list[list[float]]] = {id: [] for id in images}
  for one, id, box in _annotations(content['annotations'], label, images, findings):
    if one.get('iscrowd'):
      findings.note(
        'iscrowd regions, which are no boxes of single objects and are left out of them',
        f'annotation {id} on {_file(images[one["image_id"]])}',
      )
      crowds[one['image_id']].append(box)
    else:
      rows[one['image_id']].append((box, label[one['category_id']], id))
  findings.refuse()
  used = {kind for of_image in rows.values() for _, kind, _ in of_image}
  for id, place in label.items():
    if place not in used:
      findings.note('categories without any box', f'{categories[id]["name"]} (id {id})')
  return CocoAnnotations(
    classes=tuple(str(categories[id]['name']) for id in label),
    files=tuple(_file(one) for one in images.values()),
    sizes=tuple(_size(one) for one in images.values()),
    boxes=tuple(_boxes([row[0] for row in of_image]) for of_image in rows.values()),
    labels=tuple(np.asarray([row[1] for row in of_image], np.int32) for of_image in rows.values()),
    ids=tuple(tuple(row[2] for row in of_image) for of_image in rows.values()),
    crowds=tuple(_boxes(of_image) for of_image in crowds.values()),
  )


def _by_id(
  table: list[Any], name: str, findings: Findings, *, kind: str
) -> dict[Any, dict[str, Any]]:
  """The rows of ``images`` or ``categories`` by id; ids and names must be there and be single."""
  found: dict[Any, dict[str, Any]] = {}
  names: dict[str, Any] = {}
  for place, one in enumerate(table):
    id = one.get('id') if isinstance(one, dict) else None
    text = one.get(name) if isinstance(one, dict) else None
    if not isinstance(id, int | str) or not isinstance(text, str) or not text:
      findings.error(f'{kind} entries without an id or a {name}', f'entry {place} (from 0)')
      continue
    text = _file(one) if kind == 'image' else text
    if id in found:
      findings.error(f'{kind} ids that occur more than once', f'{id} ({text})')
    elif text in names:
      findings.error(
        f'{kind} names that occur more than once', f'{text} (ids {names[text]} and {id})'
      )
    found[id] = one
    names[text] = id
  return found


def _annotations(
  table: list[Any], label: dict[Any, int], images: dict[Any, Any], findings: Findings
) -> Iterator[tuple[dict[str, Any], str, list[float]]]:
  """Each good annotation with its id and its edges; the others become errors."""
  met = set()
  for place, one in enumerate(table):
    if not isinstance(one, dict):
      findings.error('annotations that are no objects', f'entry {place} (from 0)')
      continue
    id = str(one.get('id', f'without an id at place {place} (from 0)'))
    image, category = (_id(one.get(key)) for key in ('image_id', 'category_id'))
    if image not in images:
      findings.error(
        'annotations of an image that the file does not list',
        f'annotation {id} of image_id {image!r}',
      )
      continue
    where = f'annotation {id} on {_file(images[image])}'
    if category not in label:
      findings.error(
        'annotations of a category that the file does not list',
        f'{where} of category_id {category!r}',
      )
      continue
    box = one.get('bbox')
    box = box if isinstance(box, list) else []
    if len(box) != 4 or not all(isinstance(side, int | float) for side in box):
      findings.error('annotations without a bbox of four numbers', where)
      continue
    if id in met:
      findings.note('annotation ids that occur more than once, kept', where)
    met.add(id)
    x, y, width, height = map(float, box)
    yield one, id, [x, y, x + width, y + height]


def _id(value: Any) -> Any:
  """An id, or something that no table has in its place."""
  return value if isinstance(value, int | str) else repr(value)


def _file(image: dict[str, Any]) -> str:
  return pathlib.PurePosixPath(image['file_name'].replace('\\', '/')).as_posix()


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
  sides = [image.get(key) for key in ('height', 'width')]
  whole = [int(side) for side in sides if isinstance(side, int | float) and 1 <= side < math.inf]
  return (whole[0], whole[1]) if len(whole) == 2 else None


def _boxes(rows: list[list[float]]) -> np.ndarray:
  return np.asarray(rows, np.float64).reshape(-1, 4)


def _numbers_first(id: Any) -> tuple[bool, Any]:
  return isinstance(id, str), id
