"""Splits by boxes: one test part for all, enough boxes and no more images, nothing straddles."""

import numpy as np
import pytest

from jaxdefect import data
from jaxdefect.data import duplicates, splits
from jaxdefect.data.source import Source

CLASSES = ('a', 'b', 'c')
PARTS = ('train', 'validation', 'test', 'references')


def _source(size=120, negatives=12, order=None, classes=CLASSES):
  """Images with one to three boxes of mostly one class, and some without any."""
  rng = np.random.default_rng(3)
  rows = []
  for i in range(size):
    kinds = [i % 3] * int(rng.integers(1, 4)) + ([(i + 1) % 3] if rng.random() < 0.3 else [])
    rows.append(np.asarray([] if i < negatives else kinds, np.int32))
  labels = [np.bincount(one).argmax() if len(one) else 0 for one in rows]
  order = np.arange(size) if order is None else order
  return Source(
    name='made',
    classes=classes,
    names=tuple(f'{i:03d}.png' for i in order),
    labels=np.asarray(labels)[order],
    read=lambda i: np.full((8, 8, 1), order[i], np.uint8),
    annotations={
      'boxes': [np.tile(np.float32([0, 0, 4, 4]), (len(rows[i]), 1)) for i in order],
      'box_labels': [rows[i] for i in order],
    },
  )


def _singles(source):
  return np.arange(len(source))


def _names(source, places):
  return [source.names[i] for i in places]


def _all_three(source, groups, seed=0, unseen=('c',), **more):
  two = (
    splits.boxes_fraction(source, train=0.7, validation=0.1, seed=seed, groups=groups, **more),
    splits.boxes_few_shot(
      source, boxes_per_class=5, test=0.2, validation=0.1, seed=seed, groups=groups, **more
    ),
  )
  if unseen is None:
    return two
  third = splits.boxes_unseen(
    source, unseen=unseen, shots=4, train=0.7, validation=0.1, seed=seed, groups=groups, **more
  )
  return (*two, third)


def test_all_kinds_share_the_test_images():
  source = _source()
  groups = _singles(source)
  for seed in range(3):
    share, few, unseen = _all_three(source, groups, seed)
    assert share.test == few.test == unseen.test
    assert share.validation == few.validation
    assert set(unseen.validation) < set(share.validation)
    for k in (1, 10, 20):
      other = splits.boxes_few_shot(source, boxes_per_class=k, seed=seed, groups=groups)
      assert other.test == share.test
    assert len({one.test for one in _all_three(source, groups, seed, max_test=9)}) == 1
  assert _all_three(source, groups, 0)[0].test != _all_three(source, groups, 1)[0].test


def test_fraction_counts_are_exact_per_label():
  source = _source()
  split = splits.boxes_fraction(source, train=0.7, validation=0.1, seed=1, groups=_singles(source))
  with_boxes = [len(one) > 0 for one in source.annotations['box_labels']]
  for label in range(3):
    places = {i for i in range(120) if source.labels[i] == label and with_boxes[i]}
    assert len(places & set(split.test)) == int(0.2 * len(places) + 0.5)
    assert len(places & set(split.validation)) == int(0.1 * len(places) + 0.5)
  assert split.report['images_without_boxes'] == {'train': 9, 'validation': 1, 'test': 2}
  assert sum(split.report['images'].values()) == 120
  assert split.report['unused'] == split.report['untested'] == 0
  for part in ('train', 'validation', 'test'):
    boxes = source.box_counts(getattr(split, part))
    assert split.report['boxes'][part] == dict(zip(CLASSES, boxes))
    holding = [sum(c in source.annotations['box_labels'][i] for i in getattr(split, part))
               for c in range(3)]  # fmt: skip
    assert split.report['images_with'][part] == dict(zip(CLASSES, holding))
  whole = splits.boxes_fraction(source, train=1.0, seed=1, groups=_singles(source))
  assert (len(whole.train), whole.test) == (120, ())


