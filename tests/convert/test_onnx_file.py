"""A damaged, foreign or older file is refused with a sentence; a smaller one keeps its promise."""

import json

import numpy as np
import onnx
import pytest
import torch

from jaxdefect.convert import exported, onnx_file, onnx_precision, to_onnx, twins

CLASSES = ['crazing', 'patches', 'scratches']


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
  """(path, module) of a small classifier."""
  torch.manual_seed(0)
  settings = {'mean': [0.4] * 3, 'std': [0.2] * 3, 'image_size': [32, 32], 'classes': CLASSES}
  module = twins.make(
    'classifier', {'backbone': 'resnet10', 'width': 16, 'num_classes': 3, **settings}
  )
  module.fc.weight.mul_(20)  # logits that differ
  described = {
    'format': onnx_file.FORMAT,
    'outputs': list(module.outputs),
    'classes': list(module.classes),
  }
  path = tmp_path_factory.mktemp('onnx') / 'model.onnx'
  to_onnx.write(path, module, described)
  return path, module


def pictures(count, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (count, 40, 36, 3), np.uint8)


def test_it_says_what_the_twin_says(classifier):
  path, module = classifier
  images = pictures(3)
  for mine, other in zip(module(torch.from_numpy(images)), onnx_file.OnnxModel(path)(images)):
    np.testing.assert_allclose(other, mine, rtol=1e-4, atol=1e-5)


def test_a_damaged_file_is_refused(classifier, tmp_path):
  stored = classifier[0].read_bytes()
  path = tmp_path / 'a.onnx'

  def refuses(content, sentence):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as error:
      exported.open_model(path)
    assert '\n' not in str(error.value)

  refuses(b'', 'damaged, or no ONNX file of ours')
  refuses(stored[:-1000], 'damaged, or no ONNX file of ours')
  refuses(stored[: len(stored) // 2], 'damaged, or no ONNX file of ours')
  refuses(stored[:5000] + bytes([stored[5000] ^ 1]) + stored[5001:], 'sha256 differs')
  sealed = b'no graph' + stored[-86:]
  refuses(sealed, 'sha256 differs')
  onnx_file.write_sealed(path, b'no graph')
  refuses(path.read_bytes(), 'is not an ONNX file that can be run')
  with pytest.raises(ValueError, match=r'b\.onnx does not exist'):
    exported.open_model(tmp_path / 'b.onnx')


def test_another_version_or_another_tool_is_refused(classifier, tmp_path):
  path = tmp_path / 'a.onnx'
  model = onnx.load(classifier[0])
  told = next(one for one in model.metadata_props if one.key == onnx_file.KEY)
  told.value = json.dumps({**json.loads(told.value), 'format': 1})
  onnx_file.write_sealed(path, model.SerializeToString())
  with pytest.raises(ValueError, match='has format 1, this code reads 2: convert the run again'):
    exported.open_model(path)
  del model.metadata_props[:]
  onnx_file.write_sealed(path, model.SerializeToString())
  with pytest.raises(ValueError, match='is not an ONNX file that can be run'):
    exported.open_model(path)
  path.write_bytes(model.SerializeToString())  # an ordinary ONNX file
  with pytest.raises(ValueError, match='no ONNX file of ours'):
    exported.open_model(path)


@pytest.mark.parametrize(
  ('precision', 'smaller', 'apart'), [('float16', 0.62, 5e-3), ('int8', 0.5, 0.3)]
)
def test_a_smaller_file(classifier, tmp_path, precision, smaller, apart):
  path = tmp_path / 'a.onnx'
  path.write_bytes(classifier[0].read_bytes())
  onnx_precision.reduce(path, precision, pictures(8))
  assert path.stat().st_size < smaller * classifier[0].stat().st_size
  images = pictures(6, seed=1)
  before, after = (onnx_file.OnnxModel(one)(images)[0] for one in (classifier[0], path))
  assert 0 < np.abs(after - before).max() < apart * np.abs(before).max()
  assert exported.open_model(path).described['classes'] == CLASSES
  with pytest.raises(ValueError, match="precision is 'int4'; it can be float16, int8"):
    onnx_precision.reduce(path, 'int4', [])
