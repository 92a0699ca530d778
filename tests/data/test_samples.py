"""Labelled images with what belongs together, and what is said where that is not known."""

import numpy as np
import pytest

from jaxdefect.data import samples
from jaxdefect.data.source import Source


def source(labels, groups=None):
  names = tuple(f'{i}.png' for i in range(len(labels)))
  generator = np.random.default_rng(0)
  pictures = generator.integers(0, 256, (len(labels), 16, 16, 1), dtype=np.uint8)
  return Source('caps', ('good', 'defect'), names, labels, lambda i: pictures[i], groups=groups)


def test_take_keeps_names_labels_and_groups():
  given = samples.take(source([0, 0, 1, 1, 1]), [4, 0, 3], groups=[0, 1, 2, 3, 3])
  assert given.names == ('4.png', '0.png', '3.png')
  assert given.labels.tolist() == [1, 0, 1]
  assert given.groups.tolist() == [3, 0, 3]
  assert samples.is_positive(given, 'defect').tolist() == [True, False, True]


def test_take_finds_groups_where_none_are_given():
  given = samples.take(source([0, 1, 1, 0], groups=('a', '', 'a', '')), [0, 1, 2, 3])
  assert given.groups.tolist() == [0, 1, 0, 3]


def test_a_missing_class_is_named():
  with pytest.raises(
    ValueError, match="None of the 2 labelled images of caps is of class 'defect'"
  ):
    samples.take(source([0, 0, 1]), [0, 1], groups=np.arange(3))
  given = samples.take(source([0, 1]), [0, 1], groups=np.arange(2))
  with pytest.raises(ValueError, match="no class 'scratch'; the classes are good, defect"):
    samples.is_positive(given, 'scratch')


def test_lots_join_copies():
  lots = samples.lots(source([0, 0, 1, 1], ('a', 'b', 'a', 'c')), copies=[0, 1, 2, 1])
  assert lots.tolist() == [0, 1, 0, 1]


def test_images_without_a_lot_are_named():
  with pytest.raises(ValueError, match=r'2 of 4 images of caps have no lot: 1.png, 3.png; give'):
    samples.lots(source([0, 0, 1, 1], ('a', '', 'b', '')))
  with pytest.raises(ValueError, match=r'7 of 7 .* 4.png and 2 more; give'):
    samples.lots(source([0] * 6 + [1]))


def test_require_counts_different_images():
  given = samples.take(source([0, 0, 0, 1, 1, 1]), range(6), groups=[0, 1, 2, 3, 3, 5])
  samples.require(given, 2, '2 folds')
  with pytest.raises(ValueError, match=r"'defect' has 3 images \(2 different\), but 3 folds needs"):
    samples.require(given, 3, '3 folds')
