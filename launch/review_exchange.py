"""Verdicts as files that other tools read, and theirs as verdicts: COCO and Label Studio JSON.

COCO here is one image-level annotation per picture: a category and the box of the whole picture.
Label Studio is its export format: one task per picture with a choice called ``class``.
"""

import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from PIL import Image

from jaxdefect.review import Verdict

FORMATS = ('coco', 'label_studio')
CHOICE = 'class'


class Judged(NamedTuple):
  """A class of a file, as another tool says.

  Attributes:
    path: of the picture, as it is written in the file.
    label: its class.
    reviewer: who gave it; '' where the file does not say.
  """

  path: str
  label: str
  reviewer: str


def write(path: pathlib.Path, verdicts: Sequence[Verdict], classes: Sequence[str], kind: str):
  """Writes the verdicts that stand; the file is whole or absent.

  Args:
    path: the file.
    verdicts: one for each picture.
    classes: names, in the order of the categories.
    kind: of ``FORMATS``.
  """
  content = _coco(verdicts, classes) if kind == 'coco' else _label_studio(verdicts)
  partial = path.with_name(path.name + '.partial')
  partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
  os.replace(partial, path)


def read(path: pathlib.Path) -> list[Judged]:
  """Reads a file of either kind; which one it is, it says itself.

  Raises:
    ValueError: it is of neither kind, or an entry lacks what it should have.
  """
  if not path.is_file():
    raise ValueError(f'the file {path} does not exist')
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
  except (ValueError, UnicodeDecodeError) as error:
    raise ValueError(f'the file {path} is no JSON: {error}') from error
  try:
    if isinstance(content, dict) and {'images', 'annotations', 'categories'} <= content.keys():
      return list(_from_coco(content))
    if isinstance(content, list):
      return list(_from_label_studio(content))
  except (KeyError, TypeError, IndexError, AttributeError) as error:
    raise ValueError(f'the file {path} lacks {error}') from error
  raise ValueError(
    f'the file {path} is neither COCO (images, annotations, categories) nor a list of tasks of '
    'Label Studio'
  )


def _coco(verdicts: Sequence[Verdict], classes: Sequence[str]) -> dict[str, Any]:
  names = [*classes, *sorted({v.label for v in verdicts} - set(classes))]
  images, annotations = [], []
  for number, one in enumerate(verdicts, start=1):
    width, height = _size(one.path)
    images.append({'id': number, 'file_name': one.path, 'width': width, 'height': height})
    annotations.append(
      {
        **{'id': number, 'image_id': number, 'category_id': names.index(one.label) + 1},
        **{'bbox': [0, 0, width, height], 'area': width * height, 'iscrowd': 0},
        **{'reviewer': one.reviewer, 'at': one.at},
      }
    )
  categories = [{'id': k + 1, 'name': name} for k, name in enumerate(names)]
  return {'images': images, 'annotations': annotations, 'categories': categories}


def _size(path: str) -> tuple[int, int]:
  try:
    with Image.open(path) as opened:
      return opened.size
  except OSError:
    return 0, 0  # the file is gone; the verdict is not


def _label_studio(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
  return [
    {
      'id': number,
      'data': {'image': one.path},
      'annotations': [
        {
          'completed_by': {'email': one.reviewer},
          'created_at': one.at,
          'result': [
            {
              **{'from_name': CHOICE, 'to_name': 'image', 'type': 'choices'},
              'value': {'choices': [one.label]},
            }
          ],
        }
      ],
    }
    for number, one in enumerate(verdicts, start=1)
  ]


def _from_coco(content: dict[str, Any]) -> Iterator[Judged]:
  names = {one['id']: one['name'] for one in content['categories']}
  files = {one['id']: one['file_name'] for one in content['images']}
  met: dict[Any, str] = {}
  for one in content['annotations']:
    image, label = one['image_id'], names[one['category_id']]
    if met.setdefault(image, label) != label:
      raise ValueError(
        f'{files[image]} has the classes {met[image]} and {label}; a verdict is one class'
      )
  reviewers = {one['image_id']: one.get('reviewer', '') for one in content['annotations']}
  for image, label in met.items():
    yield Judged(files[image], label, reviewers[image])


def _from_label_studio(content: list[Any]) -> Iterator[Judged]:
  for task in content:
    kept = [one for one in task['annotations'] if not one.get('was_cancelled')]
    if not kept:
      continue
    last = kept[-1]
    choices = [one for one in last['result'] if one.get('type') == 'choices']
    if not choices:
      continue
    by = last.get('completed_by')
    reviewer = by.get('email', '') if isinstance(by, dict) else ''
    yield Judged(task['data']['image'], choices[0]['value']['choices'][0], reviewer)
