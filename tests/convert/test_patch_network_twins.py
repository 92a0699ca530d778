"""Patch SVDD and Uninformed Students in PyTorch and ONNX: the same maps, whatever the arguments."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxdefect import methods
from jaxdefect.contracts import AnomalyMaps, DataSpec, Fitted, References
from jaxdefect.convert import export, onnx_file, parity, to_onnx
from jaxdefect.convert.twins import nearest_neighbors

CLASSES = ('good', 'defect')
SETTINGS = {
  'patch_svdd': {'patch_size': 16, 'strides': (8, 4), 'features': 6, 'width': 8},
  'uninformed_students': {
    **{'stages': 1, 'width': 4, 'fields': (17,), 'students': 2, 'features': 5, 'channels': 4},
  },
}
PIXELS = {'mean': (0.5, 0.4, 0.3), 'std': (0.2, 0.3, 0.4)}


def batch(size, n, *, first=0):
  image = np.random.default_rng(first).integers(0, 256, (n, *size, 3), np.uint8)
  image[:, :, : size[1] // 2] //= 3  # two textures
  index = np.arange(first, first + n, dtype=np.int32)
  label, valid = np.zeros(n, np.int32), np.ones(n, bool)
  return {'image': image, 'label': label, 'valid': valid, 'index': index}


def fitted_of(name, size, **settings):
  """The method, and what it knows: random networks, and moments and banks to fit."""
  method = methods.load(name)(**{**SETTINGS[name], **settings})
  shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch(size, 2).items()}
  spec = DataSpec(shapes, CLASSES, (2, 0))
  state = jax.eval_shape(lambda key: method.init(key, spec), jax.random.key(0))
  drawn = np.random.default_rng(3)

  def weights(shape):
    inputs = np.prod(shape.shape[:-1]) if len(shape.shape) > 1 else 25
    return jnp.asarray(drawn.normal(0, inputs**-0.5, shape.shape), shape.dtype)

  known = {k: v for k, v in state.model_state.items() if k.startswith('descriptor')}
  known = jax.tree.map(lambda x: jnp.asarray(drawn.uniform(0.5, 1.5, x.shape), x.dtype), known)
  fitted = Fitted(jax.tree.map(weights, state.params), {'batch_stats': {}, **known}, None, None)
  fitted = dataclasses.replace(fitted, classes=CLASSES)
  return method, method.adapt(jax.random.key(2), fitted, References(CLASSES, [batch(size, 2)]))


def twin(method, fitted, size):
  return export.to_torch(*export.complete(method.deploy(fitted), image_size=size))


def compare(method, fitted, size):
  module = twin(method, fitted, size)
  pictures = batch(size, 3, first=7)
  ours = jax.tree.map(np.asarray, jax.jit(method.predict)(fitted, pictures))
  with torch.inference_mode():
    scores, maps, flagged, p_values = module(torch.from_numpy(pictures['image']))
  assert not flagged.any()
  assert (p_values == 1).all()
  assert ours.maps.std((1, 2)).min() > 1e-2 * np.abs(ours.maps).max()  # nothing is blank
  found = parity.compare(ours, AnomalyMaps(scores.numpy(), maps.numpy()))
  print(found)
  assert found.largest < 1e-5


@pytest.mark.parametrize(
  ('size', 'settings'),
  [
    ((43, 38), PIXELS),  # an odd side, and patches that do not end with it
    ((41, 33), {'patch_size': 8, 'strides': (6, 2)}),
    ((64, 63), {'patch_size': 32, 'strides': (16, 10), 'width': 5}),
  ],
)
def test_patch_svdd_is_the_same(size, settings):
  compare(*fitted_of('patch_svdd', size, **settings), size)


@pytest.mark.parametrize(
  ('size', 'settings'),
  [
    ((37, 29), {'stride': 1, 'sigma': 2.0, **PIXELS}),
    ((37, 29), {'stride': 3, 'fields': (33,), 'students': 1}),
    ((32, 30), {'stride': 2, 'fields': (65, 17)}),  # mirrored more than once
    ((72, 69), {'stride': 4, 'fields': (65,)}),
    ((40, 44), {'stride': 8, 'fields': (33,), 'students': 1}),
  ],
)
def test_uninformed_students_are_the_same(size, settings):
  compare(*fitted_of('uninformed_students', size, **settings), size)


def test_a_long_bank_is_compared_in_parts(monkeypatch):
  size = (32, 32)
  module = twin(*fitted_of('patch_svdd', size), size)
  image = torch.from_numpy(batch(size, 2, first=5)['image'])
  whole = module(image)
  # 25 patches of a picture: parts of 4 of the bank.
  monkeypatch.setattr(nearest_neighbors, 'DISTANCES_HELD', 100)
  for one, other in zip(module(image), whole):
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
  ('name', 'size', 'settings'),
  [
    ('patch_svdd', (35, 32), {}),
    ('uninformed_students', (37, 32), {'fields': (33,), 'stride': 2, 'sigma': 1.0}),
  ],
)
def test_onnx_says_the_same(name, size, settings, monkeypatch, tmp_path):
  module = twin(*fitted_of(name, size, **settings), size)
  monkeypatch.setattr(nearest_neighbors, 'DISTANCES_HELD', 2**10)  # several parts of a bank
  described = {'format': onnx_file.FORMAT, 'outputs': module.outputs, 'classes': CLASSES}
  to_onnx.write(tmp_path / 'model.onnx', module, described)
  model = onnx_file.OnnxModel(tmp_path / 'model.onnx', threads=1)
  for n, sides in ((1, size), (3, (61, 50))):
    image = batch(sides, n, first=9)['image']
    with torch.inference_mode():
      theirs = [x.numpy() for x in module(torch.from_numpy(image))]
    said = model(image)
    found = parity.compare(AnomalyMaps(*theirs[:2]), AnomalyMaps(*said[:2]))
    print(name, n, found)
    assert found.largest < 1e-5
    np.testing.assert_array_equal(said[2], theirs[2])
    np.testing.assert_array_equal(said[3], theirs[3])


@pytest.mark.parametrize('name', SETTINGS)
def test_without_good_parts_there_is_nothing_to_convert(name):
  method = methods.load(name)(**SETTINGS[name])
  with pytest.raises(ValueError, match='call adapt before it is converted'):
    method.deploy(Fitted({}, {}, None, None))
