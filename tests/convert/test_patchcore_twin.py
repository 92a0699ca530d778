"""PatchCore and the hybrid in PyTorch: the same numbers, the same verdicts, and no JAX."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxdefect import methods
from jaxdefect.contracts import RULES, VERDICTS, DataSpec, References, to_fitted
from jaxdefect.convert import export, twins
from jaxdefect.convert.twins import anomaly_map as twin_map
from jaxdefect.convert.twins import hybrid, nearest_neighbors
from jaxdefect.evaluate import thresholds
from jaxdefect.ops import anomaly_map

pytest.importorskip('jaxdefect.methods.hybrid')
pytest.importorskip('jaxdefect.methods.classifier')

SIZE = 48
CLASSES = ('bent', 'good', 'stained')
SHARED = {'backbone': 'resnet18', 'stages': 2, 'width': 8}
PATCHCORE = {'layers': (1, 2), 'coreset': 0.4, 'projection': 8, 'neighbours': 4, 'sigma': 2.0}


def batch(labels, *, first=0):
  n = len(labels)
  image = np.random.default_rng(first).integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)
  return {
    'image': image,
    'label': np.asarray(labels, np.int32),
    'valid': np.ones(n, bool),
    'index': np.arange(first, first + n, dtype=np.int32),
  }


def fitted_of(method, classes, labels, *, threshold=None):
  shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch([0, 1]).items()}
  spec = DataSpec(shapes, classes, (1,) * len(classes))
  start = to_fitted(method.init(jax.random.key(0), spec), classes)
  fitted = method.adapt(jax.random.key(1), start, References(classes, [batch(labels)]))
  if threshold is None:
    return fitted
  return calibrated(fitted, threshold)


def calibrated(fitted, threshold):
  scores = np.linspace(0, 2, 9, dtype=np.float32)
  calibration = {'threshold': jnp.float32(threshold), 'scores': jnp.asarray(scores)}
  return dataclasses.replace(fitted, calibration=calibration)


def deployed(method, fitted):
  size = (SIZE, SIZE)
  return export.complete(method.deploy(fitted), image_size=size, calibration=fitted.calibration)


def patchcore(**settings):
  return methods.load('patchcore')(**SHARED, **{**PATCHCORE, **settings})


@pytest.mark.parametrize(
  'settings',
  [
    {},
    {'reweight': False},
    {'neighbourhood': 1, 'sigma': 0.0},
    {'layers': (2,)},
    {'coreset': None},
  ],
)
def test_patchcore_is_the_same(settings, tmp_path, compared):
  method = patchcore(**settings)
  fitted = fitted_of(method, ('good', 'defect'), [0, 0, 0], threshold=1.5)
  export.write(tmp_path / 'a', *deployed(method, fitted))
  module = twins.load(tmp_path / 'a')
  assert module.threshold == 1.5
  assert module.classes == ('good', 'defect')
  pictures = batch([0] * 4, first=50)
  found = compared(lambda one: method.predict(fitted, one), module, [pictures])
  assert found.n == 4
  assert found.largest < 2e-5
  scores, maps, flagged, p_values = module(torch.from_numpy(pictures['image']))
  assert (list(scores.shape), list(maps.shape)) == ([4], [4, SIZE, SIZE])
  ours = np.asarray(method.predict(fitted, pictures).scores)
  np.testing.assert_array_equal(flagged, ours > 1.5)
  expected = thresholds.p_values(ours, np.asarray(fitted.calibration['scores']))
  np.testing.assert_allclose(p_values, expected, atol=1e-6)


def test_a_long_bank_is_searched_in_parts(monkeypatch):
  method = patchcore()
  fitted = fitted_of(method, ('good', 'defect'), [0, 0, 0])
  module = export.to_torch(*deployed(method, fitted))
  image = torch.from_numpy(batch([0, 0], first=7)['image'])
  whole = module(image)
  monkeypatch.setattr(nearest_neighbors, 'DISTANCES_HELD', 36 * 7)
  for one, other in zip(whole, module(image)):
    torch.testing.assert_close(one, other)


def test_smoothing_is_that_of_our_maps():
  for have, want, sigma in ((4, 16, 2.0), (5, 13, 0.0), (3, 3, 4.0)):
    ours = anomaly_map.enlarge_and_smooth(have, want, sigma)
    np.testing.assert_allclose(twin_map.smoothing(have, want, sigma), ours, atol=1e-12)


@pytest.mark.parametrize('min_confirmed', [1, 3, 30])
def test_the_hybrid_decides_the_same(min_confirmed, tmp_path, compared):
  method = methods.load('hybrid')(
    **SHARED, anomaly={'name': 'patchcore', **PATCHCORE}, min_confirmed=min_confirmed
  )
  labels = [0, 1, 1, 1, 2, 2, 2, 2]
  fitted = fitted_of(method, CLASSES, labels, threshold=0.0)
  pictures = batch([0] * 24, first=80)
  # A threshold that flags some of them.
  scores = np.asarray(method.predict(fitted, pictures).anomaly.scores)
  fitted = calibrated(fitted, np.sort(scores)[11:13].mean())
  export.write(tmp_path / 'a', *deployed(method, fitted))
  module = twins.load(tmp_path / 'a')
  found = compared(lambda one: method.predict(fitted, one), module, [pictures])
  assert found.equal == found.n == 24
  assert found.largest < 2e-5
  verdict, rule, *_ = module(torch.from_numpy(pictures['image']))
  said = {(VERDICTS[v], RULES[r]) for v, r in zip(verdict.tolist(), rule.tolist())}
  assert said <= {('ok', 'supervised'), ('reject', 'supervised'), ('review', 'anomaly'),
                  ('review', 'few samples')}  # fmt: skip
  assert hybrid.VERDICTS == VERDICTS
  assert hybrid.RULES == RULES


def test_what_cannot_be_converted_says_so():
  beside = {'anomaly': {'name': 'patchcore', **PATCHCORE}}
  for name, settings in (('patchcore', PATCHCORE), ('hybrid', beside)):
    method = methods.load(name)(**SHARED, **settings)
    empty = dataclasses.replace(fitted_of(patchcore(), ('good', 'defect'), [0, 0]), memory=None)
    with pytest.raises(ValueError, match=f'{name} has no bank yet'):
      method.deploy(empty)


def test_the_folder_needs_torch_alone(tmp_path):
  method = methods.load('hybrid')(**SHARED, anomaly={'name': 'patchcore', **PATCHCORE})
  export.write(tmp_path / 'a', *deployed(method, fitted_of(method, CLASSES, [0, 1, 1, 2])))
  code = (
    'import sys\n'
    'for name in ("jax", "flax", "jaxdefect", "safetensors"): sys.modules[name] = None\n'
    'import torch\n'
    'from model import load\n'
    f'print(len(load(".")(torch.zeros(2, {SIZE}, {SIZE}, 3, dtype=torch.uint8))))\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=tmp_path / 'a',
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.stdout.strip() == '7', done.stderr
