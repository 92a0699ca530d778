"""AnomalyDINO: angles to the patches of a few good parts, in NumPy and by hand."""

import functools

import jax
import numpy as np
import pytest

from jaxdefect import methods, models, ops
from jaxdefect.contracts import DataSpec, Fitted, Method, References, to_fitted
from jaxdefect.methods.anomaly_dino import rotation, tail_mean

SMALL = {'backbone': 'resnet18', 'layers': (1, 2), 'width': 8, 'turns': 2, 'mask_threshold': 0.5}

CLASSES = ('good', 'defect')
SETTINGS = {'backbone': 'resnet18', 'layers': (1,), 'width': 8, 'turns': 1, 'sigma': 0.0}
TRANSFORMER = {'backbone': 'dinov2_vits14', 'stages': 1, 'width': 4, 'layers': (1,)}
SIZE = (16, 20)


def batch(n: int, first: int = 0, size=SIZE) -> dict[str, np.ndarray]:
  image = np.random.default_rng(first).integers(0, 256, (n, *size, 3), np.uint8)
  index = np.arange(first, first + n, dtype=np.int32)
  return {'image': image, 'label': np.zeros(n, np.int32), 'valid': np.ones(n, bool), 'index': index}


@functools.cache
def method(name='anomaly_dino', **settings) -> Method:
  made = methods.load(name)(**settings)
  return made._replace(predict=jax.jit(made.predict))


@functools.cache
def start(name='anomaly_dino', size=SIZE, **settings) -> Fitted:
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch(2, size=size))
  made = method(name, **settings)
  state = jax.jit(lambda key: made.init(key, DataSpec(shapes, CLASSES, (2, 0))))(jax.random.key(0))
  return to_fitted(state, CLASSES)


def fit(*batches: dict, fitted: Fitted | None = None, **settings) -> Fitted:
  settings = {**SETTINGS, **settings}
  fitted = start(**SETTINGS) if fitted is None else fitted
  return method(**settings).adapt(jax.random.key(1), fitted, References(CLASSES, batches))


def predict(fitted: Fitted, seen: dict, **settings):
  return method(**{**SETTINGS, **settings}).predict(fitted, seen)


def patches(fitted: Fitted, image: np.ndarray) -> np.ndarray:
  """[N, 4, 5, D] of the first stage."""
  trunk = models.backbone('resnet18', stages=1, width=8)
  variables = {k: v['backbone'] for k, v in {'params': fitted.params, **fitted.model_state}.items()}
  x = ops.normalize_pixels(image, mean=ops.IMAGENET_MEAN, std=ops.IMAGENET_STD)
  return np.asarray(jax.jit(trunk.apply)(variables, x)[0], np.float64)


def angles(queries: np.ndarray, bank: np.ndarray) -> np.ndarray:
  """1 - cosine of each query to the nearest of a bank."""
  a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (queries, bank.reshape(-1, 8)))
  return 1 - (a @ b.T).max(-1)


@pytest.mark.parametrize(('share', 'count'), [(0.01, 1), (0.2, 4), (1.0, 20)])
def test_matches_numpy_reference(share, count):
  good, test = batch(4), batch(3, 50)
  fitted = fit(good)
  distances = angles(patches(fitted, test['image']), patches(fitted, good['image']))  # [3, 4, 5]
  predictions = predict(fitted, test, share=share)
  expected = np.sort(distances.reshape(3, -1), axis=1)[:, -count:].mean(1)
  np.testing.assert_allclose(predictions.scores, expected, rtol=1e-4)
  maps = ops.smooth_map(distances.astype(np.float32), size=SIZE, sigma=0.0)
  np.testing.assert_allclose(predictions.maps, maps, rtol=1e-4, atol=1e-7)
  smooth = ops.smooth_map(distances.astype(np.float32), size=SIZE, sigma=2.0)
  np.testing.assert_allclose(predict(fitted, test, sigma=2.0).maps, smooth, rtol=1e-4)


def test_one_per_cent_is_rounded_down_to_one_patch_at_least():
  distances = np.arange(250.0)[None]
  assert float(tail_mean(distances)[0]) == (249 + 248) / 2
  assert float(tail_mean(distances[:, :199])[0]) == 198
  assert float(tail_mean(distances[:, :20])[0]) == 19


def test_only_the_direction_of_a_patch_counts():
  # Zero bias and mean 0, std 1: pixels, and with them all features, double where std is halved.
  plain, halved = ({'mean': (0.0,) * 3, 'std': (std,) * 3} for std in (1.0, 0.5))
  test = batch(3, 50)
  expected = predict(fit(batch(3), **plain), test, **plain).scores
  assert (expected > 1e-3).all()
  got = predict(fit(batch(3), **plain), test, **halved).scores
  np.testing.assert_allclose(got, expected, rtol=1e-3)


def test_a_turned_part_is_known_in_its_turns_alone():
  good = batch(1, size=(16, 16))
  turned = {**good, 'image': np.rot90(good['image'], axes=(1, 2)).copy()}
  known = [predict(fit(good, turns=turns), turned, share=1.0).scores[0] for turns in (1, 2, 4)]
  assert known[0] > 1e-2
  assert known[1] > 1e-2  # half turns alone
  assert known[2] < 1e-6


