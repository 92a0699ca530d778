"""The procedural data set: seeded, exact in its truth, and too varied for a pixel-wise rule."""

import pickle

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from threadpoolctl import threadpool_limits

from jaxdefect.data import sources
from jaxdefect.data.synthetic import CLASSES, generate

DEFECTS = range(1, len(CLASSES))


def test_seven_classes_named_after_the_steel_set():
  assert CLASSES == (
    'good', 'crazing', 'inclusion', 'patches', 'pitted_surface', 'rolled-in_scale', 'scratches'
  )  # fmt: skip


@pytest.mark.parametrize('label', range(len(CLASSES)))
def test_a_picture_depends_on_its_arguments_alone(label):
  first = generate(5, label)
  generate(6, label)
  np.testing.assert_array_equal(first.image, generate(5, label).image)
  np.testing.assert_array_equal(first.masks, generate(5, label).masks)
  assert (first.image != generate(6, label).image).mean() > 0.5
  assert (first.image != generate(5, label, seed=1).image).mean() > 0.5


@pytest.mark.parametrize('label', range(len(CLASSES)))
@pytest.mark.parametrize('size', [32, 64, 97])
def test_shapes_boxes_and_masks_agree(label, size):
  for number in range(5):
    sample = generate(number, label, size=size)
    assert sample.image.shape == (size, size, 1)
    assert sample.image.dtype == np.uint8
    assert sample.masks.shape == (len(sample.boxes), size, size)
    assert sample.boxes.dtype == np.float32
    assert (len(sample.boxes) == 0) == (CLASSES[label] == 'good')
    for mask, (x1, y1, x2, y2) in zip(sample.masks, sample.boxes.astype(int)):
      assert 0 <= x1 < x2 <= size
      assert 0 <= y1 < y2 <= size
      assert mask.sum() == mask[y1:y2, x1:x2].sum() > 0
      inner = mask[y1:y2, x1:x2]
      assert inner[0].any()
      assert inner[-1].any()
      assert inner[:, 0].any()
      assert inner[:, -1].any()


@pytest.mark.parametrize('label', DEFECTS)
def test_masks_are_exact(label):
  """Against the same part without its defect: the change lies in the mask, and fills it."""
  for number in range(8):
    sample = generate(number, label)
    twin = generate(number, label, with_defects=False)
    change = np.abs(sample.image.astype(int) - twin.image)[..., 0]
    assert not twin.masks.size
    assert not change[~sample.mask].any()
    assert np.mean(change[sample.mask] > 3) > 0.7


def test_good_parts_share_the_surface_of_defective_ones():
  """Nothing but the defect tells the classes apart: without it the classes look alike."""
  means = np.array([
    [generate(k, label, with_defects=False).image.mean() for k in range(60)]
    for label in range(len(CLASSES))
  ])  # fmt: skip
  spread = means.std() / np.sqrt(60)
  assert np.abs(means.mean(axis=1) - means.mean()).max() < 4 * spread


def test_pixels_are_used_and_rarely_clipped():
  images = np.stack([generate(k, label).image for label in range(7) for k in range(10)])
  assert np.mean((images == 0) | (images == 255)) < 0.02
  assert images.mean(axis=(1, 2, 3)).std() > 25  # light varies


def test_a_linear_rule_on_pixels_fails():
  def pictures(start, num):
    labels = np.repeat(np.arange(len(CLASSES)), num)
    images = [generate(start + i % num, label).image for i, label in enumerate(labels)]
    return np.stack(images).reshape(len(labels), -1) / 255.0, labels

  images, labels = pictures(0, 50)
  unseen, truth = pictures(1000, 30)
  with threadpool_limits(1):
    rule = RidgeClassifier(alpha=10.0).fit(images - 0.5, labels)
  assert rule.score(images - 0.5, labels) > 0.8
  assert rule.score(unseen - 0.5, truth) < 0.45


def test_source_names_labels_and_annotations():
  source = sources.load('synthetic', num_per_class=3)
  assert len(source) == 21
  assert source.classes == CLASSES
  assert source.counts() == (3,) * 7
  i = source.names.index('synthetic/scratches/000002')
  sample = generate(2, CLASSES.index('scratches'))
  np.testing.assert_array_equal(source.read(i), sample.image)
  np.testing.assert_array_equal(source.annotations['mask'][i], sample.mask)
  np.testing.assert_array_equal(source.annotations['boxes'][i], sample.boxes)
  assert source.annotations['box_labels'][i].tolist() == [6] * len(sample.boxes)
  good = source.labels.tolist().index(0)
  assert source.annotations['boxes'][good].shape == (0, 4)
  assert not source.annotations['mask'][good].any()
  with pytest.raises(IndexError):
    source.read(21)


def test_a_larger_source_begins_with_the_smaller_one():
  small, large = (sources.load('synthetic', num_per_class=n, seed=2) for n in (2, 4))
  assert large.names[: len(small)] == small.names
  np.testing.assert_array_equal(large.read(9), small.read(9))
  later = sources.load('synthetic', num_per_class=2, seed=2, first=2)
  assert not set(later.names) & set(small.names)
  np.testing.assert_array_equal(later.read(0), large.read(14))


def test_reading_does_not_share_memory():
  source = sources.load('synthetic', num_per_class=1)
  source.read(3)[:] = 0
  assert source.read(3).any()


def test_source_travels_to_worker_processes():
  source = pickle.loads(pickle.dumps(sources.load('synthetic', num_per_class=1)))
  assert source.read(6).shape == (64, 64, 1)
  assert source.annotations['mask'][6].any()


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'num_per_class': 0}, 'num_per_class must be at least 1'),
    ({'size': 8}, 'size must be at least 32'),
    ({'seed': -1}, 'seed must be at least 0'),
  ],
)
def test_rejects_bad_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    sources.load('synthetic', **settings)


def test_rejects_bad_label():
  with pytest.raises(ValueError, match=r'label must lie in 0\.\.6'):
    generate(0, 7)
