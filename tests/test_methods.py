"""Every method of the folder keeps the contract; each has beside it one test of its own claim."""

import inspect
import pathlib
from typing import NamedTuple

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
  DataSpec,
  Detections,
  Fitted,
  Method,
  References,
  State,
  Verdicts,
  to_fitted,
)

CLASSES = ('dent', 'good', 'scratch')
SIZE = 16
# Settings that make each method small; a new method adds one line here.
SMALL = {
  'classifier': {'backbone': 'resnet18', 'stages': 1},
  'contrastive_margin': {'backbone': 'resnet18', 'stages': 1, 'projection': (8, 4)},
  'deep_svdd': {'channels': (4, 6), 'kernel_size': 3, 'embedding': 5},
  'faster_rcnn': {
    **{'backbone': 'resnet18', 'stages': 1, 'width': 8, 'frozen_stages': 0, 'neck_channels': 8},
    **{'anchor_sizes': (6.0, 12.0), 'head_width': 16, 'classifier': 'prototype', 'embedding': 8},
    **{'rpn_samples': 8, 'proposals_before': 12, 'proposals': 8, 'regions': 8},
    **{'score_threshold': 0.0, 'max_detections': 5},
  },
  'ganomaly': {'latent': 6, 'width': 4},
  'hybrid': {
    **{'backbone': 'resnet18', 'stages': 2, 'width': 4},
    'anomaly': {'name': 'patchcore', 'layers': (1, 2), 'coreset': 0.5, 'projection': 8},
  },
  'medetection': {'width': 4, 'blocks': 1, 'references': 2, 'fine_tune_epochs': 1},
  'nearest_neighbor': {'backbone': 'resnet18', 'stages': 1, 'width': 8, 'projection': (8, 4)},
  'padim': {'backbone': 'resnet18', 'layers': (1, 2), 'width': 8, 'dimensions': 5},
  'spade': {'backbone': 'resnet18', 'layers': (1, 2), 'width': 8, 'images': 2},
  'patchcore': {'width': 4, 'layers': (1, 2), 'coreset': 0.5, 'projection': 8},
  'patch_svdd': {'patch_size': 8, 'strides': (4, 2), 'features': 4, 'width': 8, 'pairs': 2},
  'uninformed_students': {
    **{'stages': 1, 'width': 4, 'fields': (17,), 'students': 2, 'features': 4, 'channels': 2},
    **{'window': 2, 'teacher_steps': 2, 'teacher_crops': 2, 'teacher_size': 16},
  },
}
# Methods that learn to learn: they train on episodes of products, and know two classes.
EPISODIC = {'medetection'}

# Methods that know good parts, and score what differs from them.
ANOMALY = {
  'deep_svdd',
  'ganomaly',
  'nearest_neighbor',
  'padim',
  'patch_svdd',
  'patchcore',
  'spade',
  'uninformed_students',
}
# Methods that are fitted by adapt alone: they take no steps.
STEPLESS = {'padim', 'patchcore', 'spade'}

# Methods that draw random views of their images.
VIEWS = {
  'classifier': {'crop_scale': (0.5, 1.0)},
  'contrastive_margin': {'crop_scale': (0.5, 1.0)},
  'faster_rcnn': {'flips': True, 'scale': (0.8, 1.2)},
  'hybrid': {'crop_scale': (0.5, 1.0)},
  'medetection': {'crop_scale': (0.5, 1.0)},
  'nearest_neighbor': {'crop_scale': (0.5, 1.0)},
}
EXPLAINED = [name for name in methods.names() if methods.load(name)().activations is not None]
DEPLOYED = [name for name in methods.names() if methods.load(name)().deploy is not None]


def batch(n: int = 6, *, padding: int = 0, first: int = 0) -> dict[str, np.ndarray]:
  generator = np.random.default_rng(first)
  image = generator.integers(0, 256, (n + padding, SIZE, SIZE, 3), np.uint8)
  valid = np.arange(n + padding) < n
  corner = generator.uniform(0, 6, (n + padding, 3, 2))
  edges = np.concatenate([corner, corner + generator.uniform(4, 9, corner.shape)], axis=-1)
  real = valid[:, None] & (np.arange(3) < (1 + np.arange(n + padding)[:, None]) % 4)  # 0 to 3 boxes
  return {
    'boxes': np.where(real[..., None], edges, 0).astype(np.float32),
    'box_label': np.where(real, np.arange(n + padding)[:, None] % len(CLASSES), 0).astype(np.int32),
    'box_valid': real,
    'size': np.full((n + padding, 2), SIZE, np.float32),
    'scale': np.ones(n + padding, np.float32),
    'image': image,
    'label': np.where(valid, np.arange(n + padding) % len(CLASSES), 0).astype(np.int32),
    'valid': valid,
    'index': np.where(valid, first + np.arange(n + padding), -1).astype(np.int32),
  }


