"""The same weights in PyTorch and here give the same numbers.

Shape legend: N images, K classes, M references.
"""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch

import jaxdefect
from jaxdefect import models
from jaxdefect.convert import torch_params, twins, weights_from_torch

_ARGUMENTS = {
  'backbone': 'resnet18',
  'stages': 1,
  'num_classes': 3,
  'mean': [0.485, 0.456, 0.406],
  'std': [0.229, 0.224, 0.225],
}


@pytest.mark.parametrize(
  ('module', 'keys', 'parameters'),
  [
    # torchvision's own counts for 1000 classes.
    (lambda: twins.ResNet(18, num_classes=1000), 122, 11_689_512),
    (lambda: twins.ResNet(34, num_classes=1000), 218, 21_797_672),
    (lambda: twins.ResNet(50, num_classes=1000), 320, 25_557_032),
    (lambda: twins.ResNet(101, num_classes=1000), 626, 44_549_160),
    (lambda: twins.MobileNetV2(num_classes=1000), 314, 3_504_872),
  ],
)
def test_is_torchvision_shaped(module, keys, parameters):
  with torch.device('meta'):
    made = module()
  assert len(made.state_dict()) == keys
  assert sum(p.numel() for p in made.parameters()) == parameters


def _compare_maps(twin, module, variables):
  x = np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)
  with torch.inference_mode():
    theirs = [
      m.permute(0, 2, 3, 1).numpy() for m in twin.maps(torch.from_numpy(x).permute(0, 3, 1, 2))
    ]
  ours = jax.jit(module.apply)(variables, x)
  assert len(ours) == len(theirs) == 4
  for mine, other in zip(ours, theirs, strict=True):
    assert other.std() > 0.1
    np.testing.assert_allclose(mine, other, rtol=0, atol=1e-4 * max(1.0, np.abs(other).max()))
  return x, models.global_average_pool(ours[-1])


