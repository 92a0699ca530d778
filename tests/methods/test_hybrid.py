"""Two methods side by side: each as it is alone, and the rule between them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdefect import methods
from jaxdefect.contracts import RULES, VERDICTS, DataSpec, References, to_fitted

pytest.importorskip('jaxdefect.methods.classifier')
pytest.importorskip('jaxdefect.methods.patchcore')

CLASSES = ('bent', 'good', 'stained')
SHARED = {'backbone': 'resnet18', 'stages': 2, 'width': 4}
ANOMALY = {'layers': (1, 2), 'coreset': 0.5, 'projection': 8}
SMALL = {**SHARED, 'anomaly': {'name': 'patchcore', **ANOMALY}}
VIEWS = {'crop_scale': (0.5, 1.0)}
UNCOUPLED = {
  **{'update_statistics': False, 'stages': 1},
  'anomaly': {'name': 'patchcore', 'layers': (1,)},
}


def batch(labels, *, first=0, size=16):
  n = len(labels)
  image = np.random.default_rng(first).integers(0, 256, (n, size, size, 3), np.uint8)
  return {
    'image': image,
    'label': np.asarray(labels, np.int32),
    'valid': np.ones(n, bool),
    'index': np.arange(first, first + n, dtype=np.int32),
  }


def spec():
  shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch([0, 1, 2]).items()}
  return DataSpec(shapes, CLASSES, (1, 1, 1))


def made(**settings):
  return methods.load('hybrid')(
    optimizer=optax.sgd(0.1), **SHARED, anomaly={'name': 'patchcore', **ANOMALY}, **settings
  )


@pytest.fixture(scope='module')
def references():
  return References(CLASSES, [batch([0, 1, 1, 2]), batch([0, 1, 2, 2], first=10)])


@pytest.fixture(scope='module')
def fitted(references):
  method = made(min_confirmed=3)
  state, _ = method.step(
    jax.random.key(1), method.init(jax.random.key(0), spec()), batch([0, 1, 2])
  )
  return method.adapt(jax.random.key(2), to_fitted(state, CLASSES), references)


def test_each_part_is_what_it_is_alone(fitted, references):
  said = made(min_confirmed=3).predict(fitted, batch([0, 0, 0, 0], first=50))
  head = methods.load('classifier')(optimizer=optax.sgd(0.1), **SHARED)
  state, _ = head.step(jax.random.key(1), head.init(jax.random.key(0), spec()), batch([0, 1, 2]))
  alone = head.predict(to_fitted(state, CLASSES), batch([0, 0, 0, 0], first=50))
  np.testing.assert_allclose(said.head.scores, alone.scores, atol=1e-5)

  core = methods.load('patchcore')(**SHARED, **ANOMALY)
  start = to_fitted(core.init(jax.random.key(0), spec()), ('good',))
  good = batch([0, 0, 0])
  good['image'] = np.concatenate(
    [batch([0] * 4)['image'][1:3], batch([0] * 4, first=10)['image'][1:2]]
  )
  good['index'] = np.array([1, 2, 11], np.int32)
  # The bank has the same patches; which of them are chosen hangs on the batches' shapes.
  bank = core.adapt(jax.random.key(2), start, References(('good',), [good])).memory['bank']
  assert fitted.memory['anomaly']['bank'].shape == bank.shape
  assert set(np.asarray(fitted.memory['anomaly']['image']).tolist()) <= {1, 2, 11}


def test_counts_what_was_confirmed(fitted):
  assert fitted.memory['confirmed'].tolist() == [2, 3, 3]
  more = made(min_confirmed=3).adapt(
    jax.random.key(3), fitted, References(('stained',), [batch([0, 0], first=30)])
  )
  assert more.memory['confirmed'].tolist() == [2, 3, 5]
  np.testing.assert_array_equal(more.memory['anomaly']['bank'], fitted.memory['anomaly']['bank'])


def test_the_rule_between_them(fitted):
  method = made(min_confirmed=3)
  pictures = batch([0] * 40, first=100)
  for threshold, asked in ((-1.0, True), (1e9, False)):
    calibrated = dataclasses.replace(fitted, calibration={'threshold': jnp.float32(threshold)})
    said = method.predict(calibrated, pictures)
    named = [CLASSES[k] for k in said.head.scores.argmax(1)]
    for name, verdict, rule in zip(named, said.verdict.tolist(), said.rule.tolist()):
      got = VERDICTS[verdict], RULES[rule]
      if name == 'good':
        assert got == (('review', 'anomaly') if asked else ('ok', 'supervised'))
      elif name == 'bent':  # two confirmed of three
        assert got == ('review', 'few samples')
      else:
        assert got == ('reject', 'supervised')
  old = made(min_confirmed=2)  # every mode has enough: the anomaly score is not asked
  loud = dataclasses.replace(fitted, calibration={'threshold': jnp.float32(-1.0)})
  said = old.predict(loud, pictures)
  assert VERDICTS.index('review') not in said.verdict.tolist()


def test_bad_input(fitted, references):
  with pytest.raises(ValueError, match='min_confirmed is 0; it can be 1 or more'):
    made(min_confirmed=0)
  with pytest.raises(ValueError, match="needs pictures of the class 'good'; the classes are a, b"):
    made().init(jax.random.key(0), spec()._replace(classes=('a', 'b'), counts=(1, 1)))
  with pytest.raises(ValueError, match='no bank yet'):
    made().predict(dataclasses.replace(fitted, memory=None), batch([0]))
  with pytest.raises(ValueError, match='hold no picture'):
    made().adapt(
      jax.random.key(0), dataclasses.replace(fitted, memory=None), References(CLASSES, [batch([0])])
    )


def test_what_couples_a_batch_is_named():
  with pytest.raises(ValueError, match='it can only be 1, because BatchNorm takes'):
    methods.load('hybrid')(**SMALL, accumulate=4)
