"""Every method of the folder keeps the contract; its own claims are in ``tests/methods``."""

import inspect
from typing import NamedTuple
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdefect import methods, models
from jaxdefect.contracts import (
  AnomalyMaps,
  ClassScores,
  Detections,
  Fitted,
  Method,
  References,
  State,
  Verdicts,
  to_fitted,
)
from tests.method_batches import (
  ANOMALY,
  EPISODIC,
  NAMES,
  SIZE,
  SMOKE,
  batch,
  classes,
  labelled,
  spec,
  training_batch,
)
from tests.method_settings import SMALL, STEPLESS, UNCOUPLED, VIEWS
from tests.parallel_run import SCANNED

EXPLAINED = [name for name in NAMES if methods.load(name)().activations is not None]
DEPLOYED = [name for name in NAMES if methods.load(name)().deploy is not None]


def contract_breaches(factory) -> list[str]:
  """What a factory does against the contract, as sentences."""
  found = []
  for parameter in inspect.signature(factory).parameters.values():
    if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
      found.append(f'{parameter.name} must be keyword-only')
    elif parameter.default is inspect.Parameter.empty:
      found.append(f'{parameter.name} must have a default')
  for needed in ('optimizer', 'axis_name'):
    if needed not in inspect.signature(factory).parameters:
      found.append(f'make must take {needed}')
  if not isinstance(factory(), Method):
    found.append('make must return a Method')
  return found


def step_batch(name: str, *, padding: int = 0) -> dict:
  """Six pictures, or one episode: a second one would double what is compiled."""
  return training_batch(name, 3 if name in EPISODIC else 6, padding=padding)


class Trained(NamedTuple):
  name: str
  method: Method
  before: State
  after: State
  scalars: dict


@pytest.fixture(scope='module', params=NAMES)
def trained(request):
  """A method, its state before and after one step, and the step's scalars."""
  method = methods.load(request.param)(optimizer=optax.sgd(0.1), **SMALL[request.param])
  key = jax.random.key(0)
  before = jax.jit(lambda k: method.init(k, spec(request.param)))(key)
  references = References(('good',), [step_batch(request.param)])
  before = method.prepare(key, before, references if request.param in ANOMALY else None)
  if request.param in STEPLESS:
    with pytest.raises(ValueError, match='takes no steps'):
      method.step(key, before, step_batch(request.param))
    return Trained(request.param, method, before, before, {})
  after, scalars = jax.jit(method.step)(key, before, step_batch(request.param))
  return Trained(request.param, method, before, after, scalars)


def test_factory_keeps_the_contract():
  for name in NAMES:
    assert contract_breaches(methods.load(name)) == [], name


def test_a_deliberate_break_of_the_contract_is_found():
  def make(backbone, *, stages, axis_name=None):
    return backbone, stages, axis_name

  breaches = contract_breaches(lambda *a, backbone=None, **k: make(1, stages=2))
  assert 'make must take optimizer' in breaches
  assert 'make must return a Method' in breaches


def test_unknown_method_suggests_a_name():
  name = NAMES[0]
  with pytest.raises(ValueError, match=f"did you mean '{name}'"):
    methods.load(f'{name}r')


def test_every_method_has_a_config():
  assert set(SMOKE) == set(NAMES)


def test_state_holds_arrays_only(trained):
  name, _, before, after, _ = trained
  assert isinstance(before, State)
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(before))
  chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
  assert int(after.step) == (name not in STEPLESS)


def test_step_moves_the_parameters_and_reports_sums(trained):
  name, _, before, after, scalars = trained
  if name in STEPLESS:
    return
  moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), before.params, after.params)
  assert max(jax.tree.leaves(moved)) > 0
  total, count = scalars['loss']
  assert np.isfinite(total)
  assert count == (1 if name in EPISODIC else 6)


def test_padding_is_invisible_to_the_step(trained):
  name, method, before, after, scalars = trained
  if name in STEPLESS:
    return
  short, long = step_batch(name), step_batch(name, padding=3)
  padded = jax.tree.map(lambda a, b: np.concatenate([a, b[len(a) :]]), short, long)
  if name in EPISODIC:  # one after the other: two side by side take half a minute to compile
    method = methods.load(name)(optimizer=optax.sgd(0.1), accumulate=2, **SMALL[name])
  with mock.patch.object(*SCANNED):
    state, padded_scalars = jax.jit(method.step)(jax.random.key(0), before, padded)
  chex.assert_trees_all_close(state.params, after.params, atol=1e-5)
  chex.assert_trees_all_close(padded_scalars, scalars, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope='module')
def adapted(trained) -> Fitted:
  names = classes(trained.name)
  references = References(names, [labelled(trained.name, 6, padding=2)])
  return trained.method.adapt(jax.random.key(1), to_fitted(trained.after, names), references)


