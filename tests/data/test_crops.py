"""Crops of pictures with boxes: defective ones hold a box, good ones touch none."""

import collections

import numpy as np
import pytest

from jaxdefect import data
from jaxdefect.data import crops
from jaxdefect.data.source import Source

SIDE = 100


def _boards(boxes, labels=None, *, reference=False, blank=False):
  """Pictures of SIDE x SIDE; pixel (y, x) of picture i has the levels (i, y, x)."""
  boxes = [np.asarray(one, np.float32).reshape(-1, 4) for one in boxes]
  labels = [np.zeros(len(one), np.int32) for one in boxes] if labels is None else labels

  def read(i, first=0):
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.stack([np.full_like(y, first + i), y * (not blank), x * (not blank)], -1).astype(
      np.uint8
    )

  annotations = {'boxes': boxes, 'box_labels': labels}
  if reference:
    annotations['reference'] = [read(i, 100) for i in range(len(boxes))]
  names = tuple(f'{i}.png' for i in range(len(boxes)))
  labels = np.zeros(len(boxes))
  return Source('boards', ('bent', 'dirty'), names, labels, read, annotations=annotations)


def _cut(source, **settings):
  return crops.crop_source(source, **{'name': 'made', 'crop': 20, 'per_image': 3, **settings})


def _corner(name):
  picture, _, place = name.partition('@')
  x, y = map(int, place.split(','))
  return int(picture.removesuffix('.png')), x, y


def _random_boxes(seed, num=12):
  dice = np.random.default_rng(seed)
  low = dice.uniform(0, SIDE - 15, (num, 3, 2))
  return [np.concatenate([one, one + dice.uniform(2, 15, (3, 2))], axis=1) for one in low]


def test_defective_crops_hold_a_box_and_good_ones_touch_none():
  boxes = _random_boxes(0)
  source = _cut(_boards(boxes))
  assert source.classes == ('good', 'defect')
  assert source.counts() == (36, 36)
  for name, label, mask, group in zip(
    source.names, source.labels, source.annotations['mask'], source.groups
  ):
    i, x, y = _corner(name)
    assert group == f'{i}.png'
    assert 0 <= x <= SIDE - 20
    assert 0 <= y <= SIDE - 20
    x0, y0, x1, y1 = np.asarray(boxes[i], np.float32).T
    touched = (x0 < x + 20) & (x1 > x) & (y0 < y + 20) & (y1 > y)
    held = (x0 >= x) & (x1 <= x + 20) & (y0 >= y) & (y1 <= y + 20)
    assert held.any() if label else not touched.any()
    assert mask.any() == label


def test_crops_are_cut_where_their_name_says():
  source = _cut(_boards(_random_boxes(1, 3), reference=True))
  for i, name in enumerate(source.names):
    picture, x, y = _corner(name)
    crop = source.read(i)
    assert crop.shape == (20, 20, 3)
    assert (crop[..., 0] == picture).all()
    np.testing.assert_array_equal(crop[:, 0, 1], np.arange(y, y + 20))
    np.testing.assert_array_equal(crop[0, :, 2], np.arange(x, x + 20))
    reference = source.annotations['reference'][i]
    assert (reference[..., 0] == 100 + picture).all()
    np.testing.assert_array_equal(reference[..., 1:], crop[..., 1:])


def test_mask_by_hand():
  """A box of 20 x 20 in the corner: the crop that holds it is (0, 0); a second box reaches in."""
  source = _cut(_boards([[[0, 0, 20, 20]]]), per_image=1)
  mask = dict(zip(source.names, source.annotations['mask']))['0.png@0,0']
  assert mask.dtype == np.uint8
  np.testing.assert_array_equal(mask, np.ones((20, 20)))
  boxes = [[18.5, 10, 60, 12.2], [0, 0, 3, 3]]
  source = _cut(_boards([boxes]), per_image=2)
  expected = np.zeros((SIDE, SIDE), np.uint8)
  expected[10:13, 18:60] = 1
  expected[:3, :3] = 1
  for name, mask in zip(source.names, source.annotations['mask']):
    _, x, y = _corner(name)
    np.testing.assert_array_equal(mask, expected[y : y + 20, x : x + 20])


def test_a_crop_of_a_large_box_lies_inside_it():
  """Along each axis; where the box fits along one, the crop holds it there."""
  source = _cut(_boards([[[10, 15, 90, 60]], [[0, 30, 100, 45]]] * 20))
  defective = [_corner(name) for name, label in zip(source.names, source.labels) if label]
  assert len(defective) == 40
  for i, x, y in defective:
    if i % 2:
      assert 0 <= x <= 80
      assert 25 <= y <= 30
    else:
      assert 10 <= x <= 70
      assert 15 <= y <= 40


def test_defects_lie_anywhere_in_their_crop():
  """Were they always in the middle, that alone would tell the classes apart."""
  boxes = [[[48, 48, 52, 52]]] * 200
  source = _cut(_boards(boxes), per_image=1)
  corners = np.array([_corner(n)[1:] for n, k in zip(source.names, source.labels) if k])
  for axis in range(2):
    assert corners[:, axis].min() == 32
    assert corners[:, axis].max() == 48
    counts = np.bincount(corners[:, axis] - 32, minlength=17)
    assert counts.max() < 200 / 17 + 5 * np.sqrt(200 / 17)  # 5 standard deviations