def test_max_per_class_thins_training_alone():
  source = _source()
  groups = _singles(source)
  full = splits.boxes_fraction(source, train=0.7, seed=2, groups=groups)
  thin = splits.boxes_fraction(source, train=0.7, seed=2, groups=groups, max_per_class={'b': 6})
  thinner = splits.boxes_fraction(source, train=0.7, seed=2, groups=groups, max_per_class={'b': 2})
  assert thin.test == full.test
  assert source.counts(thin.train, classes=['b']) == (6,)
  removed = set(full.train) - set(thin.train)
  assert {int(source.labels[i]) for i in removed} == {1}
  assert thin.report['unused'] == len(removed)
  assert thin.report['max_per_class'] == {'b': 6}
  assert set(thinner.train) < set(thin.train) < set(full.train)
  with pytest.raises(ValueError, match="has no class 'd'"):
    splits.boxes_fraction(source, train=0.7, seed=2, groups=groups, max_per_class={'d': 6})
  with pytest.raises(ValueError, match=r"max_per_class\['b'\] must be at least 1, got 0"):
    splits.boxes_fraction(source, train=0.7, seed=2, groups=groups, max_per_class={'b': 0})


def test_few_shot_has_enough_boxes_and_no_image_too_many():
  source = _source()
  table = np.asarray([np.bincount(one, minlength=3) for one in source.annotations['box_labels']])
  most = table.max()
  for seed in range(5):
    before = set()
    for k in (1, 5, 10):
      split = splits.boxes_few_shot(source, boxes_per_class=k, seed=seed, groups=_singles(source))
      have = table[list(split.train)].sum(axis=0)
      assert have.min() >= k
      # Whichever image came last was needed, so the poorest class is over by less than an image.
      assert have.min() < k + most
      assert any((have - table[i]).min() < k for i in split.train)
      assert split.report['boxes']['train'] == dict(zip(CLASSES, have.tolist()))
      assert before < set(split.train)
      before = set(split.train)
      assert table[list(split.train)].any(axis=1).all()
      assert split.report['unused'] == 120 - len(split.test) - len(split.train)


def test_unseen_images_train_nowhere():
  source = _source()
  labels = source.annotations['box_labels']
  groups = _singles(source)
  for unseen in (('c',), ('a', 'c')):
    hidden = {CLASSES.index(name) for name in unseen}
    before = set()
    for shots in (5, 8):
      split = splits.boxes_unseen(
        source, unseen=unseen, shots=shots, seed=4, groups=groups, train=0.6, validation=0.2
      )
      for part in (split.train, split.validation):
        assert part
        assert not any(hidden & set(labels[i].tolist()) for i in part)
      assert all(hidden & set(labels[i].tolist()) for i in split.references)
      assert min(source.box_counts(split.references, classes=unseen)) >= shots
      assert min(source.box_counts(split.test)) > 0
      assert before < set(split.references)
      before = set(split.references)
  assert split.report['unseen'] == ['a', 'c']
  assert set(split.report['boxes']) == set(PARTS)
  # A single name is not taken for its letters.
  named = splits.boxes_unseen(source, unseen='c', shots=5, seed=4, groups=groups)
  assert named.report['unseen'] == ['c']


def test_groups_never_straddle():
  source = _source()
  fours = np.arange(120) // 4 * 4  # Of different labels, so none lacks an unseen class.
  pairs = np.arange(120) // 6 * 6 + np.arange(120) % 3  # Mostly of one label.
  for seed in range(4):
    made = [(fours, split) for split in _all_three(source, fours, seed, unseen=None)]
    unseen = splits.boxes_unseen(source, unseen=('c',), shots=4, seed=seed, groups=pairs)
    for groups, split in (*made, (pairs, unseen)):
      sides = [{groups[i] for i in getattr(split, part)} for part in PARTS]
      assert sum(map(len, sides)) == len(set().union(*sides))
      report = split.report
      inside = sum(len(getattr(split, part)) for part in PARTS)
      assert inside + len(report['left_out']) + report['untested'] + report['unused'] == 120
    few = made[1][1]
    assert len({fours[i] for i in few.train}) == len(few.train)
    assert few.report['left_out']
  with pytest.raises(ValueError, match='which leaves none for train without unseen classes'):
    _all_three(source, fours)


def test_copies_of_unseen_images_train_nowhere():
  source = _source()
  labels = source.annotations['box_labels']
  first = next(i for i in range(120) if 2 in labels[i])
  other = next(i for i in range(120) if len(labels[i]) and 2 not in labels[i])
  groups = duplicates.merge(120, [(first, other)])
  for seed in range(6):
    split = splits.boxes_unseen(source, unseen=('c',), shots=3, seed=seed, groups=groups)
    assert other not in split.train


def test_same_seed_same_split_in_any_order():
  source = _source()
  shuffled = _source(order=np.random.default_rng(5).permutation(120))
  pairs = zip(_all_three(source, _singles(source)), _all_three(shuffled, _singles(source)))
  for one, other in pairs:
    for part in PARTS:
      assert _names(source, getattr(one, part)) == _names(shuffled, getattr(other, part))
    assert one.report == other.report


