"""Builders write array_record without TensorFlow, and the result reads back the same."""

import sys

import numpy as np
import pytest
from PIL import Image

from jaxdefect import data
from jaxdefect.data import splits, tfds_builders

VOC = """<annotation><filename>{name}</filename>
<size><width>20</width><height>10</height><depth>1</depth></size>
<object><name>inclusion</name><bndbox>
<xmin>3</xmin><ymin>2</ymin><xmax>20</xmax><ymax>9</ymax></bndbox></object></annotation>"""


def _built(builder_class, tmp_path, manual_dir, capsys, **settings):
  builder = builder_class(data_dir=tmp_path / 'built', manual_dir=manual_dir, **settings)
  builder.build()
  capsys.readouterr()  # TFDS draws progress bars.
  config = settings.get('config')
  name = f'{builder.name}/{config}' if config else builder.name
  source = data.load('tfds', name=name, dir=tmp_path / 'built')
  original = builder.source
  assert source.name == original.name
  assert source.classes == original.classes
  assert source.names == tuple(sorted(original.names))
  place = [original.names.index(name) for name in source.names]
  for i, j in enumerate(place):
    assert source.labels[i] == original.labels[j]
    np.testing.assert_array_equal(source.read(i), original.read(j))
    for column, values in original.annotations.items():
      if isinstance(values[j], str):
        assert source.annotations[column][i] == values[j]
      else:
        np.testing.assert_allclose(source.annotations[column][i], values[j], atol=1e-4)
    if original.groups is not None:
      assert source.groups[i] == original.groups[j]
  assert 'tensorflow' not in sys.modules
  return original, source


def _noise(path, seed, channels=1):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (10, 20, channels)).astype(np.uint8)
  Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(path)


