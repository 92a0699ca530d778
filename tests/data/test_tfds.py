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


def _built(builder_class, tmp_path, manual_dir, capsys):
  builder = builder_class(data_dir=tmp_path / 'built', manual_dir=manual_dir)
  builder.build()
  capsys.readouterr()  # TFDS draws progress bars.
  source = data.load('tfds', name=builder.name, dir=tmp_path / 'built')
  original = builder.source
  assert source.name == original.name
  assert source.classes == original.classes
  assert source.names == tuple(sorted(original.names))
  place = [original.names.index(name) for name in source.names]
  for i, j in enumerate(place):
    assert source.labels[i] == original.labels[j]
    np.testing.assert_array_equal(source.read(i), original.read(j))
    for column, values in original.annotations.items():
      np.testing.assert_allclose(source.annotations[column][i], values[j], atol=1e-4)
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


def test_builder_without_input_says_so(tmp_path):
  with pytest.raises(ValueError, match='folder needs manual_dir'):
    tfds_builders.Folder(data_dir=tmp_path)
