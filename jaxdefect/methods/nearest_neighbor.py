r"""Nearest good image: DN2 (Bergman et al. 2020, arXiv:2002.10445), with features of any origin.

With f the globally pooled features of a backbone, brought to length one, the score of an image is

.. math:: d(y) = \tfrac1k \sum_{x \in N_k(y)} \| f(y) - f(x) \|

over the k nearest of the good images that ``adapt`` has gathered (k = 1: '1-NN' of Zhang et al.
2023, Table 2). It says which image, never where.

With zero steps the features are those of the pretrained backbone, or of a random one: the floor.
With steps, they are learned from the good images alone, without a label: two random views of an
image are pulled together against all other images of the batch by NT-Xent on a projection of the
features (Chen et al. 2020, SimCLR). The projection is dropped then: the features before it are
compared, and the trained ``backbone`` starts other methods as their ``pretrained``.

Shape legend: N images, M gathered images, F features.
"""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdefect import losses, models, optim
from jaxdefect.contracts import (
  AnomalyMaps,
  Batch,
  DataSpec,
  Fitted,
  Method,
  References,
  State,
)
from jaxdefect.data import augment
from jaxdefect.data.good_parts import good_parts
from jaxdefect.ops import IMAGENET_MEAN, IMAGENET_STD, nearest_neighbors, normalize_pixels


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  backbone: str = 'resnet18',
  stages: int | None = None,
  width: int = 64,
  frozen_stages: int = 0,
  update_statistics: bool = True,
  neighbours: int = 1,
  projection: tuple[int, ...] = (256, 128),
  temperature: float = 0.5,
  augmentation: dict[str, Any] | None = None,
  average_decay: float | None = None,
  mean: tuple[float, ...] = IMAGENET_MEAN,
  std: tuple[float, ...] = IMAGENET_STD,
  dtype: Any = jnp.float32,
  remat: bool = False,
  accumulate: int = 1,
  axis_name: str | None = None,
) -> Method:
  """Makes the nearest good image, with self-supervised training where there are steps.

  Args:
    optimizer: optax transformation; None where nothing will be trained.
    backbone: a name of ``models.backbone``.
    stages: the network ends after this stage, which is pooled; None for the whole network.
    width: channels of a ResNet's first stage; 64 is the published network.
    frozen_stages: the stem and this many stages keep their parameters and statistics.
    update_statistics: False keeps BatchNorm's running statistics (needed by folded weights).
    neighbours: k; all that were gathered, where they are fewer.
    projection: widths of the projection MLP, which only training uses.
    temperature: of NT-Xent.
    augmentation: arguments of ``data.augment.random_views``; what varies between good parts
      belongs there, and nothing that looks like a defect.
    average_decay: decay of the running average of the parameters that predicts; None keeps none.
    mean: per channel, in 0..1, subtracted from the pixels.
    std: per channel, in 0..1, by which they are divided then.
    dtype: compute type of the network; pooling, losses and distances stay float32.
    remat: as of ``models.backbone``: less memory for the gradient, more time.
    accumulate: 1, as the pictures of a batch are compared with each other.
    axis_name: the device axis, for BatchNorm, the negatives and the gradient.

  Returns:
    The ``Method``. ``predict`` gives distances in 0..2 as scores and again as maps [N, 1, 1].
    ``adapt`` appends to the images that are compared with.

  Raises:
    ValueError: ``neighbours`` or ``temperature`` is not positive.
  """
  if neighbours < 1:
    raise ValueError(f'neighbours must be 1 or more, got {neighbours}.')
  if not temperature > 0:
    raise ValueError(f'temperature must be larger than 0, got {temperature}.')
  views = dict(augmentation or {})
  network = models.Recogniser(
    backbone=models.backbone(
      backbone,
      stages=stages,
      width=width,
      frozen_stages=frozen_stages,
      update_statistics=update_statistics,
      dtype=dtype,
      axis_name=axis_name,
      remat=remat,
    ),
    projection=tuple(projection),
    dtype=dtype,
  )
  rule = optim.partition.freeze(optimizer or optax.identity(), network.frozen)

  def pixels(image: jax.Array) -> jax.Array:
    return normalize_pixels(image, mean=mean, std=std)

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    variables = models.initial_variables(key, network, spec.batch['image'], pretrained=pretrained)
    model_state = {'batch_stats': variables['batch_stats']}
    return optim.initial_state(variables['params'], model_state, rule, average_decay=average_decay)

  def loss(key: jax.Array, params: Any, model_state: Any, batch: Batch):
    image, valid = batch['image'], batch['valid']
    both = [
      augment.random_views(one, image, batch['index'], **views) for one in jax.random.split(key)
    ]
    outputs, updated = network.apply(
      {'params': params, 'batch_stats': model_state['batch_stats']},
      pixels(jnp.concatenate(both)),  # [2N, H, W, C]: one pass, one set of statistics
      train=True,
      valid=jnp.tile(valid, 2),
      mutable=['batch_stats'],
    )
    z_a, z_b = jnp.split(outputs.projection, 2)
    values = losses.nt_xent(z_a, z_b, temperature=temperature, valid=valid, axis_name=axis_name)
    per_image = values.reshape(2, -1).mean(0)  # [N]: an image is an anchor twice
    weight = valid.sum().astype(jnp.float32)
    return jnp.where(valid, per_image, 0.0).sum(), (weight, {**model_state, **updated}, {})

  step = optim.gradient_step(
    loss,
    rule,
    axis_name=axis_name,
    average_decay=average_decay,
    frozen=network.frozen,
    accumulate=accumulate,
    coupled='nearest_neighbor compares the pictures of a batch with each other (NT-Xent)',
  )

  def embed(fitted: Fitted, image: jax.Array) -> jax.Array:
    """[N, H, W, 3] pixels -> [N, F] of length one."""
    chex.assert_rank(image, 4)
    outputs: Any = network.apply(
      {'params': fitted.params, 'batch_stats': fitted.model_state['batch_stats']},
      pixels(image),
      train=False,
    )
    return losses.unit_vectors(outputs.features)

  embed_batch = jax.jit(embed)

  def adapt(key: jax.Array, fitted: Fitted, references: References) -> Fitted:
    """Appends good images to those that are compared with."""
    del key  # the references decide everything
    network_alone = dataclasses.replace(fitted, memory=None, calibration=None)
    found = [] if fitted.memory is None else [jax.tree.map(np.asarray, fitted.memory)]
    for batch in good_parts(references):
      keep = np.asarray(batch['valid'])
      vectors = np.asarray(embed_batch(network_alone, batch['image']))
      found.append({'embeddings': vectors[keep], 'index': np.asarray(batch['index'])[keep]})
    memory = {name: jnp.asarray(np.concatenate([one[name] for one in found])) for name in found[0]}
    return dataclasses.replace(fitted, memory=memory)

  def predict(fitted: Fitted, batch: Batch) -> AnomalyMaps:
    if fitted.memory is None:
      raise ValueError('nearest_neighbor knows no good part yet: call adapt before predict.')
    bank = fitted.memory['embeddings']
    near = min(neighbours, bank.shape[0])
    distances, _ = nearest_neighbors(embed(fitted, batch['image']), bank, k=near)
    scores = distances.mean(1)
    return AnomalyMaps(scores=scores, maps=scores[:, None, None])

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    if fitted.memory is None:
      raise ValueError(
        'nearest_neighbor knows no good part yet: call adapt before it is converted.'
      )
    arguments = {
      **{'backbone': backbone, 'stages': stages, 'width': width, 'neighbours': neighbours},
      **{'classes': list(fitted.classes), 'mean': list(mean), 'std': list(std)},
    }
    arrays = {
      # Without the projection, which only training uses.
      'params': {'backbone': fitted.params['backbone']},
      'batch_stats': {'backbone': fitted.model_state['batch_stats']['backbone']},
      'memory': {'embeddings': np.asarray(fitted.memory['embeddings'])},
    }
    return 'nearest_neighbor', arguments, arrays

  return Method(init, optim.no_preparation, step, adapt, predict, deploy=deploy)
