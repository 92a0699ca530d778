"""Boxes from XML and JSON: by hand, and what cannot be right is counted and named."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxdefect.data import annotations
from jaxdefect.data.source import Note

VOC = """<annotation><filename>{filename}</filename>{size}
<object><name>dent</name><difficult>1</difficult><bndbox>
<xmin>{x0}</xmin><ymin>2</ymin><xmax>{x1}</xmax><ymax>10</ymax></bndbox></object></annotation>"""
SIZE = '<size><width>20</width><height>10</height></size>'


def _fit(boxes, bad_boxes='error', size=(10, 20)):
  findings = annotations.Findings('The file')
  places = [f'box {k}' for k in range(len(boxes))]
  fitted, kept = annotations.fit_boxes(
    np.asarray(boxes, float), size, places, findings, bad_boxes=bad_boxes
  )
  return fitted.tolist(), kept.tolist(), findings


def test_good_boxes_pass_unchanged():
  fitted, kept, findings = _fit([[0, 0, 20, 10], [3.25, 1, 4, 2]])
  assert fitted == [[0, 0, 20, 10], [3.25, 1, 4, 2]]
  assert kept == [0, 1]
  findings.refuse()
  assert findings.notes() == ()
  assert _fit(np.zeros((0, 4)))[:2] == ([], [])


def test_rounding_is_clipped_and_noted():
  fitted, kept, findings = _fit([[5, 5, 6, 6], [-1, 0, 3, 3], [18, 2, 20.5, 10.25]])
  findings.refuse()
  assert fitted == [[5, 5, 6, 6], [0, 0, 3, 3], [18, 2, 20, 10]]
  assert kept == [0, 1, 2]
  (note,) = findings.notes()
  assert note.what == 'boxes that reach over their image by at most 1 pixel, clipped'
  assert note.where == (
    'box 1, (-1, 0, 3, 3) in 20 x 10',
    'box 2, (18, 2, 20.5, 10.25) in 20 x 10',
  )
  # The dust of x + width in float64 is no overhang.
  assert _fit([[0.1, 0, 0.1 + 19.9 + 4e-15, 10]])[2].notes() == ()


BAD = [[-2, 0, 3, 3], [30, 1, 40, 5], [3, 3, 3, 9], [9, 1, 4, 5], [1, 1, 2, 2], [0, 0, 25, 3]]


def test_bad_boxes_are_errors_with_a_count():
  for boxes, reason in [
    (BAD, r'reach over their image by more than 1 pixel: 2 in all, the first is box 0, \(-2, 0'),
    (BAD[1:2], r'boxes outside their image: 1 in all, the first is box 0, \(30, 1, 40, 5\) in'),
    (BAD[2:4], r'boxes without area: 2 in all, the first is box 0, \(3, 3, 3, 9\)'),
  ]:
    with pytest.raises(ValueError, match=rf"^The file: .*{reason}.*; bad_boxes='repair' clips"):
      _fit(boxes)[2].refuse()
  for bad in (np.nan, np.inf, 1e300):
    with pytest.raises(ValueError, match='no finite number: 1 in all, the first is box 1'):
      _fit([[1, 1, 2, 2], [0, 0, bad, 5]], bad_boxes='repair')[2].refuse()
  with pytest.raises(ValueError, match="bad_boxes must be one of error, repair, got 'drop'"):
    _fit(BAD, bad_boxes='drop')


def test_bad_boxes_are_repaired_and_each_is_noted():
  fitted, kept, findings = _fit(BAD, bad_boxes='repair')
  findings.refuse()
  assert fitted == [[0, 0, 3, 3], [1, 1, 2, 2], [0, 0, 20, 3]]
  assert kept == [0, 4, 5]
  found = {note.what: [one.split(',')[0] for one in note.where] for note in findings.notes()}
  assert found == {
    'boxes that reach over their image by more than 1 pixel, clipped': ['box 0', 'box 5'],
    'boxes outside their image, left out': ['box 1'],
    'boxes without area, left out': ['box 2', 'box 3'],
  }


def test_note_shows_the_first_and_holds_all():
  note = Note('odd things', tuple('abcdefg'))
  assert str(note) == 'odd things: 7 (a, b, c, d, e, and 2 more)'
  assert json.loads(json.dumps(note)) == ['odd things', list('abcdefg')]


def test_voc_without_checks_by_hand(tmp_path):
  path = tmp_path / 'a.xml'
  path.write_text(VOC.format(filename='a.jpg', size=SIZE, x0=0, x1=23))
  voc = annotations.read_voc(path, check=False)
  assert voc.boxes.tolist() == [[-1.0, 1.0, 23.0, 10.0]]
  assert (voc.size, voc.names, voc.difficult.tolist()) == ((10, 20), ('dent',), [True])
  edges = annotations.read_voc(path, check=False, first_pixel=0)
  assert edges.boxes.tolist() == [[0.0, 2.0, 23.0, 10.0]]
  for size in ('', SIZE.replace('20', '0')):
    path.write_text(VOC.format(filename='a.jpg', size=size, x0=1, x1=3))
    assert annotations.read_voc(path, check=False).size is None
    with pytest.raises(ValueError, match=r'a\.xml has'):
      annotations.read_voc(path)
  path.write_text(VOC.format(filename='a', size=SIZE, x0='inf', x1=3))
  with pytest.raises(ValueError, match="'inf' for bndbox/xmin, not a number"):
    annotations.read_voc(path, check=False)
  for encoding in ('gb2312', 'windows-936'):
    path.write_text(f'<?xml version="1.0" encoding="{encoding}"?><annotation/>')
    with pytest.raises(ValueError, match=r'a\.xml is no XML: .*encoding'):
      annotations.read_voc(path)
  path.write_text('<project></project>')
  with pytest.raises(ValueError, match=r'a\.xml is no VOC file: it begins with <project>'):
    annotations.read_voc(path)
  with pytest.raises(ValueError, match='first_pixel must be 0 or 1, got 2'):
    annotations.read_voc(path, first_pixel=2)
  with pytest.raises(ValueError, match=r'b\.xml cannot be read: No such file'):
    annotations.read_voc(tmp_path / 'b.xml')


def _coco(path, **changes):
  content = {
    'images': [
      {'id': 7, 'file_name': 'sub\\b.jpg', 'height': 10, 'width': 20},
      {'id': 'x', 'file_name': './a.jpg', 'height': 0, 'width': 0},
    ],
    'categories': [{'id': 40, 'name': 'dent'}, {'id': 3, 'name': 'rust'}],
    'annotations': [
      {'id': 1, 'image_id': 7, 'category_id': 40, 'bbox': [1, 2, 3, 4.5]},
      {'id': 2, 'image_id': 7, 'category_id': 3, 'bbox': [0, 0, 20, 10], 'iscrowd': 1},
      {'id': 3, 'image_id': 7, 'category_id': 3, 'bbox': [0, 0, 2, 2], 'iscrowd': 0},
    ],
  }
  path.write_text(json.dumps(content | changes))
  findings = annotations.Findings(f'The annotations {path.name}')
  return annotations.read_coco(path, findings), findings


def test_coco_by_hand(tmp_path):
  coco, findings = _coco(tmp_path / 'a.json')
  assert coco.classes == ('rust', 'dent')  # In the order of the ids 3 and 40.
  assert coco.files == ('sub/b.jpg', 'a.jpg')
  assert coco.sizes == ((10, 20), None)
  assert coco.boxes[0].tolist() == [[1, 2, 4, 6.5], [0, 0, 2, 2]]
  assert coco.labels[0].tolist() == [1, 0]
  assert coco.ids == (('1', '3'), ())
  assert coco.crowds[0].tolist() == [[0, 0, 20, 10]]
  assert (coco.boxes[1].shape, coco.labels[1].dtype) == ((0, 4), np.int32)
  (note,) = findings.notes()
  assert note.what.startswith('iscrowd regions')
  assert note.where == ('annotation 2 on sub/b.jpg',)


def test_coco_rejects_in_one_sentence(tmp_path):
  path = tmp_path / 'a.json'
  good = {'id': 1, 'image_id': 7, 'category_id': 40, 'bbox': [1, 2, 3, 4]}
  image, kind = {'id': 7, 'file_name': 'b.jpg'}, {'id': 40, 'name': 'dent'}
  lost = [good | {'id': 5, 'image_id': 8}, good | {'id': 6, 'image_id': '7'}]
  for changes, reason in [
    ({'annotations': [good, *lost]}, 'an image that the file does not list: 2 in all, the '
     'first is annotation 5 of image_id 8'),
    ({'annotations': [good | {'category_id': 4}]}, 'a category that the file does not list: 1 '
     r'in all, the first is annotation 1 on sub/b\.jpg of category_id 4'),
    ({'annotations': [good | {'category_id': [4]}]}, 'a category that the file does not list'),
    ({'annotations': [good | {'bbox': [1, 2, 3]}]}, 'without a bbox of four numbers: 1 in all'),
    ({'annotations': [good | {'bbox': None}]}, 'without a bbox of four numbers'),
    ({'annotations': [4]}, r'no objects: 1 in all, the first is entry 0'),
    ({'images': [image, image | {'file_name': 'c.jpg'}]}, 'image ids that occur more than once: '
     r'1 in all, the first is 7 \(c\.jpg\)'),
    ({'images': [image, image | {'id': 8}]}, r'image names that occur .* b\.jpg \(ids 7 and 8\)'),
    ({'categories': [kind, kind | {'name': 'x'}]}, r'category ids that occur .* 40 \(x\)'),
    ({'categories': [kind, kind | {'id': 4}]}, r'category names .* dent \(ids 40 and 4\)'),
    ({'images': [{'id': 7}]}, 'image entries without an id or a file_name: 1 in all'),
    ({'images': {}}, 'images, annotations, categories must be lists'),
  ]:  # fmt: skip
    with pytest.raises(ValueError, match=r'The annotations .*a\.json.*' + reason):
      _coco(path, **changes)
  path.write_text('{')
  with pytest.raises(ValueError, match=r'a\.json are no JSON'):
    annotations.read_coco(path, annotations.Findings(''))
  with pytest.raises(FileNotFoundError, match=r'absent\.json do not exist'):
    annotations.read_coco(tmp_path / 'absent.json', annotations.Findings(''))


def test_coco_repeated_ids_and_unused_categories_are_noted(tmp_path):
  one = {'id': 1, 'image_id': 7, 'category_id': 40, 'bbox': [1, 2, 3, 4]}
  coco, findings = _coco(tmp_path / 'a.json', annotations=[one, one])
  assert len(coco.boxes[0]) == 2
  assert {note.what: note.where for note in findings.notes()} == {
    'annotation ids that occur more than once, kept': ('annotation 1 on sub/b.jpg',),
    'categories without any box': ('rust (id 3)',),
  }


@pytest.mark.parametrize('ending', ['jpg', 'png'])
def test_image_size_is_that_of_the_decoded_image(tmp_path, ending):
  from jaxdefect.data import decode

  image = Image.new('L', (20, 10))
  exif = Image.Exif()
  exif[0x0112] = 6
  for name, more in (('plain', {}), ('turned', {'exif': exif.tobytes()})):
    path = tmp_path / f'{name}.{ending}'
    image.save(path, **more)
    assert annotations.image_size(path) == decode.read_image(path).shape[:2]
  assert annotations.image_size(path) == (20, 10)
  path.write_bytes(b'nothing')
  with pytest.raises(ValueError, match='it is no picture'):
    annotations.image_size(path)
