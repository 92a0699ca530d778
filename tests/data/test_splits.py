"""Splits repeat, keep classes in proportion, and never part copies."""

import json

import numpy as np
import pytest

from jaxdefect import data
from jaxdefect.data import duplicates, splits
from jaxdefect.data.source import Source

CLASSES = ('a', 'b', 'c')


def _source(sizes=(20, 30, 40), order=None, name='made', change=()):
  labels = np.repeat(np.arange(len(sizes)), sizes)
  names = [f'{CLASSES[label]}/{i}.png' for i, label in enumerate(labels)]
  order = np.arange(len(labels)) if order is None else np.asarray(order)

  def read(i):
    original = int(order[i])
    rng = np.random.default_rng(original + 1000 * (names[original] in change))
    return rng.integers(0, 256, (8, 8, 1)).astype(np.uint8)

  kept = tuple(names[i] for i in order)
  return Source(name, CLASSES[: len(sizes)], kept, labels[order], read)


def _singles(source):
  return np.arange(len(source))


def _names(source, places):
  return [source.names[i] for i in places]


def test_few_shot_counts():
  source = _source()
  split = splits.few_shot(
    source, per_class=5, seed=0, groups=_singles(source), validation_per_class=3
  )
  assert source.counts(split.train) == (5, 5, 5)
  assert source.counts(split.validation) == (3, 3, 3)
  assert source.counts(split.test) == (12, 22, 32)
  assert split.report['kind'] == 'few_shot'
  assert split.report['counts']['train'] == {'a': 5, 'b': 5, 'c': 5}
  assert split.report['left_out'] == []


def test_same_seed_same_split_in_any_order():
  source = _source()
  shuffled = _source(order=np.random.default_rng(5).permutation(90))
  for make in (
    lambda s: splits.few_shot(s, per_class=4, seed=3, groups=_singles(s), max_test=30),
    lambda s: splits.fraction(s, train=0.6, seed=3, groups=_singles(s), validation=0.1),
    lambda s: splits.unseen_classes(s, train_classes=['b'], shots=2, seed=3, groups=_singles(s)),
  ):
    one, other = make(source), make(shuffled)
    for part in ('train', 'validation', 'test', 'references'):
      assert _names(source, getattr(one, part)) == _names(shuffled, getattr(other, part))
    assert one.report == other.report


def test_seeds_differ_and_shots_are_nested():
  source = _source()

  def train(k, seed):
    return set(splits.few_shot(source, per_class=k, seed=seed, groups=_singles(source)).train)

  assert train(5, 0) < train(10, 0)
  assert train(5, 0) != train(5, 1)
  # Each image is drawn about as often as another: 600 draws of 5 of 20.
  times = np.zeros(20)
  for seed in range(600):
    times[[i for i in train(5, seed) if i < 20]] += 1
  assert times.sum() == 3000
  assert 90 < times.min() <= times.max() < 215


def test_fraction_counts_are_exact():
  source = _source(sizes=(20, 31, 45))
  split = splits.fraction(source, train=0.7, seed=1, groups=_singles(source), validation=0.1)
  assert source.counts(split.train) == (14, 22, 32)
  assert source.counts(split.validation) == (2, 3, 5)
  assert source.counts(split.test) == (4, 6, 8)
  whole = splits.fraction(source, train=1.0, seed=1, groups=_singles(source))
  assert (len(whole.train), whole.test) == (96, ())


def test_groups_never_straddle():
  source = _source()
  groups = np.arange(90) // 3 * 3  # Threes; some hold images of two classes.
  for seed in range(5):
    for split in (
      splits.few_shot(source, per_class=4, seed=seed, groups=groups, validation_per_class=1),
      splits.fraction(source, train=0.6, seed=seed, groups=groups, validation=0.2),
      splits.unseen_classes(
        source, train_classes=['b'], shots=2, seed=seed, groups=groups, validation_per_class=2
      ),
    ):
      parts = [split.train, split.validation, split.test, split.references]
      sides = [{groups[i] for i in part} for part in parts]
      assert sum(map(len, sides)) == len(set().union(*sides))
      if split.report['kind'] == 'few_shot':
        assert len(sides[0]) == len(split.train)
        assert len(split.report['left_out']) == 90 - sum(map(len, parts))
  near = split.report['near_duplicates']
  assert len(near) == 30
  assert near[0] == ['a/0.png', 'a/1.png', 'a/2.png']


