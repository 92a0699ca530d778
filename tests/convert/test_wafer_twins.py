"""DC-Net and WaferSegClassNet in PyTorch and ONNX: the same scores, evidence and mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxdefect import methods, models
from jaxdefect.contracts import ClassScores, DataSpec, Fitted, References
from jaxdefect.convert import export, onnx_file, parity, to_onnx
from jaxdefect.explain import gradcam
from jaxdefect.ops import normalize_pixels

CLASSES = ('Normal', 'A', 'A+B', 'C', 'A+B+C')
OTHERS = {'mean': (0.4, 0.5, 0.6), 'std': (0.3, 0.4, 0.5)}


def images(size, n, *, first=0):
  return np.random.default_rng(first).integers(0, 256, (n, *size, 3), np.uint8)


def fitted_of(name, size, **settings):
  """The method, and random networks of which nothing is small."""
  method = methods.load(name)(**settings)
  spec = DataSpec({'image': jax.ShapeDtypeStruct((2, *size, 3), np.uint8)}, CLASSES, (2,) * 5)
  state = jax.jit(lambda key: method.init(key, spec))(jax.random.key(0))
  drawn = np.random.default_rng(3)

  def array(path, leaf):
    if path[-1].key == 'kernel':
      size = np.prod(leaf.shape[:-1])
      return jnp.asarray(drawn.normal(0, 1.5 * size**-0.5, leaf.shape), leaf.dtype)
    low, high = (-0.5, 0.5) if path[-1].key in ('bias', 'mean') else (0.5, 1.5)
    return jnp.asarray(drawn.uniform(low, high, leaf.shape), leaf.dtype)

  params, statistics = (
    jax.tree_util.tree_map_with_path(array, tree)
    for tree in (state.params, state.model_state['batch_stats'])
  )
  known = {**state.model_state, 'batch_stats': statistics}
  return method, Fitted(params, known, classes=CLASSES)


def twin(method, fitted, size):
  return export.to_torch(*export.complete(method.deploy(fitted), image_size=size))


@pytest.mark.parametrize('settings', [{}, OTHERS])
@pytest.mark.parametrize(
  ('name', 'width', 'size'), [('dc_net', 3, (21, 26)), ('wafer_seg_class_net', 2, (26, 32))]
)
def test_the_twin_says_the_same(name, width, size, settings):
  method, fitted = fitted_of(name, size, width=width, **settings)
  batch = {'image': images(size, 4)}
  ours, maps = jax.jit(
    lambda fitted, batch: gradcam.gradcam(method.activations, fitted, batch, contrast=True)
  )(fitted, batch)
  ours = jax.tree.map(np.asarray, ours)
  with torch.inference_mode():
    scores, probabilities, evidence, *rest = twin(method, fitted, size)(
      torch.from_numpy(batch['image'])
    )
  found = parity.compare(ours, ClassScores(scores.numpy(), probabilities.numpy()))
  assert found.largest < 2e-5
  assert np.abs(ours.scores).max() > 0.1
  assert float(maps.max()) > 1e-3
  np.testing.assert_allclose(evidence.numpy(), maps, rtol=1e-3, atol=1e-4 * float(maps.max()))
  if name == 'wafer_seg_class_net':
    x = normalize_pixels(batch['image'], **(settings or {'mean': 0.0, 'std': 1.0}))
    variables = {'params': fitted.params, **fitted.model_state}
    mask = jax.jit(models.WaferSegClassNet(5, width=width).apply)(variables, x).mask
    assert rest[0].shape == (4, *size)
    np.testing.assert_allclose(rest[0].numpy(), jax.nn.sigmoid(mask), atol=1e-4)
    assert float(jnp.std(mask)) > 1e-2


def test_a_combination_that_was_added_is_exported():
  method, fitted = fitted_of('dc_net', (20, 20), width=2)
  more = method.adapt(jax.random.key(0), fitted, References(('B+C',), []))
  batch = {'image': images((20, 20), 3)}
  with torch.inference_mode():
    module = twin(method, more, (20, 20))
    scores, *_ = module(torch.from_numpy(batch['image']))
  assert module.classes == (*CLASSES, 'B+C')
  np.testing.assert_allclose(
    scores, jax.jit(method.predict)(more, batch).scores, rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize('name', ['dc_net', 'wafer_seg_class_net'])
def test_onnx_says_the_same(name, tmp_path):
  module = twin(*fitted_of(name, (20, 20), width=2), (20, 20))
  described = {'format': onnx_file.FORMAT, 'outputs': module.outputs, 'classes': CLASSES}
  to_onnx.write(tmp_path / 'model.onnx', module, described)
  model = onnx_file.OnnxModel(tmp_path / 'model.onnx', threads=1)
  for n, size in ((1, (20, 20)), (3, (41, 30))):
    pictures = images(size, n, first=9)
    with torch.inference_mode():
      theirs = [x.numpy() for x in module(torch.from_numpy(pictures))]
    said = model(pictures)
    assert len(said) == len(theirs) == len(module.outputs)
    for output, one, other in zip(module.outputs, said, theirs):
      np.testing.assert_allclose(
        one, other, rtol=1e-3, atol=1e-4 * np.abs(other).max() + 1e-7, err_msg=output
      )