def test_predict_depends_on_its_own_image_alone(trained, adapted):
  method, fitted = trained.method, adapted
  predict = jax.jit(method.predict)
  together = predict(fitted, batch(6, first=9))
  shuffled = {k: v[::-1] for k, v in batch(6, first=9).items()}
  apart = predict(fitted, shuffled)
  chex.assert_trees_all_close(jax.tree.map(lambda x: x[::-1], apart), together, atol=1e-4)
  CHECKS[type(together)](together, len(fitted.classes))


def check_class_scores(predictions: ClassScores, count: int):
  chex.assert_shape(predictions.scores, (6, count))
  np.testing.assert_allclose(predictions.probabilities.sum(1), 1, atol=1e-5)


def check_detections(predictions: Detections, count: int):
  chex.assert_shape(predictions.boxes, (6, 5, 4))
  assert predictions.valid.any()
  assert (np.diff(predictions.scores, axis=1) <= 0).all()
  assert (predictions.labels < count).all()
  assert (predictions.boxes >= 0).all()
  assert (predictions.boxes <= SIZE).all()


def check_anomaly_maps(predictions: AnomalyMaps, count: int):
  assert count == 2
  chex.assert_shape(predictions.scores, (6,))
  assert predictions.maps.shape in ((6, SIZE, SIZE), (6, 1, 1))
  assert np.isfinite(predictions.scores).all()
  assert np.isfinite(predictions.maps).all()


def check_verdicts(predictions: Verdicts, count: int):
  assert predictions.verdict.shape == predictions.rule.shape == (6,)
  check_class_scores(predictions.head, count)
  check_anomaly_maps(predictions.anomaly, 2)


CHECKS = {
  AnomalyMaps: check_anomaly_maps,
  ClassScores: check_class_scores,
  Detections: check_detections,
  Verdicts: check_verdicts,
}


@pytest.mark.parametrize('trained', EXPLAINED, indirect=True)
def test_activations_agree_with_predict_and_their_tap_has_a_gradient(trained, adapted):
  method, fitted = trained.method, adapted
  predictions, maps = method.activations(fitted, batch(2), None)
  chex.assert_trees_all_close(predictions, method.predict(fitted, batch(2)), atol=1e-5)
  slope = jax.grad(lambda tap: method.activations(fitted, batch(2), tap)[0].scores[:, 0].sum())(
    jnp.zeros_like(maps)
  )
  assert slope.shape == maps.shape
  assert float(jnp.abs(slope).max()) > 0


@pytest.mark.parametrize('trained', DEPLOYED, indirect=True)
def test_deploy_is_plain_data(trained, adapted):
  import json

  family, arguments, arrays = trained.method.deploy(adapted)
  assert isinstance(family, str)
  assert json.loads(json.dumps(arguments))['classes'] == list(classes(trained.name))
  assert all(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(arrays))


@pytest.mark.parametrize('name', sorted(set(NAMES) - STEPLESS))
def test_batch_in_parts_trains_the_same_or_is_refused(name):
  with jax.enable_x64(True):
    settings = {**SMALL[name], 'optimizer': optax.sgd(0.1), 'dtype': jnp.float64}
    settings |= UNCOUPLED.get(name, {})
    if name in VIEWS:
      settings['augmentation'] = VIEWS[name]
    if name not in UNCOUPLED:
      with pytest.raises(ValueError, match='accumulate is 2; it can only be 1, because'):
        methods.load(name)(**settings, accumulate=2)
      return
    whole, parts = (methods.load(name)(**settings, accumulate=count) for count in (1, 2))
    key = jax.random.key(0)
    start = jax.tree.map(
      lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x,
      jax.jit(lambda key: whole.init(key, spec(name)))(key),
    )
    if name in ANOMALY:
      start = whole.prepare(key, start, References(('good',), [training_batch(name)]))
    # Padding is not spread evenly over the parts.
    sizes = (6, 0) if name in EPISODIC else (5, 1)
    item = training_batch(name, sizes[0], padding=sizes[1])
    expected, found = (jax.jit(method.step)(key, start, item) for method in (whole, parts))
    chex.assert_trees_all_close(found, expected, atol=1e-9)


# Methods that train a backbone.
REMAT = [n for n in NAMES if 'remat' in inspect.signature(methods.load(n)).parameters]


@pytest.mark.parametrize('name', REMAT)
@pytest.mark.parametrize('remat', [False, True])
def test_remat_reaches_the_backbone(name, remat, monkeypatch):
  made, backbone = [], models.backbone

  def record(*args, **settings):
    made.append(backbone(*args, **settings))
    return made[-1]

  monkeypatch.setattr(models, 'backbone', record)
  methods.load(name)(**SMALL[name], remat=remat)
  # The anomaly part of a hybrid is not trained.
  assert made[0].remat == remat