@pytest.mark.parametrize('name', ['resnet18', 'resnet50', 'mobilenet_v2'])
def test_same_state_dict_gives_the_same_logits(tmp_path, randomise, name):
  if name == 'mobilenet_v2':
    twin = twins.MobileNetV2(num_classes=10)
  else:
    twin = twins.ResNet(int(name.removeprefix('resnet')), num_classes=10)
  randomise(twin)
  torch.save(twin.state_dict(), tmp_path / 'a.pth')
  loaded = weights_from_torch.load(tmp_path / 'a.pth', backbone=name)
  x, features = _compare_maps(twin, models.backbone(name), loaded.variables)
  assert loaded.head is not None
  logits = np.asarray(features) @ loaded.head['kernel'] + loaded.head['bias']
  with torch.inference_mode():
    theirs = twin(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
  assert theirs.std() > 0.5
  print(name, np.abs(logits - theirs).max(), np.abs(theirs).max())
  np.testing.assert_allclose(logits, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
  ('name', 'prefix'),
  [('resnet50_v2', 'resnetv20_'), ('mobilenet_v2_gluon', 'mobilenetv20_features_')],
)
def test_same_gluon_file_gives_the_same_maps(tmp_path, randomise, gluon_state, name, prefix):
  twin = randomise(twins.backbone(name))
  safetensors.numpy.save_file(gluon_state(twin, prefix), tmp_path / 'a.safetensors')
  loaded = weights_from_torch.load(tmp_path / 'a.safetensors', backbone=name)
  _compare_maps(twin, models.backbone(name), loaded.variables)


def test_truncated_twin_gives_the_first_maps(randomise):
  x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
  for name in ('resnet18', 'mobilenet_v2', 'resnet50_v2', 'mobilenet_v2_gluon', 'efficientnet_b0'):
    whole, part = twins.backbone(name).eval(), twins.backbone(name, stages=2).eval()
    state = whole.state_dict()
    part.load_state_dict({key: state[key] for key in part.state_dict()})
    with torch.inference_mode():
      for mine, other in zip(part.maps(x), whole.maps(x)[:2], strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


def test_recogniser_value_by_hand(randomise):
  module = twins.make(
    'recogniser',
    {
      **_ARGUMENTS,
      **{'projection': [8, 2], 'scale': 2.0, 'num_classes': 2},
      'memory': {'references': ('float32', [4, 2]), 'reference_labels': ('int64', [4])},
    },
  )
  randomise(module)
  angles = torch.tensor([0.0, 1.0, 2.0, 3.0])
  module.references.copy_(torch.stack([angles.cos(), angles.sin()], -1))
  module.reference_labels.copy_(torch.tensor([0, 1, 0, 0]))
  images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
  with torch.inference_mode():
    embedding = module.embed(images.float())
    scores, probabilities, _ = module(images)
  theta = torch.atan2(embedding[:, 1], embedding[:, 0])
  expected = torch.stack(
    [
      (torch.cos(theta) + torch.cos(theta - 2) + torch.cos(theta - 3)) / 3,
      torch.cos(theta - 1),
    ],
    -1,
  )
  torch.testing.assert_close(scores, expected)
  torch.testing.assert_close(
    probabilities, torch.exp(2 * expected) / torch.exp(2 * expected).sum(-1, keepdim=True)
  )


def test_pixels_are_normalised(randomise):
  module = randomise(twins.make('classifier', _ARGUMENTS))
  image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
  x = (image / 255.0 - _ARGUMENTS['mean']) / _ARGUMENTS['std']
  with torch.inference_mode():
    logits = module.fc(module.backbone(torch.from_numpy(x).float().permute(0, 3, 1, 2)))
    torch.testing.assert_close(module(torch.from_numpy(image))[0], logits)


_MEMORY = {'references': ('float32', [2, 2]), 'reference_labels': ('int64', [2])}


@pytest.mark.parametrize(
  ('family', 'arguments', 'sentence'),
  [
    ('detector', {}, "family 'detector' must be one of .*classifier, "),
    ('classifier', {'backbone': 'vgg'}, "backbone 'vgg' must be one of .*resnet10"),
    ('classifier', {'stages': 5}, 'stages must be 1, 2, 3, 4 or None'),
    ('classifier', {'classes': ['a']}, 'classes has 1 names, num_classes is 3'),
    ('classifier', {'colour': 1}, "do not fit the family 'classifier'.*colour"),
    ('recogniser', {}, 'Recogniser without references predicts nothing'),
    ('recogniser', {'memory': _MEMORY}, "'projection' needs the sizes"),
    ('recogniser', {'memory': _MEMORY, 'embedding': 'map'}, "got 'map'"),
  ],
)
def test_rejects_bad_arguments(family, arguments, sentence):
  with pytest.raises(ValueError, match=sentence):
    twins.make(family, {**_ARGUMENTS, **arguments})


def test_rejects_bad_images():
  module = twins.make('classifier', {**_ARGUMENTS, 'image_size': [32, 48]})
  with torch.inference_mode():
    module(torch.zeros(1, 32, 48, 3, dtype=torch.uint8))
    with pytest.raises(
      ValueError, match=r'images must be \[N, H, W, 3\], came as \[1, 3, 32, 48\]'
    ):
      module(torch.zeros(1, 3, 32, 48, dtype=torch.uint8))
    module(torch.zeros(1, 48, 32, 3, dtype=torch.uint8))  # any size


def test_imports_without_jax():
  code = """
import sys
for name in ('jax', 'jaxlib', 'flax', 'optax', 'safetensors'):
  sys.modules[name] = None
from jaxdefect.convert import twins
twins.backbone('resnet18', stages=1)
assert not any(name.startswith('jaxdefect.models') for name in sys.modules)
"""
  _run(code)


def _run(code, *arguments):
  root = str(pathlib.Path(jaxdefect.__file__).parent.parent)
  command = [sys.executable, '-W', 'error', '-c', code, *arguments]
  subprocess.run(command, check=True, env={'PYTHONPATH': root}, timeout=120)


def test_round_trip_through_our_trees_is_bit_exact(randomise):
  twin = randomise(twins.ResNet(18))
  state = {
    k: v.numpy() for k, v in twin.state_dict().items() if not k.endswith('num_batches_tracked')
  }
  module = models.backbone('resnet18')
  blank = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
  template = jax.eval_shape(module.init, jax.random.key(0), blank)
  back = torch_params.to_state_dict(torch_params.from_state_dict(template, state))
  assert back.keys() == state.keys()
  assert all(np.array_equal(back[key], state[key]) for key in state)


@pytest.mark.parametrize('family', ['classifier', 'projection', 'features'])
def test_evidence_is_grad_cam(family, randomise):
  pooled = twins.backbone(_ARGUMENTS['backbone'], stages=_ARGUMENTS.get('stages')).num_features
  memory = {'references': ('float32', [5, 2 if family == 'projection' else pooled])}
  if family == 'classifier':
    module = twins.make('classifier', {**_ARGUMENTS, 'num_classes': 3})
  else:
    memory['reference_labels'] = ('int64', [5])
    module = twins.make(
      'recogniser',
      {**_ARGUMENTS, 'projection': [8, 2], 'embedding': family, 'scale': 2.0, 'memory': memory},
    )
    torch.manual_seed(3)
    module.references.copy_(torch.nn.functional.normalize(torch.randn(memory['references'][1])))
    module.reference_labels.copy_(torch.tensor([0, 1, 2, 1, 0]))
  randomise(module)
  images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
  scores, _, evidence = module(images)
  # The same by autograd: the map is a leaf, and the lead of the named class is differentiated.
  places = module.places(module.resized(images)).clone().requires_grad_()
  module.places = lambda pixels: places
  again = module.inspect(images)[0]
  torch.testing.assert_close(again.detach(), scores)
  named = again.argmax(1)
  best = again.gather(1, named[:, None])[:, 0]
  lead = best - (again.sum(1) - best) / 2
  (slope,) = torch.autograd.grad(lead.sum(), places)
  expected = (slope.mean((2, 3), keepdim=True) * places).sum(1).relu()
  assert expected.max() > 0
  torch.testing.assert_close(evidence, expected.detach(), rtol=1e-4, atol=1e-6)
