"""SPADE: near images first, then near places in them, found by brute force here."""

import functools

import jax
import numpy as np
import pytest

from jaxdefect import methods, models, ops
from jaxdefect.contracts import DataSpec, Fitted, Method, References, to_fitted

SIZE = 16
CLASSES = ('good', 'defect')
SMALL = {
  **{'backbone': 'resnet18', 'layers': (1, 2), 'width': 8, 'images': 3, 'places': 2},
  **{'sigma': 0.0, 'gallery_dtype': 'float32', 'chunk': 7},
}


def batch(n: int, first: int = 0) -> dict[str, np.ndarray]:
  image = np.random.default_rng(first).integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)
  index = np.arange(first, first + n, dtype=np.int32)
  return {'image': image, 'label': np.zeros(n, np.int32), 'valid': np.ones(n, bool), 'index': index}


@functools.cache
def method(**settings) -> Method:
  made = methods.load('spade')(**{**SMALL, **settings})
  return made._replace(predict=jax.jit(made.predict))


@functools.cache
def start() -> Fitted:
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch(6))
  init = jax.jit(lambda key: method().init(key, DataSpec(shapes, CLASSES, (6, 0))))
  return to_fitted(init(jax.random.key(0)), CLASSES)


def fit(*batches: dict, fitted: Fitted | None = None, **settings) -> Fitted:
  fitted = start() if fitted is None else fitted
  return method(**settings).adapt(jax.random.key(1), fitted, References(CLASSES, batches))


def embeddings(fitted: Fitted, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """[N, F] of the images, [N, P, D] of their places."""
  trunk = models.backbone('resnet18', stages=2, width=8)
  variables = {k: v['backbone'] for k, v in {'params': fitted.params, **fitted.model_state}.items()}
  x = ops.normalize_pixels(image, mean=ops.IMAGENET_MEAN, std=ops.IMAGENET_STD)
  fine, coarse = jax.jit(trunk.apply)(variables, x)
  enlarged = jax.image.resize(coarse, (*fine.shape[:3], coarse.shape[3]), 'bilinear')
  places = np.concatenate([fine, enlarged], axis=-1)
  pooled = np.asarray(coarse, np.float64).mean((1, 2))
  return pooled, places.reshape(len(image), -1, 24).astype(np.float64)  # [N, P, D]


def nearest(queries: np.ndarray, bank: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
  distances = np.linalg.norm(queries[:, None] - bank[None], axis=-1)
  order = distances.argsort(1)[:, :k]
  return np.take_along_axis(distances, order, 1).mean(1), order


def test_matches_numpy_reference():
  good, test = batch(8), batch(3, 50)
  fitted = fit(good)
  (known, places), (seen, queries) = (embeddings(fitted, b['image']) for b in (good, test))
  scores, near = nearest(seen, known, 3)
  maps = [
    nearest(query, places[index].reshape(-1, 24), 2)[0]  # [K * P, D]
    for query, index in zip(queries, near)
  ]
  maps = ops.smooth_map(np.reshape(maps, (3, 4, 4)), size=(SIZE, SIZE), sigma=0.0)
  predictions = method().predict(fitted, test)
  np.testing.assert_allclose(predictions.scores, scores, rtol=1e-5)
  np.testing.assert_allclose(predictions.maps, maps, rtol=1e-5)
  largest = method(score='map').predict(fitted, test)
  np.testing.assert_allclose(largest.scores, maps.max((1, 2)), rtol=1e-5)


def test_half_the_memory_moves_the_map_little():
  predictions = [
    method().predict(fit(batch(6), gallery_dtype=kind), batch(3, 50))
    for kind in ('float16', 'float32')
  ]
  np.testing.assert_allclose(predictions[0].maps, predictions[1].maps, rtol=1e-2)
  np.testing.assert_array_equal(predictions[0].scores, predictions[1].scores)
  assert fit(batch(2), gallery_dtype='float16').memory['places'].dtype == np.float16


def test_extension_appends():
  halves, at_once = fit(batch(5, 20), fitted=fit(batch(6))), fit(batch(6), batch(5, 20))
  for name, value in at_once.memory.items():
    np.testing.assert_array_equal(halves.memory[name], value)
  np.testing.assert_array_equal(halves.memory['index'], [*range(6), *range(20, 25)])


def test_a_small_gallery_is_near_as_a_whole():
  fitted = fit(batch(2))
  seen, known = (embeddings(fitted, b['image'])[0] for b in (batch(3, 50), batch(2)))
  np.testing.assert_allclose(
    method(images=50, places=99).predict(fitted, batch(3, 50)).scores,
    nearest(seen, known, 2)[0],
    rtol=1e-5,
  )


def test_a_good_part_of_the_gallery_is_at_distance_zero():
  predictions = method(images=1, places=1).predict(fit(batch(4)), batch(4))
  np.testing.assert_allclose(predictions.scores, 0, atol=1e-4)
  np.testing.assert_allclose(predictions.maps, 0, atol=1e-4)


def test_rejects_another_image_size():
  larger = {**batch(2), 'image': np.zeros((2, 32, 32, 3), np.uint8)}
  with pytest.raises(
    ValueError, match='has 4 x 4 places per image, images of this size have 8 x 8'
  ):
    method().predict(fit(batch(4)), larger)
  with pytest.raises(ValueError, match='has 4 x 4 places per image'):
    fit(larger, fitted=fit(batch(4)))


def test_rejects_what_is_not_fitted_and_bad_arguments():
  fitted = fit(batch(4)).replace(memory=None)
  with pytest.raises(ValueError, match='call adapt before predict'):
    method().predict(fitted, batch(1))
  with pytest.raises(ValueError, match='images and places must be 1 or more, got 0 and 1'):
    methods.load('spade')(images=0)
  with pytest.raises(ValueError, match="score must be 'images' or 'map', got 'mean'"):
    methods.load('spade')(score='mean')