def test_fraction_keeps_groups_whole_and_counts():
  source = _source()
  groups = np.arange(90)
  groups[:10] = 0
  split = splits.fraction(source, train=0.6, seed=0, groups=groups)
  assert source.counts(split.train) == (12, 18, 24)
  side = {part for i in range(10) for part in ('train', 'test') if i in getattr(split, part)}
  assert len(side) == 1


def test_unseen_classes():
  source = _source()
  groups = _singles(source)
  split = splits.unseen_classes(
    source, train_classes=['c', 'a'], shots=3, seed=0, groups=groups, validation_per_class=2
  )
  assert source.counts(split.train) == (18, 0, 38)
  assert source.counts(split.validation) == (2, 0, 2)
  assert source.counts(split.references) == (0, 3, 0)
  assert source.counts(split.test) == (0, 27, 0)
  one = splits.unseen_classes(source, train_classes=['c', 'a'], shots=1, seed=0, groups=groups)
  assert set(one.references) < set(split.references)


def test_max_test_keeps_proportions():
  source = _source()
  split = splits.few_shot(source, per_class=10, seed=0, groups=_singles(source), max_test=12)
  assert source.counts(split.test) == (2, 4, 6)
  assert split.report['untested'] == 90 - 30 - 12
  least = splits.few_shot(source, per_class=10, seed=0, groups=_singles(source), max_test=3)
  assert source.counts(least.test) == (1, 1, 1)


def test_rejects_too_few_images():
  source = _source()
  groups = _singles(source)
  with pytest.raises(
    ValueError, match=r"Class 'a' of made has 20 images, but 21 are needed: 20 for"
  ):
    splits.few_shot(source, per_class=20, seed=0, groups=groups)
  groups[:10] = 0
  with pytest.raises(ValueError, match=r"Class 'a' of made has 20 images \(11 different\)"):
    splits.few_shot(source, per_class=11, seed=0, groups=groups)
  small = _source(sizes=(2, 9))
  with pytest.raises(ValueError, match='2 as references'):
    splits.unseen_classes(small, train_classes=['b'], shots=2, seed=0, groups=_singles(small))
  groups[:20] = 0
  with pytest.raises(ValueError, match=r'\(1 different\), which leaves none for'):
    splits.fraction(source, train=0.5, seed=0, groups=groups)


def test_rejects_bad_arguments():
  source = _source()
  groups = _singles(source)
  with pytest.raises(ValueError, match='per_class must be at least 1, got 0'):
    splits.few_shot(source, per_class=0, seed=0, groups=groups)
  with pytest.raises(ValueError, match=r'train must lie in \(0, 1\]'):
    splits.fraction(source, train=1.5, seed=0, groups=groups)
  with pytest.raises(ValueError, match="no class 'd'"):
    splits.unseen_classes(source, train_classes=['d'], shots=1, seed=0, groups=groups)
  with pytest.raises(ValueError, match='some but not all'):
    splits.unseen_classes(source, train_classes=CLASSES, shots=1, seed=0, groups=groups)
  with pytest.raises(ValueError, match='groups has 2 entries for the 90 images'):
    splits.few_shot(source, per_class=1, seed=0, groups=[0, 1])
  with pytest.raises(ValueError, match='in two parts'):
    splits.Split((1, 2), (), (2,))