def test_folder(tmp_path, capsys):
  for i in range(6):
    _noise(tmp_path / 'raw' / 'ab'[i % 2] / f'{i}.png', i, channels=(1, 3)[i // 3])
  original, source = _built(tfds_builders.Folder, tmp_path, tmp_path / 'raw', capsys)
  # A split of one fits the other: it knows images by name and pixels.
  split = splits.few_shot(original, per_class=2, seed=0)
  splits.write(tmp_path / 'split.json', original, split)
  again = splits.read(tmp_path / 'split.json', source)
  assert [source.names[i] for i in again.train] == [original.names[i] for i in split.train]
  with pytest.raises(FileNotFoundError, match="no built TFDS data set 'absent'"):
    data.load('tfds', name='absent', dir=tmp_path / 'built')
  with pytest.raises(ValueError, match="cannot give 'tested'"):
    data.load('tfds', name='folder', dir=tmp_path / 'built', split='tested')
  assert len(data.load('tfds', name='folder', dir=tmp_path / 'built', split='train[:50%]')) == 3


def test_neu(tmp_path, capsys):
  for i, name in enumerate(['crazing_1', 'scratches_2']):
    _noise(tmp_path / f'raw/IMAGES/{name}.png', i)
    xml = tmp_path / f'raw/ANNOTATIONS/{name}.xml'
    xml.parent.mkdir(exist_ok=True)
    xml.write_text(VOC.format(name=name))
  _, source = _built(tfds_builders.Neu, tmp_path, tmp_path / 'raw', capsys)
  np.testing.assert_allclose(source.annotations['boxes'][0], [[2, 1, 20, 9]], atol=1e-5)


def test_xsdd(tmp_path, capsys):
  from jaxdefect.data.sources import xsdd

  for i, name in enumerate(xsdd.CLASSES):
    _noise(tmp_path / 'raw' / name / '1.png', i)
  _built(tfds_builders.Xsdd, tmp_path, tmp_path / 'raw', capsys)


def test_mixedwm38(tmp_path, capsys):
  maps = np.random.default_rng(0).integers(0, 4, (3, 52, 52))
  marks = np.asarray([[0] * 8, [1, 0, 1, 0, 0, 0, 1, 0], [0] * 7 + [1]])
  (tmp_path / 'raw').mkdir()
  np.savez(tmp_path / 'raw/maps.npz', maps, marks)
  _, source = _built(tfds_builders.MixedWm38, tmp_path, tmp_path / 'raw', capsys)
  assert source.read(0).shape == (52, 52, 1)


def _mask(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  mask = np.zeros((10, 20), np.uint8)
  mask[2:5, 3:9] = 255
  Image.fromarray(mask).save(path)


def test_mvtec_each_product_is_a_config(tmp_path, capsys):
  for i, category in enumerate(('bottle', 'metal_nut')):
    root = tmp_path / 'raw' / category
    _noise(root / 'train/good/000.png', i, channels=3)
    _noise(root / 'test/good/000.png', i + 2, channels=3)
    _noise(root / 'test/bent/000.png', i + 4, channels=3)
    _mask(root / 'ground_truth/bent/000_mask.png')
    _, source = _built(tfds_builders.Mvtec, tmp_path, tmp_path / 'raw', capsys, config=category)
    assert source.name == f'mvtec/{category}'
    assert source.annotations['kind'] == ('bent', '', '')
    mask = source.annotations['mask'][0]
    assert (mask.dtype, mask.shape, int(mask.sum()), int(mask.max())) == (np.uint8, (10, 20), 18, 1)
    # One product alone is found without its name too.
    if not i:
      assert data.load('tfds', name='mvtec', dir=tmp_path / 'built').name == 'mvtec/bottle'
  with pytest.raises(
    ValueError, match=r"'mvtec' has several configs: mvtec/bottle, mvtec/metal_nut"
  ):
    data.load('tfds', name='mvtec', dir=tmp_path / 'built')


def test_dagm_each_class_is_a_config(tmp_path, capsys):
  for number, part in enumerate(('Train', 'Test')):
    root = tmp_path / 'raw/Class7' / part
    _noise(root / f'{number}.PNG', number)
    _noise(root / f'{number + 2}.PNG', number + 2)
    _mask(root / 'Label' / f'{number}_label.PNG')
  _, source = _built(tfds_builders.Dagm, tmp_path, tmp_path / 'raw', capsys, config='class7')
  assert source.annotations['official'] == ('test', 'test', 'train', 'train')
  assert source.counts() == (2, 2)


def test_bc_keeps_its_groups(tmp_path, capsys):
  for i, name in enumerate(('good/1', 'good/2', 'defect/3')):
    _noise(tmp_path / 'raw' / f'{name}.png', i // 2, channels=3)
  _, source = _built(tfds_builders.Bc, tmp_path, tmp_path / 'raw', capsys)
  groups = dict(zip(source.names, source.groups))
  assert groups['good/1.png'] == groups['good/2.png'] != '' == groups['defect/3.png']


def test_magnetic_tile(tmp_path, capsys):
  kinds = ('Free', 'Blowhole', 'Break', 'Crack', 'Fray', 'Uneven')
  for i, kind in enumerate(kinds):
    _noise(tmp_path / f'raw/MT_{kind}/Imgs/exp1_num_{500 * i}.jpg', i)
    _mask(tmp_path / f'raw/MT_{kind}/Imgs/exp1_num_{500 * i}.png')
  _, source = _built(tfds_builders.MagneticTile, tmp_path, tmp_path / 'raw', capsys)
  assert set(source.annotations['kind']) == {'', 'blowhole', 'break', 'crack', 'fray', 'uneven'}
  assert source.counts() == (1, 5)


def test_elpv(tmp_path, capsys):
  for i in range(2):
    _noise(tmp_path / f'raw/images/cell{i}.png', i)
  (tmp_path / 'raw/labels.csv').write_text(
    'images/cell0.png 0.3333333333333333 mono\nimages/cell1.png 1.0 poly\n'
  )
  _, source = _built(tfds_builders.Elpv, tmp_path, tmp_path / 'raw', capsys)
  assert source.annotations['cell'] == ('mono', 'poly')
  assert source.annotations['probability'] == [np.float32(1 / 3), 1]


def test_builder_without_input_says_so(tmp_path):
  with pytest.raises(ValueError, match='folder needs manual_dir'):
    tfds_builders.Folder(data_dir=tmp_path)
  with pytest.raises(ValueError, match='mvtec needs config, one of bottle, cable, '):
    tfds_builders.Mvtec(data_dir=tmp_path, manual_dir=tmp_path)