@pytest.mark.parametrize('quarters', [0, 1, 2, 3])
def test_quarter_turns_move_pixels_onto_pixels(quarters):
  image = batch(1, size=(6, 6))['image']
  turned = ops.warp(image, rotation(90 * quarters, (6, 6))[None])
  np.testing.assert_array_equal(turned, np.rot90(image, quarters, axes=(1, 2)))


def test_the_bank_holds_every_patch_of_every_turn():
  fitted = fit(batch(3), turns=8)
  assert fitted.memory['bank'].shape == (3 * 8 * 4 * 5, 8)
  upright = fit(batch(3)).memory['bank']
  np.testing.assert_allclose(fitted.memory['bank'][: 3 * 20], upright, atol=1e-6)


def test_further_references_are_appended_and_padding_is_invisible():
  first, more = batch(3), batch(2, 20)
  at_once = fit(first, more, turns=2)
  again = fit(more, fitted=fit(first, turns=2), turns=2)
  np.testing.assert_array_equal(again.memory['bank'], at_once.memory['bank'])
  padded = {k: np.concatenate([v, v[:1]]) for k, v in first.items()}
  padded['image'][3:], padded['valid'][3:] = 77, False
  nothing = {**more, 'valid': np.zeros(2, bool)}
  known = fit(padded, nothing, turns=2).memory['bank']
  np.testing.assert_allclose(known, fit(first, turns=2).memory['bank'], atol=1e-6)
  # What is known can only come nearer.
  seen = batch(3, 50)
  fewer, many = (predict(one, seen).maps for one in (fit(first, turns=2), at_once))
  assert (many <= fewer + 1e-6).all()
  assert (np.asarray(many) < np.asarray(fewer) - 1e-4).any()


def test_the_background_is_at_distance_zero():
  size = (32, 64)
  fitted, test = fit(batch(3, size=size)), batch(2, 50, size=size)
  test['image'][:, :, 40:] //= 16  # dark on the right
  features = patches(fitted, test['image']).astype(np.float32)
  limit = float(features.std())
  seen = np.stack([ops.foreground_mask(one, threshold=limit) for one in features])
  assert 0.1 < seen.mean() < 0.9
  known = patches(fitted, batch(3, size=size)['image'])
  distances = np.where(seen, angles(features, known), 0)
  got = predict(fitted, test, mask_threshold=limit, share=0.75)
  expected = np.sort(distances.reshape(2, -1), axis=1)[:, 32:].mean(1)  # of all, masked or not
  np.testing.assert_allclose(got.scores, expected, rtol=1e-4)
  maps = ops.smooth_map(distances.astype(np.float32), size=size, sigma=0.0)
  np.testing.assert_allclose(got.maps, maps, rtol=1e-4, atol=1e-7)
  # References keep theirs.
  bank = fit(batch(3, size=size), mask_threshold=limit).memory['bank']
  np.testing.assert_array_equal(bank, fitted.memory['bank'])


@pytest.mark.parametrize('name', ['anomaly_dino', 'patchcore'])
def test_a_transformer_describes_pictures_of_any_grid(name):
  settings = {**TRANSFORMER, 'neighbourhood': 1}
  settings |= {'turns': 1} if name == 'anomaly_dino' else {'coreset': None, 'reweight': False}
  fitted = start(name, (28, 42), **settings)
  assert fitted.model_state == {}
  good = batch(3, size=(28, 42))
  made = method(name, **settings)
  fitted = made.adapt(jax.random.key(1), fitted, References(CLASSES, [good]))
  assert fitted.memory['bank'].shape == (3 * 2 * 3, 24)
  np.testing.assert_allclose(made.predict(fitted, good).scores, 0, atol=1e-3)
  wider = made.predict(fitted, batch(2, 50, size=(28, 56)))
  assert wider.maps.shape == (2, 28, 56)
  assert (wider.scores > 1e-2).all()


def test_rejects_what_is_not_fitted_and_bad_arguments():
  with pytest.raises(ValueError, match='call adapt before predict'):
    predict(start(**SETTINGS), batch(1))
  with pytest.raises(ValueError, match='call adapt before it is converted'):
    method(**SETTINGS).deploy(start(**SETTINGS))
  defect = {**batch(1), 'label': np.ones(1, np.int32)}
  with pytest.raises(ValueError, match="hold a picture of 'defect'"):
    fit(defect)
  make = methods.load('anomaly_dino')
  for settings, sentence in (
    ({'turns': 0}, 'turns is 0; it can be 1'),
    ({'share': 0.0}, 'share is 0.0; it can be above 0 up to 1'),
    ({'mask_threshold': -1.0}, 'mask_threshold is -1.0; it can be 0 or more, or None'),
    ({'backbone': 'vgg'}, "backbone name must be one of .*dinov2_vits14.*, got 'vgg'"),
    ({'layers': (5,)}, 'stages must be 1, 2, 3, 4'),
    ({'layers': (4,), 'stages': 2}, 'layers must be rising numbers from 1 to 2'),
  ):
    with pytest.raises(ValueError, match=sentence):
      make(**settings)
  tall = batch(1, size=(30, 28))
  with pytest.raises(ValueError, match=r'images are 30 x 28 pixels; .* multiples of 14'):
    method(**TRANSFORMER).adapt(
      jax.random.key(0), start(size=(28, 42), **TRANSFORMER), References(CLASSES, [tall])
    )
