"""The drawn products: seeded, exact masks, nothing but the mark tells good from defective."""

import itertools

import numpy as np
import pytest

from jaxdefect import data
from jaxdefect.data.sources import synthetic_tasks
from jaxdefect.data.synthetic_products import MARKS, TONES, generate
from jaxdefect.data.synthetic_textures import TEXTURES

PRODUCTS = [
  {'texture': texture, 'mark': mark, 'tone': tone}
  for texture, mark, tone in itertools.product(TEXTURES, MARKS, TONES)
]


def _id(product):
  return '-'.join(product.values())


def _twins(number, product, size=128):
  """A defective picture, its mask, and how much its marks change."""
  sample = generate(number, 1, size=size, **product)
  twin = generate(number, 1, size=size, with_defects=False, **product)
  assert not twin.mask.any()
  return sample, np.abs(sample.image.astype(int) - twin.image).max(axis=2)


@pytest.mark.parametrize('product', PRODUCTS, ids=_id)
def test_masks_are_exact_and_marks_visible(product):
  """Against the same part without its marks: the change lies in the mask, and fills it."""
  for number in range(4):
    sample, change = _twins(number, product)
    assert sample.image.shape == (128, 128, 3)
    assert sample.image.dtype == sample.mask.dtype == np.uint8
    assert not change[sample.mask == 0].any()
    assert 0.0005 < sample.mask.mean() < 0.3
    assert np.median(change[sample.mask > 0]) >= 8
    assert np.mean(change[sample.mask > 0] >= 3) > 0.9


@pytest.mark.parametrize('tone', TONES)
def test_tone_is_black_on_white_or_white_on_black(tone):
  for texture, mark in itertools.product(TEXTURES, MARKS):
    product = {'texture': texture, 'mark': mark, 'tone': tone}
    sample = generate(0, 1, **product)
    twin = generate(0, 1, with_defects=False, **product)
    change = sample.image.astype(int).mean(axis=2) - twin.image.mean(axis=2)
    inside = change[sample.mask > 0]
    assert np.mean(inside <= 0 if tone == 'dark' else inside >= 0) == 1


def test_dark_marks_lie_on_brighter_products():
  brightness = {
    tone: np.mean([generate(0, 0, texture=texture, mark='hole', tone=tone).image.mean()
                   for texture in TEXTURES])
    for tone in TONES
  }  # fmt: skip
  assert brightness['dark'] > 1.5 * brightness['bright']


def test_a_picture_depends_on_its_arguments_alone():
  product = PRODUCTS[7]
  first = generate(5, 1, **product)
  generate(6, 1, **product)
  for one, other in zip(first, generate(5, 1, **product)):
    np.testing.assert_array_equal(one, other)
  for other in (generate(6, 1, **product), generate(5, 1, seed=1, **product)):
    assert (first.image != other.image).mean() > 0.5


def test_a_product_has_one_look_and_other_seeds_another():
  """Pictures of one printed layout resemble each other more than those of another seed."""
  product = {'texture': 'printed', 'mark': 'hole', 'tone': 'dark'}

  def gray(number, seed):
    image = generate(number, 0, seed=seed, **product).image.mean(axis=2)
    # The mean of 4 x 4 pixels, so that a shift of a pixel matters little.
    small = image.reshape(32, 4, 32, 4).mean(axis=(1, 3))
    return (small - small.mean()).ravel() / small.std() / 32

  same = [gray(k, 0) @ gray(k + 1, 0) for k in range(8)]
  other = [gray(k, 0) @ gray(k, 1) for k in range(8)]
  assert np.mean(same) > np.mean(other) + 0.3


@pytest.mark.parametrize('texture', TEXTURES)
def test_good_parts_share_the_surface_of_defective_ones(texture):
  """Nothing but the mark tells the classes apart: without it they are equally bright."""
  product = {'texture': texture, 'mark': 'stain', 'tone': 'dark'}
  means = np.array([
    [generate(k, label, size=64, with_defects=False, **product).image.mean() for k in range(40)]
    for label in (0, 1)
  ])  # fmt: skip
  spread = means.std() * np.sqrt(2 / 40)
  assert abs(means[0].mean() - means[1].mean()) < 4 * spread


