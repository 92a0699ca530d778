"""Layouts with boxes become sources; every bad input is named and counted."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxdefect import data
from jaxdefect.data.source import LazyColumn, Source
from jaxdefect.data.sources import deep_pcb, neu_det


def _picture(path, value=0, size=(20, 10)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new('L', size, value).save(path)


def _notes(source):
  return {note.what: note.where for note in source.notes}


def _object(kind, x0=1, y0=1, x1=5, y1=5, more=''):
  return (
    f'<object><name>{kind}</name>{more}<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>'
    f'<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>'
  )


def _xml(path, *objects, filename='', size=(20, 10)):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(
    f'<annotation><filename>{filename}</filename><size><width>{size[0]}</width>'
    f'<height>{size[1]}</height></size>{"".join(objects)}</annotation>'
  )


def test_box_counts_by_hand():
  labels = [np.asarray(one, np.int32) for one in ([0, 2, 2], [], [2])]
  boxes = [np.zeros((len(one), 4), np.float32) for one in labels]
  source = Source(
    's', ('a', 'b', 'c'), ('x', 'y', 'z'), np.zeros(3), lambda i: np.zeros((1, 1, 1), np.uint8),
    annotations={'boxes': boxes, 'box_labels': labels},
  )  # fmt: skip
  assert source.box_counts() == (1, 0, 3)
  assert source.box_counts([0, 1]) == (1, 0, 2)
  assert source.box_counts(np.asarray([2]), classes=['c', 'b']) == (1, 0)
  assert source.box_counts([]) == (0, 0, 0)
  with pytest.raises(ValueError, match="has no class 'd'"):
    source.box_counts(classes=['d'])
  plain = Source('s', ('a',), ('x',), np.zeros(1), source.read)
  with pytest.raises(ValueError, match='s has no boxes'):
    plain.box_counts()


def test_lazy_column_reads_when_asked():
  asked = []
  column = LazyColumn(3, lambda i: asked.append(i) or i)
  assert len(column) == 3
  assert asked == []
  assert (column[-1], column[1:], list(column)) == (2, [1, 2], [0, 1, 2])
  assert asked == [2, 1, 2, 0, 1, 2]
  with pytest.raises(IndexError):
    column[3]


def _neu(root):
  for name in ('crazing_1', 'patches_2', 'patches_3'):
    _picture(root / 'IMAGES' / f'{name}.jpg')
  xmls = root / 'ANNOTATIONS'
  _xml(xmls / 'crazing_1.xml', _object('patches'), _object('crazing'), filename='crazing_1')
  _xml(xmls / 'patches_2.xml', _object('patches', x0=0), filename='patches_2.jpg')
  _xml(xmls / 'patches_3.xml', filename='patches_3.jpg')
  return root


def test_neu_det_boxes_decide(tmp_path):
  source = data.load('neu_det', dir=_neu(tmp_path))
  assert source.name == 'neu_det'
  assert source.labels.tolist() == [0, 2, 0]  # A tie: the lowest; no box: 0.
  assert source.annotations['boxes'][1].tolist() == [[0, 0, 5, 5]]
  assert source.annotations['boxes'][2].shape == (0, 4)
  assert source.box_counts() == (1, 0, 2, 0, 0, 0)
  assert data.load('neu', dir=tmp_path).labels.tolist() == [0, 2, 2]
  assert _notes(source) == {
    "boxes of another class than their file's, kept as the box has it": (
      'crazing_1.xml box 1 (patches)',
    ),
    'boxes that reach over their image by at most 1 pixel, clipped': (
      'patches_2.xml box 1, (-1, 0, 5, 5) in 20 x 10',
    ),
    'images without any box, kept as negatives': ('patches_3.jpg',),
  }
  _xml(tmp_path / 'ANNOTATIONS/patches_3.xml', filename='patches_3.jpg', size=(30, 10))
  with pytest.raises(
    ValueError,
    match=r'NEU-DET in .*another size than .* 1 in all, .*patches_3\.jpg, 20 x 10, .* as 30 x 10',
  ):
    data.load('neu_det', dir=tmp_path)


def _pcb(root, lines='472 288 546 334 1\n1,2,30,40,6\n'):
  folder = root / 'PCBData' / 'group1'
  for id in ('1000', '1001', '1002'):
    _picture(folder / '1' / f'{id}_test.jpg', 10, (640, 640))
    _picture(folder / '1' / f'{id}_temp.jpg', 90, (640, 640))
    (folder / '1_not').mkdir(exist_ok=True)
    (folder / '1_not' / f'{id}.txt').write_text(lines)
  row = 'group1/1/{0}.jpg group1/1_not/{0}.txt\n'
  (root / 'PCBData/trainval.txt').write_text(row.format('1001'))
  (root / 'PCBData/test.txt').write_text(row.format('1000') + '\n')
  return root


def test_deep_pcb_by_hand(tmp_path):
  source = data.load('deep_pcb', dir=_pcb(tmp_path))
  assert source.names == ('group1/1/1000_test.jpg', 'group1/1/1001_test.jpg')
  assert source.annotations['official'] == ['test', 'trainval']
  assert source.annotations['boxes'][0].tolist() == [[472, 288, 546, 334], [1, 2, 30, 40]]
  assert source.box_counts() == (2, 0, 0, 0, 0, 2)
  reference = source.annotations['reference']
  assert (len(reference), reference[1].shape) == (2, (640, 640, 1))
  assert (int(reference[1][0, 0, 0]), int(source.read(1)[0, 0, 0])) == (90, 10)
  assert _notes(source) == {
    'images that no list names, left out': ('group1/1/1002_test.jpg',),
  }
  assert data.load('deep_pcb', dir=tmp_path / 'PCBData').names == source.names


def test_deep_pcb_rejects_in_one_sentence(tmp_path):
  with pytest.raises(FileNotFoundError, match='does not exist'):
    data.load('deep_pcb', dir=tmp_path / 'absent')
  for lines, reason in [
    ('1 2 3 4 7\n5 6 7 8 0', r'a type that is not among 1\.\.6: 4 in all, .*1001\.txt:1 \(7\)'),
    ('1 2 3 4', r'not five whole numbers: 2 in all, .*1001\.txt:1 \(1 2 3 4\)'),
    ('1 2 3 4.5 1', 'not five whole numbers: 2 in all'),
    ('700 2 720 30 1', 'boxes outside their image: 2 in all'),
    ('5 5 5 9 1', 'boxes without area: 2 in all'),
  ]:
    with pytest.raises(ValueError, match=r'DeepPCB in .*: .*' + reason):
      data.load('deep_pcb', dir=_pcb(tmp_path, lines))
  repaired = data.load('deep_pcb', dir=_pcb(tmp_path, '5 5 5 9 1\n'), bad_boxes='repair')
  assert len(_notes(repaired)['boxes without area, left out']) == 2
  assert len(_notes(repaired)['images without any box, kept as negatives']) == 2
  _pcb(tmp_path)
  _picture(tmp_path / 'PCBData/group1/1/1000_temp.jpg', size=(640, 600))
  with pytest.raises(ValueError, match='templates that are not 640 x 640: 1 in all'):
    data.load('deep_pcb', dir=tmp_path)
  (tmp_path / 'PCBData/group1/1/1000_temp.jpg').unlink()
  with pytest.raises(ValueError, match=r'listed files that are missing: 1 in all, .*1000_temp'):
    data.load('deep_pcb', dir=tmp_path)
  (_pcb(tmp_path) / 'PCBData/test.txt').write_text('a b c\n')
  with pytest.raises(ValueError, match=r'do not name an image and a text file: 1 .* test\.txt:1'):
    data.load('deep_pcb', dir=tmp_path)
  listed = (tmp_path / 'PCBData/trainval.txt').read_text()
  (tmp_path / 'PCBData/test.txt').write_text(listed)
  with pytest.raises(ValueError, match='images that are listed more than once: 1 in all'):
    data.load('deep_pcb', dir=tmp_path)
  (tmp_path / 'PCBData/test.txt').unlink()
  with pytest.raises(FileNotFoundError, match=r'test\.txt, which DeepPCB has'):
    data.load('deep_pcb', dir=tmp_path)


def _coco(root, boxes=((5, 7, [1, 1, 3, 3]),), **changes):
  for name in ('images/b.png', 'images/a.png', 'images/sub/c.png'):
    _picture(root / name)
  content = {
    'images': [
      {'id': 5, 'file_name': 'b.png', 'width': 20, 'height': 10},
      {'id': 9, 'file_name': 'a.png', 'width': 20, 'height': 10},
    ],
    'categories': [{'id': 90, 'name': 'dent'}, {'id': 7, 'name': 'rust'}],
    'annotations': [
      {'id': 100 + i, 'image_id': image, 'category_id': kind, 'bbox': box}
      for i, (image, kind, box) in enumerate(boxes)
    ],
  }
  (root / 'boxes.json').write_text(json.dumps(content | changes))
  return {'dir': root / 'images', 'annotations': root / 'boxes.json'}


def test_coco_by_hand(tmp_path):
  boxes = [(5, 90, [1, 1, 3, 3]), (5, 7, [2, 2, 4, 4]), (5, 90, [-0.5, 0, 4, 4])]
  source = data.load('coco', **_coco(tmp_path, boxes))
  assert source.classes == ('rust', 'dent')
  assert source.names == ('a.png', 'b.png')
  assert source.labels.tolist() == [0, 1]
  assert source.annotations['boxes'][1].tolist() == [[1, 1, 4, 4], [2, 2, 6, 6], [0, 0, 3.5, 4]]
  assert source.annotations['box_labels'][1].tolist() == [1, 0, 1]
  assert 'crowd_boxes' not in source.annotations
  assert source.read(0).shape == (10, 20, 1)
  assert _notes(source) == {
    'images that no annotation mentions, left out': ('sub/c.png',),
    'images without any box, kept as negatives': ('a.png',),
    'boxes that reach over their image by at most 1 pixel, clipped': (
      'annotation 102 on b.png, (-0.5, 0, 3.5, 4) in 20 x 10',
    ),
  }
  arguments = _coco(tmp_path, boxes)
  below = data.load('coco', dir=tmp_path / 'images', annotations='../boxes.json')
  assert below.names == source.names
  turned = data.load('coco', **arguments, classes=('dent', 'rust'))
  assert turned.labels.tolist() == [0, 0]


def test_coco_unmentioned_images_and_crowds(tmp_path):
  arguments = _coco(tmp_path)
  content = json.loads((tmp_path / 'boxes.json').read_text())
  crowd = {'id': 1, 'image_id': 5, 'category_id': 7, 'bbox': [0, 0, 9, 9], 'iscrowd': 1}
  content['annotations'].append(crowd)
  (tmp_path / 'boxes.json').write_text(json.dumps(content))
  source = data.load('coco', **arguments, unmentioned='negative')
  assert source.names == ('a.png', 'b.png', 'sub/c.png')
  assert [len(one) for one in source.annotations['boxes']] == [0, 1, 0]
  assert [one.tolist() for one in source.annotations['crowd_boxes']] == [[], [[0, 0, 9, 9]], []]
  assert _notes(source)['images that no annotation mentions, taken as negatives'] == ('sub/c.png',)
  assert 'images whose annotation has no size, taken from the image' not in _notes(source)
  with pytest.raises(ValueError, match=r'mentions: 1 in all, the first is sub/c\.png; unmentio'):
    data.load('coco', **arguments, unmentioned='error')
  with pytest.raises(ValueError, match="one of leave_out, negative, error, got 'ignore'"):
    data.load('coco', **arguments, unmentioned='ignore')


def test_coco_knows_an_image_however_it_is_spelled(tmp_path):
  arguments = _coco(tmp_path)
  content = json.loads((tmp_path / 'boxes.json').read_text())
  content['images'][0]['file_name'] = '../images/b.png'
  content['images'][1]['file_name'] = str(tmp_path.resolve() / 'images/a.png')
  (tmp_path / 'boxes.json').write_text(json.dumps(content))
  source = data.load('coco', **arguments, unmentioned='negative')
  assert len(source) == 3
  assert sorted(len(one) for one in source.annotations['boxes']) == [0, 0, 1]


def test_coco_rejects_in_one_sentence(tmp_path):
  arguments = _coco(tmp_path)
  with pytest.raises(FileNotFoundError, match='does not exist'):
    data.load('coco', **(arguments | {'dir': tmp_path / 'absent'}))
  with pytest.raises(FileNotFoundError, match=r'other\.json do not exist'):
    data.load('coco', **(arguments | {'annotations': 'other.json'}))
  with pytest.raises(ValueError, match="no category 'scratch'; they have rust, dent"):
    data.load('coco', **arguments, classes=('scratch',))
  with pytest.raises(ValueError, match=r'not among classes \(dent\): 1 .* 100 on b\.png \(rust\)'):
    data.load('coco', **arguments, classes=('dent',))
  images = [{'id': 5, 'file_name': 'b.png', 'width': 20, 'height': 10}]
  lost = [{'id': 6, 'file_name': 'd.png'}, {'id': 7, 'file_name': 'e.png'}]
  for changes, reason in [
    ({'images': images + lost}, r'images that are missing below .*: 2 in all, .* d\.png'),
    ({'images': [images[0] | {'width': 10, 'height': 20}]}, r'another size .* 10 x 20; .* EXIF'),
    ({'boxes': [(5, 7, [1, 1, 0, 3])]}, r'without area: 1 in all, .* 100 on b\.png, \(1, 1, 1'),
    ({'boxes': [(8, 7, [1, 1, 2, 3])]}, 'does not list: 1 in all'),
  ]:
    with pytest.raises(ValueError, match=r'The annotations .*boxes\.json: .*' + reason):
      data.load('coco', **_coco(tmp_path, **changes))
  bad = _coco(tmp_path, boxes=[(5, 7, [1, 1, 0, 3]), (5, 7, [15, 1, 9, 3])])
  repaired = data.load('coco', **bad, bad_boxes='repair')
  assert repaired.annotations['boxes'][1].tolist() == [[15, 1, 20, 4]]
  arguments = _coco(tmp_path)
  (tmp_path / 'images/b.png').write_bytes(b'nothing')
  with pytest.raises(ValueError, match=r'images that cannot be read: 1 .*b\.png \(it is no pict'):
    data.load('coco', **arguments)


def test_coco_without_sizes_takes_them_from_the_image(tmp_path):
  source = data.load('coco', **_coco(tmp_path, images=[{'id': 5, 'file_name': 'b.png'}]))
  assert _notes(source)['images whose annotation has no size, taken from the image'] == ('b.png',)


def test_voc_layouts(tmp_path):
  for part, value in (('train', 1), ('test', 2)):
    _picture(tmp_path / part / 'images/1.png', value)
    _xml(tmp_path / part / 'labels/1.xml', _object('spot' if value == 1 else 'dent'))
  _picture(tmp_path / 'beside.png', 3)  # Named by its XML's <filename> alone.
  _xml(tmp_path / 'other.xml', _object('dent'), filename='beside.png')
  _picture(tmp_path / 'good.png', 4)
  _xml(tmp_path / 'good.xml', filename='beside.png')  # A stale <filename>.
  _picture(tmp_path / 'pair.png', 5)
  _picture(tmp_path / 'pair.jpg', 6)
  _xml(tmp_path / 'pair.xml', _object('dent', more='<difficult>1</difficult>'), filename='pair.jpg')
  source = data.load('voc', dir=tmp_path)
  assert source.classes == ('dent', 'spot')
  assert source.names == (
    'beside.png', 'good.png', 'pair.jpg', 'test/images/1.png', 'train/images/1.png',
  )  # fmt: skip
  assert source.labels.tolist() == [0, 0, 0, 0, 1]
  assert source.annotations['boxes'][0].tolist() == [[0, 0, 5, 5]]
  assert [int(source.read(i)[0, 0, 0]) for i in (3, 4)] == [2, 1]
  assert _notes(source) == {
    "XML files whose <filename> is another image's, matched by their own name": (
      "good.xml (of 'beside.png')",
    ),
    'boxes that are marked difficult, kept': ('pair.xml box 1',),
    'images that no annotation mentions, left out': ('pair.png',),
    'images without any box, kept as negatives': ('good.png',),
  }
  edges = data.load('voc', dir=tmp_path, first_pixel=0, classes=('spot', 'dent', 'rust'))
  assert edges.annotations['boxes'][0].tolist() == [[1, 1, 5, 5]]
  assert edges.box_counts() == (1, 3, 0)


def test_voc_repeated_boxes_are_noted_and_kept(tmp_path):
  _picture(tmp_path / 'a.png')
  _xml(tmp_path / 'a.xml', _object('dent'), _object('spot'), _object('dent'))
  source = data.load('voc', dir=tmp_path)
  assert source.box_counts() == (2, 1)
  assert _notes(source) == {
    'boxes that are written several times, kept': ('(0, 0, 5, 5) of a.png',)
  }


def test_voc_rejects_in_one_sentence(tmp_path):
  with pytest.raises(FileNotFoundError, match='does not exist'):
    data.load('voc', dir=tmp_path / 'absent')
  _picture(tmp_path / 'a.png')
  with pytest.raises(ValueError, match='holds images but no XML files'):
    data.load('voc', dir=tmp_path)
  _xml(tmp_path / 'a.xml')
  with pytest.raises(ValueError, match='hold no box'):
    data.load('voc', dir=tmp_path)
  _xml(tmp_path / 'a.xml', _object('dent'), _object('dnet'), _object('dnet'))
  with pytest.raises(ValueError, match=r"not among dent: 2 in all, .* a\.xml box 2 \('dnet'\)"):
    data.load('voc', dir=tmp_path, classes=('dent',))
  _xml(tmp_path / 'a.xml', _object(''))
  with pytest.raises(
    ValueError, match=r'without a class name: 1 in all, the first is a\.xml box 1'
  ):
    data.load('voc', dir=tmp_path)
  _xml(tmp_path / 'a.xml', _object('dent', x1=25))
  with pytest.raises(ValueError, match=r'by more than 1 pixel: 1 .* \(0, 0, 25, 5\) in 20 x 10'):
    data.load('voc', dir=tmp_path)
  _xml(tmp_path / 'a.xml', _object('dent'))
  _xml(tmp_path / 'b.xml', _object('dent'), filename='b.png')
  with pytest.raises(ValueError, match=r"image is missing: 1 in all, .* b\.xml \(of 'b\.png'\)"):
    data.load('voc', dir=tmp_path)
  _xml(tmp_path / 'b.xml', _object('dent'), filename='a.png')
  with pytest.raises(ValueError, match=r'more than one XML file: 1 in all, .* a\.png \(b\.xml\)'):
    data.load('voc', dir=tmp_path)
  (tmp_path / 'b.xml').unlink()
  _picture(tmp_path / 'a.jpg')
  with pytest.raises(ValueError, match=r'several images: 1 in all, .* \(a\.jpg and a\.png\)'):
    data.load('voc', dir=tmp_path)


def test_real_neu_det(data_dir):
  source = data.load('neu_det', dir=data_dir / 'NEU-DET')
  assert source.box_counts() == (689, 1011, 881, 432, 628, 548)
  assert source.classes == neu_det.CLASSES
  files = data.load('neu', dir=data_dir / 'NEU-DET')
  assert (source.labels != files.labels).sum() == 61
  numbers = {what: len(where) for what, where in _notes(source).items()}
  assert numbers == {
    "boxes of another class than their file's, kept as the box has it": 188,
    'boxes that are written several times, kept': 3,
  }


def test_real_deep_pcb(data_dir):
  source = data.load('deep_pcb', dir=data_dir / 'DeepPCB')
  assert source.notes == ()
  assert source.classes == deep_pcb.CLASSES
  in_group = [[i for i, name in enumerate(source.names) if name.startswith(g)]
              for g in ('group77000', 'group92000')]  # fmt: skip
  assert [len(one) for one in in_group] == [107, 120]
  assert source.box_counts(in_group[0]) == (89, 76, 107, 83, 90, 113)
  assert source.box_counts(in_group[1]) == (138, 95, 103, 117, 95, 112)
  official = source.annotations['official']
  assert (official.count('trainval'), official.count('test')) == (211, 16)
  # The two pictures of a pair show one board: they differ in few pixels.
  image, template = source.read(0), source.annotations['reference'][0]
  assert image.shape == template.shape == (640, 640, 1)
  assert (np.abs(image.astype(int) - template) > 128).mean() < 0.05
