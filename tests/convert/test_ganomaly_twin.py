"""GANomaly in PyTorch and ONNX: the same scores and maps; and transposed convolutions' axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxdefect import methods, models
from jaxdefect.contracts import AnomalyMaps, DataSpec, Fitted
from jaxdefect.convert import export, onnx_file, parity, to_onnx, torch_params

CLASSES = ('good', 'defect')
SMALL = {'latent': 6, 'width': 4, 'sigma': 1.5}


def images(size, n, *, first=0):
  return np.random.default_rng(first).integers(0, 256, (n, *size, 3), np.uint8)


def fitted_of(side, **settings):
  """The method, and random networks of which nothing is small."""
  method = methods.load('ganomaly')(**{**SMALL, **settings})
  spec = DataSpec({'image': jax.ShapeDtypeStruct((2, side, side, 3), np.uint8)}, CLASSES, (2, 0))
  state = jax.eval_shape(lambda key: method.init(key, spec), jax.random.key(0))
  drawn = np.random.default_rng(3)

  def array(path, shape):
    if path[-1].key == 'kernel':
      inputs = np.prod(shape.shape[:-1])
      return jnp.asarray(drawn.normal(0, 1.5 * inputs**-0.5, shape.shape), shape.dtype)
    low, high = (-0.5, 0.5) if path[-1].key in ('bias', 'mean') else (0.5, 1.5)
    return jnp.asarray(drawn.uniform(low, high, shape.shape), shape.dtype)

  params, known = (
    jax.tree_util.tree_map_with_path(array, tree) for tree in (state.params, state.model_state)
  )
  return method, Fitted(params, known, classes=CLASSES)


def twin(method, fitted, side):
  return export.to_torch(*export.complete(method.deploy(fitted), image_size=(side, side)))


@pytest.mark.parametrize(
  ('side', 'settings'),
  [
    (8, {'sigma': 0.0}),
    (32, {'mean': (0.4, 0.5, 0.6), 'std': (0.3, 0.4, 0.5)}),
  ],
)
def test_ganomaly_is_the_same(side, settings):
  method, fitted = fitted_of(side, **settings)
  pictures = images((side, side), 4)
  ours = jax.tree.map(np.asarray, jax.jit(method.predict)(fitted, {'image': pictures}))
  with torch.inference_mode():
    scores, maps, *_ = twin(method, fitted, side)(torch.from_numpy(pictures))
  assert ours.scores.min() > 1e-3
  assert ours.maps.std((1, 2)).min() > 1e-2
  found = parity.compare(ours, AnomalyMaps(scores.numpy(), maps.numpy()))
  print(found)
  assert found.largest < 1e-5


def test_onnx_says_the_same(tmp_path):
  module = twin(*fitted_of(16), 16)
  described = {'format': onnx_file.FORMAT, 'outputs': module.outputs, 'classes': CLASSES}
  to_onnx.write(tmp_path / 'model.onnx', module, described)
  model = onnx_file.OnnxModel(tmp_path / 'model.onnx', threads=1)
  for n, size in ((1, (16, 16)), (3, (41, 30))):
    pictures = images(size, n, first=9)
    with torch.inference_mode():
      theirs = [x.numpy() for x in module(torch.from_numpy(pictures))]
    said = model(pictures)
    found = parity.compare(AnomalyMaps(*theirs[:2]), AnomalyMaps(*said[:2]))
    print(n, found)
    assert found.largest < 1e-5


def test_other_sizes_are_refused():
  with pytest.raises(ValueError, match='image_size must be 16 x 16, got'):
    twin(*fitted_of(16), 32)


@pytest.mark.parametrize(('window', 'stride', 'padding'), [(4, 2, 1), (3, 1, 0), (5, 3, 2)])
def test_a_transposed_convolution_takes_the_axes_of_pytorch(window, stride, padding):
  drawn = np.random.default_rng(0)
  kernel = drawn.normal(size=(window, window, 5, 3)).astype(np.float32)  # from 3 channels to 5
  x = drawn.normal(size=(2, 4, 6, 3)).astype(np.float32)
  layer = torch.nn.ConvTranspose2d(3, 5, window, stride, padding, bias=False)
  state = torch_params.to_state_dict({'params': {'up': {'kernel': kernel}}})
  layer.load_state_dict({'weight': torch.from_numpy(state['up.weight'])})
  with torch.inference_mode():
    theirs = layer(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
  ours = models.conv_transpose2d(
    jnp.asarray(x), jnp.asarray(kernel), stride=stride, padding=padding
  )
  np.testing.assert_allclose(ours, theirs, atol=1e-5)
  back = torch_params.from_torch_axes(('up', 'kernel'), state['up.weight'])
  np.testing.assert_array_equal(back, kernel)