def test_write_and_read(tmp_path):
  source = _source()
  path = tmp_path / 'split.json'
  split = splits.unseen_classes(
    source, train_classes=['a'], shots=2, seed=0, groups=_singles(source), validation_per_class=1
  )
  splits.write(path, source, split)
  assert splits.read(path, source) == split
  # The same images in another order lie at other places under the same names.
  shuffled = _source(order=np.random.default_rng(5).permutation(90))
  other = splits.read(path, shuffled)
  assert _names(shuffled, other.test) == _names(source, split.test)
  assert [file.name for file in tmp_path.iterdir()] == ['split.json']


def test_groups_where_a_copy_is_gone(tmp_path):
  """What was reported as a copy, and is in no part, may be deleted."""
  source = _source()
  split = splits.few_shot(source, per_class=2, seed=0, groups=_singles(source), max_test=30)
  used = {*split.train, *split.test}
  absent = [i for i in range(len(source)) if i not in used]
  copies = [[source.names[i] for i in one] for one in (absent[:2], (split.test[0], absent[2]))]
  split.report['near_duplicates'] = copies
  splits.write(tmp_path / 'split.json', source, split)
  rest = source.subset([i for i in range(len(source)) if i not in absent[:3]])
  found = splits.read(tmp_path / 'split.json', rest).groups(rest)
  assert found.tolist() == list(range(len(rest)))


def test_read_refuses_other_data(tmp_path):
  source = _source()
  path = tmp_path / 'split.json'
  split = splits.few_shot(source, per_class=2, seed=0, groups=_singles(source))
  splits.write(path, source, split)
  with pytest.raises(ValueError, match='belongs to the data set made, not to other'):
    splits.read(path, _source(name='other'))
  with pytest.raises(ValueError, match=r'names the image c/\d+\.png, which made has not'):
    splits.read(path, _source(sizes=(20, 30)))
  changed = _source(change=('b/25.png',))
  with pytest.raises(ValueError, match=r'image b/25\.png of made has changed since'):
    splits.read(path, changed)
  assert splits.read(path, changed, check_pixels=False) == split
  with pytest.raises(FileNotFoundError, match='does not exist'):
    splits.read(tmp_path / 'absent.json', source)
  content = json.loads(path.read_text())
  content['train']['a/0.png'] = ['b', '']
  content['test'].pop('a/0.png', None)
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match=r"image a/0\.png as 'b', but made has it as 'a'"):
    splits.read(path, source)
  for text in ('{', '{"format": 99}', '[]', '{"format": 1, "data": "made", "report": {}}'):
    path.write_text(text)
    with pytest.raises(ValueError, match=r'split\.json is no split'):
      splits.read(path, source)


def test_finds_groups_itself():
  images = [
    np.random.default_rng(i).integers(0, 256, (64, 64, 1)).astype(np.uint8) for i in range(6)
  ]
  images[3] = images[0]
  names = tuple(f'{i}' for i in range(6))
  source = Source('made', ('a',), names, np.zeros(6), lambda i: images[i])
  split = splits.few_shot(source, per_class=4, seed=0)
  assert split.report['near_duplicates'] == [['0', '3']]
  assert len(split.train) == 4
  assert not {0, 3} <= set(split.train + split.test)


def test_real_neu(data_dir):
  source = data.load('neu', dir=data_dir / 'NEU-DET')
  pair = {source.names.index('patches_101.jpg'), source.names.index('patches_105.jpg')}
  groups = duplicates.merge(len(source), [sorted(pair)])
  for seed in range(10):
    split = splits.few_shot(source, per_class=50, seed=seed, groups=groups, max_test=600)
    assert source.counts(split.train) == (50,) * 6
    assert source.counts(split.test) == (100,) * 6
    share = splits.fraction(source, train=0.8, seed=seed, groups=groups)
    assert source.counts(share.train) == (240,) * 6
    for one in (split, share):
      assert not (pair & set(one.train) and pair & set(one.test))


def _product(good=40, defect=10, grades=0):
  labels = np.repeat([0, 1, 2], [good, defect, grades])
  names = tuple(f'{i}.png' for i in range(len(labels)))
  pixels = [np.full((8, 8, 1), i, np.uint8) for i in range(len(labels))]
  return Source('made', ('good', 'defect', 'grey'), names, labels, pixels.__getitem__)


