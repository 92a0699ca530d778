"""Products on disk become tasks: good and defective pictures, masks, and groups that stay whole."""

import collections

import numpy as np
import pytest
from PIL import Image

from jaxdefect import data
from jaxdefect.data.sources import product


def _picture(path, value=0, size=(20, 10)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new('L', size, value).save(path)


def _mask(path, size=(20, 10), box=(2, 3, 6, 5), mode='L', level=255):
  path.parent.mkdir(parents=True, exist_ok=True)
  mask = Image.new('L', size, 0)
  mask.paste(level, box)
  mask.convert(mode).save(path)


def _bc(root, good='good', defect='defect', manifest=''):
  for i, (folder, value) in enumerate([(good, 1), (good, 2), (good, 1), (defect, 3), (defect, 4)]):
    _picture(root / folder / f'{i}.png', value)
  if manifest:
    rows = ''.join(f'good/{i}.png,,,\n' for i in (0, 1)) + manifest
    (root / 'manifest.csv').write_text(
      'file,original_name,original_sha256,exact_duplicate_group\n' + rows
    )
  return root


def test_bc_groups_come_from_the_manifest_or_the_bytes(tmp_path):
  listed = _bc(tmp_path / 'a', manifest='good/2.png,,,\ndefect/3.png,,,7\ndefect/4.png,,,7\n')
  source = data.load('bc', dir=listed)
  assert source.counts() == (3, 2)
  assert source.groups == ('', '', '', 'copy 7', 'copy 7')
  assert source.annotations['kind'] == ('', '', '', 'defect', 'defect')
  bare = data.load('bc', dir=_bc(tmp_path / 'b', '0', '1'))
  assert bare.names == ('0/0.png', '0/1.png', '0/2.png', '1/3.png', '1/4.png')
  assert bare.counts() == (3, 2)
  assert bare.groups[0] == bare.groups[2] != ''
  assert [bool(group) for group in bare.groups] == [True, False, True, False, False]


def test_bc_rejects_in_one_sentence(tmp_path):
  with pytest.raises(FileNotFoundError, match='does not exist'):
    data.load('bc', dir=tmp_path / 'absent')
  with pytest.raises(FileNotFoundError, match='no folders good and defect'):
    data.load('bc', dir=tmp_path)
  _bc(tmp_path, manifest='good/2.png,,,\ndefect/3.png,,,\n')
  with pytest.raises(ValueError, match=r"does not name 'defect/4\.png' \(1 in all\)"):
    data.load('bc', dir=tmp_path)
  _bc(tmp_path, manifest=''.join(f'{name}.png,,,\n' for name in
                                 ('good/2', 'good/9', 'defect/3', 'defect/4')))  # fmt: skip
  with pytest.raises(ValueError, match=r"names, but there is no image 'good/9\.png'"):
    data.load('bc', dir=tmp_path)
  (tmp_path / 'manifest.csv').write_text('a,b\n1,2\n')
  with pytest.raises(ValueError, match='no columns exact_duplicate_group and file'):
    data.load('bc', dir=tmp_path)


def _tiles(root, shots):
  for kind in ('Free', 'Blowhole', 'Break', 'Crack', 'Fray', 'Uneven'):
    (root / f'MT_{kind}/Imgs').mkdir(parents=True, exist_ok=True)
  for kind, series, frame in shots:
    path = root / f'MT_{kind}/Imgs/exp{series}_num_{frame}'
    _picture(path.with_suffix('.jpg'), series)
    _mask(path.with_suffix('.png'), box=(0, 0, 0, 0) if kind == 'Free' else (0, 0, 2, 2))


SHOTS = [
  ('Free', 1, 1000), ('Free', 2, 1300), ('Free', 6, 1700),  # One tile: the series rises.
  ('Crack', 1, 1950), ('Break', 2, 1975),  # The next: the series falls, 250 frames on.
  ('Fray', 1, 2050),  # At once: perhaps the same tile.
  ('Uneven', 1, 2200), ('Blowhole', 1, 2400),
]  # fmt: skip


def test_magnetic_tile_groups_are_tiles(tmp_path):
  _tiles(tmp_path, SHOTS)
  source = data.load('magnetic_tile', dir=tmp_path)
  group = {name.split('_')[-1]: one for name, one in zip(source.names, source.groups)}
  assert group == {
    '1000.jpg': 'tile 1000', '1300.jpg': 'tile 1000', '1700.jpg': 'tile 1000',
    '1950.jpg': 'tile 1950', '1975.jpg': 'tile 1950', '2050.jpg': 'tile 1950',
    '2200.jpg': 'tile 2200', '2400.jpg': 'tile 2400',
  }  # fmt: skip
  assert source.counts() == (3, 5)
  kinds = dict(zip(source.annotations['kind'], source.annotations['mask']))
  assert {kind: int(mask.sum()) for kind, mask in kinds.items()} == {
    '': 0, 'blowhole': 4, 'break': 4, 'crack': 4, 'fray': 4, 'uneven': 4
  }  # fmt: skip
  apart = data.load('magnetic_tile', dir=tmp_path, max_gap=10)
  assert len(set(apart.groups)) == len(set(source.groups)) + 1


def test_magnetic_tile_rejects_in_one_sentence(tmp_path):
  with pytest.raises(FileNotFoundError, match='does not exist'):
    data.load('magnetic_tile', dir=tmp_path / 'absent')
  with pytest.raises(FileNotFoundError, match='no folder MT_Free'):
    data.load('magnetic_tile', dir=tmp_path)
  _tiles(tmp_path, SHOTS)
  _picture(tmp_path / 'MT_Fray/Imgs/tile.jpg')
  with pytest.raises(ValueError, match=r'tile\.jpg is not named exp<series>_num_<frame>'):
    data.load('magnetic_tile', dir=tmp_path)
  (tmp_path / 'MT_Fray/Imgs/tile.jpg').unlink()
  (tmp_path / 'MT_Fray/Imgs/exp1_num_2050.png').unlink()
  with pytest.raises(FileNotFoundError, match=r'exp1_num_2050\.jpg has no mask'):
    data.load('magnetic_tile', dir=tmp_path)


def _elpv(root, text):
  for i in range(4):
    _picture(root / f'images/cell{i}.png', i)
  (root / 'labels.csv').write_text(text)
  return root


CELLS = """images/cell2.png  0.0                 mono
images/cell0.png  0.3333333333333333  poly

images/cell1.png  0.6666666666666666  mono
images/cell3.png  1.0                 poly
"""


def test_elpv_by_hand(tmp_path):
  source = data.load('elpv', dir=_elpv(tmp_path, CELLS))
  assert source.names == tuple(f'images/cell{i}.png' for i in range(4))
  assert source.labels.tolist() == [0, 1, 0, 1]
  np.testing.assert_allclose(source.annotations['probability'], [1 / 3, 2 / 3, 0, 1], rtol=1e-6)
  assert source.annotations['cell'] == ('poly', 'mono', 'mono', 'poly')
  for threshold, labels in ((1 / 3, [1, 1, 0, 1]), (0.34, [0, 1, 0, 1]), (1, [0, 0, 0, 1])):
    assert data.load('elpv', dir=tmp_path, threshold=threshold).labels.tolist() == labels
  mono = data.load('elpv', dir=tmp_path, cells='mono')
  assert (mono.name, mono.counts()) == ('elpv_mono', (1, 1))


def test_elpv_rejects_in_one_sentence(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'labels\.csv, which ELPV has'):
    data.load('elpv', dir=tmp_path)
  for text, reason in [
    ('images/cell0.png 0.5\n', 'Line 1 of .* is not a file, a probability and a kind of cell'),
    ('images/cell0.png half mono\n', 'is not a file, a probability'),
    ('images/cell0.png 1.5 mono\n', r'a probability in 0\.\.1 and mono or poly, got 1\.5'),
    ('images/cell0.png 0.5 thin\n', 'got 0.5 and thin'),
    ('images/cell0.png 0 mono\n', 'has no defect images'),
  ]:
    with pytest.raises(ValueError, match=reason):
      data.load('elpv', dir=_elpv(tmp_path, text))
  with pytest.raises(FileNotFoundError, match=r'cell9\.png of .* does not exist \(1 such in all\)'):
    data.load('elpv', dir=_elpv(tmp_path, 'images/cell9.png 0 mono\n'))
  with pytest.raises(
    ValueError, match=r"cells must be one of mono, poly, or None for both, got 'x'"
  ):
    data.load('elpv', dir=tmp_path, cells='x')
  with pytest.raises(ValueError, match=r'threshold must lie in \(0, 1\], got 0'):
    data.load('elpv', dir=tmp_path, threshold=0)


def test_elpv_grades_are_four_classes(tmp_path):
  source = data.load('elpv', dir=_elpv(tmp_path, CELLS), grades=True)
  assert source.classes == ('good', 'possibly good', 'possibly defective', 'defect')
  assert source.labels.tolist() == [1, 2, 0, 3]
  assert source.annotations['kind'] == ('possibly good', 'possibly defective', '', 'defect')


def test_product_without_a_defect(tmp_path):
  _picture(tmp_path / 'plug/good/1.png')
  source = data.load('product', dir=tmp_path / 'plug', needs_defects=False)
  assert source.classes == ('good', 'defect')
  assert source.counts() == (1, 0)


def test_product_every_other_folder_is_a_defect(tmp_path):
  for name in ('Good/1.png', 'Good/deep/2.png', 'bent/1.png', 'dirty/1.png', '.git/1.png'):
    _picture(tmp_path / 'plug' / name)
  source = data.load('product', dir=tmp_path / 'plug')
  assert source.name == 'plug'
  assert source.names == ('Good/1.png', 'Good/deep/2.png', 'bent/1.png', 'dirty/1.png')
  assert source.annotations['kind'] == ('', '', 'bent', 'dirty')
  assert 'mask' not in source.annotations
  _mask(tmp_path / 'masks/bent/1.png')
  _mask(tmp_path / 'masks/dirty/1_mask.png')
  masked = data.load('product', dir=tmp_path / 'plug', masks=tmp_path / 'masks', name='Plug 7')
  assert masked.name == 'Plug 7'
  assert [int(mask.sum()) for mask in masked.annotations['mask']] == [0, 0, 8, 8]


def test_folder_of_products_is_one_task_each(tmp_path):
  for name in ('plug/ok/1.png', 'plug/bent/1.png', 'cap/ok/1.png', 'cap/chip/1.png'):
    _picture(tmp_path / name)
  found = product.tasks(dir=tmp_path, good='ok')
  assert {name: source.counts() for name, source in found.items()} == {
    'cap': (1, 1),
    'plug': (1, 1),
  }


def test_product_has_a_window_for_deep_pictures(tmp_path):
  for name in ('cap/good/1.png', 'cap/chip/1.png'):
    (tmp_path / name).parent.mkdir(parents=True)
    Image.fromarray(np.asarray([[0, 2048, 4095]], np.uint16)).save(tmp_path / name)
  twelve = {'sixteen_bit_range': (0, 4095)}
  assert data.load('product', dir=tmp_path / 'cap', **twelve).read(0).ravel().tolist() == [
    0,
    128,
    255,
  ]
  assert product.tasks(dir=tmp_path, **twelve)['cap'].read(1).max() == 255


def test_product_rejects_in_one_sentence(tmp_path):
  with pytest.raises(FileNotFoundError, match='does not exist'):
    data.load('product', dir=tmp_path / 'absent')
  with pytest.raises(ValueError, match='holds no folders; put each product in one'):
    product.tasks(dir=tmp_path)
  _picture(tmp_path / 'plug/bent/1.png')
  with pytest.raises(FileNotFoundError, match="no folder 'good' of good pictures"):
    data.load('product', dir=tmp_path / 'plug')
  _picture(tmp_path / 'cap/good/1.png')
  with pytest.raises(ValueError, match=r'cap in .* has no defect images; a task needs both kinds'):
    data.load('product', dir=tmp_path / 'cap')
  _picture(tmp_path / 'plug/good/1.png')
  with pytest.raises(FileNotFoundError, match='of masks does not exist'):
    data.load('product', dir=tmp_path / 'plug', masks=tmp_path / 'masks')
  (tmp_path / 'masks').mkdir()
  with pytest.raises(FileNotFoundError, match=r'bent/1\.png has no mask .*masks/bent/1\.png'):
    data.load('product', dir=tmp_path / 'plug', masks=tmp_path / 'masks')


def test_real_bc(data_dir, tmp_path):
  source = data.load('bc', dir=data_dir / 'BC')
  assert source.counts() == (710, 268)
  pairs = collections.defaultdict(list)
  for name, group in zip(source.names, source.groups):
    if group:
      pairs[group].append(name.split('/')[0])
  assert collections.Counter(map(tuple, pairs.values())) == {
    ('good', 'good'): 25,
    ('defect', 'defect'): 38,
  }
  assert source.read(977).shape == (384, 512, 3)
  # Without its manifest the bytes tell the same.
  for kind in ('good', 'defect'):
    (tmp_path / kind).symlink_to(data_dir / 'BC' / kind)
  bare = data.load('bc', dir=tmp_path)
  assert bare.names == source.names

  def sides(groups):
    members = collections.defaultdict(set)
    for i, group in enumerate(groups):
      members[group or i].add(i)
    return set(map(frozenset, members.values()))

  assert sides(bare.groups) == sides(source.groups)


def test_real_magnetic_tile(data_dir):
  source = data.load('magnetic_tile', dir=data_dir / 'Magnetic-Tile')
  assert source.counts() == (952, 392)
  assert collections.Counter(source.annotations['kind']) == {
    '': 952, 'blowhole': 115, 'uneven': 103, 'break': 85, 'crack': 57, 'fray': 32
  }  # fmt: skip
  # Six exposures of each tile.
  sizes = collections.Counter(collections.Counter(source.groups).values())
  assert sizes[6] == 181
  assert sizes[12] == 13
  assert sum(sizes.values()) == 206
  masks, empty = source.annotations['mask'], []
  for i in np.flatnonzero(source.labels):
    if not masks[i].any():
      empty.append(source.annotations['kind'][i])
  assert empty == ['uneven'] * 4
  for i in range(0, 1344, 40):
    assert masks[i].shape == source.read(i).shape[:2]


def test_real_elpv(data_dir):
  source = data.load('elpv', dir=data_dir / 'ELPV')
  assert source.counts() == (1803, 821)
  thirds = np.round(3 * np.asarray(source.annotations['probability'])).astype(int)
  cells = np.asarray(source.annotations['cell'])
  assert np.bincount(thirds[cells == 'mono']).tolist() == [588, 117, 56, 313]
  assert np.bincount(thirds[cells == 'poly']).tolist() == [920, 178, 50, 402]
  assert data.load('elpv', dir=data_dir / 'ELPV', cells='mono').counts() == (705, 369)
  assert data.load('elpv', dir=data_dir / 'ELPV', cells='poly').counts() == (1098, 452)
  assert data.load('elpv', dir=data_dir / 'ELPV', threshold=1).counts() == (1909, 715)
  assert source.read(1000).shape == (300, 300, 1)
