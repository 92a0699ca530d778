"""The exported file holds the whole method, or is not there.

Shape legend: N images, K classes, M references, D embedding.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxdefect import models
from jaxdefect.contracts import ClassScores
from jaxdefect.convert import export, parity, torch_modules
from jaxdefect.ops import normalize_pixels

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_ARGUMENTS = {
  'backbone': 'resnet18',
  'stages': 2,
  'num_classes': 3,
  'classes': ['crazing', 'patches', 'scratches'],
  'image_size': [32, 32],
  'mean': list(_MEAN),
  'std': list(_STD),
}
_BATCHES = [
  {
    'image': np.random.default_rng(seed).integers(0, 256, (8, 32, 32, 3), np.uint8),
    'valid': np.arange(8) < valid,
  }
  for seed, valid in ((0, 8), (1, 5))
]


@pytest.fixture(scope='module')
def classifier():
  """(family, arguments, arrays) and our predict."""
  network = models.Recogniser(backbone=models.backbone('resnet18', stages=2), num_classes=3)
  variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))

  def predict(batch):
    logits = network.apply(variables, normalize_pixels(batch['image'], mean=_MEAN, std=_STD)).logits
    return ClassScores(logits, jax.nn.softmax(logits))

  return ('classifier', _ARGUMENTS, variables), jax.jit(predict)


@pytest.fixture(scope='module', params=['projection', 'features'])
def recogniser(request):
  """(family, arguments, arrays) and our predict, written from the formula."""
  network = models.Recogniser(backbone=models.backbone('resnet18', stages=2), projection=(16, 8))
  variables = jax.jit(network.init)(jax.random.key(1), jnp.zeros((1, 32, 32, 3)))
  size = 8 if request.param == 'projection' else 128
  references = np.random.default_rng(2).standard_normal((7, size)).astype(np.float32)
  references /= np.linalg.norm(references, axis=1, keepdims=True)
  labels = np.array([2, 0, 1, 1, 0, 0, 2], np.int32)
  arguments = {**_ARGUMENTS, 'projection': [16, 8], 'embedding': request.param, 'scale': 10.0}
  memory = {'embeddings': references, 'labels': labels, 'index': np.arange(7)}

  def predict(batch):
    x = normalize_pixels(batch['image'], mean=_MEAN, std=_STD)
    vectors = getattr(network.apply(variables, x), request.param)
    vectors = vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)
    scores = jnp.stack([(vectors @ references[labels == k].T).mean(1) for k in range(3)], axis=-1)
    return ClassScores(scores, jax.nn.softmax(10 * scores))

  return ('recogniser', arguments, {**variables, 'memory': memory}), jax.jit(predict)


def test_classifier_agrees_after_writing(tmp_path, classifier):
  deployed, predict = classifier
  export.write(tmp_path / 'a.pth', *deployed)
  result = parity.compare(predict, torch_modules.load(tmp_path / 'a.pth'), _BATCHES)
  assert result.largest < 1e-5
  assert (result.equal, result.n) == (13, 13)


def test_recogniser_agrees_after_writing(tmp_path, recogniser):
  deployed, predict = recogniser
  export.write(tmp_path / 'a.pth', *deployed)
  module = torch_modules.load(tmp_path / 'a.pth')
  result = parity.compare(predict, module, _BATCHES)
  assert result.largest < 1e-5
  assert (result.equal, result.n) == (13, 13)
  assert module.classes == ('crazing', 'patches', 'scratches')
  assert module.image_size == (32, 32)


def test_backbone_is_torchvision_shaped(tmp_path, recogniser):
  export.write(tmp_path / 'a.pth', *recogniser[0])
  state = torch.load(tmp_path / 'a.pth', weights_only=True)['state_dict']
  backbone = {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}
  torch_modules.ResNet(18, stages=2).load_state_dict(backbone, strict=True)


def test_runs_without_jax(tmp_path, recogniser, scores_without_jax):
  deployed, predict = recogniser
  export.write(tmp_path / 'a.pth', *deployed)
  scores = scores_without_jax(tmp_path / 'a.pth', _BATCHES[0]['image'])
  np.testing.assert_allclose(scores, predict(_BATCHES[0]).scores, rtol=0, atol=1e-5)


def test_nothing_is_left_when_the_check_fails(tmp_path, classifier):
  deployed, predict = classifier

  def check(module):
    with torch.no_grad():
      module.fc.bias += 1e-3
    return parity.compare(predict, module, _BATCHES)

  with pytest.raises(
    ValueError, match=r'differs from ours by 0\.001 on 13 images; at most 0\.0001'
  ):
    export.write(tmp_path / 'a.pth', *deployed, check=check)
  assert list(tmp_path.iterdir()) == []


def test_older_file_stays_when_the_check_fails(tmp_path, classifier):
  export.write(tmp_path / 'a.pth', *classifier[0])
  before = (tmp_path / 'a.pth').read_bytes()
  with pytest.raises(RuntimeError, match='no'):
    export.write(tmp_path / 'a.pth', *classifier[0], check=_refuse)
  assert (tmp_path / 'a.pth').read_bytes() == before
  assert len(list(tmp_path.iterdir())) == 1


def _refuse(module):
  raise RuntimeError('no')


def test_rejects_bad_memory(tmp_path, recogniser):
  family, arguments, arrays = recogniser[0]
  memory = arrays['memory']
  for changed, sentence in (
    (None, 'a recogniser without references cannot be exported: call adapt first'),
    ({**memory, 'labels': memory['labels'] * 0}, 'every one of the 3 classes needs a reference'),
    ({**memory, 'labels': memory['labels'][:2]}, r'came as \(7, .*\) and \(2,\)'),
    ({**memory, 'embeddings': memory['embeddings'][:, :5]}, "do not fit the family 'recogniser'"),
  ):
    with pytest.raises(ValueError, match=sentence):
      export.write(tmp_path / 'a.pth', family, arguments, {**arrays, 'memory': changed})
  assert list(tmp_path.iterdir()) == []


def test_rejects_another_architecture(tmp_path, classifier):
  family, arguments, arrays = classifier[0]
  with pytest.raises(
    ValueError, match="the parameters do not fit the family 'classifier'"
  ) as error:
    export.write(tmp_path / 'a.pth', family, {**arguments, 'stages': 3}, arrays)
  assert '\n' not in str(error.value)


def test_rejects_bad_place(tmp_path, classifier):
  with pytest.raises(ValueError, match=r'cannot write .*b/a\.pth: there is no folder'):
    export.write(tmp_path / 'b' / 'a.pth', *classifier[0])
  with pytest.raises(ValueError, match='it is a folder'):
    export.write(tmp_path, *classifier[0])


def test_load_rejects_what_is_no_export(tmp_path, classifier):
  path = tmp_path / 'a.pth'
  with pytest.raises(ValueError, match=r'exported model .*a\.pth does not exist'):
    torch_modules.load(path)
  path.write_bytes(b'')
  with pytest.raises(ValueError, match=r'a\.pth is not a readable PyTorch file'):
    torch_modules.load(path)
  torch.save({'state_dict': {}}, path)
  with pytest.raises(ValueError, match='is no exported model: it must hold arguments, family'):
    torch_modules.load(path)
  export.write(path, *classifier[0])
  holds = torch.load(path, weights_only=True)
  torch.save({**holds, 'version': 99}, path)
  with pytest.raises(ValueError, match='has format 99, this version reads 1'):
    torch_modules.load(path)
  holds['state_dict'].pop('fc.bias')
  torch.save(holds, path)
  with pytest.raises(ValueError, match=r'weights that do not fit its network: .*fc\.bias'):
    torch_modules.load(path)
