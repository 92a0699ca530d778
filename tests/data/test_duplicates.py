"""Copies are found, look-alikes are not."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxdefect import data
from jaxdefect.data import duplicates
from jaxdefect.data.source import Source


def _source(images, groups=None):
  names = tuple(f'{i:04d}' for i in range(len(images)))
  labels = np.zeros(len(images), np.int32)
  return Source('made', ('one',), names, labels, lambda i: images[i], groups=groups)


def _textures(number, seed=0, size=80):
  rng = np.random.default_rng(seed)
  return [rng.integers(0, 256, (size, size, 1)).astype(np.uint8) for _ in range(number)]


def _as_jpeg(image, quality):
  file = io.BytesIO()
  Image.fromarray(image[..., 0]).save(file, 'jpeg', quality=quality)
  return np.asarray(Image.open(file))[..., None]


def test_merge_by_hand():
  pairs = [(5, 2), (2, 4), (0, 1), (1, 0)]
  assert duplicates.merge(6, pairs).tolist() == [0, 0, 2, 3, 2, 2]
  assert duplicates.merge(0, []).tolist() == []


def test_finds_copies_and_nothing_else():
  images = _textures(12)
  images[7] = images[3].copy()
  images[8] = np.repeat(images[4], 3, axis=2)  # The same gray levels as colour.
  images[9] = _as_jpeg(images[5], 90)
  images[10] = np.clip(images[6] * 0.8 + 20, 0, 255).astype(np.uint8)
  source = _source(images)
  assert duplicates.find(source).tolist() == [0, 1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 11]
  names = duplicates.by_name(source, duplicates.find(source))
  assert names == [['0003', '0007'], ['0004', '0008'], ['0005', '0009'], ['0006', '0010']]


def test_parts_in_one_pose_are_not_copies():
  # 240 parts that differ by a faint texture of their own on one strong drawing; two of them are
  # one part, seen under other noise.
  rng = np.random.default_rng(1)
  drawing = 40.0 * (rng.random((64, 64)) > 0.5) + 80
  poses = rng.normal(0, 20, (3, 64, 64))
  own = rng.normal(0, 4, (240, 64, 64))
  own[77] = own[11]
  images = [
    np.clip(drawing + poses[i % 3] + own[i] + rng.normal(0, 1, (64, 64)), 0, 255)
    for i in range(240)
  ]
  images[77] = images[77] - poses[77 % 3] + poses[11 % 3]
  images = [np.clip(np.round(image), 0, 255).astype(np.uint8)[..., None] for image in images]
  flat = np.asarray([(image - np.mean(image)).ravel() for image in images])
  flat /= np.linalg.norm(flat, axis=1, keepdims=True)
  assert flat[0] @ flat[3] > 0.95  # Plain correlation would call them copies.
  groups = duplicates.find(_source(images))
  assert duplicates.by_name(_source(images), groups) == [['0011', '0077']]


@pytest.mark.parametrize('number', [4, 6, 8])
def test_a_burst_of_shots_is_found(number):
  """Its own picture would be taken for what many images share."""
  rng = np.random.default_rng(4)
  images = _textures(40, seed=5)
  for i in range(number):
    shot = images[0] * rng.uniform(0.97, 1.03) + rng.normal(0, 2, images[0].shape)
    images[i] = _as_jpeg(np.clip(np.round(shot), 0, 255).astype(np.uint8), 95)
  groups = duplicates.find(_source(images))
  assert groups.tolist() == [0] * number + list(range(number, 40))


def test_blank_images_match_only_the_same_pixels():
  blank = np.full((40, 40, 1), 7, np.uint8)
  images = [blank, blank + 1, *_textures(3), blank.copy()]
  assert duplicates.find(_source(images)).tolist() == [0, 1, 2, 3, 4, 0]


def test_lots_are_merged_with_copies():
  images = _textures(6)
  images[4] = images[0].copy()
  groups = duplicates.find(_source(images, groups=('a', 'b', '', 'a', 'b', '')))
  assert groups.tolist() == [0, 0, 2, 0, 0, 5]


@pytest.mark.parametrize('number', [0, 1, 2])
def test_few_images(number):
  assert duplicates.find(_source(_textures(number))).tolist() == list(range(number))


def test_hash_loses_no_pair():
  rng = np.random.default_rng(2)
  details = rng.standard_normal((400, 4096)).astype(np.float32)
  # Pairs 2k, 2k + 1 of correlation 0.6 .. 0.9.
  share = np.linspace(0.6, 0.9, 200, dtype=np.float32)[:, None]
  details[1::2] = share * details[::2] + np.sqrt(1 - share**2) * details[1::2]
  details /= np.linalg.norm(details, axis=1, keepdims=True)
  correlation = details @ details.T
  expected = {(i, j) for i, j in np.argwhere(np.triu(correlation, 1) >= 0.7).tolist()}
  pairs, values = duplicates.near_pairs(details, min_correlation=0.7)
  assert {tuple(pair) for pair in pairs.tolist()} == expected
  assert 100 < len(expected) < 200
  np.testing.assert_allclose(values, correlation[pairs[:, 0], pairs[:, 1]], atol=1e-5)


def test_crowds_are_structure_and_not_copies():
  # 30 of 200 images share one drawing: that is what they show, not a copy.
  rng = np.random.default_rng(3)
  images = _textures(200, size=64)
  drawing = rng.integers(0, 200, (64, 64, 1))
  for i in range(30):
    images[i] = (drawing + rng.integers(0, 40, (64, 64, 1))).astype(np.uint8)
  assert duplicates.by_name(_source(images), duplicates.find(_source(images))) == []
  # A limit so low that chance chains strangers into one crowd leaves true copies alone.
  images[199] = images[198].copy()
  groups = duplicates.find(_source(images), min_correlation=0.02)
  assert duplicates.by_name(_source(images), groups) == [['0198', '0199']]


def test_real_neu(data_dir):
  source = data.load('neu', dir=data_dir / 'NEU-DET')
  pairs = duplicates.by_name(source, duplicates.find(source))
  assert ['patches_101.jpg', 'patches_105.jpg'] in pairs
  assert ['inclusion_188.jpg', 'inclusion_210.jpg'] in pairs
  assert len(pairs) == 3


def test_real_xsdd(data_dir):
  source = data.load('xsdd', dir=data_dir / 'X-SDD')
  pairs = duplicates.by_name(source, duplicates.find(source))
  assert len(pairs) == 9
  assert all(len(pair) == 2 and pair[0].startswith('red iron/') for pair in pairs)


def test_real_bottle_caps_agree_with_the_manifest(data_dir):
  source = data.load('folder', dir=data_dir / 'BC')
  lots = {}
  for line in (data_dir / 'BC/manifest.csv').read_text().splitlines()[1:]:
    file, *_, group = line.split(',')
    if group:
      lots.setdefault(group, []).append(file)
  known = sorted(sorted(files) for files in lots.values())
  found = duplicates.by_name(source, duplicates.find(source))
  assert len(known) == 63
  assert all(pair in found for pair in known)
  assert len(found) <= 70
