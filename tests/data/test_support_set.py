"""A support set is what was valid, and what it is compared with leaves it."""

import jax
import numpy as np
import pytest

from jaxdefect.data import support_set


def batch(labels, first=0, padding=0):
  n = len(labels) + padding
  return {
    'image': np.arange(first, first + n, dtype=np.uint8)[:, None, None, None]
    * np.ones((1, 2, 2, 3)),
    'label': np.array([*labels, *[0] * padding], np.int32),
    'valid': np.arange(n) < len(labels),
  }


def test_gather_leaves_padding_out():
  support = support_set.gather([batch([0, 1]), batch([1], first=7, padding=2)])
  np.testing.assert_array_equal(support['label'], [0, 1, 1])
  np.testing.assert_array_equal(support['image'][:, 0, 0, 0], [0, 1, 7])
  assert support['valid'].all()


def test_gather_rejects_padding_alone():
  with pytest.raises(ValueError, match='hold no picture'):
    support_set.gather([batch([], padding=3)])


def test_in_order_fills_the_last_batch_with_the_first_rows():
  batches = support_set.in_order(support_set.gather([batch([0, 1, 0, 1, 1])]), 2)
  rows = np.concatenate([b['image'][:, 0, 0, 0] for b in batches])
  np.testing.assert_array_equal(rows, [0, 1, 2, 3, 4, 0])


def test_references_are_good_and_leave_the_set():
  support = support_set.gather([batch([0, 1, 0, 1, 0])])
  kept, rest = support_set.set_aside(jax.random.key(0), support, 2)
  chosen = set(kept[:, 0, 0, 0].tolist())
  assert len(chosen) == 2
  assert chosen < {0, 2, 4}
  left = rest['image'][:, 0, 0, 0].tolist()
  assert sorted([*chosen, *left]) == [0, 1, 2, 3, 4]


def test_last_good_picture_stays_in_the_set():
  support = support_set.gather([batch([0, 1, 0])])
  kept, rest = support_set.set_aside(jax.random.key(0), support, 5)
  assert len(kept) == 2
  assert sorted(rest['label'].tolist()) == [0, 1]


@pytest.mark.parametrize('label', [0, 1])
def test_set_aside_needs_both_classes(label):
  with pytest.raises(ValueError, match='at least one of each'):
    support_set.set_aside(jax.random.key(0), support_set.gather([batch([label] * 3)]), 1)


def test_draw_reaches_every_picture_and_repeats_itself():
  pictures = batch([0] * 5)['image']
  drawn = support_set.draw(jax.random.key(0), pictures, (20, 3))
  assert drawn.shape == (20, 3, *pictures.shape[1:])
  assert set(drawn[..., 0, 0, 0].ravel()) == set(range(5))
  np.testing.assert_array_equal(drawn, support_set.draw(jax.random.key(0), pictures, (20, 3)))
