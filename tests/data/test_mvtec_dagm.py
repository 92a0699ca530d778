"""MVTec AD and DAGM 2007 in their official layouts, tiny: tasks with masks, read when asked for."""

import numpy as np
import pytest
from PIL import Image

from jaxdefect import data
from jaxdefect.data import products
from jaxdefect.data.sources import dagm, mvtec


def _picture(path, value=0, size=(20, 10)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new('L', size, value).save(path)


def _mask(path, size=(20, 10), box=(2, 3, 6, 5), mode='L', level=255):
  path.parent.mkdir(parents=True, exist_ok=True)
  mask = Image.new('L', size, 0)
  mask.paste(level, box)
  mask.convert(mode).save(path)


def _mvtec(root, category='bottle'):
  """Two good ones to train, one to test, two defects; the numbers of the kinds repeat."""
  for i in range(2):
    _picture(root / category / f'train/good/{i:03d}.png', i)
  _picture(root / category / 'test/good/000.png', 9)
  for kind in ('broken_large', 'contamination'):
    _picture(root / category / f'test/{kind}/000.png', 50)
    _mask(root / category / f'ground_truth/{kind}/000_mask.png')
  return root


def test_mvtec_by_hand(tmp_path):
  source = data.load('mvtec', dir=_mvtec(tmp_path), category='bottle')
  assert source.name == 'mvtec/bottle'
  assert source.classes == products.CLASSES == ('good', 'defect')
  assert source.names == (
    'train/good/000.png', 'train/good/001.png', 'test/broken_large/000.png',
    'test/contamination/000.png', 'test/good/000.png',
  )  # fmt: skip
  assert source.labels.tolist() == [0, 0, 1, 1, 0]
  assert source.annotations['kind'] == ('', '', 'broken_large', 'contamination', '')
  assert source.annotations['official'] == ('train', 'train', 'test', 'test', 'test')
  assert source.groups is None
  assert int(source.read(2)[0, 0, 0]) == 50
  masks = source.annotations['mask']
  expected = np.zeros((10, 20), np.uint8)
  expected[3:5, 2:6] = 1
  np.testing.assert_array_equal(masks[3], expected)
  assert masks[3].dtype == np.uint8
  np.testing.assert_array_equal(masks[0], np.zeros((10, 20)))
  assert list(mvtec.tasks(dir=_mvtec(tmp_path, 'screw'))) == ['mvtec/bottle', 'mvtec/screw']


def test_nothing_is_decoded_before_it_is_read(tmp_path, monkeypatch):
  _mvtec(tmp_path)
  asked = []
  read = products.decode.read_image
  monkeypatch.setattr(
    products.decode, 'read_image', lambda path, **_: asked.append(path) or read(path)
  )
  source = data.load('mvtec', dir=tmp_path, category='bottle')
  assert asked == []
  source.read(0)
  source.annotations['mask'][2]
  assert [path.name for path in asked] == ['000.png', '000_mask.png']


def test_mvtec_rejects_in_one_sentence(tmp_path):
  with pytest.raises(FileNotFoundError, match='absent does not exist'):
    data.load('mvtec', dir=tmp_path / 'absent', category='bottle')
  with pytest.raises(ValueError, match='holds no folder with train/good'):
    mvtec.tasks(dir=tmp_path)
  _mvtec(tmp_path)
  with pytest.raises(
    FileNotFoundError, match=r"no category 'botle' of MVTec AD; it holds bottle\."
  ):
    data.load('mvtec', dir=tmp_path, category='botle')
  mask = tmp_path / 'bottle/ground_truth/contamination/000_mask.png'
  mask.unlink()
  with pytest.raises(
    FileNotFoundError, match=r'contamination/000\.png has no mask .*000_mask\.png'
  ):
    data.load('mvtec', dir=tmp_path, category='bottle')
  _mask(mask, size=(10, 20))
  masks = data.load('mvtec', dir=tmp_path, category='bottle').annotations['mask']
  with pytest.raises(
    ValueError, match=r'000_mask\.png is 10 x 20 pixels, but its image is 20 x 10'
  ):
    masks[3]
  for path in (tmp_path / 'bottle/test').rglob('*.png'):
    path.rename(tmp_path / 'bottle/test/good' / f'{path.parent.name}.png')
  for kind in ('broken_large', 'contamination'):
    (tmp_path / f'bottle/test/{kind}').rmdir()
  with pytest.raises(ValueError, match=r'mvtec/bottle .* has no defect images'):
    data.load('mvtec', dir=tmp_path, category='bottle')


@pytest.mark.parametrize('mode', ['L', 'RGB', '1', 'P'])
def test_masks_of_any_mode_are_cut_at_128(tmp_path, mode):
  _mvtec(tmp_path)
  _mask(tmp_path / 'bottle/ground_truth/contamination/000_mask.png', mode=mode)
  source = data.load('mvtec', dir=tmp_path, category='bottle')
  assert source.annotations['mask'][3].sum() == 8
  if mode == 'L':
    for level, area in ((127, 0), (128, 8)):
      _mask(tmp_path / 'bottle/ground_truth/contamination/000_mask.png', level=level)
      assert source.annotations['mask'][3].sum() == area


def _dagm(root, category=1, listed=True):
  """Train holds 0576 (good) and 0577 (defective), Test 0001 (defective) and 0002 (good)."""
  for part, images in (('Train', {576: 0, 577: 1}), ('Test', {1: 1, 2: 0})):
    lines = ['\ufeff1']
    for number, defective in images.items():
      _picture(root / f'Class{category}' / part / f'{number:04d}.PNG', number % 100)
      ellipse = f'{number:04d}_label.PNG' if defective else '0'
      if defective:
        _mask(root / f'Class{category}' / part / 'Label' / ellipse)
      lines.append(f'{number:04d}\t{defective}\t{number:04d}.PNG\t0\t{ellipse}')
    if listed:
      text = '\r\n'.join(lines) + '\r\n'
      (root / f'Class{category}' / part / 'Label/Labels.txt').write_bytes(text.encode())
  return root


@pytest.mark.parametrize('listed', [True, False])
def test_dagm_by_hand(tmp_path, listed):
  source = data.load('dagm', dir=_dagm(tmp_path, listed=listed), category=1)
  assert source.name == 'dagm/class1'
  assert source.names == ('Train/0576.PNG', 'Train/0577.PNG', 'Test/0001.PNG', 'Test/0002.PNG')
  assert source.labels.tolist() == [0, 1, 1, 0]
  assert source.annotations['kind'] == ('', 'defect', 'defect', '')
  assert source.annotations['official'] == ('train', 'train', 'test', 'test')
  assert [int(mask.sum()) for mask in source.annotations['mask']] == [0, 8, 8, 0]
  assert int(source.read(1)[0, 0, 0]) == 77


def test_dagm_unpacked_one_by_one(tmp_path):
  _dagm(tmp_path / 'Class10', 10)
  _dagm(tmp_path, 2)
  found = dagm.tasks(dir=tmp_path)
  assert list(found) == ['dagm/class2', 'dagm/class10']
  assert [len(source) for source in found.values()] == [4, 4]


def test_dagm_rejects_in_one_sentence(tmp_path):
  with pytest.raises(ValueError, match='category must be a number from 1 to 10, got 11'):
    data.load('dagm', dir=tmp_path, category=11)
  with pytest.raises(ValueError, match='holds no folder Class1 to Class10'):
    dagm.tasks(dir=tmp_path)
  with pytest.raises(FileNotFoundError, match=r'Class1/Train/Label, which DAGM 2007 has'):
    data.load('dagm', dir=tmp_path, category=1)
  _dagm(tmp_path)
  labels = tmp_path / 'Class1/Test/Label'
  official = (labels / 'Labels.txt').read_text()
  for text, reason in [
    (official.replace('0002\t0\t', '0002\t1\t'), r'has 0002\.PNG as defective, but it has no'),
    (official.replace('0001\t1\t', '0001\t0\t'), r'has 0001\.PNG as good, but it has an ellipse'),
    (official.replace('0002.PNG', '0003.PNG'), r'names the image 0003\.PNG, which is missing'),
    (official.replace('0002\t0\t', '0002\tgood\t'), 'is not a number, 0 or 1, a file and more'),
  ]:
    (labels / 'Labels.txt').write_text(text)
    with pytest.raises(ValueError, match=r'Line [23] of .*Test/Label/Labels\.txt .*' + reason):
      data.load('dagm', dir=tmp_path, category=1)
  (labels / 'Labels.txt').unlink()
  _mask(labels / '0099_label.PNG')
  with pytest.raises(ValueError, match=r'0099_label\.PNG belongs to no image'):
    data.load('dagm', dir=tmp_path, category=1)
