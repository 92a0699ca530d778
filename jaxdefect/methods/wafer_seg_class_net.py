"""WaferSegClassNet: class and mask of a wafer map from one light encoder (Nag et al. 2022).

Two stages in one run. In the first ``pretrain_steps`` steps the encoder learns from the N-pair loss
alone (``losses.n_pair``); classifier and decoder train beside it, and their gradients stop in front
of it. From then on the encoder learns from them, and the N-pair loss is over. They train on

  cross-entropy of the class + binary cross-entropy of the mask + Dice loss of the mask.

What the mask is: MixedWM38 has none. The authors' published program marks every failed die (cells
of value 2), those of the pattern and those scattered elsewhere alike, and so it is here: a rule on
pixels, ``mean over channels >= failed_level``, of the very picture that the network sees. The
paper's Dice of 0.9999 says that a network can copy a threshold; nothing marks the pattern alone.

The mask is not part of the predictions, which are ``ClassScores``. Its Dice coefficient is logged
(``dice``), and an exported model gives it as ``maps``; ``activations`` shows the encoder's last
map, from which the classes are told.

What the paper leaves open or does otherwise, and what is done here:

- The program freezes the encoder behind the first stage. Here classifier and decoder move it, as
  the paper's 'end-to-end' has it; ``pretrain_steps`` of the whole run is the program's way.
- Dice is taken image by image, not over the batch: padding and devices then change nothing.
- Pictures of three artificial colours, 224 x 224, became gray levels here, of any size.
- Stages of 100 and 50 epochs with a rate that falls on plateaus: the optimiser is one for both.
- Dropout of 0.1 stands in front of convolutions whose BatchNorm then knows other statistics than it
  predicts with. Over 10^5 steps that may not matter; after 200 it did (MixedWM38, 15 maps per
  class, 190 held back: 3.7 % right, and 17.9 % with statistics taken again without dropout). So the
  config sets ``dropout`` to 0.

Shape legend: N images, H x W pixels.
"""

