"""Batches with a reference of each image: a picture of the same part without a defect."""

import dataclasses

import numpy as np
import pytest

from jaxdefect import data
from jaxdefect.data import batching
from jaxdefect.data.source import LazyColumn, Source


def _source(size=10):
  """Image i of level 20 i, 6 to 8 pixels high."""
  names = tuple(f'{i}.png' for i in range(size))
  return Source(
    'made', ('a', 'b', 'c'), names, np.arange(size) % 3,
    lambda i: np.full((6 + i % 3, 5, 1), 20 * i, np.uint8),
  )  # fmt: skip


def _train(source, indices, **kwargs):
  settings = {'batch_size': 4, 'image_size': (8, 6), 'seed': 0, **kwargs}
  return data.train_batches(source, indices, **settings)


def _paired(size=10):
  """Image i of level 20 i with a reference of another size and level 20 i + 5."""
  source = _source(size)
  references = [np.full((9, 9, 3), 20 * i + 5, np.uint8) for i in range(size)]
  return dataclasses.replace(source, annotations={'reference': references})


@pytest.mark.parametrize('cache_bytes', [0, 2**20])
def test_references_come_with_their_images(cache_bytes):
  settings = {'reference': True, 'cache_bytes': cache_bytes}
  batch = next(_train(_paired(), range(10), **settings))
  spec = batching.batch_spec(4, (8, 6), reference=True)
  assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
    k: (v.shape, v.dtype) for k, v in spec.items()
  }
  assert batch['reference'].shape == (4, 1, 8, 6, 3)
  np.testing.assert_array_equal(batch['reference'][:, 0, 3, 3, 1], 20 * batch['index'] + 5)
  np.testing.assert_array_equal(batch['image'][:, 3, 3, 1], 20 * batch['index'])
  _, last = data.eval_batches(_paired(), [1, 2, 3], batch_size=2, image_size=(8, 6), **settings)
  assert (last['reference'][0] == 65).all()
  assert not last['reference'][1].any()


def test_references_are_letterboxed_with_boxes():
  (batch,) = data.eval_batches(
    _paired(), [3], batch_size=1, image_size=(16, 16), max_boxes=5, reference=True
  )
  assert batch['reference'].shape == (1, 1, 16, 16, 3)
  assert (batch['reference'] == 65).all()  # 9 x 9 fills the square canvas.


def test_batches_without_references_are_as_before():
  assert 'reference' not in next(_train(_paired(), range(10)))
  assert 'reference' not in batching.batch_spec(4, (8, 6))


def test_missing_and_broken_references_are_said():
  with pytest.raises(ValueError, match='reference=True, but the images of made have no reference'):
    _train(_source(), range(10), reference=True)
  with pytest.raises(ValueError, match='images of made have no reference of their own'):
    data.eval_batches(_source(), [1], batch_size=1, image_size=(8, 6), reference=True)

  def read(i):
    if i == 6:
      raise ValueError('The image 6_temp.png cannot be read: it has no bytes.')
    return np.zeros((4, 4, 1), np.uint8)

  source = dataclasses.replace(_source(), annotations={'reference': LazyColumn(10, read)})
  for cache_bytes in (0, 2**20):
    with pytest.raises(ValueError, match=r'6_temp\.png cannot be read'):
      _train(source, range(10), reference=True, cache_bytes=cache_bytes)
  data.verify(source, range(10))
  with pytest.raises(ValueError, match=r'6_temp\.png cannot be read'):
    data.verify(source, range(10), reference=True)


def test_real_templates_come_with_their_boards(data_dir):
  source = data.load('deep_pcb', dir=data_dir / 'DeepPCB')
  (batch,) = data.eval_batches(source, [5], batch_size=1, image_size=(640, 640), reference=True)
  expected = np.broadcast_to(source.annotations['reference'][5], (640, 640, 3))
  np.testing.assert_array_equal(batch['reference'][0, 0], expected)
