"""A supervised head and an anomaly method side by side, and a rule that says which one decides.

"Below ~30 samples of a failure mode, PatchCore runs beside the supervised head; its score flags for
human review and never rejects by itself; at 30 or more the supervised head decides" (source P).
The rule is ``ops.route``; the two parts are methods of this folder, each with its own parameters.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from jaxdefect import methods, ops
from jaxdefect.contracts import (
  Batch,
  ClassScores,
  DataSpec,
  Fitted,
  Method,
  References,
  State,
  Verdicts,
)
from jaxdefect.data.good_parts import GOOD

_PARTS = ('supervised', 'anomaly')


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  backbone: str = 'resnet18',
  stages: int | None = None,
  width: int = 64,
  update_statistics: bool = True,
  min_confirmed: int = 30,
  augmentation: dict[str, Any] | None = None,
  supervised: dict[str, Any] | None = None,
  anomaly: dict[str, Any] | None = None,
  dtype: Any = jnp.float32,
  remat: bool = False,
  accumulate: int = 1,
  axis_name: str | None = None,
) -> Method:
  """Makes the two methods and the rule between them.

  Args:
    optimizer: of the supervised part; None where nothing will be trained.
    backbone: of both parts, a name of ``models.backbone``.
    stages: both networks end after this stage; None as each of them has it.
    width: channels of a ResNet's first stage; 64 is the published network.
    update_statistics: of the supervised part; False is needed by folded weights.
    min_confirmed: confirmed samples of a failure mode from which on the head decides alone.
    augmentation: of the supervised part.
    supervised: ``name`` of a method that gives ``ClassScores``, and its other settings; None is the
      classifier.
    anomaly: likewise of a method that takes no steps and gives ``AnomalyMaps``; None is PatchCore.
    dtype: compute type of both networks.
    remat: of the supervised part.
    accumulate: of the supervised part.
    axis_name: the device axis, for the supervised part.

  Returns:
    The ``Method``. ``predict`` gives ``Verdicts``; as long as there is no threshold in
    ``Fitted.calibration``, no anomaly score is above it. ``memory['confirmed']`` counts the
    samples of each class that ``adapt`` has been given. ``adapt`` is that of both parts; of the
    references, the good ones alone reach the anomaly method.

  Raises:
    ValueError: ``min_confirmed`` is below 1.
  """
  if min_confirmed < 1:
    raise ValueError(f'min_confirmed is {min_confirmed}; it can be 1 or more')
  shared = {'backbone': backbone, 'stages': stages, 'width': width, 'dtype': dtype}
  settings = {'name': 'classifier', **(supervised or {})}
  head = methods.load(settings.pop('name'))(
    optimizer=optimizer,
    update_statistics=update_statistics,
    augmentation=augmentation,
    remat=remat,
    accumulate=accumulate,
    axis_name=axis_name,
    **shared,
    **settings,
  )
  settings = {'name': 'patchcore', **(anomaly or {})}
  beside = methods.load(settings.pop('name'))(**shared, **settings)

  def init(key: Any, spec: DataSpec, pretrained: Any = None) -> State:
    if GOOD not in spec.classes:
      raise ValueError(
        f'hybrid needs pictures of the class {GOOD!r}; the classes are {", ".join(spec.classes)}'
      )
    parts = [part.init(key, spec, pretrained) for part in (head, beside)]
    return State(
      parts[0].step,
      {name: part.params for name, part in zip(_PARTS, parts)},
      {name: part.model_state for name, part in zip(_PARTS, parts)},
      parts[0].opt_state,
    )

  def with_head(state: State, changed: State) -> State:
    return State(
      changed.step,
      {**state.params, 'supervised': changed.params},
      {**state.model_state, 'supervised': changed.model_state},
      changed.opt_state,
    )

  def head_of(state: State) -> State:
    params, model_state = state.params['supervised'], state.model_state['supervised']
    return State(state.step, params, model_state, state.opt_state)

  def prepare(key: Any, state: State, references: References | None) -> State:
    return with_head(state, head.prepare(key, head_of(state), references))

  def step(key: Any, state: State, batch: Batch) -> tuple[State, dict]:
    changed, scalars = head.step(key, head_of(state), batch)
    return with_head(state, changed), scalars

  def adapt(key: Any, fitted: Fitted, references: References) -> Fitted:
    parts = {name: _part(fitted, name) for name in _PARTS}
    good = _GoodAlone(references)
    parts['supervised'] = head.adapt(key, parts['supervised'], references)
    classes = parts['supervised'].classes
    if fitted.memory is None or any(batch['valid'].any() for batch in good):
      alone = References(references.classes, good)
      parts['anomaly'] = beside.adapt(key, parts['anomaly'], alone)
    counts = _counts(references, classes)
    if fitted.memory is not None:
      before = np.asarray(fitted.memory['confirmed'])
      counts[: len(before)] += before
    memory = {name: part.memory for name, part in parts.items() if part.memory is not None}
    return dataclasses.replace(
      fitted,
      params={name: part.params for name, part in parts.items()},
      model_state={name: part.model_state for name, part in parts.items()},
      memory={**memory, 'confirmed': jnp.asarray(counts)},
      classes=classes,
    )

  def predict(fitted: Fitted, batch: Batch) -> Verdicts:
    if fitted.memory is None:
      raise ValueError('hybrid has no bank yet: call adapt before predict')
    said: ClassScores = head.predict(_part(fitted, 'supervised'), batch)
    maps = beside.predict(_part(fitted, 'anomaly'), batch)
    calibration = fitted.calibration
    verdict, rule = ops.route(
      said.scores,
      maps.scores,
      confirmed=fitted.memory['confirmed'],
      threshold=jnp.inf if calibration is None else calibration['threshold'],
      good=fitted.classes.index(GOOD),
      min_confirmed=min_confirmed,
    )
    return Verdicts(verdict, rule, said, maps)

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    if fitted.memory is None:
      raise ValueError('hybrid has no bank yet: call adapt before it is converted')
    parts = {name: _part(fitted, name) for name in _PARTS}
    told = {}
    for name, method in zip(_PARTS, (head, beside)):
      if method.deploy is None:
        raise ValueError(f'the {name} part of this hybrid cannot be converted')
      told[name] = method.deploy(parts[name])
    arguments = {
      **{name: {'family': family, **settings} for name, (family, settings, _) in told.items()},
      'classes': list(fitted.classes),
      'confirmed': np.asarray(fitted.memory['confirmed']).tolist(),
      'good': fitted.classes.index(GOOD),
      'min_confirmed': min_confirmed,
    }
    return 'hybrid', arguments, {name: arrays for name, (_, _, arrays) in told.items()}

  return Method(init, prepare, step, adapt, predict, deploy=deploy)


def _part(fitted: Fitted, name: str) -> Fitted:
  """What one of the two methods would have been given alone."""
  model_state = dict(fitted.model_state[name])
  params = model_state.pop('average_params', fitted.params[name])
  memory = (fitted.memory or {}).get(name)
  return Fitted(params, model_state, memory=memory, classes=fitted.classes)


class _GoodAlone:
  """Batches in which only good parts are valid."""

  def __init__(self, references: References):
    self._references = references

  def __iter__(self) -> Iterator[Batch]:
    classes = self._references.classes
    good = classes.index(GOOD) if GOOD in classes else -1
    for batch in self._references.batches:
      yield {**batch, 'valid': np.asarray(batch['valid']) & (np.asarray(batch['label']) == good)}


def _counts(references: References, classes: tuple[str, ...]) -> np.ndarray:
  """[K] int32, valid pictures of each class."""
  counts = np.zeros(len(classes), np.int32)
  for batch in references.batches:
    for label in np.asarray(batch['label'])[np.asarray(batch['valid'])]:
      counts[classes.index(references.classes[int(label)])] += 1
  return counts
