"""Faster R-CNN in PyTorch and ONNX: the same boxes, whatever the detector is made of."""

import importlib.util
import sys

import jax
import numpy as np
import pytest
import torch

from jaxdefect import methods
from jaxdefect.contracts import DataSpec, Detections, Fitted
from jaxdefect.convert import export, onnx_file, parity, to_onnx, twins
from jaxdefect.convert.twins import deform_conv, suppression
from jaxdefect.data.letterbox import letterbox

pytest.importorskip('jaxdefect.methods.faster_rcnn')

SIZE = (64, 80)
CLASSES = ('dent', 'hole', 'scratch')
SMALL = {
  **{'backbone': 'resnet10', 'stages': 2, 'width': 8, 'frozen_stages': 0, 'neck_channels': 8},
  **{'anchor_sizes': (8.0, 16.0, 32.0), 'head_width': 16, 'embedding': 8},
  **{'proposals_before': 60, 'proposals': 40, 'score_threshold': 0.1, 'max_detections': 30},
}
PLAIN = {}
LIGHT = {
  **{'neck': 'gs_fpn', 'box_head': 'gs', 'norm': 'group', 'classifier': 'prototype'},
  **{'deformable': 'v2', 'added': 1},
}
OTHER = {
  **{'backbone': 'resnet50', 'width': 4, 'neck': 'gs_fpn', 'first_stage': 2, 'extra_levels': 2},
  **{'deformable': 'v1', 'deformable_from': 1, 'classifier': 'prototype'},
  **{'background': 'prototype', 'anchor_ratios': (0.6, 1.0), 'proposals': 500},
}
# How far the layers reach whose answers decide: about as far as those of a trained detector.
GAINS = {'cls_logits': 2.0, 'bbox_pred': 0.5, 'offset': 0.2, 'cls_score': 4.0}


