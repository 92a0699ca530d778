"""What is set aside stays aside: by its pixels, under any name, and with all that is like it."""

import dataclasses

import numpy as np
import pytest

from jaxdefect.data import hold_out, samples
from jaxdefect.data.source import Source

CLASSES = ('good', 'defect')


def source(count=20, *, groups=None, seed=0):
  generator = np.random.default_rng(seed)
  pictures = generator.integers(0, 256, (count, 80, 80, 1), dtype=np.uint8)
  names = tuple(f'{i:03d}.png' for i in range(count))
  return Source('caps', CLASSES, names, np.arange(count) % 2, lambda i: pictures[i], groups)


def given(labels, groups=None):
  names = tuple(f'{i:03d}.png' for i in range(len(labels)))
  own = np.arange(len(labels)) if groups is None else np.asarray(groups)
  return samples.Samples(names, np.asarray(labels), CLASSES, own)


def test_classes_are_in_proportion():
  labels = [0] * 35 + [1] * 15
  held = hold_out.draw(given(labels), 15, seed=0)
  assert np.bincount(np.asarray(labels)[held]).tolist() == [
    11,
    4,
  ]  # 10.5 and 4.5: the first gets it
  assert held.tolist() == sorted(held.tolist())
  assert held.tolist() == hold_out.draw(given(labels), 15, seed=0).tolist()
  assert held.tolist() != hold_out.draw(given(labels), 15, seed=1).tolist()


def test_the_order_of_the_pictures_changes_nothing():
  labels = np.array([0, 1] * 20)
  first = given(labels)
  order = np.random.default_rng(1).permutation(40)
  turned = first._replace(names=tuple(first.names[i] for i in order), labels=labels[order])
  held = {first.names[i] for i in hold_out.draw(first, 10, seed=3)}
  assert held == {turned.names[i] for i in hold_out.draw(turned, 10, seed=3)}


def test_lots_are_whole():
  lots = np.repeat(np.arange(10), 5)
  labels = np.tile([0, 0, 0, 1, 1], 10)
  held = hold_out.draw(given(labels, lots), 15, seed=0)
  assert len(held) == 15
  assert set(lots[held]).isdisjoint(np.delete(lots, held))


def test_every_class_is_on_both_sides():
  with pytest.raises(ValueError, match="takes 1 of the 2 images of class 'defect'; 1 to 1 are"):
    hold_out.draw(given([0] * 20 + [1] * 2), 5, seed=0)
  with pytest.raises(ValueError, match="takes 0 of the 10 images of class 'defect'"):
    hold_out.draw(given([0] * 10 + [1] * 10, list(range(10)) + [10] * 10), 5, seed=0)
  with pytest.raises(
    ValueError,
    match='hold-out of 4 cannot be set aside from 4 images of 2 classes; it can be 2 to 3',
  ):
    hold_out.draw(given([0, 0, 1, 1]), 4, seed=0)


@pytest.mark.parametrize('size', [6, 10, 15])
def test_rare_classes_do_not_make_it_larger(size):
  labels = np.repeat([0, 1, 2, 3, 4, 5], [200, 4, 4, 4, 4, 4])
  many = samples.Samples(
    tuple(f'{i:03d}.png' for i in range(220)), labels, tuple('abcdef'), np.arange(220)
  )
  held = hold_out.draw(many, size, seed=0)
  assert len(held) == size
  assert (np.bincount(labels[held], minlength=6) >= 1).all()
  with pytest.raises(ValueError, match='from 220 images of 6 classes; it can be 6 to 219'):
    hold_out.draw(many, 5, seed=0)


def test_written_and_read(tmp_path):
  made = hold_out.make(source(), [3, 8], seed=5)
  hold_out.write(tmp_path / 'hold_out.json', made)
  assert hold_out.read(tmp_path / 'hold_out.json') == made
  assert made.images['003.png'][0] == 'defect'
  with pytest.raises(FileExistsError, match='holds a hold-out already'):
    hold_out.write(tmp_path / 'hold_out.json', made)
  with pytest.raises(FileNotFoundError, match='does not exist'):
    hold_out.read(tmp_path / 'other.json')
  (tmp_path / 'broken.json').write_text('{"format": 2}')
  with pytest.raises(ValueError, match='is no hold-out: its format is 2'):
    hold_out.read(tmp_path / 'broken.json')


def test_divides():
  whole = source()
  divided = hold_out.divide(whole, hold_out.make(whole, [3, 8], seed=0))
  assert divided.held == [3, 8]
  assert sorted(divided.free + divided.held) == list(range(20))
  part = whole.subset(divided.free)
  assert '003.png' not in part.names
  assert (part.read(3) == whole.read(4)).all()


def renamed(whole, place, name, change=lambda pixels: pixels):
  """The source with one more picture, made of that at ``place``."""
  extra = change(np.asarray(whole.read(place)))
  return dataclasses.replace(
    whole,
    names=(*whole.names, name),
    labels=np.append(whole.labels, 0),
    read=lambda i: extra if i == len(whole) else whole.read(i),
    groups=None if whole.groups is None else (*whole.groups, ''),
  )


def test_another_name_does_not_help():
  whole = source()
  held = hold_out.make(whole, [3, 8], seed=0)
  leaking = renamed(whole, 3, 'new/shift.png')
  message = 'new/shift.png of caps is the same picture as 003.png, which is held out'
  with pytest.raises(ValueError, match=message):
    hold_out.divide(leaking, held)
  # The original need not be there any more.
  with pytest.raises(ValueError, match=message):
    hold_out.divide(leaking.subset([0, 1, 20]), held)
  with pytest.raises(ValueError, match=message):
    hold_out.refuse(leaking.subset([20]), held)
  hold_out.refuse(whole.subset([0, 1]), held)


def test_a_near_copy_is_refused():
  whole = source()
  held = hold_out.make(whole, [3], seed=0)
  generator = np.random.default_rng(2)

  def saved_again(pixels):
    noise = generator.integers(-3, 4, pixels.shape)
    return np.clip(pixels.astype(int) + noise, 0, 255).astype(np.uint8)

  with pytest.raises(ValueError, match=r'again.png of caps is nearly a copy of'):
    hold_out.divide(renamed(whole, 3, 'again.png', saved_again), held)


def test_the_rest_of_a_lot_is_refused():
  whole = source(groups=tuple(f'lot {i // 5}' for i in range(20)))
  with pytest.raises(
    ValueError, match=r'000.png of caps is nearly a copy of, or of one lot with, 00'
  ):
    hold_out.divide(whole, hold_out.make(whole, [3, 4], seed=0))
  assert hold_out.divide(whole, hold_out.make(whole, range(5, 10), seed=0)).held == [5, 6, 7, 8, 9]


def test_a_changed_picture_is_named():
  whole = source()
  held = hold_out.make(source(seed=1), [3], seed=0)
  with pytest.raises(ValueError, match=r'held-out image 003.png of caps has changed since'):
    hold_out.divide(whole, held)