import functools
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
  example_keys,
  refuse_new_classes,
)
from jaxdefect.data import augment, view_geometry
from jaxdefect.ops import normalize_pixels


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  width: int = 8,
  dropout: float = 0.1,
  pretrain_steps: int = 0,
  temperature: float = 0.05,
  failed_level: float = 0.75,
  augmentation: dict[str, Any] | None = None,
  mean: tuple[float, ...] = (0.0, 0.0, 0.0),
  std: tuple[float, ...] = (1.0, 1.0, 1.0),
  dtype: Any = jnp.float32,
  accumulate: int = 1,
  axis_name: str | None = None,
) -> Method:
  """Makes WaferSegClassNet.

  Args:
    optimizer: optax transformation; None where nothing will be trained.
    width: channels of the first block; 8 is the published network.
    dropout: rate inside every block, in [0, 1).
    pretrain_steps: length of the first stage, in which only the N-pair loss moves the encoder; 0
      has no such stage.
    temperature: tau of the N-pair loss.
    failed_level: from this mean over the channels on, in 0..1, a pixel belongs to the mask. A wafer
      map has good dies at 0.498 and failed ones at 1.
    augmentation: arguments of ``data.augment.random_views``; None trains on the images as they are.
      Its ``angle_limits`` are given by name here: degrees for each class that has a direction.
    mean: per channel, in 0..1, subtracted from the pixels.
    std: per channel, in 0..1, by which they are divided then.
    dtype: compute type of the network; parameters, pooling and losses stay float32.
    accumulate: 1, as the pictures of a batch share the statistics of BatchNorm.
    axis_name: the device axis, for BatchNorm, the N-pair loss and the gradient.

  Returns:
    The ``Method``. ``predict`` gives logits and their softmax. ``adapt`` cannot add a class.

  Raises:
    ValueError: a setting outside what is allowed.
  """
  if not temperature > 0:
    raise ValueError(f'temperature is {temperature}; it must be larger than 0.')
  if not 0 < failed_level <= 1:
    raise ValueError(f'failed_level is {failed_level}; it must be in (0, 1].')
  if not 0 <= dropout < 1:
    raise ValueError(f'dropout is {dropout}; it must be in [0, 1).')
  if pretrain_steps < 0:
    raise ValueError(f'pretrain_steps is {pretrain_steps}; it must be 0 or more.')
  views = dict(augmentation or {})
  angle_limits = views.pop('angle_limits', None)
  rule = optimizer or optax.identity()

  def network(num_classes: int) -> models.WaferSegClassNet:
    return models.WaferSegClassNet(
      num_classes, width=width, dropout=dropout, axis_name=axis_name, dtype=dtype
    )

  def of(params: Any) -> models.WaferSegClassNet:
    return network(params['classifier']['2']['bias'].shape[0])

  def pixels(image: jax.Array) -> jax.Array:
    return normalize_pixels(image, mean=mean, std=std)

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    module = network(len(spec.classes))
    variables = models.initial_variables(key, module, spec.batch['image'], pretrained=pretrained)
    model_state = {'batch_stats': variables['batch_stats']}
    if angle_limits:
      limits = view_geometry.class_limits(angle_limits, spec.classes)
      model_state['angle_limits'] = jnp.asarray(limits)
    return optim.initial_state(variables['params'], model_state, rule)

  def loss(pretraining: jax.Array, key: jax.Array, params: Any, model_state: Any, batch: Batch):
    image, label, valid = batch['image'], batch['label'], batch['valid']
    key_view, key_dropout = jax.random.split(key)
    if augmentation is not None:
      limits = model_state.get('angle_limits')
      image = augment.random_views(
        key_view, image, batch['index'], label=label, angle_limits=limits, **views
      )
    failed = image.mean(-1) >= 255 * failed_level  # [N, H, W]
    outputs, updated = of(params).apply(
      {'params': params, 'batch_stats': model_state['batch_stats']},
      pixels(image),
      train=True,
      valid=valid,
      dropout_keys=example_keys(key_dropout, batch['index']),
      heads_move_encoder=~pretraining,
      mutable=['batch_stats'],
    )
    dice = losses.dice_loss(outputs.mask, failed)
    values = {
      'n_pair': losses.n_pair(
        outputs.embedding, label, temperature=temperature, valid=valid, axis_name=axis_name
      ),
      'cross_entropy': losses.softmax_cross_entropy(outputs.logits, label),
      'mask': losses.sigmoid_cross_entropy(outputs.mask, failed).mean((1, 2)) + dice,
    }
    total = jnp.where(pretraining, values['n_pair'], 0.0)
    total = total + values['cross_entropy'] + values['mask']
    values |= {'dice': 1 - dice, 'accuracy': outputs.logits.argmax(-1) == label}
    weight = valid.sum().astype(jnp.float32)
    scalars = {
      name: (jnp.where(valid, value, 0.0).sum().astype(jnp.float32), weight)
      for name, value in values.items()
    }
    return jnp.where(valid, total, 0.0).sum(), (weight, {**model_state, **updated}, scalars)

  # A step whose loss knows the stage; the function checks ``accumulate`` at once.
  stepping = functools.partial(
    optim.gradient_step,
    optimizer=rule,
    axis_name=axis_name,
    accumulate=accumulate,
    coupled='BatchNorm takes its statistics from the whole batch',
  )
  stepping(loss)

  def step(key: jax.Array, state: State, batch: Batch) -> tuple[State, dict]:
    staged = functools.partial(loss, state.step < pretrain_steps)
    return stepping(staged)(key, state, batch)

  def adapt(key: jax.Array, fitted: Fitted, references: References) -> Fitted:
    del key
    refuse_new_classes(fitted, references, method='wafer_seg_class_net')
    return fitted

  def forward(fitted: Fitted, batch: Batch, tap: jax.Array | None = None) -> Any:
    chex.assert_rank(batch['image'], 4)
    return of(fitted.params).apply(
      {'params': fitted.params, 'batch_stats': fitted.model_state['batch_stats']},
      pixels(batch['image']),
      tap=tap,
    )

  def class_scores(logits: jax.Array) -> ClassScores:
    return ClassScores(scores=logits, probabilities=jax.nn.softmax(logits))

  def predict(fitted: Fitted, batch: Batch) -> ClassScores:
    return class_scores(forward(fitted, batch).logits)

  def activations(fitted: Fitted, batch: Batch, tap: jax.Array | None):
    outputs = forward(fitted, batch, tap)
    return class_scores(outputs.logits), outputs.feature_map

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    arguments = {
      'width': width,
      'classes': list(fitted.classes),
      'mean': list(mean),
      'std': list(std),
    }
    params = {name: value for name, value in fitted.params.items() if name != 'projection'}
    arrays = {'params': params, 'batch_stats': fitted.model_state['batch_stats']}
    return 'wafer_seg_class_net', arguments, arrays

  return Method(init, optim.no_preparation, step, adapt, predict, activations, deploy)
