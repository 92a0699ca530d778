"""Cross-entropy classifier: the baseline beside which every recogniser stands.

A backbone, global average pooling and one linear layer, trained with label-weighted softmax
cross-entropy on augmented images ('ResNet-50 (Backbone)' of Phuong et al. 2024, Tables III, VI).
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from jaxdefect import losses, models, optim
from jaxdefect.contracts import (
  Batch,
  ClassScores,
  DataSpec,
  Fitted,
  Method,
  References,
  State,
  refuse_new_classes,
)
from jaxdefect.data import augment, view_geometry
from jaxdefect.ops import IMAGENET_MEAN, IMAGENET_STD, normalize_pixels


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  backbone: str = 'resnet18',
  stages: int | None = None,
  width: int = 64,
  frozen_stages: int = 0,
  update_statistics: bool = True,
  backbone_rate: float = 1.0,
  label_smoothing: float = 0.0,
  balance_classes: bool = False,
  augmentation: dict[str, Any] | None = None,
  average_decay: float | None = None,
  mean: tuple[float, ...] = IMAGENET_MEAN,
  std: tuple[float, ...] = IMAGENET_STD,
  dtype: Any = jnp.float32,
  remat: bool = False,
  accumulate: int = 1,
  axis_name: str | None = None,
) -> Method:
  """Makes the cross-entropy classifier.

  Args:
    optimizer: optax transformation; None where nothing will be trained.
    backbone: a name of ``models.backbone``.
    stages: the network ends after this stage; None for the whole network.
    width: channels of a ResNet's first stage; 64 is the published network.
    frozen_stages: the stem and this many stages keep their parameters and statistics.
    update_statistics: False keeps BatchNorm's running statistics (needed by folded weights).
    backbone_rate: factor on the learning rate of the backbone.
    label_smoothing: share of the target spread evenly over the classes.
    balance_classes: weight class c by ``N_max / N_c``, the counts of the training images.
    augmentation: arguments of ``data.augment.random_views``; None trains on the images as they are.
      Its ``angle_limits`` are given by name here: degrees for each class that has a direction.
    average_decay: decay of the running average of the parameters that predicts; None keeps none.
    mean: per channel, in 0..1, subtracted from the pixels.
    std: per channel, in 0..1, by which they are divided then.
    dtype: compute type of the network; parameters, pooling and losses stay float32.
    remat: as of ``models.backbone``: less memory for the gradient, more time.
    accumulate: parts in which a device goes through its batch, see ``optim.gradient_step``; more
      than 1 needs ``update_statistics=False``.
    axis_name: the device axis, for BatchNorm and the gradient.

  Returns:
    The ``Method``. ``predict`` gives logits and their softmax. ``adapt`` cannot add a class: a
    linear layer knows the classes that it was trained on.
  """

  views = dict(augmentation or {})
  angle_limits = views.pop('angle_limits', None)
  trunk = models.backbone(
    backbone,
    stages=stages,
    width=width,
    frozen_stages=frozen_stages,
    update_statistics=update_statistics,
    dtype=dtype,
    axis_name=axis_name,
    remat=remat,
  )

  def network(num_classes: int) -> models.Recogniser:
    return models.Recogniser(backbone=trunk, num_classes=num_classes)

  frozen = network(1).frozen
  rule = optim.partition.scale_by_group(
    optimizer or optax.identity(),
    lambda path: backbone_rate if path[0] == 'backbone' else 1.0,
  )
  rule = optim.partition.freeze(rule, frozen)

  def pixels(image: jax.Array) -> jax.Array:
    return normalize_pixels(image, mean=mean, std=std)

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    module = network(len(spec.classes))
    variables = models.initial_variables(key, module, spec.batch['image'], pretrained=pretrained)
    params = variables['params']
    model_state = {'batch_stats': variables['batch_stats']}
    if balance_classes:
      model_state['class_weights'] = losses.balance_weights(spec.counts)
    if angle_limits:
      limits = view_geometry.class_limits(angle_limits, spec.classes)
      model_state['angle_limits'] = jnp.asarray(limits)
    return optim.initial_state(params, model_state, rule, average_decay=average_decay)

  def loss(key: jax.Array, params: Any, model_state: Any, batch: Batch):
    image = batch['image']
    if augmentation is not None:
      limits = model_state.get('angle_limits')
      image = augment.random_views(
        key, image, batch['index'], label=batch['label'], angle_limits=limits, **views
      )
    valid = batch['valid']
    outputs, updated = network(params['fc']['kernel'].shape[1]).apply(
      {'params': params, 'batch_stats': model_state['batch_stats']},
      pixels(image),
      train=True,
      valid=valid,
      mutable=['batch_stats'],
    )
    per_example = losses.softmax_cross_entropy(
      outputs.logits,
      batch['label'],
      class_weights=model_state.get('class_weights'),
      label_smoothing=label_smoothing,
    )
    weight = valid.sum().astype(jnp.float32)
    correct = (outputs.logits.argmax(-1) == batch['label']) & valid
    scalars = {'accuracy': (correct.sum().astype(jnp.float32), weight)}
    return jnp.where(valid, per_example, 0.0).sum(), (weight, {**model_state, **updated}, scalars)

  step = optim.gradient_step(
    loss,
    rule,
    axis_name=axis_name,
    average_decay=average_decay,
    frozen=frozen,
    accumulate=accumulate,
    coupled='BatchNorm takes its statistics from the whole batch (update_statistics=False does not)'
    if update_statistics
    else None,
  )

  def adapt(key: jax.Array, fitted: Fitted, references: References) -> Fitted:
    del key
    refuse_new_classes(fitted, references, method='classifier', instead='contrastive_margin can')
    return fitted

  def forward(fitted: Fitted, batch: Batch, tap: jax.Array | None = None) -> Any:
    return network(fitted.params['fc']['kernel'].shape[1]).apply(
      {'params': fitted.params, 'batch_stats': fitted.model_state['batch_stats']},
      pixels(batch['image']),
      train=False,
      tap=tap,
    )

  def class_scores(logits: jax.Array) -> ClassScores:
    return ClassScores(scores=logits, probabilities=jax.nn.softmax(logits))

  def predict(fitted: Fitted, batch: Batch) -> ClassScores:
    chex.assert_rank(batch['image'], 4)
    return class_scores(forward(fitted, batch).logits)

  def activations(fitted: Fitted, batch: Batch, tap: jax.Array | None):
    outputs = forward(fitted, batch, tap)
    return class_scores(outputs.logits), outputs.feature_map

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    arguments = {
      'backbone': backbone,
      'stages': stages,
      'width': width,
      'num_classes': len(fitted.classes),
      'classes': list(fitted.classes),
      'mean': list(mean),
      'std': list(std),
    }
    arrays = {'params': fitted.params, 'batch_stats': fitted.model_state['batch_stats']}
    return 'classifier', arguments, arrays

  return Method(init, optim.no_preparation, step, adapt, predict, activations, deploy)
