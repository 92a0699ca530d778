"""Training batches resume exactly; evaluation batches show each image once."""

import numpy as np
import pytest
from absl import logging

from jaxdefect import data
from jaxdefect.data import batching, box_columns, decode, letterbox
from jaxdefect.data.source import Source


def _source(size=10, broken=()):
  def read(i):
    if i in broken:
      raise ValueError(f'The image {i}.png cannot be read: it has no bytes.')
    return np.full((6 + i % 3, 5, 1), 20 * i, np.uint8)

  names = tuple(f'{i}.png' for i in range(size))
  return Source('made', ('a', 'b', 'c'), names, np.arange(size) % 3, read)


def _train(source, indices, **kwargs):
  settings = {'batch_size': 4, 'image_size': (8, 6), 'seed': 0, **kwargs}
  return data.train_batches(source, indices, **settings)


def test_batch_by_hand():
  batch = next(_train(_source(), [2, 5, 7], batch_size=8))
  assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
    'image': ((8, 8, 6, 3), 'uint8'),
    'label': ((8,), 'int32'),
    'valid': ((8,), 'bool'),
    'index': ((8,), 'int32'),
  }
  assert batch['valid'].all()
  assert set(batch['index'].tolist()) == {2, 5, 7}
  np.testing.assert_array_equal(batch['label'], batch['index'] % 3)
  np.testing.assert_array_equal(batch['image'][:, 3, 3, 1], 20 * batch['index'])


def test_every_epoch_holds_every_image_in_another_order():
  batches = _train(_source(), range(10))
  order = np.concatenate([next(batches)['index'] for _ in range(10)]).reshape(4, 10)
  np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(10), (4, 1)))
  assert len({tuple(epoch) for epoch in order.tolist()}) == 4


def test_whole_epochs_hold_no_image_twice():
  batches = _train(_source(), range(10), straddle_epochs=False)
  drawn = [next(batches)['index'].tolist() for _ in range(40)]
  for first, second in zip(drawn[::2], drawn[1::2]):
    assert len(set(first + second)) == 8
  assert set(np.ravel(drawn).tolist()) == set(range(10))
  small = _train(_source(), [1, 2], straddle_epochs=False)
  assert sorted(next(small)['index'].tolist()) == [1, 1, 2, 2]


@pytest.mark.parametrize('cache_bytes', [0, 2**20])
def test_resume_is_exact(cache_bytes):
  source = _source()
  batches = _train(source, range(10), cache_bytes=cache_bytes)
  for _ in range(7):
    next(batches)
  state = batches.get_state()
  later = [next(batches) for _ in range(6)]
  resumed = _train(source, range(10), cache_bytes=cache_bytes)
  resumed.set_state(state)
  for expected in later:
    batch = next(resumed)
    for key, value in expected.items():
      np.testing.assert_array_equal(batch[key], value)


def test_same_seed_same_batches_and_other_seed_other():
  def order(seed):
    batches = _train(_source(), range(10), seed=seed)
    return [next(batches)['index'].tolist() for _ in range(5)]

  assert order(3) == order(3)
  assert order(3) != order(4)


def test_shards_hold_together_what_one_process_holds():
  whole = _train(_source(), range(10))
  shards = [_train(_source(), range(10), shard=(rank, 2)) for rank in range(2)]
  for _ in range(8):
    rows = np.concatenate([next(shard)['index'] for shard in shards])
    assert len(rows) == 4
    assert sorted(rows.tolist()) == sorted(next(whole)['index'].tolist())


def test_eval_padding_is_marked_and_empty():
  source = _source()
  batches = data.eval_batches(source, [9, 1, 4, 0, 3], batch_size=3, image_size=(8, 6))
  assert len(batches) == 2
  first, last = list(batches)
  assert first['index'].tolist() == [9, 1, 4]
  assert last['index'].tolist() == [0, 3, batching.PADDING_INDEX]
  assert last['valid'].tolist() == [True, True, False]
  assert last['label'].tolist() == [0, 0, 0]
  assert not last['image'][2].any()
  assert first['image'].shape == last['image'].shape == (3, 8, 6, 3)
  again = list(batches)
  for one, other in zip([first, last], again):
    for key, value in one.items():
      np.testing.assert_array_equal(other[key], value)
  assert list(data.eval_batches(source, [], batch_size=3, image_size=(8, 6))) == []