def classes(name: str) -> tuple[str, ...]:
  return ('good', 'defect') if name in EPISODIC | ANOMALY else CLASSES


def labelled(name: str, *args, **kwargs) -> dict[str, np.ndarray]:
  """A batch whose labels count in the classes of the method."""
  made = batch(*args, **kwargs)
  known = 1 if name in ANOMALY else len(classes(name))  # good parts alone
  return {**made, 'label': made['label'] % known}


def training_batch(name: str, n: int = 6, *, padding: int = 0, first: int = 0) -> dict:
  """What a step of the method takes: a third of so many episodes, where it takes such."""
  if name not in EPISODIC:
    made = batch(n, padding=padding, first=first)
    return {**made, 'label': made['label'] * 0} if name in ANOMALY else made
  tasks = [(4, 0)] * (n // 3) + [(0, 4)] * (padding // 3)
  parts = {}
  for place, part in enumerate(('support', 'query')):
    found = []
    for task, (size, empty) in enumerate(tasks):
      one = labelled(name, size, padding=empty, first=100 * (first + task) + 50 * place)
      one['reference'] = batch(4, first=999 + task)['image'][:, None]
      found.append({k: one[k] for k in ('image', 'label', 'valid', 'index', 'reference')})
    parts[part] = {key: np.stack([one[key] for one in found]) for key in found[0]}
  return parts


def spec(name: str = 'classifier', n: int = 6) -> DataSpec:
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), training_batch(name, n))
  return DataSpec(shapes, classes(name), (2, 2, 2)[: len(classes(name))])


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


class Trained(NamedTuple):
  name: str
  method: Method
  before: State
  after: State
  scalars: dict


@pytest.fixture(scope='module', params=methods.names())
def trained(request):
  """A method, its state before and after one step, and the step's scalars."""
  method = methods.load(request.param)(optimizer=optax.sgd(0.1), **SMALL[request.param])
  key = jax.random.key(0)
  before = jax.jit(lambda k: method.init(k, spec(request.param)))(key)
  references = References(('good',), [training_batch(request.param)])
  before = method.prepare(key, before, references if request.param in ANOMALY else None)
  if request.param in STEPLESS:
    with pytest.raises(ValueError, match='takes no steps'):
      method.step(key, before, training_batch(request.param))
    return Trained(request.param, method, before, before, {})
  after, scalars = jax.jit(method.step)(key, before, training_batch(request.param))
  return Trained(request.param, method, before, after, scalars)


def test_factory_keeps_the_contract():
  for name in methods.names():
    assert contract_breaches(methods.load(name)) == [], name


def test_a_deliberate_break_of_the_contract_is_found():
  def make(backbone, *, stages, axis_name=None):
    return backbone, stages, axis_name

  breaches = contract_breaches(lambda *a, backbone=None, **k: make(1, stages=2))
  assert 'make must take optimizer' in breaches
  assert 'make must return a Method' in breaches


def test_unknown_method_suggests_a_name():
  with pytest.raises(ValueError, match="did you mean 'classifier'"):
    methods.load('clasifier')


def test_every_method_has_a_small_setting_and_a_config():
  configs = {p.stem for p in (pathlib.Path(__file__).parent.parent / 'configs').glob('*.py')}
  assert set(SMALL) == set(VIEWS) | ANOMALY == set(methods.names())
  for name in methods.names():
    assert any(c.startswith(f'{name}_') for c in configs), name


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
  assert count == (2 if name in EPISODIC else 6)


def test_padding_is_invisible_to_the_step(trained):
  name, method, before, after, scalars = trained
  if name in STEPLESS:
    return
  short, long = training_batch(name), training_batch(name, 6, padding=3)
  padded = jax.tree.map(lambda a, b: np.concatenate([a, b[len(a) :]]), short, long)
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


# One claim each.


def test_classifier_refuses_a_class_that_it_was_not_trained_on():
  method = methods.load('classifier')(**SMALL['classifier'])
  fitted = to_fitted(method.init(jax.random.key(0), spec()), CLASSES)
  with pytest.raises(ValueError, match='cannot learn the class'):
    method.adapt(jax.random.key(0), fitted, References(('crack',), [batch(2)]))


