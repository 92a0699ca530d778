"""What PatchCore promises: an exact bank that grows, shrinks and forgets, and equation 7."""

import dataclasses
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdefect
from jaxdefect import ops, train
from jaxdefect.contracts import DataSpec, References, to_fitted
from jaxdefect.methods import patchcore

CLASSES = ('good', 'defect')
SIZE, PLACES = 16, 16  # pixels of an image, patches of an image (4 x 4)
SMALL = {'width': 4, 'layers': (1, 2)}
KEY = jax.random.key(5)


def batch(n, *, first=0, padding=0):
  random = np.random.default_rng(first)
  valid = np.arange(n + padding) < n
  return {
    'image': random.integers(0, 256, (n + padding, SIZE, SIZE, 3), np.uint8),
    'label': np.zeros(n + padding, np.int32),
    'valid': valid,
    'index': np.where(valid, first + np.arange(n + padding), -1).astype(np.int32),
  }


def good(*batches):
  return References(CLASSES, list(batches))


def method_and_fitted(**settings):
  method = patchcore.make(**{**SMALL, **settings})
  shapes = {'image': jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.uint8)}
  state = method.init(jax.random.key(0), DataSpec(shapes, CLASSES, (2, 0)))
  return method, to_fitted(state, CLASSES)


def all_patches(*batches):
  """[P, D] features of every patch."""
  method, fitted = method_and_fitted(coreset=None)
  return np.asarray(method.adapt(KEY, fitted, good(*batches)).memory['bank'])


def test_whole_bank_holds_every_patch_and_says_whose_it_is():
  method, fitted = method_and_fitted(coreset=None)
  memory = method.adapt(KEY, fitted, good(batch(3, padding=2), batch(2, first=7))).memory
  assert memory['bank'].shape == (5 * PLACES, 4 + 8)
  np.testing.assert_array_equal(memory['image'], np.repeat([0, 1, 2, 7, 8], PLACES))


def test_patches_of_the_bank_score_zero_and_others_do_not():
  method, fitted = method_and_fitted(coreset=None, reweight=False)
  fitted = method.adapt(KEY, fitted, good(batch(4)))
  known, new = method.predict(fitted, batch(4)), method.predict(fitted, batch(4, first=50))
  np.testing.assert_array_less(known.scores, 1e-3)
  np.testing.assert_array_less(known.maps, 1e-3)
  assert (new.scores > 0.01).all()


def test_a_bank_extended_in_two_halves_equals_one_built_at_once():
  method, fitted = method_and_fitted(coreset=None)
  halves = batch(3), batch(3, first=3)
  once = method.adapt(KEY, fitted, good(*halves))
  twice = method.adapt(KEY, fitted, good(halves[0]))
  twice = method.adapt(jax.random.key(9), twice, good(halves[1]))
  for name in ('bank', 'image'):
    np.testing.assert_array_equal(once.memory[name], twice.memory[name])
  new = batch(4, first=80)
  np.testing.assert_array_equal(method.predict(once, new).scores, method.predict(twice, new).scores)


def test_an_extended_coreset_covers_at_most_twice_as_far():
  method, fitted = method_and_fitted(coreset=0.2, projection=None)
  halves = batch(5), batch(5, first=5)
  patches = all_patches(*halves)
  once = method.adapt(KEY, fitted, good(*halves))
  twice = method.adapt(KEY, method.adapt(KEY, fitted, good(halves[0])), good(halves[1]))
  assert once.memory['bank'].shape == twice.memory['bank'].shape == (32, 12)
  radius = [float(ops.covering_radius(patches, f.memory['bank'])) for f in (once, twice)]
  assert 0 < radius[1] <= 2 * radius[0]
  # The first half stays as it was; the second brings patches of its own images.
  first = method.adapt(KEY, fitted, good(halves[0])).memory
  np.testing.assert_array_equal(twice.memory['bank'][:16], first['bank'])
  assert (np.asarray(twice.memory['image'])[16:] >= 5).all()