def test_good_only_tests_whatever_is_not_good():
  source = _product(grades=5)
  split = splits.good_only(
    source, train=0.5, validation=0.25, seed=0, groups=_singles(source), max_test=None
  )
  assert source.counts(split.train) == (20, 0, 0)
  assert source.counts(split.validation) == (10, 0, 0)
  assert source.counts(split.test) == (10, 10, 5)
  assert split.report['kind'] == 'good_only'
  assert split.report['left_out'] == []
  assert set(split.train).isdisjoint(split.validation + split.test)


def test_good_only_keeps_groups_whole_and_beside_their_defects():
  source = _product()
  groups = _singles(source)
  groups[:10] = groups[:10] // 2 * 2  # pairs of good ones
  groups[10], groups[11] = 40, 41  # copies of defects
  for seed in range(5):
    split = splits.good_only(source, train=0.6, validation=0.2, seed=seed, groups=groups)
    assert {10, 11} <= set(split.test)
    assert source.counts(split.test)[1] == 10
    sides = [{groups[i] for i in part} for part in (split.train, split.validation, split.test)]
    assert not (sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2])
    assert 23 <= len(split.train) <= 24


def test_good_only_where_every_group_has_a_defect():
  source = _product(20, 10)
  groups = np.r_[np.arange(20) // 2, np.arange(10)]  # two good ones and a defect each
  split = splits.good_only(source, train=0.5, validation=0.2, seed=1, groups=groups)
  assert source.counts(split.train) == (10, 0, 0)
  assert source.counts(split.validation) == (4, 0, 0)
  assert source.counts(split.test) == (6, 3, 0)
  assert len(split.report['left_out']) == 7  # the defects of the seven other groups


def test_good_only_rejects_in_one_sentence():
  source = _product(3, 2)
  with pytest.raises(ValueError, match=r'leaves none for validation at train=0\.9'):
    splits.good_only(source, train=0.9, validation=0.1, seed=0, groups=_singles(source))
  with pytest.raises(ValueError, match='train must lie in'):
    splits.good_only(source, train=0.9, validation=0.2, seed=0, groups=_singles(source))
  with pytest.raises(ValueError, match="no class 'good'"):
    splits.good_only(_source(), train=0.5, seed=0, groups=_singles(_source()))


def test_few_defects_keeps_the_good_ones_and_nests_the_others():
  source = _product(40, 20, 20)
  groups = _singles(source)
  groups[0] = 40  # a copy of a defect: neither trains as good nor sets a threshold
  made = [
    splits.few_defects(source, train=0.5, validation=0.2, per_class=k, seed=3, groups=groups)
    for k in (5, 10)
  ]
  good = [{i for i in split.train if source.labels[i] == 0} for split in made]
  defects = [{i for i in split.train if source.labels[i] == 1} for split in made]
  assert good[0] == good[1]
  assert len(good[0]) == 20
  assert len(made[0].validation) == 8
  assert 0 not in good[0] | set(made[0].validation)
  assert defects[0] < defects[1]
  assert [len(one) for one in defects] == [5, 10]
  assert source.counts(made[1].train) == (20, 10, 10)
  for split in made:
    parts = [{groups[i] for i in part} for part in (split.train, split.validation, split.test)]
    assert not (parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2])
  assert source.counts(made[0].test)[1] == 15


def test_few_defects_rejects_in_one_sentence():
  source = _product(10, 5, 5)
  settings = {'seed': 0, 'groups': _singles(source)}
  with pytest.raises(ValueError, match=r"'defect' of made has 5 images, but 6 are needed"):
    splits.few_defects(source, train=0.5, per_class=5, **settings)
  with pytest.raises(ValueError, match=r'train must lie in \(0, 1\) and validation in'):
    splits.few_defects(source, train=1.0, per_class=1, **settings)
  with pytest.raises(ValueError, match='leaves none for validation'):
    splits.few_defects(source, train=0.5, validation=0.01, per_class=1, **settings)
