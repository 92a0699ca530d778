r"""DC-Net: a deformable network with one yes-or-no question per basic pattern (Wang et al. 2020).

A class is a combination of basic patterns: the parts of its name, joined by '+' ('C+EL+S'), or none
('Normal'). The network answers B independent questions, 'is this pattern on the map?', and is
trained with the mean binary cross-entropy over them. With the logits l and the membership
:math:`Y_{kb}` of pattern b in class k, the log-likelihood of a known class under independent
sigmoids, and its probability given that it is one of the known ones, are

.. math::
  s_k = \sum_b Y_{kb} \log \sigma(l_b) + (1 - Y_{kb}) \log \sigma(-l_b)
      = \sum_b Y_{kb} l_b - \sum_b \log(1 + e^{l_b}), \qquad p_k = \frac{e^{s_k}}{\sum_j e^{s_j}}

so the loss of an image is :math:`-s_y / B`. Classes without a '+' are patterns of their own: then
it is an ordinary classifier, trained one class against the rest.

What the paper leaves open or does otherwise, and what is done here:

- The authors' published program rounds every sigmoid, so that what it says may be a combination
  that does not exist. Here the most likely known class is named. ``exact_match`` in the log is the
  program's accuracy (on the training batches): all rounded answers right.
- The program trains on the maps as they are, by SGD for thousands of epochs; factory and config
  leave both open (``augmentation``, ``optimizer``).
- How a unit is deformed, see ``models.dc_net``. Offsets learn at ``offset_rate`` of the rate.

A combination of known patterns that no picture of the training showed is one ``adapt`` away, and
needs no picture either.

Shape legend: N images, K classes, B basic patterns.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdefect import losses, models, optim
from jaxdefect.contracts import (
  Batch,
  ClassScores,
  DataSpec,
  Fitted,
  Method,
  NewClassError,
  References,
  State,
)
from jaxdefect.data import augment, view_geometry
from jaxdefect.ops import normalize_pixels


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  width: int = 32,
  offset_rate: float = 0.1,
  no_pattern: str = 'Normal',
  augmentation: dict[str, Any] | None = None,
  mean: tuple[float, ...] = (0.0, 0.0, 0.0),
  std: tuple[float, ...] = (0.5, 0.5, 0.5),
  dtype: Any = jnp.float32,
  accumulate: int = 1,
  axis_name: str | None = None,
) -> Method:
  """Makes DC-Net.

  Args:
    optimizer: optax transformation; None where nothing will be trained.
    width: channels of the first unit; 32 is the authors' network.
    offset_rate: factor on the learning rate of the offsets.
    no_pattern: name of the class that has no basic pattern.
    augmentation: arguments of ``data.augment.random_views``; None trains on the images as they are.
      Its ``angle_limits`` are given by name here: degrees for each class that has a direction.
    mean: per channel, in 0..1, subtracted from the pixels.
    std: per channel, in 0..1, by which they are divided then. The default makes 0, 1 and 2 of a
      wafer map's levels (no die, good, failed), which is what the authors' network sees.
    dtype: compute type of the network; parameters, pooling and losses stay float32.
    accumulate: 1, as the pictures of a batch share the statistics of BatchNorm.
    axis_name: the device axis, for BatchNorm and the gradient.

  Returns:
    The ``Method``. ``predict`` gives the log-likelihood of every known class and the probabilities
    among them. ``adapt`` adds a combination of known patterns, and refuses any other class.
  """
  views = dict(augmentation or {})
  angle_limits = views.pop('angle_limits', None)
  rule = optim.partition.scale_by_group(
    optimizer or optax.identity(), lambda path: offset_rate if 'offset' in path else 1.0
  )

  def network(params: Any) -> models.DCNet:
    return sized(params['fc']['bias'].shape[0])

  def sized(num_patterns: int) -> models.DCNet:
    return models.DCNet(num_patterns, width=width, axis_name=axis_name, dtype=dtype)

  def pixels(image: jax.Array) -> jax.Array:
    return normalize_pixels(image, mean=mean, std=std)

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    member = _membership(spec.classes, no_pattern)
    module = sized(member.shape[1])
    variables = models.initial_variables(key, module, spec.batch['image'], pretrained=pretrained)
    model_state = {'batch_stats': variables['batch_stats'], 'membership': jnp.asarray(member)}
    if angle_limits:
      limits = view_geometry.class_limits(angle_limits, spec.classes)
      model_state['angle_limits'] = jnp.asarray(limits)
    return optim.initial_state(variables['params'], model_state, rule)

  def loss(key: jax.Array, params: Any, model_state: Any, batch: Batch):
    image, label, valid = batch['image'], batch['label'], batch['valid']
    if augmentation is not None:
      limits = model_state.get('angle_limits')
      image = augment.random_views(
        key, image, batch['index'], label=label, angle_limits=limits, **views
      )
    outputs, updated = network(params).apply(
      {'params': params, 'batch_stats': model_state['batch_stats']},
      pixels(image),
      train=True,
      valid=valid,
      mutable=['batch_stats'],
    )
    target = model_state['membership'][label]  # [N, B]
    per_example = losses.sigmoid_cross_entropy(outputs.logits, target).mean(1)
    weight = valid.sum().astype(jnp.float32)
    named = _log_likelihood(outputs.logits, model_state['membership']).argmax(1)
    exact = ((outputs.logits > 0) == (target > 0)).all(1)
    scalars = {
      'accuracy': (((named == label) & valid).sum().astype(jnp.float32), weight),
      'exact_match': ((exact & valid).sum().astype(jnp.float32), weight),
    }
    return jnp.where(valid, per_example, 0.0).sum(), (weight, {**model_state, **updated}, scalars)

  step = optim.gradient_step(
    loss,
    rule,
    axis_name=axis_name,
    accumulate=accumulate,
    coupled='BatchNorm takes its statistics from the whole batch',
  )

  def adapt(key: jax.Array, fitted: Fitted, references: References) -> Fitted:
    """Adds combinations of known patterns to the known classes."""
    del key  # names decide everything
    added = tuple(c for c in references.classes if c not in fitted.classes)
    if not added:
      return fitted
    patterns = _patterns(fitted.classes, no_pattern)
    for name in added:
      unknown = [part for part in _parts(name, no_pattern) if part not in patterns]
      if unknown:
        raise NewClassError(
          f'dc_net cannot learn the pattern {unknown[0]!r} of the class {name!r} without training; '
          f'it knows {", ".join(patterns)}'
        )
    classes = fitted.classes + added
    state = {**fitted.model_state, 'membership': jnp.asarray(_membership(classes, no_pattern))}
    return dataclasses.replace(fitted, model_state=state, classes=classes)

  def forward(fitted: Fitted, batch: Batch, tap: jax.Array | None = None) -> Any:
    chex.assert_rank(batch['image'], 4)
    return network(fitted.params).apply(
      {'params': fitted.params, 'batch_stats': fitted.model_state['batch_stats']},
      pixels(batch['image']),
      tap=tap,
    )

  def class_scores(fitted: Fitted, logits: jax.Array) -> ClassScores:
    scores = _log_likelihood(logits, fitted.model_state['membership'])
    return ClassScores(scores=scores, probabilities=jax.nn.softmax(scores))

  def predict(fitted: Fitted, batch: Batch) -> ClassScores:
    return class_scores(fitted, forward(fitted, batch).logits)

  def activations(fitted: Fitted, batch: Batch, tap: jax.Array | None):
    outputs = forward(fitted, batch, tap)
    return class_scores(fitted, outputs.logits), outputs.feature_map

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    arguments = {
      'width': width,
      'num_patterns': fitted.params['fc']['bias'].shape[0],
      'classes': list(fitted.classes),
      'mean': list(mean),
      'std': list(std),
    }
    arrays = {
      'params': fitted.params,
      'batch_stats': fitted.model_state['batch_stats'],
      'memory': {'membership': np.asarray(fitted.model_state['membership'])},
    }
    return 'dc_net', arguments, arrays

  return Method(init, optim.no_preparation, step, adapt, predict, activations, deploy)


def _log_likelihood(logits: jax.Array, membership: jax.Array) -> jax.Array:
  """[N, B] logits and [K, B] membership -> s of the module's docstring, [N, K]."""
  chosen = jnp.matmul(logits, membership.T, precision='highest')
  return chosen - jax.nn.softplus(logits).sum(1, keepdims=True)