def test_classifier_weighs_rare_classes():
  method = methods.load('classifier')(balance_classes=True, **SMALL['classifier'])
  state = method.init(jax.random.key(0), spec()._replace(counts=(1, 2, 4)))
  np.testing.assert_allclose(state.model_state['class_weights'], [4, 2, 1])


def test_contrastive_margin_learns_a_new_class_by_reference_alone():
  method = methods.load('contrastive_margin')(**SMALL['contrastive_margin'])
  fitted = to_fitted(method.init(jax.random.key(0), spec()), CLASSES)
  fitted = method.adapt(jax.random.key(0), fitted, References(CLASSES, [batch()]))
  new = {**batch(1, first=77), 'label': np.zeros(1, np.int32)}
  more = method.adapt(jax.random.key(0), fitted, References(('crack',), [new]))
  assert more.classes == (*CLASSES, 'crack')
  assert more.memory['embeddings'].shape[0] == 7
  chex.assert_trees_all_equal(more.params, fitted.params)
  # Old classes keep their scores; the new class knows its own picture.
  old, now = method.predict(fitted, new), method.predict(more, new)
  np.testing.assert_allclose(now.scores[:, :3], old.scores, atol=1e-6)
  assert (now.scores[:, 3] > now.scores[:, :3].max(1)).all()


def test_contrastive_margin_score_is_the_mean_cosine_by_hand():
  method = methods.load('contrastive_margin')(**SMALL['contrastive_margin'])
  fitted = to_fitted(method.init(jax.random.key(0), spec()), CLASSES)
  fitted = method.adapt(jax.random.key(0), fitted, References(CLASSES, [batch()]))
  vectors, labels = np.asarray(fitted.memory['embeddings']), np.asarray(fitted.memory['labels'])
  expected = np.stack([(vectors @ vectors[labels == k].T).mean(1) for k in range(3)], axis=1)
  np.testing.assert_allclose(method.predict(fitted, batch()).scores, expected, atol=1e-5)


def test_contrastive_margin_loss_is_equation_5():
  method = methods.load('contrastive_margin')(
    optimizer=optax.sgd(0.1), **SMALL['contrastive_margin']
  )
  state = method.init(jax.random.key(0), spec())
  _, scalars = jax.jit(method.step)(jax.random.key(0), state, batch())
  total = 0.75 * scalars['contrastive'][0] + 0.25 * scalars['margin'][0]
  np.testing.assert_allclose(scalars['loss'][0], total, rtol=1e-5)


def detector(**settings) -> Method:
  return methods.load('faster_rcnn')(**{**SMALL['faster_rcnn'], **settings})


@pytest.mark.parametrize('background', ['linear', 'prototype'])
def test_faster_rcnn_learns_a_new_class_by_reference_alone(background):
  method = detector(background=background)
  fitted = to_fitted(method.init(jax.random.key(0), spec()), CLASSES)
  new = batch()
  new['box_label'] = np.zeros_like(new['box_label'])
  more = method.adapt(jax.random.key(0), fitted, References(('crack',), [new]))
  assert more.classes == (*CLASSES, 'crack')
  chex.assert_trees_all_equal(more.params, fitted.params)
  prototypes = np.asarray(more.model_state['prototypes'])
  np.testing.assert_array_equal(prototypes[:4], fitted.model_state['prototypes'])
  # Known classes among the references change nothing.
  again = method.adapt(jax.random.key(0), fitted, References(CLASSES, [batch()]))
  chex.assert_trees_all_equal(again, fitted)
  assert 3 in np.asarray(method.predict(more, new).labels)


def test_faster_rcnn_linear_refuses_a_new_class():
  method = detector(classifier='linear')
  fitted = to_fitted(method.init(jax.random.key(0), spec()), CLASSES)
  with pytest.raises(ValueError, match="cannot learn the class 'crack'"):
    method.adapt(jax.random.key(0), fitted, References(('crack',), [batch()]))


