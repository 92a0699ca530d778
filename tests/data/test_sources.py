"""Layouts on disk become sources; what does not fit becomes one sentence."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxdefect import data
from jaxdefect.data import annotations, sources
from jaxdefect.data.source import Source
from jaxdefect.data.sources import mixedwm38, neu, xsdd

VOC = """<annotation><filename>{filename}</filename>
<size><width>20</width><height>10</height><depth>1</depth></size>
<object><name>{kind}</name><bndbox>
<xmin>{x0}</xmin><ymin>2</ymin><xmax>20</xmax><ymax>10</ymax></bndbox></object></annotation>"""


def _picture(path, value=0, size=(20, 10)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new('L', size, value).save(path)


def _neu(root, images='IMAGES', xmls='ANNOTATIONS', names=('crazing_1', 'patches_2')):
  for value, name in enumerate(names):
    _picture(root / images / f'{name}.png', value)
    xml = root / xmls / f'{name}.xml'
    xml.parent.mkdir(parents=True, exist_ok=True)
    ending = '' if value else '.png'  # As in the official set, some leave it out.
    xml.write_text(VOC.format(filename=name + ending, kind='inclusion', x0=1))
  return root


def test_names_and_unknown_name():
  assert {'folder', 'neu', 'xsdd', 'mixedwm38', 'synthetic', 'tfds'} <= set(data.names())
  with pytest.raises(ValueError, match=r"no data set 'nue'.*Did you mean 'neu'"):
    data.load('nue')


def test_settings_that_do_not_fit(tmp_path):
  with pytest.raises(ValueError, match=r"'folder' has no clases; .* Did you mean 'classes'"):
    data.load('folder', dir=tmp_path, clases=('a',))
  with pytest.raises(ValueError, match="'mvtec' needs category"):
    data.load('mvtec', dir=tmp_path)
  with pytest.raises(ValueError, match="'product' has no category"):
    sources.load_tasks('product', dir=tmp_path, category='cap')


def test_source_checks_its_columns():
  def read(i):
    return np.zeros((2, 2, 1), np.uint8)

  source = Source('s', ('a', 'b'), ('x', 'y', 'z'), np.asarray([0, 1, 1]), read)
  assert len(source) == 3
  assert source.counts() == (1, 2)
  assert source.counts([0, 1], classes=['b']) == (1,)
  with pytest.raises(ValueError, match="has no class 'c'; its classes are a, b"):
    source.class_number('c')
  with pytest.raises(ValueError, match=r'labels must lie in 0\.\.1, got 0\.\.2'):
    Source('s', ('a', 'b'), ('x', 'y'), np.asarray([0, 2]), read)
  with pytest.raises(ValueError, match='groups has 1 entries for 2 images'):
    Source('s', ('a',), ('x', 'y'), np.zeros(2), read, groups=('g',))
  with pytest.raises(ValueError, match="image name 'x' occurs 2 times"):
    Source('s', ('a',), ('x', 'x'), np.zeros(2), read)


def test_folder_sorts_nests_and_ignores(tmp_path):
  for number, name in enumerate(['b/z.png', 'b/deep/er/y.PNG', 'a 1/x.bmp', 'a 1/w.png']):
    _picture(tmp_path / name, number)
  for hidden in ['b/._z.png', 'b/.cache/q.png', '.git/r.png', 'a 1/notes.txt', 'top.png']:
    (tmp_path / hidden).parent.mkdir(exist_ok=True)
    (tmp_path / hidden).write_bytes(b'nothing')
  source = data.load('folder', dir=tmp_path)
  assert source.classes == ('a 1', 'b')
  assert source.names == ('a 1/w.png', 'a 1/x.bmp', 'b/deep/er/y.PNG', 'b/z.png')
  assert source.labels.tolist() == [0, 0, 1, 1]
  assert [int(source.read(i)[0, 0, 0]) for i in range(4)] == [3, 2, 1, 0]
  assert source.read(0).shape == (10, 20, 1)
  chosen = data.load('folder', dir=tmp_path, classes=('b', 'a 1'), suffixes=('.bmp', '.png'))
  assert chosen.classes == ('b', 'a 1')
  unknown = data.unlabelled(dir=tmp_path / 'b')
  assert unknown.names == ('deep/er/y.PNG', 'z.png')
  assert [path.name for path in data.images_in(tmp_path / 'b')] == ['y.PNG', 'z.png']


def test_folder_says_which_class_its_file_format_gives_away(tmp_path):
  for name, endings in (('bent', 'png png png jpg'), ('good', 'jpg jpg png'), ('worn', 'jpg')):
    for i, ending in enumerate(endings.split()):
      _picture(tmp_path / name / f'{i}.{ending}')
  (note,) = data.load('folder', dir=tmp_path).notes
  assert note.where == ('bent: 75% .png, the others 25%', 'worn: 100% .jpg, the others 43%')


def test_folder_rejects_in_one_sentence(tmp_path):
  with pytest.raises(FileNotFoundError, match='does not exist'):
    data.load('folder', dir=tmp_path / 'absent')
  with pytest.raises(ValueError, match='holds no class folders'):
    data.load('folder', dir=tmp_path)
  _picture(tmp_path / 'flat.png')
  with pytest.raises(ValueError, match='holds images but no class folders'):
    data.load('folder', dir=tmp_path)
  with pytest.raises(FileNotFoundError, match='is a file, not a folder'):
    data.load('folder', dir=tmp_path / 'flat.png')
  (tmp_path / 'empty class').mkdir()
  with pytest.raises(ValueError, match=r'class folder .*empty class holds no images'):
    data.load('folder', dir=tmp_path)
  with pytest.raises(FileNotFoundError, match="no class folder 'scratch'"):
    data.load('folder', dir=tmp_path, classes=('scratch',))
  with pytest.raises(ValueError, match='holds no images'):
    data.images_in(tmp_path / 'empty class')


def test_folder_follows_links_and_refuses_names_that_are_no_text(tmp_path):
  for name in ('good/1.png', 'bad/1.png'):
    _picture(tmp_path / 'pictures' / name)
  _picture(tmp_path / 'lots/7/2.png')
  (tmp_path / 'pictures/good/lot 7').symlink_to(tmp_path / 'lots/7')
  (tmp_path / 'pictures/good/again').symlink_to(tmp_path / 'pictures')  # lies in itself
  source = data.load('folder', dir=tmp_path / 'pictures', suffixes='.png')
  assert source.names == ('bad/1.png', 'good/1.png', 'good/lot 7/2.png')
  (tmp_path / 'pictures/good/notes.gnp').write_text('.png is no set of letters')
  assert len(data.load('folder', dir=tmp_path / 'pictures', suffixes='.png')) == 3
  _picture(tmp_path / 'pictures/good/Gr\udcfcn.png')  # Latin-1, as an old camera writes it
  with pytest.raises(ValueError, match=r"good/Gr.udcfcn\.png' is no valid UTF-8; rename the file"):
    data.load('folder', dir=tmp_path / 'pictures')


def test_voc_boxes_by_hand(tmp_path):
  path = tmp_path / 'a.xml'
  path.write_text(VOC.format(filename='a.jpg', kind='patches', x0=3))
  voc = annotations.read_voc(path)
  assert (voc.filename, voc.size, voc.names) == ('a.jpg', (10, 20), ('patches',))
  assert voc.boxes.tolist() == [[2.0, 1.0, 20.0, 10.0]]
  for text, reason in [
    ('<annotation>', 'is no XML'),
    (VOC.format(filename='a', kind='k', x0='one'), "'one' for bndbox/xmin"),
    (VOC.format(filename='a', kind='k', x0=0), r'the box \(0, 2, 20, 10\)'),
  ]:
    path.write_text(text)
    with pytest.raises(ValueError, match=r'a\.xml .*' + reason):
      annotations.read_voc(path)


@pytest.mark.parametrize(
  ('images', 'xmls'),
  [('IMAGES', 'ANNOTATIONS'), ('images', 'annotations'), ('IMAGES', 'Annotations')],
)
def test_neu_layouts(tmp_path, images, xmls):
  source = data.load('neu', dir=_neu(tmp_path, images, xmls))
  assert source.classes == neu.CLASSES
  assert source.names == ('crazing_1.png', 'patches_2.png')
  assert source.labels.tolist() == [0, 2]
  assert source.annotations['box_labels'][0].tolist() == [1]
  assert source.annotations['boxes'][1].tolist() == [[0.0, 1.0, 20.0, 10.0]]


def test_neu_rejects_in_one_sentence(tmp_path):
  with pytest.raises(FileNotFoundError, match='does not exist'):
    data.load('neu', dir=tmp_path / 'absent')
  with pytest.raises(FileNotFoundError, match='no folder IMAGES'):
    data.load('neu', dir=tmp_path)
  _neu(tmp_path)
  (tmp_path / 'ANNOTATIONS/patches_2.xml').rename(tmp_path / 'kept')
  with pytest.raises(ValueError, match=r'patches_2\.png has no annotation patches_2\.xml'):
    data.load('neu', dir=tmp_path)
  xml = tmp_path / 'ANNOTATIONS/patches_2.xml'
  xml.write_text(VOC.format(filename='patches_3.png', kind='patches', x0=1))
  with pytest.raises(
    ValueError, match=r"patches_2\.xml names the image 'patches_3\.png', which is"
  ):
    data.load('neu', dir=tmp_path)
  xml.write_text(VOC.format(filename='crazing_1.png', kind='patches', x0=1))
  with pytest.raises(ValueError, match='is the second one for the image'):
    data.load('neu', dir=tmp_path)
  xml.write_text(VOC.format(filename='patches_2.png', kind='rust', x0=1))
  with pytest.raises(ValueError, match="box of class 'rust'"):
    data.load('neu', dir=tmp_path)
  (tmp_path / 'kept').rename(xml)
  _neu(tmp_path, names=('rust_1',))
  with pytest.raises(ValueError, match=r'rust_1\.png is not named'):
    data.load('neu', dir=tmp_path)


def test_xsdd_has_its_seven_classes(tmp_path):
  for name in xsdd.CLASSES[:-1]:
    _picture(tmp_path / name / '1.jpg')
  with pytest.raises(FileNotFoundError, match="no class folder 'surface scratch'"):
    data.load('xsdd', dir=tmp_path)
  _picture(tmp_path / 'surface scratch' / '1.jpg')
  assert data.load('xsdd', dir=tmp_path).counts() == (1,) * 7


def _wafers(path, maps=None, marks=None, **more):
  maps = np.arange(3 * 52 * 52).reshape(3, 52, 52) % 4 if maps is None else maps
  marks = np.asarray([[0] * 8, [1, 0, 1, 0, 0, 0, 1, 0], [0] * 7 + [1]]) if marks is None else marks
  np.savez(path, maps, marks, **more)
  return path


def test_mixedwm38_by_hand(tmp_path):
  source = data.load('mixedwm38', dir=_wafers(tmp_path / 'maps.npz').parent)
  assert [source.classes[label] for label in source.labels] == ['Normal', 'C+EL+S', 'R']
  assert source.names == ('00000', '00001', '00002')
  assert source.read(0).shape == (52, 52, 1)
  assert source.read(0)[0, :4, 0].tolist() == [0, 127, 255, 255]
  assert source.annotations['multi_hot'][1].tolist() == [1, 0, 1, 0, 0, 0, 1, 0]
  assert len(set(mixedwm38.CLASSES)) == 38
  assert {mixedwm38.pattern([c in name.split('+') for c in mixedwm38.BASIC])
          for name in mixedwm38.CLASSES} == set(mixedwm38.CLASSES)  # fmt: skip


def test_mixedwm38_rejects_in_one_sentence(tmp_path):
  path = tmp_path / 'maps.npz'
  with pytest.raises(FileNotFoundError, match='does not exist'):
    data.load('mixedwm38', dir=path)
  with pytest.raises(FileNotFoundError, match='holds no npz file'):
    data.load('mixedwm38', dir=tmp_path)
  good = np.zeros((3, 52, 52), np.int32)
  bad_pattern = np.asarray([[0, 0, 0, 0, 0, 1, 1, 0]] * 3)
  for arguments, reason in [
    ({'maps': good[:, :50]}, r'but are \[3, 50, 52\] and \[3, 8\]'),
    ({'maps': good + 4}, r'arr_0 must hold 0\.\.3, but holds 4\.\.4'),
    ({'maps': good.astype(float)}, 'must hold integers'),
    ({'marks': np.zeros((2, 8), int)}, r'and \[2, 8\]'),
    ({'marks': 2 * bad_pattern}, 'arr_1 must hold 0 and 1'),
    ({'marks': bad_pattern}, r'map 0 is marked NF\+S, which is none of the 38'),
  ]:
    _wafers(path, **arguments)
    with pytest.raises(ValueError, match='is no MixedWM38 file: .*' + reason):
      data.load('mixedwm38', dir=path)
  np.savez(path, images=good)
  with pytest.raises(ValueError, match='it has images, not arr_0 and arr_1'):
    data.load('mixedwm38', dir=path)
  path.write_bytes(b'PK no zip')
  with pytest.raises(ValueError, match='is no MixedWM38 file'):
    data.load('mixedwm38', dir=path)
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('arr_0.npy', b'')
  _wafers(tmp_path / 'second.npz')
  with pytest.raises(ValueError, match='holds 2 npz files'):
    data.load('mixedwm38', dir=tmp_path)


def test_real_neu(data_dir):
  source = data.load('neu', dir=data_dir / 'NEU-DET')
  assert source.counts() == (300,) * 6
  box_labels = source.annotations['box_labels']
  assert np.bincount(np.concatenate(box_labels)).tolist() == [689, 1011, 881, 432, 628, 548]
  strangers = [(kinds != label).sum() for kinds, label in zip(box_labels, source.labels)]
  assert (sum(map(len, box_labels)), sum(strangers)) == (4189, 188)
  boxes = np.concatenate(source.annotations['boxes'])
  assert boxes.min() == 0
  assert boxes.max() == 200
  assert (boxes[:, 2:] > boxes[:, :2]).all()
  assert all(source.read(i).shape == (200, 200, 3) for i in range(0, 1800, 150))


def test_real_xsdd(data_dir):
  source = data.load('xsdd', dir=data_dir / 'X-SDD')
  assert source.counts() == (203, 122, 63, 203, 397, 238, 134)
  data.verify(source, range(0, len(source), 20))


def test_real_mixedwm38(data_dir):
  source = data.load('mixedwm38', dir=data_dir / 'MixedWM38-subset')
  counts = dict(zip(source.classes, source.counts()))
  assert len(source) == 2204
  assert [counts[name] for name in ('Normal', 'R', 'NF', 'EL', 'C+S')] == [96, 187, 90, 54, 48]
  assert [counts[name] for name in ('D+EL+S', 'C+EL+L', 'D+EL+L+S', 'C+ER+L+S')] == [
    103,
    55,
    57,
    52,
  ]
  for i in (0, 700, 2203):
    marked = source.annotations['multi_hot'][i]
    assert mixedwm38.pattern(marked) == source.classes[source.labels[i]]
    assert set(np.unique(source.read(i))) <= {0, 127, 255}


def test_real_folder_with_masks_beside(data_dir):
  source = data.load('folder', dir=data_dir / 'Magnetic-Tile', suffixes=('.jpg',))
  assert dict(zip(source.classes, source.counts())) == {
    'MT_Blowhole': 115, 'MT_Break': 85, 'MT_Crack': 57, 'MT_Fray': 32, 'MT_Free': 952,
    'MT_Uneven': 103,
  }  # fmt: skip
