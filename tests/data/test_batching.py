"""Training batches resume exactly; evaluation batches show each image once."""

import numpy as np
import pytest

from jaxdefect import data
from jaxdefect.data import batching, decode
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
