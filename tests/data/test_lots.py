"""Lots from a table, and what is said where it does not fit the pictures."""

import numpy as np
import pytest
from PIL import Image

from jaxdefect import data
from jaxdefect.data import splits
from jaxdefect.data.lots import read_lots

NAMES = ('good/0.png', 'good/1.png', 'bent/0.png')


def table(tmp_path, text):
  path = tmp_path / 'lots.csv'
  path.write_text(text)
  return path


def test_read(tmp_path):
  # What a spreadsheet writes: a byte order mark, more columns, Windows paths, an empty cell.
  text = '\ufefflot,image,shift\nL1,good/0.png,a\nL2,bent\\0.png,b\n,good/1.png,b\n'
  assert read_lots(table(tmp_path, text), NAMES) == ('L1', '', 'L2')
  assert read_lots(table(tmp_path, 'image,lot\ngood/1.png, L7 \n'), NAMES) == ('', 'L7', '')


def test_what_does_not_fit(tmp_path):
  with pytest.raises(ValueError, match='has the columns picture, lot; image and lot are needed'):
    read_lots(table(tmp_path, 'picture,lot\n'), NAMES)
  with pytest.raises(ValueError, match='has the columns none; image and lot are needed'):
    read_lots(table(tmp_path, ''), NAMES)
  with pytest.raises(ValueError, match=r'names the image good/0.png twice'):
    read_lots(table(tmp_path, 'image,lot\ngood/0.png,a\ngood/0.png,b\n'), NAMES)
  with pytest.raises(ValueError, match=r'images that are not there: good/9.png; an image is named'):
    read_lots(table(tmp_path, 'image,lot\ngood/9.png,a\n'), NAMES)
  with pytest.raises(FileNotFoundError, match=r'lots .* does not exist'):
    read_lots(tmp_path / 'none.csv', NAMES)
  (tmp_path / 'lots.csv').write_bytes(b'image,lot\n\xff\xfe,a\n')
  with pytest.raises(ValueError, match='is no table in UTF-8'):
    read_lots(tmp_path / 'lots.csv', NAMES)


def test_a_folder_with_lots_is_split_by_them(tmp_path):
  generator = np.random.default_rng(0)
  rows = ['image,lot']
  for name in ('bent', 'good'):
    (tmp_path / 'pictures' / name).mkdir(parents=True)
    for i in range(12):
      pixels = generator.integers(0, 256, (40, 40), np.uint8)
      Image.fromarray(pixels).save(tmp_path / 'pictures' / name / f'{i}.png')
      rows.append(f'{name}/{i}.png,L{i // 3}')
  lots = table(tmp_path, '\n'.join(rows))
  source = data.load('folder', dir=tmp_path / 'pictures', lots=lots)
  split = splits.fraction(source, train=0.5, seed=0)
  of = [{source.groups[i] for i in part} for part in (split.train, split.test)]
  assert all(of)
  assert of[0].isdisjoint(of[1])


def test_a_product_with_lots_calibrates_on_lots(tmp_path):
  generator = np.random.default_rng(0)
  rows = ['image,lot']
  for name, number in (('good', 12), ('bent', 4)):
    (tmp_path / 'cap' / name).mkdir(parents=True)
    for i in range(number):
      pixels = generator.integers(0, 256, (40, 40), np.uint8)
      Image.fromarray(pixels).save(tmp_path / 'cap' / name / f'{i}.png')
      rows.append(f'{name}/{i}.png,{name} {i // 3}')
  source = data.load('product', dir=tmp_path / 'cap', lots=table(tmp_path, '\n'.join(rows)))
  split = splits.good_only(source, train=0.5, validation=0.25, seed=0)
  assert len(set(split.groups(source)[list(split.train)].tolist())) == 2  # six pictures, two lots
  assert len(set(split.groups(source)[list(split.validation)].tolist())) == 1