def test_faster_rcnn_prototypes_start_as_support_means_and_follow_the_batches():
  method = detector(optimizer=optax.sgd(0.0), prototype_momentum=0.5, new_class='prototype')
  state = method.init(jax.random.key(0), spec())
  ready = method.prepare(jax.random.key(0), state, References(CLASSES, [batch()]))
  support = method.adapt(
    jax.random.key(0),
    to_fitted(ready, CLASSES),
    References(('a', 'b', 'c'), [batch()]),  # the same pictures under new names
  )
  known, again = np.split(np.asarray(support.model_state['prototypes'])[1:], 2)
  np.testing.assert_allclose(known, again, atol=1e-5)
  # They start apart: the mean embedding is taken out.
  directions = known / np.linalg.norm(known, axis=1, keepdims=True)
  assert (directions @ directions.T)[np.triu_indices(3, 1)].max() < 0.5
  after, _ = jax.jit(method.step)(jax.random.key(0), ready, batch())
  moved = np.abs(np.asarray(after.model_state['prototypes'] - ready.model_state['prototypes']))
  # A class whose sample is its true boxes alone stays: they are its support.
  assert moved[0].max() > 1e-4
  assert moved[1:].max() > 1e-4


def test_faster_rcnn_weighs_rare_classes():
  state = detector(balance_classes=True).init(jax.random.key(0), spec()._replace(counts=(1, 2, 4)))
  np.testing.assert_allclose(state.model_state['class_weights'], [4, 2, 1])


def test_faster_rcnn_learns_without_any_box():
  method = detector(optimizer=optax.sgd(0.1))
  state = method.init(jax.random.key(0), spec())
  empty = batch()
  empty['box_valid'] = np.zeros_like(empty['box_valid'])
  after, scalars = jax.jit(method.step)(jax.random.key(0), state, empty)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))
  assert scalars['box'][0] == 0
  assert scalars['rpn_objectness'][0] > 0


# Settings with which a step takes its batch in parts; methods that have none refuse.
UNCOUPLED = {
  'classifier': {'update_statistics': False},
  'faster_rcnn': {'classifier': 'linear', 'update_statistics': False},
  'hybrid': {
    **{'update_statistics': False, 'stages': 1},
    'anomaly': {'name': 'patchcore', 'layers': (1,)},
  },
  'medetection': {'first_order': True},  # quicker to compile, and tasks are no less apart
  'patch_svdd': {},
  'uninformed_students': {},
}


@pytest.mark.parametrize('name', sorted(set(methods.names()) - STEPLESS))
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


@pytest.mark.parametrize(
  ('name', 'settings', 'reason'),
  [
    ('classifier', {}, 'BatchNorm takes its statistics from the whole batch'),
    ('hybrid', {}, 'BatchNorm takes its statistics from the whole batch'),
    ('faster_rcnn', {}, 'prototypes follow the regions of the whole batch'),
    ('faster_rcnn', {'classifier': 'linear', 'update_statistics': True}, 'BatchNorm takes'),
    ('faster_rcnn', {'classifier': 'linear', 'box_head': 'gs'}, 'BatchNorm takes'),
    ('contrastive_margin', {}, 'compares the pictures of a batch'),
  ],
)
def test_what_couples_a_batch_is_named(name, settings, reason):
  with pytest.raises(ValueError, match=f'accumulate is 4; it can only be 1, because .*{reason}'):
    methods.load(name)(**{**SMALL[name], **settings}, accumulate=4)


def test_group_norm_couples_no_pictures():
  assert detector(classifier='linear', box_head='gs', norm='group', accumulate=2)


# Methods that train a backbone.
REMAT = ('classifier', 'contrastive_margin', 'faster_rcnn', 'hybrid', 'nearest_neighbor')


def test_every_trained_backbone_can_be_rematerialised():
  having = [n for n in methods.names() if 'remat' in inspect.signature(methods.load(n)).parameters]
  assert having == sorted(REMAT)


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


def medetection(**settings) -> Method:
  return methods.load('medetection')(**{**SMALL['medetection'], **settings})


def marked(n: int, first: int = 0) -> dict[str, np.ndarray]:
  """Gray parts, every second with a white spot."""
  generator = np.random.default_rng(first)
  image = generator.integers(90, 110, (n, SIZE, SIZE, 3), np.uint8)
  label = (np.arange(n) % 2).astype(np.int32)
  image[label == 1, 5:9, 5:9] = 255
  index = np.arange(first, first + n, dtype=np.int32)
  return {'image': image, 'label': label, 'valid': np.ones(n, bool), 'index': index}


PRODUCT = ('good', 'defect')