def test_the_coreset_is_k_centre_greedy_on_the_patches():
  method, fitted = method_and_fitted(coreset=0.25, projection=None)
  memory = method.adapt(KEY, fitted, good(batch(2), batch(2, first=2))).memory
  patches = all_patches(batch(2), batch(2, first=2))
  _, key, _ = jax.random.split(KEY, 3)
  rows = ops.k_center_greedy(patches, 16, key=key)
  np.testing.assert_array_equal(memory['bank'], patches[rows])
  np.testing.assert_array_equal(memory['image'], np.asarray(rows) // PLACES)


def test_projection_chooses_and_does_not_search():
  method, fitted = method_and_fitted(coreset=0.5, projection=3)
  memory = method.adapt(KEY, fitted, good(batch(4))).memory
  patches = all_patches(batch(4))
  assert memory['bank'].shape == (32, patches.shape[1])
  distances, _ = ops.nearest_neighbors(memory['bank'], patches)
  np.testing.assert_array_equal(distances, 0)


def test_bank_size_limits_what_adapt_builds_and_extends():
  method, fitted = method_and_fitted(coreset=0.5, bank_size=40, projection=None)
  small = method.adapt(KEY, fitted, good(batch(4)))
  assert len(small.memory['bank']) == 32  # below the limit
  large = method.adapt(KEY, small, good(batch(4, first=4)))
  assert len(large.memory['bank']) == 40
  assert {*np.asarray(large.memory['image']) // 4} == {0, 1}  # of both
  at_once = method.adapt(KEY, fitted, good(batch(8)))
  assert len(at_once.memory['bank']) == 40
  shrunk, _ = method_and_fitted(coreset=0.5, bank_size=10, projection=None)
  assert len(shrunk.adapt(KEY, large, good(batch(1, first=9))).memory['bank']) == 10


def test_forget_takes_images_out_and_nothing_else():
  method, fitted = method_and_fitted(coreset=None)
  whole = method.adapt(KEY, fitted, good(batch(4)))
  less = patchcore.forget(whole, [1, 3, 77])
  keep = np.isin(np.asarray(whole.memory['image']), [0, 2])
  np.testing.assert_array_equal(less.memory['bank'], whole.memory['bank'][keep])
  np.testing.assert_array_equal(less.memory['image'], np.repeat([0, 2], PLACES))
  scores = np.asarray(method.predict(less, batch(4)).scores)
  assert (scores[[1, 3]] > 1e-2).all()
  assert (scores[[0, 2]] < 1e-3).all()


def test_forget_refuses_an_empty_bank():
  method, fitted = method_and_fitted(coreset=None)
  with pytest.raises(ValueError, match='there is no bank yet'):
    patchcore.forget(fitted, [0])
  whole = method.adapt(KEY, fitted, good(batch(2)))
  with pytest.raises(ValueError, match='a bank cannot be empty'):
    patchcore.forget(whole, [0, 1])


def test_rarity_factor_by_hand():
  bank = np.array([[0.0, 0], [3, 0], [0, 4], [100, 0]], np.float32)
  patch = np.array([[0.0, -1]], np.float32)  # 1 from m*, sqrt(10) and 5 from its neighbours
  got = patchcore.rarity_factor(patch, bank, np.array([0]), neighbours=3)
  far = np.exp([1, np.sqrt(10), 5])
  np.testing.assert_allclose(got, [1 - far[0] / far.sum()], rtol=1e-5)
  # All of the bank, where it has fewer patches than neighbours are asked for.
  all_of_it = patchcore.rarity_factor(patch, bank[:3], np.array([0]), neighbours=9)
  np.testing.assert_allclose(all_of_it, got, rtol=1e-5)


def test_rarity_factor_does_not_overflow():
  bank = np.array([[0.0], [500.0], [40.0]], np.float32)
  got = patchcore.rarity_factor(
    np.array([[-1000.0], [270.0]], np.float32), bank, np.array([0, 1]), neighbours=2
  )
  # 1000 to m* against 1040 to the other; 230 to both.
  np.testing.assert_allclose(got, [1, 0.5], rtol=1e-5)


def test_score_is_the_largest_distance_times_the_factor():
  reweighted, fitted = method_and_fitted(coreset=None, reweight=True, sigma=0.0)
  plain, _ = method_and_fitted(coreset=None, reweight=False, sigma=0.0)
  fitted = reweighted.adapt(KEY, fitted, good(batch(4)))
  new = batch(3, first=60)
  bank = np.asarray(fitted.memory['bank'])
  patches = all_patches(new).reshape(3, PLACES, -1)
  apart = np.linalg.norm(patches[:, :, None] - bank, axis=-1)  # [N, h w, M]
  nearest = apart.min(2)
  np.testing.assert_allclose(plain.predict(fitted, new).scores, nearest.max(1), rtol=1e-4)
  expected = []
  for image in range(3):
    worst = nearest[image].argmax()
    star = apart[image, worst].argmin()
    around = np.argsort(np.linalg.norm(bank - bank[star], axis=1), kind='stable')[:9]
    weight = np.exp(apart[image, worst])
    expected.append((1 - weight[star] / weight[around].sum()) * nearest[image].max())
  np.testing.assert_allclose(reweighted.predict(fitted, new).scores, expected, rtol=1e-4)
  # The map is not weighted.
  enlarged = ops.smooth_map(nearest.reshape(3, 4, 4), size=(SIZE, SIZE), sigma=0.0)
  np.testing.assert_allclose(reweighted.predict(fitted, new).maps, enlarged, rtol=1e-3, atol=1e-4)


def test_a_bank_of_one_patch_is_not_reweighted():
  method, fitted = method_and_fitted(bank_size=1)
  fitted = method.adapt(KEY, fitted, good(batch(2)))
  assert (np.asarray(method.predict(fitted, batch(2, first=9)).scores) > 0).all()


def test_chunks_change_nothing():
  method, fitted = method_and_fitted(coreset=None)
  fitted = method.adapt(KEY, fitted, good(batch(3)))
  small, _ = method_and_fitted(coreset=None, chunk=7)
  new = batch(2, first=30)
  expected = method.predict(fitted, new)
  got = jax.jit(small.predict)(fitted, new)
  np.testing.assert_allclose(got.scores, expected.scores, rtol=1e-5)
  np.testing.assert_allclose(got.maps, expected.maps, rtol=1e-5, atol=1e-5)


def test_refuses_a_defective_reference():
  method, fitted = method_and_fitted()
  wrong = {**batch(3), 'label': np.array([0, 1, 0], np.int32)}
  with pytest.raises(ValueError, match='an anomaly method learns from good parts alone'):
    method.adapt(KEY, fitted, good(wrong))


def test_refuses_to_predict_without_a_bank_and_to_step():
  method, fitted = method_and_fitted()
  with pytest.raises(ValueError, match='patchcore has no bank yet'):
    method.predict(fitted, batch(1))
  with pytest.raises(ValueError, match='patchcore takes no steps'):
    method.step(KEY, None, batch(1))


def test_pretrained_backbone_is_taken():
  method, fitted = method_and_fitted()
  theirs = jax.tree.map(lambda x: x + 1, dataclasses.asdict(fitted)['params'])
  shapes = {'image': jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.uint8)}
  spec = DataSpec(shapes, CLASSES, (2, 0))
  state = method.init(jax.random.key(0), spec, {'params': theirs})
  for got, expected in zip(jax.tree.leaves(state.params), jax.tree.leaves(theirs)):
    np.testing.assert_array_equal(got, expected)


def equal(got, expected):
  """The arrays of two trees, to the last bit."""
  jax.tree.map(np.testing.assert_array_equal, got, expected)


def fitted_on(devices, *, share):
  """Two methods, on one device and on many, fitted to the same pictures."""
  settings = {'coreset': share, 'bank_size': 37, 'projection': 8}
  (one, fitted), (many, _) = (method_and_fitted(devices=n, **settings) for n in (1, devices))
  whole, parts = (method.adapt(KEY, fitted, good(batch(3))) for method in (one, many))
  assert len(parts.memory['bank']) == round(share * 3 * PLACES)
  equal(parts.memory, whole.memory)
  return (one, whole), (many, parts)


def compare_all_that_is_done_to_a_bank(devices, *, share):
  (one, whole), (many, parts) = fitted_on(devices, share=share)
  spread = patchcore.spread(parts, devices)
  assert len(spread.memory['bank']) > len(whole.memory['bank'])
  more = one.adapt(KEY, whole, good(batch(3, first=3)))
  assert len(more.memory['bank']) == min(37, 2 * len(whole.memory['bank']))
  equal(many.adapt(KEY, spread, good(batch(3, first=3))).memory, more.memory)
  less, smaller = patchcore.forget(whole, [1]), patchcore.forget(spread, [1])
  assert smaller.memory['bank'].sharding == spread.memory['bank'].sharding
  new = batch(2, first=80)
  equal(jax.jit(many.predict)(smaller, new), jax.jit(one.predict)(less, new))


@pytest.mark.parametrize('share', [0.5, 0.4])  # 24 patches, a multiple of the devices, and 19
def test_two_devices_predict_as_one(share):
  (one, whole), (many, parts) = fitted_on(2, share=share)
  new = batch(2, first=80)
  expected, predict = jax.jit(one.predict)(whole, new), jax.jit(many.predict)
  equal(predict(parts, new), expected)
  equal(predict(patchcore.spread(parts, 2), new), expected)


def test_two_devices_extend_shrink_and_forget_as_one():
  compare_all_that_is_done_to_a_bank(2, share=0.4)


EIGHT_DEVICES = """
import importlib.util, sys
import jax
spec = importlib.util.spec_from_file_location('patchcore_tests', sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
tests.compare_all_that_is_done_to_a_bank(8, share=0.1)
print(jax.local_device_count(), 'devices agree')
"""


def test_eight_devices_equal_one():
  # Five patches, of which forget leaves fewer: some devices hold none.
  root = pathlib.Path(jaxdefect.__file__).parent.parent
  flags = '--xla_force_host_platform_device_count=8'
  result = subprocess.run(
    [sys.executable, '-W', 'error', '-c', EIGHT_DEVICES, __file__],
    env={'PYTHONPATH': str(root), 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert result.stdout.strip() == '8 devices agree', result.stderr


@pytest.fixture(scope='module')
def spread_bank():
  """Of 49 patches on two devices, and the same on one."""
  method, fitted = method_and_fitted(coreset=None, bank_size=49, devices=2)
  whole = method.adapt(KEY, fitted, good(batch(4)))
  return method, whole, patchcore.spread(whole, 2)


def test_each_device_holds_its_share(spread_bank):
  method, whole, spread = spread_bank
  assert isinstance(whole.memory['bank'], np.ndarray)  # no device had to hold it
  assert whole.memory['bank'].shape == (49, 12)
  shards = spread.memory['bank'].addressable_shards
  assert [part.data.shape for part in shards] == [(25, 12), (25, 12)]
  assert {part.device for part in shards} == set(jax.local_devices()[:2])
  # What predict takes on one device: half of the bank, and all of the rest.
  compiled = jax.jit(method.predict).lower(spread, batch(2)).compile()
  rest = dataclasses.replace(spread, memory=None)
  others = sum(leaf.nbytes for leaf in jax.tree.leaves((rest, batch(2)['image'])))
  taken = compiled.memory_analysis().argument_size_in_bytes
  assert 25 * 12 * 4 < taken <= 25 * 12 * 4 + others


def test_a_multiple_of_the_devices_is_laid_out_by_adapt():
  method, fitted = method_and_fitted(coreset=None, devices=2)
  fitted = method.adapt(KEY, fitted, good(batch(2)))
  shards = fitted.memory['bank'].addressable_shards
  assert [part.data.shape for part in shards] == [(PLACES, 12), (PLACES, 12)]


def test_predict_moves_nothing_that_is_spread(spread_bank):
  method, whole, spread = spread_bank
  everywhere = jax.tree.leaves(spread.params)[0].sharding
  new = jax.device_put(batch(2), everywhere)
  predict = jax.jit(method.predict)
  expected = predict(whole, new)
  predict(spread, new)
  with jax.transfer_guard('disallow'):
    got = predict(spread, new)
    with pytest.raises(Exception, match=r'Disallowed .* transfer'):
      predict(whole, new)
  equal(got, expected)


def test_a_spread_bank_is_stored_and_converted(spread_bank, tmp_path):
  method, whole, spread = spread_bank
  one, _ = method_and_fitted(coreset=None, bank_size=49)
  train.save_fitted(tmp_path / 'spread', spread)
  stored = train.load_fitted(tmp_path / 'spread')
  new = batch(2, first=9)
  expected = jax.jit(one.predict)(whole, new)
  for method_of_reader in (one, method):
    equal(jax.jit(method_of_reader.predict)(stored, new), expected)
  train.save_fitted(tmp_path / 'whole', whole)
  equal(patchcore.spread(train.load_fitted(tmp_path / 'whole'), 2).memory, spread.memory)
  for there in (spread, stored):
    family, arguments, arrays = method.deploy(there)
    assert (family, arguments) == one.deploy(whole)[:2]
    equal(arrays, one.deploy(whole)[2])


def test_refuses_devices_that_are_not_there():
  there = jax.local_device_count()
  with pytest.raises(ValueError, match=f'devices is {there + 1}; this process has {there} of kind'):
    patchcore.make(devices=there + 1)
  with pytest.raises(ValueError, match='devices is 0'):
    patchcore.make(devices=0)
  _, fitted = method_and_fitted()
  with pytest.raises(ValueError, match='there is no bank yet'):
    patchcore.spread(fitted, 2)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'coreset': 0.0}, 'coreset is 0.0'),
    ({'coreset': 1.5}, 'coreset is 1.5'),
    ({'bank_size': 0}, 'bank_size is 0'),
    ({'projection': 0}, 'projection is 0'),
    ({'neighbours': 1}, 'neighbours is 1'),
    ({'layers': (3, 2)}, 'layers must be rising'),
  ],
)
def test_rejects_bad_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    patchcore.make(**{**SMALL, 'stages': 3, **settings})
