"""PaDiM: one Gaussian per place, exact whatever the order in which good parts come."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxdefect import methods, models, ops
from jaxdefect.contracts import DataSpec, Fitted, Method, References, to_fitted

SIZE = 16
CLASSES = ('good', 'defect')
SMALL = {'backbone': 'resnet18', 'layers': (1, 2), 'width': 8, 'dimensions': 6, 'sigma': 1.0}


def batch(n: int, first: int = 0, *, padding: int = 0) -> dict[str, np.ndarray]:
  image = np.random.default_rng(first).integers(0, 256, (n + padding, SIZE, SIZE, 3), np.uint8)
  valid = np.arange(n + padding) < n
  index = np.arange(first, first + n + padding, dtype=np.int32)
  return {'image': image, 'label': np.zeros(n + padding, np.int32), 'valid': valid, 'index': index}


@functools.cache
def method(sigma: float = 1.0) -> Method:
  made = methods.load('padim')(**{**SMALL, 'sigma': sigma})
  return made._replace(predict=jax.jit(made.predict))


@functools.cache
def start() -> Fitted:
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch(6))
  init = jax.jit(lambda key: method().init(key, DataSpec(shapes, CLASSES, (6, 0))))
  return to_fitted(init(jax.random.key(0)), CLASSES)


def fit(*batches: dict, fitted: Fitted | None = None) -> Fitted:
  fitted = start() if fitted is None else fitted
  return method().adapt(jax.random.key(1), fitted, References(CLASSES, batches))


def embeddings(fitted: Fitted, image: np.ndarray) -> np.ndarray:
  """[N, P, d] float64: what the two stages say about every place, the kept dimensions of it."""
  network = models.PatchFeatures(
    models.backbone('resnet18', stages=2, width=8), layers=(1, 2), neighbourhood=1
  )
  x = ops.normalize_pixels(image, mean=ops.IMAGENET_MEAN, std=ops.IMAGENET_STD)
  maps = jax.jit(network.apply)({'params': fitted.params, **fitted.model_state}, x)
  kept = np.asarray(maps, np.float64)[..., np.asarray(fitted.memory['dims'])]
  return kept.reshape(len(image), -1, 6)  # [N, P, d]


def test_score_matches_numpy_reference():
  good, test = batch(12), batch(3, 50)
  fitted = fit(good)
  known, seen = embeddings(fitted, good['image']), embeddings(fitted, test['image'])
  distances = np.empty(seen.shape[:2])
  for place in range(seen.shape[1]):
    inverse = np.linalg.inv(np.cov(known[:, place].T) + 0.01 * np.eye(6))
    shift = seen[:, place] - known[:, place].mean(0)
    distances[:, place] = np.sqrt(np.einsum('ni,ij,nj->n', shift, inverse, shift))
  predictions = method(0.0).predict(fitted, test)
  enlarged = ops.smooth_map(distances.reshape(3, 4, 4), size=(SIZE, SIZE), sigma=0.0)
  np.testing.assert_allclose(predictions.maps, enlarged, rtol=1e-4)
  # The score is the maximum of the smoothed map.
  predictions = method().predict(fitted, test)
  smooth = ndimage.gaussian_filter(np.asarray(enlarged), 1.0, axes=(1, 2))
  np.testing.assert_allclose(predictions.scores, smooth.max((1, 2)), rtol=1e-4)


def test_two_halves_equal_all_at_once():
  at_once = fit(batch(6), batch(5, 20))
  half = fit(batch(6))
  kept = jax.tree.map(jnp.copy, half.memory)
  halves = fit(batch(5, 20), fitted=half)
  chex.assert_trees_all_equal(half.memory, kept)  # what was there stays usable
  one = {k: np.concatenate([batch(6)[k], batch(5, 20)[k]]) for k in batch(1)}
  for other in (at_once, fit(one), fit(batch(5, 20), batch(6))):
    assert int(other.memory['count']) == 11
    chex.assert_trees_all_close(halves.memory, other.memory, rtol=1e-5, atol=1e-5)
  predict = method().predict
  chex.assert_trees_all_close(
    predict(halves, batch(3, 50)), predict(fit(one), batch(3, 50)), rtol=1e-5
  )


def test_padding_is_invisible():
  chex.assert_trees_all_close(fit(batch(6, padding=2)).memory, fit(few(batch(6, padding=2))).memory)


def few(one: dict) -> dict:
  return {k: v[one['valid']] for k, v in one.items()}


def test_one_good_part_is_enough():
  fitted = fit(batch(1))
  scores = method().predict(fitted, batch(1)).scores
  np.testing.assert_allclose(scores, 0, atol=1e-3)


def test_key_of_the_first_adapt_chooses_the_dimensions():
  fitted = fit(batch(4))
  again = method().adapt(jax.random.key(9), fitted, References(CLASSES, [batch(4, 30)]))
  np.testing.assert_array_equal(again.memory['dims'], fitted.memory['dims'])
  assert len(set(np.asarray(fitted.memory['dims']))) == 6


def test_rejects_another_image_size():
  larger = {**batch(2), 'image': np.zeros((2, 32, 32, 3), np.uint8)}
  with pytest.raises(ValueError, match='Gaussians of 16 places, images of this size have 8 x 8'):
    method().predict(fit(batch(4)), larger)
  with pytest.raises(ValueError, match='Gaussians of 16 places'):
    fit(larger, fitted=fit(batch(4)))


def test_rejects_what_is_not_fitted_and_bad_arguments():
  fitted = fit(batch(4)).replace(memory=None)
  with pytest.raises(ValueError, match='call adapt before predict'):
    method().predict(fitted, batch(1))
  with pytest.raises(ValueError, match='dimensions must be 1 or more, got 0'):
    methods.load('padim')(dimensions=0)
  with pytest.raises(ValueError, match='regularization must be larger than 0'):
    methods.load('padim')(regularization=0.0)
