"""AnomalyDINO in PyTorch and ONNX, on transformers and convolutions: the same, for any arguments.

Networks are random; pictures have patches of colour, so that they differ.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch

from jaxdefect import methods, models, ops
from jaxdefect.contracts import AnomalyMaps, DataSpec, References, State, to_fitted
from jaxdefect.convert import (
  export,
  onnx_file,
  parity,
  to_onnx,
  torch_params,
  weights_from_torch,
)
from jaxdefect.convert.twins import anomaly_dino, nearest_neighbors

CLASSES = ('good', 'defect')
# Name -> the method, the size of its pictures, and arguments that make it small.
TRANSFORMER = {'width': 4, 'stages': 2, 'layers': (2,)}
CASES = {
  'registers': ('anomaly_dino', (42, 56), {'backbone': 'dinov2_vits14_reg', **TRANSFORMER}),
  'masked': (
    'anomaly_dino',
    (84, 98),
    {
      **{'backbone': 'dinov2_vits14', **TRANSFORMER, 'layers': (1, 2), 'neighbourhood': 3},
      **{'mask_threshold': 1.5, 'share': 0.3, 'sigma': 0.0},
    },
  ),
  'convolutions': (
    'anomaly_dino',
    (45, 52),
    {
      **{'backbone': 'resnet10', 'width': 8, 'layers': (1, 2), 'turns': 3},
      **{'mask_threshold': 4.0, 'sigma': 0.0},
    },
  ),
  'patchcore': (
    'patchcore',
    (48, 64),
    {'backbone': 'vit_s16', **TRANSFORMER, 'layers': (1, 2), 'neighbourhood': 1, 'coreset': None},
  ),
}


def pictures(n, size, *, first=0):
  drawn = np.random.default_rng(first)
  colours = drawn.uniform(0, 255, (n, 5, 5, 3))
  rows, columns = (np.arange(side) * 5 // side for side in size)
  noisy = colours[:, rows][:, :, columns] + drawn.normal(0, 20, (n, *size, 3))
  return np.clip(noisy, 0, 255).astype(np.uint8)


def batch(image, *, first=0):
  n = len(image)
  index = np.arange(first, first + n, dtype=np.int32)
  return {'image': image, 'label': np.zeros(n, np.int32), 'valid': np.ones(n, bool), 'index': index}


def spec(size):
  shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch(pictures(2, size)).items()}
  return DataSpec(shapes, CLASSES, (2, 0))


@functools.cache
def fitted_of(case):
  """The method, and what it knows of four good parts."""
  name, size, settings = CASES[case]
  method = methods.load(name)(**settings)
  empty = jax.eval_shape(lambda key: method.init(key, spec(size)), jax.random.key(0))
  drawn = np.random.default_rng(3)

  def array(path, shape):
    word = path[-1].key
    if word == 'kernel':
      inputs = np.prod(shape.shape[:-1])
      return jnp.asarray(drawn.normal(0, 1.4 * inputs**-0.5, shape.shape), shape.dtype)
    low, high = (0.5, 1.5) if word in ('scale', 'var', 'gamma') else (-0.2, 0.2)
    return jnp.asarray(drawn.uniform(low, high, shape.shape), shape.dtype)

  params, known = (
    jax.tree_util.tree_map_with_path(array, tree) for tree in (empty.params, empty.model_state)
  )
  fitted = to_fitted(State(jnp.int32(0), params, known, ()), CLASSES)
  good = References(('good',), [batch(pictures(4, size))])
  return method, method.adapt(jax.random.key(2), fitted, good)


@functools.cache
def twin_of(case):
  method, fitted = fitted_of(case)
  calibration = {'threshold': 0.05, 'scores': np.linspace(0, 1, 7)}
  return export.to_torch(
    *export.complete(method.deploy(fitted), image_size=CASES[case][1], calibration=calibration)
  )


@pytest.mark.parametrize('case', CASES)
def test_the_twin_is_the_same(case):
  (method, fitted), size = fitted_of(case), CASES[case][1]
  known = pictures(4, size)[:1]  # a good part that it was fitted with
  images = np.concatenate([pictures(3, size, first=7), np.zeros_like(known), known])
  ours = jax.tree.map(np.asarray, jax.jit(method.predict)(fitted, batch(images)))
  with torch.inference_mode():
    scores, maps, flagged, _ = twin_of(case)(torch.from_numpy(images))
  assert ours.scores[:3].std() > 1e-2 * ours.scores[:3].mean()  # they can be told apart
  if 'mask_threshold' in CASES[case][2]:  # some places are left out, and some are not
    share = (ours.maps[:3] == 0).mean()
    assert 0.02 < share < 0.9
  found = parity.compare(ours, AnomalyMaps(scores.numpy(), maps.numpy()))
  print(case, found, ours.scores)
  assert found.largest < 2e-5
  np.testing.assert_array_equal(flagged, ours.scores > 0.05)


@pytest.mark.parametrize('case', ['registers', 'masked'])
def test_onnx_says_the_same(case, monkeypatch, tmp_path):
  module, size = twin_of(case), CASES[case][1]
  monkeypatch.setattr(nearest_neighbors, 'DISTANCES_HELD', 2**13)  # banks in several parts
  described = {'format': onnx_file.FORMAT, 'outputs': module.outputs, 'classes': CLASSES}
  to_onnx.write(tmp_path / 'model.onnx', module, described)
  model = onnx_file.OnnxModel(tmp_path / 'model.onnx', threads=1)
  for n, given in ((1, size), (3, (61, 50))):
    images = pictures(n, given, first=9)
    with torch.inference_mode():
      theirs = [one.numpy() for one in module(torch.from_numpy(images))]
    said = model(images)
    found = parity.compare(AnomalyMaps(*theirs[:2]), AnomalyMaps(*said[:2]))
    print(case, n, found)
    assert found.largest < 2e-5
    np.testing.assert_array_equal(said[2], theirs[2])


def test_foreground_is_the_same():
  y, x = np.mgrid[:11, :14]
  inside = (np.hypot(y - 5, x - 6)[None] < np.array([2, 3, 4])[:, None, None])[..., None]
  drawn = np.random.default_rng(0)
  direction = drawn.normal(size=(3, 1, 1, 9))
  features = (6 * inside * direction + drawn.normal(0, 0.4, (3, 11, 14, 9))).astype(np.float32)
  features[2] *= -1
  ours = np.stack([ops.foreground_mask(one, threshold=2.0) for one in features])
  theirs = anomaly_dino.foreground(torch.from_numpy(features), 2.0)
  np.testing.assert_array_equal(theirs, ours)
  assert (ours.mean((1, 2)) > [0.1, 0.2, 0.3]).all()
  assert (ours.mean((1, 2)) < [0.3, 0.97, 0.8]).all()


def test_a_loaded_file_fits_the_method_and_comes_back_from_an_export(tmp_path):
  trunk = models.vision_transformer('vit_s16', stages=1)
  shapes = jax.eval_shape(trunk.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  drawn = np.random.default_rng(0)
  variables = jax.tree.map(lambda s: drawn.normal(size=s.shape).astype(np.float32), shapes)
  state = torch_params.to_state_dict(variables)
  safetensors.numpy.save_file(state, tmp_path / 'vit_small_patch16_224.safetensors')
  wanted = {'backbone': 'vit_s16', 'stages': 1}
  loaded = weights_from_torch.load('vit_s16', weights_dir=tmp_path, **wanted)
  jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)
  pretrained = {k: {'backbone': v} for k, v in loaded.variables.items()}  # as the launcher does
  for name in ('anomaly_dino', 'patchcore'):
    method = methods.load(name)(**wanted, layers=(1,))
    made = jax.eval_shape(
      lambda key, method=method: method.init(key, spec((32, 32)), pretrained), jax.random.key(0)
    )
    assert jax.tree.map(jnp.shape, made.params['backbone']) == jax.tree.map(
      jnp.shape, variables['params']
    )
  exported = {f'backbone.{key}': value for key, value in state.items()}
  exported['bank'] = np.zeros((1, 384), np.float32)
  safetensors.numpy.save_file(exported, tmp_path / 'model.safetensors')
  again = weights_from_torch.load_exported(tmp_path, **wanted)
  jax.tree.map(np.testing.assert_array_equal, again.variables, variables)
