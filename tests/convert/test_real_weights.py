"""The provided ImageNet weights on real pictures: loading and preprocessing are right.

Shape legend: N images, C channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from jaxdefect import models
from jaxdefect.convert import weights_from_torch
from jaxdefect.ops import normalize_pixels

_STAGES = {'resnet18': 3, 'resnet50_v2': 3, 'mobilenet_v2': None, 'mobilenet_v2_gluon': None}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SHOTS, _TESTS = 5, 10


@pytest.fixture(scope='session')
def steel(data_dir):
  """Normalised pictures of the six classes, 15 of each: [6, 15, 160, 160, 3]."""
  folder = data_dir / 'NEU-DET' / 'IMAGES'
  classes = sorted({path.name.rsplit('_', 1)[0] for path in folder.glob('*.jpg')})
  pictures = [
    [_read(folder / f'{name}_{19 * index + 1}.jpg') for index in range(_SHOTS + _TESTS)]
    for name in classes
  ]
  return np.asarray(normalize_pixels(np.array(pictures), mean=_MEAN, std=_STD))


def _read(path):
  with PIL.Image.open(path) as image:
    return np.asarray(image.convert('RGB').resize((160, 160), PIL.Image.Resampling.BILINEAR))


def _load(data_dir, backbone):
  return weights_from_torch.load(
    backbone, backbone=backbone, stages=_STAGES[backbone], weights_dir=data_dir / 'weights'
  )


def _nearest_mean_accuracy(features):
  """[6, 15, C] -> accuracy over every third run of five consecutive reference pictures."""
  classes, count = features.shape[:2]
  hits = []
  for start in range(0, count, 3):
    shot = (start + np.arange(_SHOTS)) % count
    test = np.setdiff1d(np.arange(count), shot)
    means = features[:, shot].mean(1)  # [6, C]
    distances = np.linalg.norm(features[:, test, None] - means, axis=-1)  # [6, 10, 6]
    hits.append(distances.argmin(-1) == np.arange(classes)[:, None])
  return np.mean(hits)


@pytest.mark.parametrize(
  ('backbone', 'bound'),
  # With 50 pictures of each class: 0.93, 0.92, 0.88, 0.90; random kernels reach 0.35 to 0.45.
  [('resnet18', 0.85), ('resnet50_v2', 0.8), ('mobilenet_v2', 0.75), ('mobilenet_v2_gluon', 0.75)],
)
def test_five_shot_recognition_of_steel(data_dir, steel, backbone, bound):
  loaded = _load(data_dir, backbone)
  module = models.backbone(backbone, stages=_STAGES[backbone])

  @jax.jit
  def embed(variables, x):
    return models.global_average_pool(module.apply(variables, x)[-1])

  features = np.stack([np.asarray(embed(loaded.variables, x)) for x in steel])
  accuracy = _nearest_mean_accuracy(features)
  print(backbone, accuracy)
  assert accuracy > bound


def test_folded_is_detected(data_dir):
  folded = {backbone: _load(data_dir, backbone).folded for backbone in _STAGES}
  assert folded == {
    'resnet18': True,
    'resnet50_v2': False,
    'mobilenet_v2': True,
    'mobilenet_v2_gluon': False,
  }


@pytest.mark.parametrize('backbone', ['resnet50_v2', 'mobilenet_v2_gluon'])
def test_channel_means_agree_with_running_means(data_dir, steel, backbone):
  # An error in padding, stride, order or skip would show in every layer behind it. Steel is not
  # ImageNet, so agreement is not exact; layers whose channels all have mean zero say nothing.
  loaded = _load(data_dir, backbone)
  module = models.backbone(backbone, stages=_STAGES[backbone])

  def means(variables, x):
    seen = {}

    def record(call, arguments, settings, context):
      if isinstance(context.module, models.BatchNorm):
        seen[context.module.path] = jnp.mean(arguments[0], (0, 1, 2))
      return call(*arguments, **settings)

    with nn.intercept_methods(record):
      module.apply(variables, x)
    return list(seen), list(seen.values())

  paths = []

  @jax.jit
  def measured(variables, x):
    paths[:], values = means(variables, x)
    return values

  values = measured(loaded.variables, steel[:, :2].reshape(12, 160, 160, 3))
  correlations = []
  for path, value in zip(paths, values, strict=True):
    statistics = loaded.variables['batch_stats']
    for name in path:
      statistics = statistics[name]
    informative = np.abs(statistics['mean']) / np.sqrt(statistics['var'])
    if len(value) > 3 and np.median(informative) > 0.1:
      correlations.append(np.corrcoef(value, statistics['mean'])[0, 1])
  print(backbone, len(correlations), np.min(correlations), np.median(correlations))
  assert len(correlations) > 30
  assert np.median(correlations) > 0.85
  assert np.min(correlations) > 0.5


def test_rejects_undeclared_gap(data_dir):
  with pytest.raises(ValueError, match=r"'layer4\.0\.conv1\.weight'; the file ends after layer3"):
    weights_from_torch.load('resnet18', backbone='resnet18', weights_dir=data_dir / 'weights')
