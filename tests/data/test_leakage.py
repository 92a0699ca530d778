"""A naive split leaks copies, and as many as are counted; our own splits leak none."""

import dataclasses

import numpy as np
import pytest

from jaxdefect import data
from jaxdefect.data import leakage, splits
from jaxdefect.data.source import Source


def _source(size=20, copies=((0, 1), (2, 3), (4, 5), (6, 7)), groups=None):
  """Every image of its own gray level, but for pairs of copies."""
  level = list(range(size))
  for a, b in copies:
    level[b] = level[a]
  names = tuple(f'{i:02d}.png' for i in range(size))
  labels = np.arange(size) % 2
  return Source(
    'made', ('good', 'defect'), names, labels,
    lambda i: np.full((8, 8, 1), level[i], np.uint8), groups=groups,
  )  # fmt: skip


def test_exact_copies_by_hand():
  assert leakage.exact_copies(_source(6, [(0, 3), (1, 2)])).tolist() == [0, 1, 1, 0, 4, 5]
  lots = _source(6, [(0, 3)], groups=('', 'a', '', 'a', '', ''))
  assert leakage.exact_copies(lots).tolist() == [0, 0, 2, 0, 4, 5]


def test_leak_by_hand():
  split = splits.Split(train=(0, 2, 8), validation=(4,), test=(1, 3, 5, 6, 7, 9))
  # Copies of 0 and 2 in training, of 4 in validation; 6 and 7 are both in the test.
  assert leakage.leak(_source(), split) == (('01.png', '03.png', '05.png'), 6)
  assert leakage.leak(_source(), split).share == 0.5
  assert leakage.leak(_source(), splits.Split((0,), (), ())).share == 0
  with pytest.raises(ValueError, match='groups has 3 entries for the 20 images of made'):
    leakage.leak(_source(), split, groups=[0, 1, 2])


def test_naive_split_is_random_and_repeatable():
  source = _source(100, ())
  split = leakage.naive_split(source, seed=3, train=0.7, validation=0.1)
  assert [len(part) for part in (split.train, split.validation, split.test)] == [70, 10, 20]
  assert sorted(split.train + split.validation + split.test) == list(range(100))
  assert split == leakage.naive_split(source, seed=3, train=0.7, validation=0.1)
  assert split.test != leakage.naive_split(source, seed=4, train=0.7, validation=0.1).test
  assert split.report['kind'] == 'naive'
  assert sum(split.report['counts']['test'].values()) == 20
  # Which image goes where does not depend on the order in which the source has them.
  turned = dataclasses.replace(source, names=source.names[::-1])
  other = leakage.naive_split(turned, seed=3, train=0.7, validation=0.1)
  assert {turned.names[i] for i in other.test} == {source.names[i] for i in split.test}
  with pytest.raises(ValueError, match=r'train must lie in \(0, 1\)'):
    leakage.naive_split(source, seed=0, train=0.7, validation=0.3)


def test_naive_leak_is_what_chance_gives():
  """P pairs: a test image has a copy in training with 2 t (1 - t) P on average."""
  source = _source(200, [(2 * k, 2 * k + 1) for k in range(50)])
  groups = leakage.exact_copies(source)
  leaked = [len(leakage.naive_leak(source, seed=k, groups=groups).leaked) for k in range(100)]
  assert abs(np.mean(leaked) - 2 * 50 * 0.7 * 0.3) < 1.5  # 4 standard errors
  assert min(leaked) > 8


def test_real_bottle_caps(data_dir):
  """The paper's 7:3 split, were it drawn at random: one test image in eleven was learned from."""
  source = data.load('bc', dir=data_dir / 'BC')
  groups = leakage.exact_copies(source)
  assert len(set(groups.tolist())) == 915
  leaks = [leakage.naive_leak(source, seed=seed, groups=groups) for seed in range(200)]
  assert {one.test for one in leaks} == {294}
  assert 25 < np.mean([len(one.leaked) for one in leaks]) < 28
  assert len(leaks[0].leaked) == 26
  ours = splits.fraction(source, train=0.7, seed=0, groups=groups)
  assert leakage.leak(source, ours, groups=groups).leaked == ()