def test_marks_lie_on_the_part():
  """The bore of a turned part is as dark as the background, and stays so."""
  product = {'texture': 'lathed', 'mark': 'stain', 'tone': 'bright'}
  for number in range(10):
    mask = generate(number, 1, **product).mask
    assert not mask[61:67, 61:67].any()
    assert not mask[:4, :4].any()


def test_lengths_scale_with_the_picture():
  product = {'texture': 'woven', 'mark': 'hole', 'tone': 'dark'}
  shares = [
    np.mean([generate(k, 1, size=size, **product).mask.mean() for k in range(30)])
    for size in (64, 128)
  ]
  assert 0.6 < shares[0] / shares[1] < 1.6


def test_source_names_labels_and_annotations():
  source = data.load(
    'synthetic_tasks', texture='cast', mark='scratch', tone='bright', num_good=2, num_defect=3
  )
  assert source.name == 'synthetic/cast-scratch-bright'
  assert source.classes == ('good', 'defect')
  assert source.counts() == (2, 3)
  assert source.names[1:3] == (
    'cast-scratch-bright/good/000001',
    'cast-scratch-bright/defect/000000',
  )
  assert source.annotations['kind'] == ('', '', 'scratch', 'scratch', 'scratch')
  sample = generate(1, 1, texture='cast', mark='scratch', tone='bright')
  np.testing.assert_array_equal(source.read(3), sample.image)
  np.testing.assert_array_equal(source.annotations['mask'][3], sample.mask)
  assert not source.annotations['mask'][0].any()
  source.read(3)[:] = 0
  source.annotations['mask'][3][:] = 9
  np.testing.assert_array_equal(source.read(3), sample.image)
  np.testing.assert_array_equal(source.annotations['mask'][3], sample.mask)
  with pytest.raises(IndexError):
    source.read(5)


def test_a_larger_task_holds_the_smaller_one():
  look = {'texture': 'ribbed', 'mark': 'hole', 'tone': 'dark', 'size': 64, 'seed': 2}
  small, large = (data.load('synthetic_tasks', num_good=n, num_defect=n, **look) for n in (2, 4))
  assert set(small.names) < set(large.names)
  i = large.names.index(small.names[3])
  np.testing.assert_array_equal(large.read(i), small.read(3))
  later = data.load('synthetic_tasks', num_good=2, num_defect=2, first=2, **look)
  assert not set(later.names) & set(small.names)
  assert set(later.names) < set(large.names)


def test_tasks_are_every_combination():
  found = synthetic_tasks.tasks(num_good=1, num_defect=1)
  assert len(found) == 36
  assert all(name == source.name for name, source in found.items())
  few = synthetic_tasks.tasks(
    textures=('woven',), marks=('hole', 'stain'), tones=('dark',), size=64
  )
  assert list(few) == ['synthetic/woven-hole-dark', 'synthetic/woven-stain-dark']
  assert few['synthetic/woven-hole-dark'].read(0).shape == (64, 64, 3)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'texture': 'velvet'}, r"texture must be one of rolled, .*, got 'velvet'"),
    ({'mark': 'dent'}, "mark must be one of stain, scratch, hole, got 'dent'"),
    ({'tone': 'grey'}, "tone must be one of dark, bright, got 'grey'"),
    ({'size': 32}, 'size must be at least 64 pixels, got 32'),
    ({'seed': -1}, 'seed must not be negative, got -1'),
    ({'num_good': 0}, 'num_good must be at least 1, got 0'),
    ({'first': -1}, 'first must be at least 0, got -1'),
  ],
)
def test_rejects_bad_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    data.load('synthetic_tasks', **{'texture': 'woven', 'mark': 'hole', 'tone': 'dark', **settings})


def test_rejects_bad_picture():
  with pytest.raises(ValueError, match='label must be 0 or 1, got 2'):
    generate(0, 2, **PRODUCTS[0])
  with pytest.raises(ValueError, match='number must not be negative'):
    generate(-1, 0, **PRODUCTS[0])