def test_cache_changes_nothing():
  source = _source()
  cached, read = (
    list(data.eval_batches(source, range(10), batch_size=4, image_size=(7, 9), cache_bytes=size))
    for size in (2**20, 0)
  )
  for one, other in zip(cached, read):
    np.testing.assert_array_equal(one['image'], other['image'])


def test_cached_images_are_read_once():
  source = _source()
  times = np.zeros(10, int)

  def read(i):
    times[i] += 1
    return np.zeros((4, 4, 1), np.uint8)

  counted = Source('made', source.classes, source.names, source.labels, read)
  batches = _train(counted, range(8))
  for _ in range(9):
    next(batches)
  assert times.tolist() == [1] * 8 + [0] * 2


def test_labels_count_in_the_given_classes():
  batch = next(_train(_source(), [0, 2, 3, 5], classes=('c', 'a')))
  np.testing.assert_array_equal(batch['label'], np.where(batch['index'] % 3 == 2, 0, 1))
  with pytest.raises(
    ValueError, match=r"image 1\.png of made is of class 'b', which is not among c"
  ):
    _train(_source(), [0, 1], classes=('c', 'a'))


def test_nearest_keeps_levels():
  source = Source(
    'maps', ('m',), ('0',), np.zeros(1), lambda i: np.asarray([[[0], [255]]], np.uint8)
  )
  batch = next(_train(source, [0], image_size=(4, 9), interpolation='nearest'))
  assert set(np.unique(batch['image'])) == {0, 255}


@pytest.mark.parametrize('cache_bytes', [0, 2**20])
def test_broken_image_stops_at_the_start(cache_bytes):
  source = _source(broken=(6,))
  with pytest.raises(ValueError, match=r'image 6\.png cannot be read'):
    _train(source, range(10), cache_bytes=cache_bytes)
  with pytest.raises(ValueError, match=r'image 6\.png cannot be read'):
    data.verify(source, range(10))
  data.verify(source, [0, 1])
  several = r'image 6\.png cannot be read.* more images that cannot be read: 2 \(2\.png, 3\.png\)'
  with pytest.raises(ValueError, match=several):
    data.verify(_source(broken=(2, 3, 6)), [6, 0, 2, 3])
  assert list(data.unreadable(_source(broken=(6,)), range(10))) == [6]
  with pytest.raises(ValueError, match=r'image 6\.png cannot be read'):
    list(data.eval_batches(source, [6], batch_size=2, image_size=(4, 4)))


def test_rejects_bad_arguments():
  source = _source()
  with pytest.raises(ValueError, match='no images of made to train on'):
    _train(source, [])
  with pytest.raises(ValueError, match=r'indices must lie in 0\.\.9'):
    _train(source, [10])
  with pytest.raises(ValueError, match='positive multiple of 3, got 4'):
    _train(source, [1], shard=(0, 3))
  with pytest.raises(ValueError, match='shard must be'):
    _train(source, [1], shard=(2, 2))
  with pytest.raises(ValueError, match='image_size'):
    _train(source, [1], image_size=(0, 8))
  with pytest.raises(ValueError, match='batch_size must be at least 1'):
    data.eval_batches(source, [1], batch_size=0, image_size=(8, 8))


def test_real_images_are_resized_as_they_are_read(data_dir):
  source = data.load('neu', dir=data_dir / 'NEU-DET')
  (batch,) = data.eval_batches(source, [0, 900, 1799], batch_size=3, image_size=(96, 128))
  expected = decode.resize(source.read(900), (96, 128))
  np.testing.assert_array_equal(batch['image'][1], expected)


