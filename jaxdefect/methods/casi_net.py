"""CASI-Net classifier (Li et al. 2022): coordinate attention and self-interaction, from nothing.

A light network for the six defects of NEU, trained with cross-entropy from random weights
(95.83 % in its paper, 95.98 in the table of Phuong et al. 2024, at 70 % of the images).

What is known here of the paper is its abstract and the titles of its sections: a 'basic lightweight
feature extractor' (3.1), 'coordinate attention' (3.2), whose 'aggregation features from the
horizontal and vertical direction' say where the defect is, and a 'self-interaction based on
biological vision' (3.3) that 'interactively fuses the extracted feature information', all with few
parameters, trained on an enlarged data set (4.2). Its layers, sizes and schedule are not. Chosen
here, see ``models.CASINet``: depthwise separable convolutions; coordinate attention behind every
stage, as Hou et al. define it; two linear views of the last map, multiplied place by place; random
views (``data.augment``) for the enlargement. A score of this method is no reproduction of theirs.

Shape legend: N images, K classes.
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
from jaxdefect.data import augment
from jaxdefect.ops import normalize_pixels


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  stem: int = 16,
  channels: tuple[int, ...] = (32, 64, 128),
  blocks: int = 2,
  attention: bool = True,
  interaction: bool = True,
  reduction: int = 8,
  label_smoothing: float = 0.0,
  augmentation: dict[str, Any] | None = None,
  average_decay: float | None = None,
  mean: tuple[float, ...] = (0.5, 0.5, 0.5),
  std: tuple[float, ...] = (0.25, 0.25, 0.25),
  dtype: Any = jnp.float32,
  accumulate: int = 1,
  axis_name: str | None = None,
) -> Method:
  """Makes the CASI-Net classifier.

  Args:
    optimizer: optax transformation; None where nothing will be trained.
    stem: channels of the first convolution.
    channels: of every stage.
    blocks: separable convolutions of a stage.
    attention: False leaves coordinate attention out.
    interaction: False leaves the self-interaction out.
    reduction: channels over those of the attention's bottleneck.
    label_smoothing: share of the target spread evenly over the classes.
    augmentation: arguments of ``data.augment.random_views``; None trains on the images as they are.
    average_decay: decay of the running average of the parameters that predicts; None keeps none.
    mean: per channel, in 0..1, subtracted from the pixels.
    std: per channel, in 0..1, by which they are divided then.
    dtype: compute type of the network; parameters, pooling and losses stay float32.
    accumulate: 1, as BatchNorm sees the whole batch.
    axis_name: the device axis, for BatchNorm and the gradient.

  Returns:
    The ``Method``. ``predict`` gives logits and their softmax. ``adapt`` cannot add a class.
  """

  def network(num_classes: int) -> models.CASINet:
    return models.CASINet(
      num_classes,
      stem=stem,
      channels=tuple(channels),
      blocks=blocks,
      attention=attention,
      interaction=interaction,
      reduction=reduction,
      axis_name=axis_name,
      dtype=dtype,
    )

  rule = optimizer or optax.identity()

  def forward(params: Any, statistics: Any, image: jax.Array, **settings: Any) -> Any:
    return network(params['fc']['kernel'].shape[1]).apply(
      {'params': params, 'batch_stats': statistics},
      normalize_pixels(image, mean=mean, std=std),
      **settings,
    )

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    module = network(len(spec.classes))
    variables = models.initial_variables(key, module, spec.batch['image'], pretrained=pretrained)
    model_state = {'batch_stats': variables['batch_stats']}
    return optim.initial_state(variables['params'], model_state, rule, average_decay=average_decay)

  def loss(key: jax.Array, params: Any, model_state: Any, batch: Batch):
    image, valid = batch['image'], batch['valid']
    if augmentation is not None:
      image = augment.random_views(key, image, batch['index'], **augmentation)
    outputs, updated = forward(
      params, model_state['batch_stats'], image, train=True, valid=valid, mutable=['batch_stats']
    )
    each = losses.softmax_cross_entropy(
      outputs.logits, batch['label'], label_smoothing=label_smoothing
    )
    weight = valid.sum().astype(jnp.float32)
    correct = (outputs.logits.argmax(-1) == batch['label']) & valid
    scalars = {'accuracy': (correct.sum().astype(jnp.float32), weight)}
    return jnp.where(valid, each, 0.0).sum(), (weight, {**model_state, **updated}, scalars)

  step = optim.gradient_step(
    loss,
    rule,
    axis_name=axis_name,
    average_decay=average_decay,
    accumulate=accumulate,
    coupled='BatchNorm takes its statistics from the whole batch',
  )

  def adapt(key: jax.Array, fitted: Fitted, references: References) -> Fitted:
    del key
    refuse_new_classes(
      fitted, references, method='casi_net', instead='siamese_one_shot and contrastive_margin can'
    )
    return fitted

  def activations(fitted: Fitted, batch: Batch, tap: jax.Array | None):
    chex.assert_rank(batch['image'], 4)
    outputs = forward(fitted.params, fitted.model_state['batch_stats'], batch['image'], tap=tap)
    probabilities = jax.nn.softmax(outputs.logits)
    return ClassScores(scores=outputs.logits, probabilities=probabilities), outputs.feature_map

  def predict(fitted: Fitted, batch: Batch) -> ClassScores:
    return activations(fitted, batch, None)[0]

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    arguments = {
      'stem': stem,
      'channels': list(channels),
      'blocks': blocks,
      'attention': attention,
      'interaction': interaction,
      'reduction': reduction,
      'num_classes': len(fitted.classes),
      'classes': list(fitted.classes),
      'mean': list(mean),
      'std': list(std),
    }
    arrays = {'params': fitted.params, 'batch_stats': fitted.model_state['batch_stats']}
    return 'casi_net', arguments, arrays

  return Method(init, optim.no_preparation, step, adapt, predict, activations, deploy)
