"""PaDiM, SPADE, nearest good image and Deep SVDD in PyTorch and ONNX: the same, for any arguments.

Networks and their statistics are random; pictures have patches of colour, so that they differ.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxdefect import methods
from jaxdefect.contracts import AnomalyMaps, DataSpec, Fitted, References, State, to_fitted
from jaxdefect.convert import export, onnx_file, parity, to_onnx
from jaxdefect.convert.twins import nearest_neighbors

pytest.importorskip('jaxdefect.methods.deep_svdd')

CLASSES = ('good', 'defect')
RESNET = {'backbone': 'resnet10', 'width': 8}
PIXELS = {'mean': (0.5, 0.4, 0.3), 'std': (0.2, 0.3, 0.4)}
SIZE = (45, 52)  # grids of 12 x 13, 6 x 7, 3 x 4 and 2 x 2
# Name -> the method, and arguments that make it small.
CASES = {
  'padim': ('padim', {**RESNET, 'layers': (1, 2), 'dimensions': 10}),
  'padim, all dimensions': (
    'padim',
    {**RESNET, 'layers': (2, 3), 'dimensions': 999, 'sigma': 0.0, 'regularization': 1.0},
  ),
  'padim, mobilenet': ('padim', {'backbone': 'mobilenet_v2', 'layers': (1,), **PIXELS}),
  'spade': ('spade', {**RESNET, 'layers': (1, 3), 'images': 3}),
  'spade, few images': (
    'spade',
    {
      **{**RESNET, 'layers': (2, 3), 'stages': 4, 'images': 99, 'places': 3, 'score': 'map'},
      **{'sigma': 1.5, 'gallery_dtype': 'bfloat16', **PIXELS},
    },
  ),
  'nearest_neighbor': ('nearest_neighbor', {**RESNET, 'neighbours': 3, 'projection': (8, 4)}),
  'nearest_neighbor, all': ('nearest_neighbor', {**RESNET, 'neighbours': 99, 'stages': 2}),
  'deep_svdd': ('deep_svdd', {'channels': (4, 6, 5), 'embedding': 7, **PIXELS}),
  'deep_svdd, backbone': (
    'deep_svdd',
    {**RESNET, 'stages': 1, 'channels': (4,), 'kernel_size': 3, 'embedding': 5},
  ),
}


def pictures(n, *, first=0, size=SIZE):
  drawn = np.random.default_rng(first)
  colours = drawn.uniform(0, 255, (n, 5, 5, 3))
  rows, columns = (np.arange(side) * 5 // side for side in size)
  noisy = colours[:, rows][:, :, columns] + drawn.normal(0, 20, (n, *size, 3))
  return np.clip(noisy, 0, 255).astype(np.uint8)


def batch(image, *, first=0):
  n = len(image)
  index = np.arange(first, first + n, dtype=np.int32)
  return {'image': image, 'label': np.zeros(n, np.int32), 'valid': np.ones(n, bool), 'index': index}


@functools.cache
def fitted_of(case):
  """The method, and what it knows of seven good parts."""
  name, settings = CASES[case]
  method = methods.load(name)(**settings)
  shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch(pictures(2)).items()}
  empty = jax.eval_shape(
    lambda key: method.init(key, DataSpec(shapes, CLASSES, (2, 0))), jax.random.key(0)
  )
  drawn = np.random.default_rng(3)

  def array(path, shape):
    if path[-1].key == 'kernel':
      inputs = np.prod(shape.shape[:-1])
      return jnp.asarray(drawn.normal(0, 1.4 * inputs**-0.5, shape.shape), shape.dtype)
    low, high = (-0.2, 0.2) if path[-1].key in ('bias', 'mean') else (0.5, 1.5)
    return jnp.asarray(drawn.uniform(low, high, shape.shape), shape.dtype)

  params, known = (
    jax.tree_util.tree_map_with_path(array, tree) for tree in (empty.params, empty.model_state)
  )
  good = References(('good',), [batch(pictures(5)), batch(pictures(2, first=1), first=5)])
  state = method.prepare(jax.random.key(1), State(jnp.int32(0), params, known, ()), good)
  return method, method.adapt(jax.random.key(2), to_fitted(state, CLASSES), good)


@functools.cache
def twin_of(case, size=SIZE):
  method, fitted = fitted_of(case)
  calibration = {'threshold': 0.5, 'scores': np.linspace(0, 20, 7)}
  return export.to_torch(
    *export.complete(method.deploy(fitted), image_size=size, calibration=calibration)
  )


@pytest.mark.parametrize('case', CASES)
def test_the_twin_is_the_same(case):
  method, fitted = fitted_of(case)
  known = pictures(5)[:1]  # a good part that it was fitted with
  images = np.concatenate([pictures(3, first=7), np.zeros_like(known), known])
  ours = jax.tree.map(np.asarray, jax.jit(method.predict)(fitted, batch(images)))
  with torch.inference_mode():
    scores, maps, flagged, _ = twin_of(case)(torch.from_numpy(images))
  assert ours.scores[:3].std() > 1e-2 * ours.scores[:3].mean()  # they can be told apart
  found = parity.compare(ours, AnomalyMaps(scores.numpy(), maps.numpy()))
  print(case, found, ours.scores)
  assert found.largest < 1e-5
  np.testing.assert_array_equal(flagged, ours.scores > 0.5)


@pytest.mark.parametrize('case', ['padim', 'spade', 'nearest_neighbor', 'deep_svdd, backbone'])
def test_onnx_says_the_same(case, monkeypatch, tmp_path):
  module = twin_of(case)
  monkeypatch.setattr(nearest_neighbors, 'DISTANCES_HELD', 2**14)  # banks in several parts
  described = {'format': onnx_file.FORMAT, 'outputs': module.outputs, 'classes': CLASSES}
  to_onnx.write(tmp_path / 'model.onnx', module, described)
  model = onnx_file.OnnxModel(tmp_path / 'model.onnx', threads=1)
  for n, size in ((1, SIZE), (3, (61, 50))):
    images = pictures(n, first=9, size=size)
    with torch.inference_mode():
      theirs = [one.numpy() for one in module(torch.from_numpy(images))]
    said = model(images)
    found = parity.compare(AnomalyMaps(*theirs[:2]), AnomalyMaps(*said[:2]))
    print(case, n, found)
    assert found.largest < 1e-5
    np.testing.assert_array_equal(said[2], theirs[2])
    np.testing.assert_allclose(said[3], theirs[3], rtol=1e-6)


@pytest.mark.parametrize('case', ['spade', 'spade, few images'])
@pytest.mark.parametrize('held', [2**15, 2**10])  # some images at once, and parts of one
def test_a_gallery_is_compared_in_parts(case, held, monkeypatch):
  images = torch.from_numpy(pictures(2, first=5))
  whole = twin_of(case)(images)
  monkeypatch.setattr(nearest_neighbors, 'DISTANCES_HELD', held)
  for one, other in zip(twin_of(case)(images), whole):
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize('name', ['padim', 'spade', 'nearest_neighbor'])
def test_without_good_parts_there_is_nothing_to_convert(name):
  method = methods.load(name)(**CASES[name][1])
  with pytest.raises(ValueError, match='call adapt before it is converted'):
    method.deploy(Fitted({}, {}))


def test_without_a_centre_there_is_nothing_to_convert():
  method = methods.load('deep_svdd')(**CASES['deep_svdd'][1])
  with pytest.raises(ValueError, match='has no centre: prepare must run'):
    method.deploy(Fitted({}, {'center': jnp.zeros(7)}))


@pytest.mark.parametrize(
  ('case', 'sentence'),
  [
    ('padim', 'Gaussians of 156 places, images of this size have 16 x 16'),
    ('spade', 'has 12 x 13 places per image, images of this size have 16 x 16'),
  ],
)
def test_other_sizes_are_refused(case, sentence):
  module = twin_of(case, (64, 64))
  with pytest.raises(ValueError, match=sentence):
    module(torch.from_numpy(pictures(1)))
