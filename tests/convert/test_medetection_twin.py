"""MeDetection carried to PyTorch, its reference images with it, says the same.

Shape legend: N images, R references, H x W pixels.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxdefect import models
from jaxdefect.contracts import ClassScores
from jaxdefect.convert import export, twins
from jaxdefect.ops import normalize_pixels

_PIXELS = {'mean': [0.485, 0.456, 0.406], 'std': [0.229, 0.224, 0.225]}
_SMALL = {
  **{'stem_channels': [4, 6], 'stem_strides': [2, 1], 'width': 6, 'blocks': 2, 'reduction': 2},
}
_SIZE = (20, 16)
_BATCHES = [
  {
    'image': np.random.default_rng(seed).integers(0, 256, (4, *_SIZE, 3), np.uint8),
    'valid': np.arange(4) < valid,
  }
  for seed, valid in ((0, 4), (1, 3))
]
_REFERENCES = np.random.default_rng(2).integers(0, 256, (3, *_SIZE, 3), np.uint8)


def deployed(size=_SIZE, gain=2.0, **settings):
  """What ``deploy`` of a method would return, with random weights, and its ``predict``."""
  network = models.medetection(**settings)
  batches = _REFERENCES[:, : size[0], : size[1]]
  blank = jnp.zeros((1, *size, 3))
  shapes = jax.eval_shape(network.init, jax.random.key(0), blank, blank)
  random = np.random.default_rng(3)
  variables = jax.tree_util.tree_map_with_path(
    lambda path, leaf: np.asarray(
      random.uniform(0.5, 1.5, leaf.shape)
      if path[-1].key in ('var', 'scale')
      else gain * random.normal(size=leaf.shape) / np.sqrt(leaf.size // leaf.shape[-1]),
      leaf.dtype,
    ),
    shapes,
  )

  def predict(batch):
    outputs = network.apply(
      variables,
      normalize_pixels(batch['image'][:, : size[0], : size[1]], **_PIXELS),
      normalize_pixels(batches, **_PIXELS),
    )
    scores = jnp.stack([-outputs.logit, outputs.logit], -1) / 2
    p = jax.nn.sigmoid(outputs.logit)
    return ClassScores(scores, jnp.stack([1 - p, p], -1))

  arguments = {**settings, **_PIXELS, 'classes': ['good', 'defect'], 'image_size': list(size)}
  return ('medetection', arguments, {**variables, 'memory': {'references': batches}}), jax.jit(
    predict
  )


@pytest.mark.parametrize(
  'settings',
  [
    {**_SMALL},
    {**_SMALL, 'attention': 'multiple', 'nearest': 2},
    {**_SMALL, 'attention': 'high', 'pool': 'mean'},
    {**_SMALL, 'attention': None, 'siamese': False},
    {**_SMALL, 'norm': 'group'},
  ],
  ids=['low', 'multiple, nearest', 'high, mean', 'one stream', 'group norm'],
)
def test_agrees_after_writing(tmp_path, compared, settings):
  family, predict = deployed(**settings)
  export.write(tmp_path / 'a', *family)
  module = twins.load(tmp_path / 'a')
  result = compared(predict, module, _BATCHES)
  assert result.largest < 1e-4
  assert (result.equal, result.n) == (7, 7)
  scores = np.asarray(predict(_BATCHES[0]).scores)
  assert np.ptp(scores[:, 0]) > 1e-3  # the images are told apart
  assert module.classes == ('good', 'defect')
  assert module.image_size == _SIZE


def test_published_stack_agrees(compared):
  family, predict = deployed(size=(16, 16), gain=1.0, stem='vgg', width=4, blocks=2)
  batches = [{**b, 'image': b['image'][:, :16, :16]} for b in _BATCHES]
  result = compared(predict, export.to_torch(*family), batches)
  assert result.largest < 1e-4
  assert result.equal == 7


def test_default_network_agrees(compared):
  # Sixteen pixels at stride 1 are what four blocks need.
  family, predict = deployed(size=(16, 16), stem_strides=(1, 1))
  batches = [{**b, 'image': b['image'][:, :16, :16]} for b in _BATCHES]
  assert compared(predict, export.to_torch(*family), batches).largest < 1e-4


def test_published_number_of_parameters():
  with torch.device('meta'):
    module = twins.make(
      'medetection',
      {**_PIXELS, 'stem': 'vgg', 'memory': {'references': ('uint8', [1, 256, 256, 3])}},
    )
  assert sum(p.numel() for p in module.parameters()) == 1_838_641


def test_references_are_part_of_the_model(tmp_path):
  (family, arguments, arrays), _ = deployed(**_SMALL)
  export.write(tmp_path / 'a', family, arguments, arrays)
  module = twins.load(tmp_path / 'a')
  np.testing.assert_array_equal(module.references, _REFERENCES)
  image = torch.from_numpy(_BATCHES[0]['image'])
  with torch.inference_mode():
    before = module.logit(image)
    # In any order they say the same; others say something else.
    module.references.copy_(torch.from_numpy(_REFERENCES[::-1].copy()))
    torch.testing.assert_close(module.logit(image), before, rtol=1e-4, atol=1e-5)
    module.references.copy_(255 - torch.from_numpy(_REFERENCES))
    assert (module.logit(image) - before).abs().max() > 1e-3


def test_scores_by_hand():
  module = export.to_torch(*deployed(**_SMALL)[0])
  image = torch.from_numpy(_BATCHES[0]['image'])
  with torch.inference_mode():
    z = module.logit(image)
    scores, probabilities = module(image)
  torch.testing.assert_close(scores, torch.stack([-z / 2, z / 2], -1))
  torch.testing.assert_close(probabilities, torch.stack([1 - z.sigmoid(), z.sigmoid()], -1))


def test_an_image_that_equals_its_references_shows_nothing():
  module = export.to_torch(*deployed(**_SMALL, nearest=1)[0])
  with torch.inference_mode():
    images = module.references
    features = module.stem(module.normalised(images))
    assert module._difference(features, features).abs().max() < 1e-5


def test_runs_without_jax(tmp_path, scores_without_jax):
  family, predict = deployed(**_SMALL)
  export.write(tmp_path / 'a', *family)
  scores = scores_without_jax(tmp_path / 'a', _BATCHES[0]['image'])
  np.testing.assert_allclose(scores, predict(_BATCHES[0]).scores, rtol=0, atol=1e-4)


def test_image_size_follows_from_the_references():
  (family, arguments, arrays), _ = deployed(**_SMALL)
  del arguments['image_size']
  module = export.to_torch(family, arguments, arrays)
  assert module.image_size == _SIZE


@pytest.mark.parametrize(
  ('references', 'sentence'),
  [
    (
      _REFERENCES / 255,
      r'references must be uint8 \[R, H, W, 3\], came as torch.float64 \[3',
    ),
    (_REFERENCES[0], r'came as torch.uint8 \[20, 16, 3\]'),
    (_REFERENCES[:, :16], 'references are 16 x 16 pixels, image_size is 20 x 16'),
    (_REFERENCES[:0], 'references is empty; there must be one'),
  ],
)
def test_rejects_bad_references(tmp_path, references, sentence):
  (family, arguments, arrays), _ = deployed(**_SMALL)
  with pytest.raises(ValueError, match=sentence):
    export.write(
      tmp_path / 'a', family, arguments, {**arrays, 'memory': {'references': references}}
    )
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ('changed', 'sentence'),
  [
    ({'stem': 'resnet'}, "stem 'resnet' must be one of conv, vgg"),
    ({'attention': 'middle'}, "attention 'middle' must be one of None, low, high, multiple"),
    ({'pool': 'max'}, "pool 'max' must be one of pyramid, mean"),
    ({'norm': 'layer'}, "norm 'layer' must be one of batch, group"),
    ({'nearest': 0}, 'nearest is 0; it must be at least 1'),
    ({'stem_strides': [2]}, 'stem_channels has 2 entries, stem_strides 1'),
    ({'classes': ['good']}, 'classes has 1 names'),
    ({'colour': 1}, "do not fit the family 'medetection'.*colour"),
    ({'width': 8}, "the parameters do not fit the family 'medetection'"),
  ],
)
def test_rejects_bad_arguments(changed, sentence):
  (family, arguments, arrays), _ = deployed(**_SMALL)
  with pytest.raises(ValueError, match=sentence) as error:
    export.to_torch(family, {**arguments, **changed}, arrays)
  assert '\n' not in str(error.value)