def _parts(name: str, no_pattern: str) -> tuple[str, ...]:
  """The basic patterns of a class."""
  parts = () if name == no_pattern else tuple(name.split('+'))
  if not all(parts) or len(set(parts)) != len(parts):
    raise ValueError(
      f'the class {name!r} is no combination of patterns; it must be different names joined by +'
    )
  return parts


def _patterns(classes: Sequence[str], no_pattern: str) -> tuple[str, ...]:
  """All basic patterns, in the order in which the classes name them."""
  return tuple(dict.fromkeys(part for name in classes for part in _parts(name, no_pattern)))


def _membership(classes: Sequence[str], no_pattern: str) -> np.ndarray:
  """[K, B] float32, 1 where the class has the pattern; complains where two classes are the same."""
  patterns = _patterns(classes, no_pattern)
  if not patterns:
    raise ValueError(
      f'dc_net needs a basic pattern to look for; the classes are {", ".join(classes) or "none"}'
    )
  combinations = [frozenset(_parts(name, no_pattern)) for name in classes]
  for place, parts in enumerate(combinations):
    first = combinations.index(parts)
    if first < place:
      raise ValueError(
        f'the classes {classes[first]!r} and {classes[place]!r} are the same combination of '
        'patterns; dc_net cannot tell them apart'
      )
  return np.asarray([[part in parts for part in patterns] for parts in combinations], np.float32)