def _boxed(size=10):
  """Images of 6..8 x 5 pixels; image i has i % 4 boxes of growing size, classes in turn."""

  def boxes(i):
    return np.array([[k, 0, k + 1 + k, 2] for k in range(i % 4)], np.float32).reshape(-1, 4)

  source = _source(size)
  annotations = {
    'boxes': [boxes(i) for i in range(size)],
    'box_labels': [(np.arange(i % 4) + i) % 3 for i in range(size)],
  }
  return Source(
    'boxed', source.classes, source.names, source.labels, source.read, annotations=annotations
  )


def _one(source, i, **kwargs):
  settings = {'batch_size': 1, 'image_size': (16, 16), 'max_boxes': 5, **kwargs}
  (batch,) = data.eval_batches(source, [i], **settings)
  return {key: value[0] for key, value in batch.items()}


def test_box_batch_by_hand():
  """Image 7 is 7 x 5 pixels, so 16 / 7 canvas pixels per native one."""
  row = _one(_boxed(), 7)
  scale = np.float32(16 / 7)
  assert row['scale'] == scale
  np.testing.assert_array_equal(row['size'], np.float32([7, 5]) * scale)
  np.testing.assert_array_equal(
    row['boxes'], np.float32([[0, 0, 1, 2], [1, 0, 3, 2], [2, 0, 5, 2], [0] * 4, [0] * 4]) * scale
  )
  assert row['box_label'].tolist() == [1, 2, 0, 0, 0]
  assert row['box_valid'].tolist() == [True] * 3 + [False] * 2
  assert (row['image'][:, :11] == 140).all()
  assert (row['image'][:, 12:] == letterbox.GRAY).all()


def test_an_image_without_boxes_is_valid():
  row = _one(_boxed(), 4)
  assert row['valid']
  assert not row['box_valid'].any()


@pytest.mark.parametrize('max_boxes', [None, 3])
def test_batches_have_the_shapes_of_the_spec(max_boxes):
  source = _boxed()
  spec = batching.batch_spec(4, (8, 6), max_boxes=max_boxes)
  settings = {'batch_size': 4, 'image_size': (8, 6), 'max_boxes': max_boxes}
  for batch in (
    next(_train(source, range(10), **settings)),
    *data.eval_batches(source, range(10), **settings),
  ):
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
      k: (v.shape, v.dtype) for k, v in spec.items()
    }


def test_eval_padding_holds_no_boxes():
  first, last = data.eval_batches(_boxed(), [3, 7, 2], batch_size=2, image_size=(8, 8), max_boxes=3)
  assert first['box_valid'].all(axis=1).tolist() == [True, True]
  assert last['valid'].tolist() == [True, False]
  for key in ('image', 'label', 'boxes', 'box_label', 'box_valid', 'size'):
    assert not last[key][1].any()
  assert last['scale'][1] == 1
  assert last['index'][1] == batching.PADDING_INDEX


@pytest.mark.parametrize('cache_bytes', [0, 2**20])
def test_training_with_boxes_resumes_exactly(cache_bytes):
  settings = {'max_boxes': 3, 'cache_bytes': cache_bytes}
  batches = _train(_boxed(), range(10), **settings)
  for _ in range(3):
    next(batches)
  state = batches.get_state()
  later = [next(batches) for _ in range(4)]
  resumed = _train(_boxed(), range(10), **settings)
  resumed.set_state(state)
  for expected in later:
    batch = next(resumed)
    for key, value in expected.items():
      np.testing.assert_array_equal(batch[key], value)


def test_cache_changes_no_box_batch():
  cached, read = (
    list(
      data.eval_batches(
        _boxed(), range(10), batch_size=4, image_size=(7, 9), max_boxes=2, cache_bytes=size
      )
    )
    for size in (2**20, 0)
  )
  for one, other in zip(cached, read):
    for key, value in one.items():
      np.testing.assert_array_equal(other[key], value)


