"""The exported file holds the whole method, or is not there.

Shape legend: N images, K classes, M references, D embedding.
"""

import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch

from jaxdefect import models
from jaxdefect.contracts import ClassScores
from jaxdefect.convert import export, onnx_file, standalone, twins, weights_from_torch
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
  memory = {'references': references, 'reference_labels': labels.astype(np.int64)}

  def predict(batch):
    x = normalize_pixels(batch['image'], mean=_MEAN, std=_STD)
    vectors = getattr(network.apply(variables, x), request.param)
    vectors = vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)
    scores = jnp.stack([(vectors @ references[labels == k].T).mean(1) for k in range(3)], axis=-1)
    return ClassScores(scores, jax.nn.softmax(10 * scores))

  return ('recogniser', arguments, {**variables, 'memory': memory}), jax.jit(predict)


def test_classifier_agrees_after_writing(tmp_path, classifier, compared):
  deployed, predict = classifier
  export.write(tmp_path / 'a', *deployed)
  result = compared(predict, twins.load(tmp_path / 'a'), _BATCHES)
  assert result.largest < 1e-5
  assert (result.equal, result.n) == (13, 13)


def test_recogniser_agrees_after_writing(tmp_path, recogniser, compared):
  deployed, predict = recogniser
  export.write(tmp_path / 'a', *deployed)
  module = twins.load(tmp_path / 'a')
  result = compared(predict, twins.load(tmp_path / 'a'), _BATCHES)
  assert result.largest < 1e-5
  assert (result.equal, result.n) == (13, 13)
  assert module.classes == ('crazing', 'patches', 'scratches')
  assert module.image_size == (32, 32)


def test_backbone_is_torchvision_shaped(tmp_path, recogniser):
  export.write(tmp_path / 'a', *recogniser[0])
  state = safetensors.torch.load_file(tmp_path / 'a' / 'model.safetensors')
  backbone = {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}
  twins.ResNet(18, stages=2).load_state_dict(backbone, strict=True)


def test_runs_without_jax(tmp_path, recogniser, scores_without_jax):
  deployed, predict = recogniser
  export.write(tmp_path / 'a', *deployed)
  scores = scores_without_jax(tmp_path / 'a', _BATCHES[0]['image'])
  np.testing.assert_allclose(scores, predict(_BATCHES[0]).scores, rtol=0, atol=1e-5)


def test_the_folder_says_what_it_is(tmp_path, recogniser):
  export.write(tmp_path / 'a', *recogniser[0], details={'method': 'contrastive_margin'})
  told = json.loads((tmp_path / 'a' / 'model.json').read_text())
  assert told['format'] == twins.FORMAT == onnx_file.FORMAT
  assert told['method'] == 'contrastive_margin'
  assert told['outputs'] == ['scores', 'probabilities', 'evidence']
  assert told['arguments']['memory']['reference_labels'] == ['int64', [7]]
  names = {path.name for path in (tmp_path / 'a').iterdir()}
  assert names == {'model.py', 'model.json', 'model.safetensors', 'example.py'}


def test_nothing_is_left_when_the_check_fails(tmp_path, classifier):
  with pytest.raises(RuntimeError, match='no'):
    export.write(tmp_path / 'a', *classifier[0], add=_refuse)
  assert list(tmp_path.iterdir()) == []


def test_an_older_export_stays_when_the_check_fails(tmp_path, classifier):
  export.write(tmp_path / 'a', *classifier[0])
  before = {path.name: path.read_bytes() for path in (tmp_path / 'a').iterdir()}
  with pytest.raises(RuntimeError, match='no'):
    export.write(tmp_path / 'a', *classifier[0], add=_refuse)
  assert {path.name: path.read_bytes() for path in (tmp_path / 'a').iterdir()} == before
  assert len(list(tmp_path.iterdir())) == 1


def _refuse(folder, module, described):
  (folder / 'more').write_text('')
  raise RuntimeError('no')


def test_rejects_missing_or_unfit_memory(tmp_path, recogniser):
  family, arguments, arrays = recogniser[0]
  memory = arrays['memory']
  for changed, sentence in (
    (None, 'Recogniser without references predicts nothing: adapt first'),
    ({'references': memory['references']}, 'Recogniser without reference_labels'),
  ):
    with pytest.raises(ValueError, match=sentence):
      export.write(tmp_path / 'a', family, arguments, {**arrays, 'memory': changed})
  assert list(tmp_path.iterdir()) == []