def test_good_crops_of_a_picture_lie_apart():
  source = _cut(_boards([[[0, 0, 5, 5], [90, 0, 95, 5], [0, 90, 5, 95]]] * 10))
  found = collections.defaultdict(list)
  for name, label in zip(source.names, source.labels):
    if not label:
      picture, *corner = _corner(name)
      found[picture].append(np.array(corner))
  for corners in found.values():
    for i, one in enumerate(corners):
      assert all(np.abs(one - other).max() >= 10 for other in corners[:i])


def test_as_many_good_crops_as_defective_ones_of_each_picture():
  boxes = [[[0, 0, 5, 5]] * 5, [[40, 40, 44, 44]], [[0, 0, 100, 100]], []]
  source = _cut(_boards(boxes), per_image=4)
  counts = collections.Counter((_corner(n)[0], int(k)) for n, k in zip(source.names, source.labels))
  assert counts[0, 0] == counts[0, 1] <= 4
  assert counts[1, 0] == counts[1, 1] == 1
  assert {picture for picture, _ in counts} == {0, 1}
  assert {note.what: note.where for note in source.notes} == {
    'images without room for a good crop of 20 pixels, left out': ('2.png',)
  }
  large = _boards([[[0, 0, 5, 5]]])
  with pytest.raises(ValueError, match='boards gives no crops of 101 pixels'):
    _cut(large, crop=101)


def test_other_pictures_change_no_crop():
  boxes = _random_boxes(2, 6)
  few, many = (_cut(_boards(boxes[:number])) for number in (2, 6))
  assert many.names[: len(few)] == few.names
  assert many.annotations['kind'][: len(few)] == few.annotations['kind']


def test_only_boxes_of_the_classes_make_defects_but_all_are_kept_away_from():
  boxes = [[[0, 0, 8, 8], [50, 50, 58, 58]], [[10, 10, 20, 20]]]
  source = _cut(_boards(boxes, [np.array([0, 1]), np.array([0])]), classes=('dirty',))
  assert {_corner(name)[0] for name in source.names} == {0}
  assert set(source.annotations['kind']) == {'', 'dirty'}
  for name, label in zip(source.names, source.labels):
    _, x, y = _corner(name)
    assert label or x >= 8 or y >= 8
  with pytest.raises(ValueError, match="boards has no class 'rusty'"):
    _cut(_boards(boxes), classes=('rusty',))


def test_blank_crops_are_no_good_parts():
  with pytest.raises(ValueError, match='gives no crops of 20 pixels'):
    _cut(_boards([[[0, 0, 5, 5]]], blank=True))
  assert len(_cut(_boards([[[0, 0, 5, 5]]], blank=True), min_contrast=0.0)) == 2


def test_rejects_bad_arguments():
  boards = _boards([[[0, 0, 5, 5]]])
  with pytest.raises(ValueError, match='crop must be at least 1, got 0'):
    _cut(boards, crop=0)
  with pytest.raises(ValueError, match='per_image must be at least 1, got 0'):
    _cut(boards, per_image=0)
  plain = Source('plain', ('a',), ('0',), np.zeros(1), boards.read)
  with pytest.raises(ValueError, match='plain has no boxes to cut crops around'):
    _cut(plain)


def test_box_crops_of_any_source_with_boxes():
  source = data.load('box_crops', source='synthetic_boxes', num_images=6, crop=24)
  assert source.name == 'box_crops/synthetic_boxes'
  assert source.counts()[0] == source.counts()[1] > 2
  assert source.read(0).shape == (24, 24, 1)
  one = data.load(
    'box_crops', source='synthetic_boxes', num_images=12, classes='scratches', crop=24
  )
  assert one.name == 'box_crops/synthetic_boxes/scratches'
  assert set(one.annotations['kind']) == {'', 'scratches'}


def test_real_deep_pcb_pairs(data_dir):
  source = data.load('deep_pcb_pairs', dir=data_dir / 'DeepPCB')
  assert source.counts() == (1157, 1157)
  assert len(set(source.groups)) == 226  # Of one board all that touches no box is blank.
  assert set(source.annotations['kind']) == {
    '', 'open', 'short', 'mousebite', 'spur', 'spurious_copper', 'pin-hole'
  }  # fmt: skip
  # Image and template differ at edges everywhere, and in the box much more.
  inside, outside = [], []
  for i in range(0, len(source), 40):
    image, reference = (
      one.astype(int).mean(axis=2) for one in (source.read(i), source.annotations['reference'][i])
    )
    assert image.shape == reference.shape == (128, 128)
    differs, mask = np.abs(image - reference) > 128, source.annotations['mask'][i] > 0
    outside.append(differs[~mask].mean())
    if mask.any():
      inside.append(differs[mask].mean())
  assert np.median(inside) > 0.1
  assert np.median(outside) < 0.01


def test_real_neu_crops(data_dir):
  source = data.load('box_crops', dir=data_dir / 'NEU-DET')
  assert source.name == 'box_crops/neu_det'
  assert source.counts() == (2065, 2065)
  scratches = data.load('box_crops', dir=data_dir / 'NEU-DET', classes='scratches')
  assert scratches.counts() == (421, 421)
  # A scratch is bright: the brightest pixels of defective crops stand out, those of good ones less.
  spread = [np.ptp(scratches.read(i).astype(float)) for i in range(0, len(scratches), 4)]
  labels = scratches.labels[::4]
  assert np.mean(np.array(spread)[labels == 1]) > 1.3 * np.mean(np.array(spread)[labels == 0])