def random_arrays(shapes, seed=0):
  """Numbers for a tree of shapes, so that proposals differ and detections are sure of something."""
  generator = np.random.default_rng(seed)

  def one(path, leaf):
    *_, name, last = (part.key for part in path)
    spread = {'scale': (0.7, 1.3), 'var': (0.5, 1.5)}
    if last in spread:
      return generator.uniform(*spread[last], leaf.shape).astype(np.float32)
    size = 0.3
    if last == 'kernel':
      size = GAINS.get(name, 1.2) / np.sqrt(np.prod(leaf.shape[:-1]))
    return generator.normal(0, size, leaf.shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(one, shapes)


def detector(*, added=0, **settings):
  """A method and what it knows, with so many classes added by discriminants."""
  method = methods.load('faster_rcnn')(**{**SMALL, **settings})
  shapes = {'image': jax.ShapeDtypeStruct((2, *SIZE, 3), np.uint8)}
  spec = DataSpec(shapes, CLASSES, (1, 1, 1))
  state = jax.eval_shape(lambda key: method.init(key, spec), jax.random.key(0))
  known = dict(state.model_state)
  if added:
    known['discriminants'] = jax.ShapeDtypeStruct((added, SMALL['embedding'] + 1), np.float32)
  arrays = random_arrays({'params': state.params, 'state': known})
  classes = CLASSES + ('new',) * added
  fitted = Fitted(arrays['params'], arrays['state'], classes=classes)
  if 'prototypes' in known:
    _spread_prototypes(method, fitted)
  return method, fitted


def _spread_prototypes(method, fitted):
  """Embeddings of a random head all but coincide: takes their mean out, and some as prototypes."""
  seen = []
  module = twin_of(method, fitted)
  module.predictor.embedding.register_forward_hook(lambda *call: seen.append(call[-1].numpy()))
  said(module, pictures(1, *SIZE))
  vectors = seen[0][:20]  # the best proposals, padding comes last
  fitted.params['predictor']['embedding']['bias'] -= vectors.mean(0)
  state = fitted.model_state
  state['prototypes'][:] = (vectors - vectors.mean(0))[: len(state['prototypes'])]
  if 'discriminants' in state:
    state['discriminants'] *= 10
    state['discriminants'][:, -1] = -1


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


def assert_alike(ours, theirs, *, boxes=0.05, scores=1e-4):
  ours, theirs = (Detections(*map(np.asarray, side)) for side in (ours, theirs))
  assert ours.valid.sum() > len(ours.valid)
  np.testing.assert_array_equal(theirs.valid, ours.valid)
  np.testing.assert_array_equal(theirs.labels, ours.labels)
  np.testing.assert_allclose(theirs.boxes, ours.boxes, rtol=0, atol=boxes)
  np.testing.assert_allclose(theirs.scores, ours.scores, rtol=0, atol=scores)
  found = parity.compare(ours, theirs)
  assert found.failure() is None
  assert found.equal == found.n


@pytest.mark.parametrize('settings', [PLAIN, LIGHT, OTHER], ids=['plain', 'light', 'other'])
def test_boxes_are_ours_in_pixels_of_the_picture(settings):
  method, fitted = detector(**settings)
  module = twin_of(method, fitted)
  images = pictures(3, 50, 90)
  fits = [letterbox(image, SIZE) for image in images]
  # Of a second batch every picture takes another part of the canvas.
  sizes = np.float32([[64, 30], [40, 80], [64, 80]])
  canvas = np.stack([fit.image for fit in fits])
  batch = {'image': canvas, 'size': sizes, 'valid': np.ones(3, bool)}
  predict = jax.jit(method.predict).lower(fitted, batch)
  predict = predict.compile({'xla_backend_optimization_level': 0})  # it runs but twice

  ours = predict(fitted, {**batch, 'size': np.stack([fit.size for fit in fits])})
  assert_alike(ours._replace(boxes=ours.boxes / fits[0].scale), said(module, images))
  ours = predict(fitted, batch)
  with torch.inference_mode():
    theirs = module.inspect(torch.from_numpy(canvas), torch.from_numpy(sizes))
  assert_alike(ours, theirs)
  assert len(np.unique(ours.labels[ours.valid])) > 1


def test_onnx_says_the_same_of_any_batch_and_any_size(tmp_path):
  module = twin_of(*detector(**LIGHT))
  described = {'format': onnx_file.FORMAT, 'outputs': module.outputs, 'classes': module.classes}
  to_onnx.write(tmp_path / 'model.onnx', module, described)
  model = onnx_file.OnnxModel(tmp_path / 'model.onnx', threads=1)
  for images in (pictures(3, 64, 80), pictures(1, 33, 150)):
    assert_alike(said(module, images), model(images))


def test_torch_export_keeps_the_batch_open():
  module = twin_of(*detector(stages=1, anchor_sizes=(8.0, 16.0)))
  images = pictures(3, 48, 48)
  batch = ({0: torch.export.Dim('batch')},)
  program = torch.export.export(module, (torch.from_numpy(images[:2]),), dynamic_shapes=batch)
  assert_alike(said(module, images), said(program.module(), images), boxes=1e-3)


def greedy(boxes, valid, threshold):
  """One class after the other, box by box."""
  kept = np.zeros_like(valid)
  for row in range(len(valid)):
    chosen = []
    for place in np.flatnonzero(valid[row]):
      low = np.maximum(boxes[chosen, :2], boxes[place, :2])
      high = np.minimum(boxes[chosen, 2:], boxes[place, 2:])
      shared = (high - low).clip(0).prod(-1)
      sizes = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
      if not (shared > threshold * (sizes[chosen] + sizes[place] - shared)).any():
        chosen.append(place)
    kept[row, chosen] = True
  return kept


def test_suppression_is_greedy_within_a_class():
  generator = np.random.default_rng(0)
  corner = generator.integers(0, 12, (2, 60, 2))
  boxes = np.concatenate([corner, corner + generator.integers(0, 9, corner.shape)], -1)
  boxes = boxes.astype(np.float32)  # whole numbers: many meet the threshold exactly
  boxes[:, 30:40] = boxes[:, :10]
  own = np.arange(3)[:, None] == generator.integers(0, 4, (2, 1, 60))  # the fourth counts nowhere
  kept = suppression.suppressed(torch.from_numpy(boxes), torch.from_numpy(own), 0.5).numpy()
  expected = np.stack([greedy(*pair, 0.5) for pair in zip(boxes, own)])
  assert own.sum() > expected.sum() > 20
  np.testing.assert_array_equal(kept, expected)


def test_two_exported_files_live_in_one_process(tmp_path):
  method, fitted = detector(**LIGHT)
  images = pictures(1, 40, 70)
  answers = []
  for name in ('one', 'other'):
    export.write(tmp_path / name, *export.complete(method.deploy(fitted), image_size=SIZE))
    spec = importlib.util.spec_from_file_location(f'model_{name}', tmp_path / name / 'model.py')
    assert spec is not None
    assert spec.loader is not None
    file = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(file)
    answers.append(said(file.load(tmp_path / name), images))
  assert_alike(said(twin_of(method, fitted), images), answers[0], boxes=0, scores=0)
  assert_alike(*answers, boxes=0, scores=0)


def test_deformable_convolution_starts_as_the_plain_one():
  layer = deform_conv.DeformConv(4, 6, 3, 2, version='v2')
  x = torch.randn(2, 4, 11, 8, generator=torch.Generator().manual_seed(0))
  with torch.inference_mode():
    plain = torch.nn.functional.conv2d(x, layer.weight, stride=2, padding=1)
    torch.testing.assert_close(layer(x), plain, rtol=1e-4, atol=1e-5)
    layer.offset.bias[:18:2] = 1.0  # a row down
    torch.testing.assert_close(
      layer(x)[:, :, :-1], torch.nn.functional.conv2d(
        torch.nn.functional.pad(x, (1, 1, 0, 0)), layer.weight, stride=2
      )[:, :, : layer(x).shape[2] - 1], rtol=1e-4, atol=1e-5
    )  # fmt: skip


def test_torchvision_is_not_needed(monkeypatch):
  find = deform_conv._torchvision_operator.__wrapped__
  monkeypatch.setitem(sys.modules, 'torchvision.ops', None)
  assert find() is None


@pytest.mark.parametrize(
  ('change', 'sentence'),
  [
    ({'neck': 'pan'}, "neck is 'pan'; it can be fpn, gs_fpn"),
    ({'norm': 'layer'}, "norm is 'layer'; it can be batch, group"),
    ({'deformable': 'v3'}, "deformable must be 'v1', 'v2' or None, got 'v3'"),
    ({'anchor_sizes': [8]}, 'anchor_sizes has 1 entries for 3 maps'),
    ({'classifier': 'prototype'}, "'prototype' without prototypes"),
    ({'backbone': 'mobilenet_v2', 'deformable': 'v1'}, 'arguments do not fit'),
  ],
)
def test_rejects_bad_arguments(change, sentence):
  method, fitted = detector()
  arguments = export.complete(method.deploy(fitted), image_size=SIZE).arguments
  with pytest.raises(ValueError, match=sentence):
    twins.make('faster_rcnn', {**arguments, **change})


def test_pictures_reach_the_network_letterboxed():
  method, fitted = detector()
  module = twin_of(method, fitted)
  for height, width in ((30, 90), (120, 50), SIZE):
    picture = pictures(1, height, width)[0]
    canvas = module.resized(torch.from_numpy(picture)[None])[0]
    np.testing.assert_array_equal(canvas, letterbox(picture, SIZE).image)
