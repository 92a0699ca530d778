"""The procedural detection set: seeded, any number of defects, exact boxes and masks."""

import pickle

import numpy as np
import pytest

from jaxdefect import data
from jaxdefect.data import sources
from jaxdefect.data.synthetic_boxes import CLASSES, generate, plan


def test_a_picture_depends_on_its_arguments_alone():
  first = generate(5)
  generate(6)
  for one, other in zip(first, generate(5)):
    np.testing.assert_array_equal(one, other)
  assert (first.image != generate(6).image).mean() > 0.5
  assert (first.image != generate(5, seed=1).image).mean() > 0.5


@pytest.mark.parametrize('size', [64, 97, 128])
def test_boxes_are_the_extent_of_the_masks(size):
  for number in range(20):
    scene = generate(number, size=size)
    assert scene.image.shape == (size, size, 1)
    assert scene.image.dtype == scene.mask.dtype == np.uint8
    assert scene.boxes.dtype == np.float32
    assert scene.mask.max() == len(scene.boxes) == len(scene.labels)
    np.testing.assert_array_equal(scene.labels, plan(number))
    for k, (x0, y0, x1, y1) in enumerate(scene.boxes.astype(int)):
      mask = scene.mask == k + 1
      assert mask.sum() == mask[y0:y1, x0:x1].sum() > 3
      inner = mask[y0:y1, x0:x1]
      assert inner[0].any()
      assert inner[-1].any()
      assert inner[:, 0].any()
      assert inner[:, -1].any()


@pytest.mark.parametrize('size', [64, 128])
def test_masks_are_exact_and_defects_visible(size):
  """Against the same part without its defects: the change lies in the mask, and fills it."""
  for number in range(40):
    scene, twin = generate(number, size=size), generate(number, size=size, with_defects=False)
    change = np.abs(scene.image.astype(int) - twin.image)[..., 0]
    assert not twin.boxes.size
    assert not change[scene.mask == 0].any()
    for k in range(len(scene.boxes)):
      assert np.mean(change[scene.mask == k + 1] >= 4) > 0.9
      assert np.median(change[scene.mask == k + 1]) >= 8


def test_numbers_and_classes_of_defects_are_even():
  plans = [plan(number) for number in range(600)]
  # 5 standard deviations of a binomial count.
  numbers = np.bincount([len(one) for one in plans], minlength=5)
  assert np.abs(numbers - 120).max() < 5 * np.sqrt(600 * 0.2 * 0.8)
  classes = np.bincount(np.concatenate(plans), minlength=len(CLASSES))
  assert np.abs(classes - 200).max() < 5 * np.sqrt(1200 * (1 / 6) * (5 / 6))
  assert max(len(plan(number, max_defects=9)) for number in range(99)) == 9


def test_defects_are_mostly_apart_and_inside():
  scenes = [generate(number, size=64) for number in range(80)]
  boxes = np.concatenate([scene.boxes for scene in scenes])
  cut = (boxes[:, :2].min(axis=1) == 0) | (boxes[:, 2:].max(axis=1) == 64)
  assert 0.02 < cut.mean() < 0.4
  shared = []
  for scene in scenes:
    for k, box in enumerate(scene.boxes):
      for other in scene.boxes[:k]:
        sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
        areas = [(b[2:] - b[:2]).prod() for b in (box, other)]
        shared.append(sides.clip(0).prod() / min(areas))
  assert np.mean(np.array(shared) > 0.3) < 0.1


def test_a_crowded_picture_finds_room():
  scene = generate(2, size=64, max_defects=16)
  assert len(scene.boxes) == scene.mask.max() == 16
  assert (np.bincount(scene.mask.ravel(), minlength=17) > 3).all()


def test_overexposure_hides_no_defect():
  bare = [generate(number, size=64, with_defects=False).image for number in range(60)]
  assert max(np.mean(image == 255) for image in bare) < 0.01


def test_source_names_labels_and_annotations():
  source = sources.load('synthetic_boxes', num_images=12, size=64)
  assert len(source) == 12
  assert source.classes == CLASSES
  for i in range(12):
    scene = generate(i, size=64)
    np.testing.assert_array_equal(source.read(i), scene.image)
    np.testing.assert_array_equal(source.annotations['boxes'][i], scene.boxes)
    np.testing.assert_array_equal(source.annotations['box_labels'][i], scene.labels)
    np.testing.assert_array_equal(source.annotations['mask'][i], scene.mask)
    counts = [(scene.labels == label).sum() for label in range(len(CLASSES))]
    assert source.labels[i] == np.argmax(counts)
  assert min(len(one) for one in source.annotations['boxes'][:]) == 0
  with pytest.raises(IndexError):
    source.read(12)
  with pytest.raises(IndexError):
    source.annotations['boxes'][12]


def test_a_larger_source_begins_with_the_smaller_one():
  small, large = (sources.load('synthetic_boxes', num_images=n, size=64, seed=2) for n in (3, 6))
  assert large.names[:3] == small.names
  np.testing.assert_array_equal(large.read(2), small.read(2))
  later = sources.load('synthetic_boxes', num_images=3, size=64, seed=2, first=3)
  assert not set(later.names) & set(small.names)
  np.testing.assert_array_equal(later.read(0), large.read(3))


def test_reading_does_not_share_memory():
  source = sources.load('synthetic_boxes', num_images=1, size=64)
  source.read(0)[:] = 0
  source.annotations['mask'][0][:] = 9
  assert source.read(0).any()
  assert (source.annotations['mask'][0] < 5).all()


def test_source_travels_to_worker_processes():
  source = pickle.loads(pickle.dumps(sources.load('synthetic_boxes', num_images=3, size=64)))
  assert source.read(2).shape == (64, 64, 1)
  assert source.annotations['boxes'][2].shape[1] == 4


def test_batches_hold_its_boxes():
  source = sources.load('synthetic_boxes', num_images=8, size=64)
  (batch,) = data.eval_batches(source, range(8), batch_size=8, image_size=(96, 96), max_boxes=4)
  for i in range(8):
    boxes = batch['boxes'][i][batch['box_valid'][i]]
    np.testing.assert_array_equal(boxes, source.annotations['boxes'][i] * np.float32(1.5))


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'num_images': 0}, 'num_images must be at least 1'),
    ({'size': 32}, 'size must be at least 64'),
    ({'seed': -1}, 'seed must be at least 0'),
    ({'max_defects': 0}, 'max_defects must be at least 1'),
    ({'max_defects': 17}, r'max_defects must lie in 0\.\.16'),
  ],
)
def test_rejects_bad_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    sources.load('synthetic_boxes', **settings)


def test_rejects_bad_picture():
  with pytest.raises(ValueError, match='number and seed must not be negative'):
    generate(-1)
  with pytest.raises(ValueError, match='size must be at least 64'):
    generate(0, size=63)