def test_the_largest_boxes_are_kept_and_the_rest_counted():
  source = _boxed()
  row = _one(source, 7, max_boxes=2)
  np.testing.assert_array_equal(row['boxes'] / row['scale'], [[1, 0, 3, 2], [2, 0, 5, 2]])
  assert row['box_label'].tolist() == [2, 0]
  assert row['box_valid'].all()
  counts = box_columns.count_boxes(source, range(10), max_boxes=2)
  assert counts == (11, 0, 2, 2)  # boxes 0 1 2 3 0 1 2 3 0 1
  assert box_columns.count_boxes(source, range(10), max_boxes=3) == (13, 0, 0, 0)
  # Of equal areas the first stay.
  same = Source(
    'same', ('a',), ('0',), np.zeros(1), source.read,
    annotations={'boxes': [np.float32([[k, 0, k + 2, 2] for k in range(4)])],
                 'box_labels': [np.zeros(4, int)]},
  )  # fmt: skip
  assert (_one(same, 0, max_boxes=3)['boxes'] / np.float32(16 / 6))[:, 0].tolist() == [0, 1, 2]


def test_the_log_says_once_that_boxes_went(caplog, monkeypatch):
  monkeypatch.setattr(logging.get_absl_logger(), 'propagate', True)
  box_columns._say_once.cache_clear()
  for _ in range(3):
    _one(_boxed(), 7, max_boxes=2)
  sentences = [record.getMessage() for record in caplog.records]
  assert sentences == [
    'boxed: 1 boxes in 1 of 1 images are beyond max_boxes=2 and left out, the smallest of each '
    'image.'
  ]


def test_boxes_of_other_classes_are_left_out_and_counted():
  source = _boxed()
  row = _one(source, 7, classes=('c', 'b'))
  assert row['box_label'].tolist() == [1, 0, 0, 0, 0]
  assert row['box_valid'].tolist() == [True, True, False, False, False]
  np.testing.assert_array_equal(row['boxes'][:2] / row['scale'], [[0, 0, 1, 2], [1, 0, 3, 2]])
  assert row['label'] == 1
  # The image's own class may be unknown too, without an error.
  assert _one(source, 6, classes=('c', 'b'))['label'] == 0
  assert _one(source, 6, classes=('c', 'b'))['box_label'].tolist() == [1, 0, 0, 0, 0]
  counts = box_columns.count_boxes(source, [7, 6], max_boxes=1, classes=('c', 'b'))
  assert counts == (2, 2, 1, 1)
  # The cap falls on the boxes that count, not on the others.
  assert _one(source, 7, classes=('b',), max_boxes=1)['box_valid'].tolist() == [True]


def test_a_source_without_boxes_can_be_predicted_but_not_trained_on():
  row = _one(_source(), 3)
  assert row['valid']
  assert not row['box_valid'].any()
  with pytest.raises(ValueError, match='made have no boxes to train on'):
    _train(_source(), range(10), max_boxes=3)


def test_rejects_bad_boxes():
  with pytest.raises(ValueError, match='max_boxes must be at least 1, got 0'):
    _one(_boxed(), 1, max_boxes=0)
  with pytest.raises(ValueError, match="boxed has no class 'd'"):
    _one(_boxed(), 1, classes=('d',))
  source = Source(
    'torn', ('a',), ('0.png',), np.zeros(1), _source().read,
    annotations={'boxes': [np.zeros((2, 4))], 'box_labels': [np.zeros(1, int)]},
  )  # fmt: skip
  with pytest.raises(ValueError, match=r'image 0\.png of torn has 2 boxes and 1 box_labels'):
    _one(source, 0)


def test_real_boxes_lie_on_the_letterboxed_picture(data_dir):
  source = data.load('neu', dir=data_dir / 'NEU-DET')
  (batch,) = data.eval_batches(
    source, [0, 900, 1799], batch_size=3, image_size=(320, 320), max_boxes=20
  )
  np.testing.assert_array_equal(batch['image'][1], decode.resize(source.read(900), (320, 320)))
  np.testing.assert_array_equal(batch['scale'], np.float32([1.6] * 3))
  boxes = batch['boxes'][1][batch['box_valid'][1]]
  np.testing.assert_allclose(boxes, source.annotations['boxes'][900] * 1.6, rtol=1e-6)
  assert boxes.max() <= 320