def test_medetection_learns_a_product_from_a_few_pictures():
  method = medetection(fine_tune_epochs=12, fine_tune_rate=1e-2, fine_tune_batch=8)
  start = to_fitted(method.init(jax.random.key(0), spec('medetection')), PRODUCT)
  known = References(PRODUCT, [marked(16)], [marked(8, first=50)])
  fitted = method.adapt(jax.random.key(0), start, known)
  losses = fitted.memory['history']['validation_loss']
  assert losses.min() < 0.5 * losses[0]
  assert int(fitted.memory['epoch']) == losses.argmin()
  test = marked(10, first=99)
  np.testing.assert_array_equal(method.predict(fitted, test).scores.argmax(1), test['label'])
  # The kept pictures are good ones of the support set.
  good = marked(16)['image'][::2]
  assert all((one == good).all((1, 2, 3)).any() for one in fitted.memory['references'])


def test_medetection_compares_with_the_template_of_a_picture_where_it_has_one():
  method = medetection(fine_tune_epochs=3, fine_tune_rate=1e-2)
  start = to_fitted(method.init(jax.random.key(0), spec('medetection')), PRODUCT)
  fitted = method.adapt(jax.random.key(0), start, References(PRODUCT, [marked(8)]))
  test = marked(4, first=99)
  itself = {**test, 'reference': test['image'][:, None]}
  scores = np.asarray(method.predict(fitted, itself).scores)
  # Without a difference there is nothing to tell pictures apart by.
  np.testing.assert_allclose(scores, np.broadcast_to(scores[:1], scores.shape), atol=1e-6)
  assert np.ptp(np.asarray(method.predict(fitted, test).scores)[:, 0]) > 1e-4


@pytest.mark.parametrize(
  ('classes', 'batches', 'message'),
  [
    (('dent', 'good'), [marked(4)], 'the classes of the references are dent, good'),
    (PRODUCT, [{**marked(4), 'label': np.zeros(4, np.int32)}], '4 good and 0 defective'),
  ],
)
def test_medetection_needs_good_and_defective_pictures(classes, batches, message):
  method = medetection()
  start = to_fitted(method.init(jax.random.key(0), spec('medetection')), PRODUCT)
  with pytest.raises(ValueError, match=message):
    method.adapt(jax.random.key(0), start, References(classes, batches))


def test_medetection_needs_something_to_compare_with():
  method = medetection()
  start = to_fitted(method.init(jax.random.key(0), spec('medetection')), PRODUCT)
  with pytest.raises(ValueError, match='compares with defect-free pictures'):
    method.predict(start, marked(2))


def test_medetection_steps_to_second_order_and_says_how_far_it_moved():
  key, moved = jax.random.key(0), {}
  # One task: each is unrolled, and takes its share of the compiling.
  stepped = {}
  for first_order in (False, True):
    method = medetection(optimizer=optax.sgd(1.0), inner_rate=0.5, first_order=first_order)
    state = method.init(key, spec('medetection'))
    # A head of zeros passes no gradient on.
    state.params['fc']['kernel'] = jnp.full_like(state.params['fc']['kernel'], 0.1)
    after, scalars = jax.jit(method.step)(key, state, training_batch('medetection', 3))
    stepped[first_order], moved[first_order] = after.params, scalars['movement'][0]
  difference = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), stepped[False], stepped[True])
  assert max(jax.tree.leaves(difference)) > 1e-4
  np.testing.assert_allclose(moved[False], moved[True], rtol=1e-5)
  assert moved[False] > 0


def test_medetection_head_alone_adapts_in_anil():
  method = medetection(optimizer=optax.sgd(0.1), adapts='head', reset_head=True, inner_rate=0.5)
  state = method.init(jax.random.key(0), spec('medetection'))
  after, scalars = jax.jit(method.step)(jax.random.key(0), state, training_batch('medetection', 3))
  assert scalars['movement'][0] > 0
  # The head starts every task from zero, so what it is does not matter and does not change.
  chex.assert_trees_all_equal(after.params['fc'], state.params['fc'])


def test_medetection_learns_its_inner_rates():
  method = medetection(optimizer=optax.sgd(0.1), learn_inner_rates=True)
  state = method.init(jax.random.key(0), spec('medetection'))
  after, _ = jax.jit(method.step)(jax.random.key(0), state, training_batch('medetection', 3))
  before, rates = (s.params['inner_rates']['fc']['kernel'] for s in (state, after))
  assert float(jnp.abs(rates - before).max()) > 0
  fitted = method.adapt(
    jax.random.key(0), to_fitted(after, PRODUCT), References(PRODUCT, [marked(8)])
  )
  assert 'inner_rates' not in fitted.params


def test_medetection_rejects_bad_arguments():
  with pytest.raises(ValueError, match="adapts is 'tail'"):
    medetection(adapts='tail')
  with pytest.raises(ValueError, match='nearest is 3'):
    medetection(nearest=3)