def test_rejects_another_architecture(tmp_path, classifier):
  family, arguments, arrays = classifier[0]
  with pytest.raises(
    ValueError, match="the parameters do not fit the family 'classifier'"
  ) as error:
    export.write(tmp_path / 'a', family, {**arguments, 'stages': 3}, arrays)
  assert '\n' not in str(error.value)


def test_rejects_bad_place(tmp_path, classifier):
  with pytest.raises(ValueError, match=r'cannot write .*b/a: there is no folder'):
    export.write(tmp_path / 'b' / 'a', *classifier[0])
  with pytest.raises(ValueError, match='it is there already, and is no exported model'):
    export.write(tmp_path, *classifier[0])


def test_load_rejects_what_is_no_export(tmp_path, classifier):
  folder = tmp_path / 'a'
  with pytest.raises(ValueError, match=r'a holds no exported model: there is no model\.json'):
    twins.load(folder)
  export.write(folder, *classifier[0])
  description, weights = folder / 'model.json', folder / 'model.safetensors'
  told, stored = json.loads(description.read_text()), weights.read_bytes()

  def refuses(sentence, **changes):
    description.write_text(json.dumps({**told, **changes}))
    with pytest.raises(ValueError, match=sentence) as error:
      twins.load(folder)
    assert '\n' not in str(error.value)

  refuses('has format 1, this code reads 2: convert the run again', format=1)
  refuses("describes the family 'detector'; this code has", family='detector')
  other = {**told['arguments'], 'stages': 3}
  refuses('holds weights that do not fit its network', arguments=other)
  refuses('do not fit the family', arguments={**told['arguments'], 'colour': 1})
  description.write_text('{')
  with pytest.raises(ValueError, match='is not the description of an exported model'):
    twins.load(folder)
  description.write_text(json.dumps({'format': twins.FORMAT}))
  with pytest.raises(ValueError, match="lacks 'family'"):
    twins.load(folder)
  for damaged in (stored[:-100], stored[:9000] + b'?' + stored[9001:]):
    weights.write_bytes(damaged)
    refuses(r'model\.safetensors is damaged: it is not the file that was exported')
  weights.unlink()
  refuses(r'the weights .*model\.safetensors do not exist')


def test_code_or_weights_of_another_model_are_refused(tmp_path, classifier, recogniser):
  for name, deployed in (('a', classifier[0]), ('b', recogniser[0])):
    export.write(tmp_path / name, *deployed)
  shutil.copy(tmp_path / 'a' / 'model.json', tmp_path / 'b' / 'model.json')
  with pytest.raises(ValueError, match='is damaged'):
    twins.load(tmp_path / 'b')
  references = {'references': ('uint8', [1, 32, 32, 3])}
  other = twins.make('medetection', {'mean': _MEAN, 'std': _STD, 'memory': references})
  (tmp_path / 'a' / 'model.py').write_text(standalone.source(other))
  code = 'import model\ntry: model.load(".")\nexcept ValueError as error: print(error)'
  command = [sys.executable, '-c', code]
  run = subprocess.run(command, cwd=tmp_path / 'a', capture_output=True, text=True, check=False)
  assert "describes the family 'classifier'; this code has medetection" in run.stdout, run.stderr


def test_an_export_comes_back(tmp_path, recogniser):
  family, arguments, arrays = recogniser[0]
  export.write(tmp_path / 'a', family, arguments, arrays)
  loaded = weights_from_torch.load_exported(tmp_path / 'a', backbone='resnet18', stages=2)
  ours = {name: arrays[name]['backbone'] for name in ('params', 'batch_stats')}
  assert jax.tree.structure(loaded.variables) == jax.tree.structure(jax.tree.map(np.asarray, ours))
  jax.tree.map(np.testing.assert_array_equal, loaded.variables, ours)
  with pytest.raises(ValueError, match=r'model\.safetensors'):
    weights_from_torch.load_exported(tmp_path / 'a', backbone='mobilenet_v2')
  with pytest.raises(ValueError, match='holds no exported weights'):
    weights_from_torch.load_exported(tmp_path, backbone='resnet18')
