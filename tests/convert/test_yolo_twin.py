"""The single-stage detector in PyTorch and ONNX: the same boxes."""

import jax
import numpy as np
import pytest
import torch

from jaxdefect import methods
from jaxdefect.contracts import DataSpec, Detections, Fitted
from jaxdefect.convert import export, onnx_file, parity, to_onnx, twins
from jaxdefect.data.letterbox import letterbox

SIZE = (72, 90)
CLASSES = ('dent', 'hole', 'scratch')
SMALL = {'width': 0.125, 'num_bins': 8, 'score_threshold': 0.3, 'max_detections': 30}


def random_arrays(shapes, seed=0):
  """Numbers for a tree of shapes, so that detections are sure of something."""
  generator = np.random.default_rng(seed)

  def one(path, leaf):
    last = path[-1].key
    spread = {'scale': (0.7, 1.3), 'var': (0.5, 1.5)}
    if last in spread:
      return generator.uniform(*spread[last], leaf.shape).astype(np.float32)
    size = 2.0 / np.sqrt(np.prod(leaf.shape[:-1])) if last == 'kernel' else 0.3
    return generator.normal(0, size, leaf.shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(one, shapes)


def detector():
  """A method and what it knows."""
  method = methods.load('yolo')(**SMALL)
  spec = DataSpec({'image': jax.ShapeDtypeStruct((2, *SIZE, 3), np.uint8)}, CLASSES, (1, 1, 1))
  state = jax.eval_shape(lambda key: method.init(key, spec), jax.random.key(0))
  arrays = random_arrays({'params': state.params, 'state': state.model_state})
  return method, Fitted(arrays['params'], arrays['state'], classes=CLASSES)


def twin_of(method, fitted):
  return export.to_torch(*export.complete(method.deploy(fitted), image_size=SIZE))


def pictures(n, height, width, seed=0):
  """Noise upon coarse squares, uint8."""
  generator = np.random.default_rng(seed)
  coarse = generator.integers(0, 128, (n, -(-height // 8), -(-width // 8), 3))
  coarse = coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width]
  return (coarse + generator.integers(0, 128, coarse.shape)).astype(np.uint8)


def said(module, images):
  with torch.inference_mode():
    return Detections(*(x.numpy() for x in module(torch.from_numpy(images))))


def assert_alike(ours, theirs):
  ours, theirs = (Detections(*map(np.asarray, side)) for side in (ours, theirs))
  assert ours.valid.sum() > 3 * len(ours.valid)
  np.testing.assert_array_equal(theirs.valid, ours.valid)
  np.testing.assert_array_equal(theirs.labels, ours.labels)
  np.testing.assert_allclose(theirs.boxes, ours.boxes, rtol=0, atol=0.05)
  np.testing.assert_allclose(theirs.scores, ours.scores, rtol=0, atol=1e-4)
  found = parity.compare(ours, theirs)
  assert found.failure() is None
  assert found.equal == found.n


def test_boxes_are_ours_in_pixels_of_the_picture():
  method, fitted = detector()
  module = twin_of(method, fitted)
  images = pictures(3, 50, 100)
  fits = [letterbox(image, SIZE) for image in images]
  # Of a second batch every picture takes another part of the canvas.
  sizes = np.float32([[72, 30], [40, 90], [72, 90]])
  canvas = np.stack([fit.image for fit in fits])
  batch = {'image': canvas, 'size': sizes, 'valid': np.ones(3, bool)}
  predict = jax.jit(method.predict)

  ours = predict(fitted, {**batch, 'size': np.stack([fit.size for fit in fits])})
  assert_alike(ours._replace(boxes=ours.boxes / fits[0].scale), said(module, images))
  ours = predict(fitted, batch)
  with torch.inference_mode():
    theirs = module.inspect(torch.from_numpy(canvas), torch.from_numpy(sizes))
  assert_alike(ours, theirs)
  assert len(np.unique(np.asarray(ours.labels)[np.asarray(ours.valid)])) > 1


def test_onnx_says_the_same_of_any_batch_and_any_size(tmp_path):
  module = twin_of(*detector())
  described = {'format': onnx_file.FORMAT, 'outputs': module.outputs, 'classes': module.classes}
  to_onnx.write(tmp_path / 'model.onnx', module, described)
  model = onnx_file.OnnxModel(tmp_path / 'model.onnx', threads=1)
  for images in (pictures(3, 64, 80), pictures(1, 33, 150)):
    assert_alike(said(module, images), model(images))


def test_state_dict_has_the_names_of_the_parameters():
  keys = set(twin_of(*detector()).state_dict())
  assert 'backbone.stage2.blocks.1.conv2.0.weight' in keys
  assert 'neck.bottom_up.1.leave.1.running_var' in keys
  assert 'head.box.2.2.bias' in keys


def test_rejects_bad_arguments():
  method, fitted = detector()
  arguments = export.complete(method.deploy(fitted), image_size=SIZE).arguments
  with pytest.raises(ValueError, match="arguments do not fit the family 'yolo'"):
    twins.make('yolo', {**arguments, 'anchors': 3})
  arguments['width'] = 0.25
  with pytest.raises(ValueError, match="parameters do not fit the family 'yolo'"):
    export.to_torch('yolo', arguments, method.deploy(fitted)[2])