def test_write_and_read(tmp_path):
  source = _source()
  for split in _all_three(source, _singles(source), max_test=10):
    splits.write(tmp_path / 'split.json', source, split)
    assert splits.read(tmp_path / 'split.json', source) == split


def test_a_class_without_boxes_is_passed_over():
  source = _source(classes=(*CLASSES, 'good'))
  split = _all_three(source, _singles(source))[1]
  assert split.report['boxes']['train']['good'] == 0


def test_rejects_in_one_sentence():
  source = _source()
  groups = _singles(source)
  too_few = r'has \d+ boxes in different images outside the test and validation parts, but '
  with pytest.raises(ValueError, match=rf"^Class '.' of made {too_few}boxes_per_class is 500\.$"):
    splits.boxes_few_shot(source, boxes_per_class=500, seed=0, groups=groups)
  with pytest.raises(ValueError, match=rf"^Class 'c' of made {too_few}shots is 500\.$"):
    splits.boxes_unseen(source, unseen=('c',), shots=500, seed=0, groups=groups)
  with pytest.raises(ValueError, match='boxes_per_class must be at least 1, got 0'):
    splits.boxes_few_shot(source, boxes_per_class=0, seed=0, groups=groups)
  with pytest.raises(ValueError, match='test and validation must lie in'):
    splits.boxes_few_shot(
      source, boxes_per_class=1, test=0.7, validation=0.3, seed=0, groups=groups
    )
  with pytest.raises(ValueError, match=r'train must lie in \(0, 1\]'):
    splits.boxes_fraction(source, train=0.8, validation=0.3, seed=0, groups=groups)
  for unseen, got in (((), 'none'), (CLASSES, 'a, b, c')):
    with pytest.raises(ValueError, match=rf'some but not all of a, b, c, got {got}'):
      splits.boxes_unseen(source, unseen=unseen, shots=1, seed=0, groups=groups)
  with pytest.raises(ValueError, match="has no class 'd'"):
    splits.boxes_unseen(source, unseen=('d',), shots=1, seed=0, groups=groups)
  with pytest.raises(
    ValueError, match=r"Class 'a' of made has .* which leaves none for validation\."
  ):
    splits.boxes_fraction(source, train=0.8, validation=0.01, seed=0, groups=groups)
  read, none = source.read, [np.zeros(0, np.int32)]
  plain = Source('plain', ('a',), ('x',), np.zeros(1), read)
  empty = Source('empty', ('a',), ('x',), np.zeros(1), read, annotations={'box_labels': none})
  for one, reason in ((plain, 'plain has no boxes'), (empty, 'empty has no box in any of its 1')):
    with pytest.raises(ValueError, match=reason):
      splits.boxes_fraction(one, train=0.5, seed=0, groups=[0])


def test_real_neu_det(data_dir):
  source = data.load('neu_det', dir=data_dir / 'NEU-DET')
  pair = sorted(source.names.index(f'patches_{n}.jpg') for n in (101, 105))
  groups = duplicates.merge(len(source), [pair])
  for seed in range(2):
    full = splits.boxes_fraction(source, train=0.7, validation=0.1, seed=seed, groups=groups)
    assert full.report['images'] == {'train': 1260, 'validation': 180, 'test': 360}
    previous = set()
    for k in (10, 30):
      few = splits.boxes_few_shot(
        source, boxes_per_class=k, validation=0.1, seed=seed, groups=groups
      )
      assert (few.test, few.validation) == (full.test, full.validation)
      got = source.box_counts(few.train)
      assert k <= min(got) <= max(got) < 1.5 * k
      assert previous < set(few.train) < set(full.train)
      previous = set(few.train)
    thin = splits.boxes_fraction(
      source, train=0.7, validation=0.1, seed=seed, groups=groups,
      max_per_class={'scratches': 80},
    )  # fmt: skip
    assert source.counts(thin.train, classes=['scratches']) == (80,)
    assert thin.test == full.test
    unseen = splits.boxes_unseen(
      source, unseen=('scratches',), shots=5, validation=0.1, seed=seed, groups=groups
    )
    assert unseen.test == full.test
    assert unseen.report['boxes']['train']['scratches'] == 0
    assert unseen.report['boxes']['references']['scratches'] >= 5
    for split in (full, thin, few, unseen):
      sides = [part for part in PARTS if set(pair) & set(getattr(split, part))]
      assert len(sides) <= 1
