"""Deep one-class classification (Deep SVDD, Ruff et al. 2018): good parts near one point.

An encoder without biases learns to bring every good part near a fixed centre c. With embeddings
z the loss of the one-class objective (equation 4) is

  L = 1/n sum_i ||z_i - c||^2 + lambda/2 sum_l ||W_l||^2

and the score of an image is its squared distance ||z - c||^2 (equation 5).

- c is the mean embedding of the good parts before the first step, with the running statistics of
  the untrained network as in the authors' code, found by ``prepare``; a coordinate nearer to zero
  than 0.1 is pushed to 0.1 away from it, because a zero is what a network without kernels gives.
- What keeps a network from mapping everything to c is told in ``models.OneClassEncoder``.
- Left out: the soft-boundary objective (equation 3), and the autoencoder whose weights the authors
  start from. Pixels are brought to mean 0 and deviation 1 instead of contrast-normalised.
- ``backbone`` puts the encoder on the maps of a pretrained network, which stays as it is: a
  trained one has biases, and with them the centre could be reached by ignoring the image.

Shape legend: N images, H x W pixels, C channels, D embedding size.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdefect import models, optim
from jaxdefect.contracts import (
  AnomalyMaps,
  Batch,
  DataSpec,
  Fitted,
  Method,
  References,
  State,
)
from jaxdefect.data.good_parts import good_parts
from jaxdefect.ops import IMAGENET_MEAN, IMAGENET_STD, normalize_pixels

NEAREST_TO_ZERO = 0.1


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  backbone: str | None = None,
  stages: int | None = None,
  width: int = 64,
  channels: tuple[int, ...] = (32, 64, 128),
  kernel_size: int = 5,
  embedding: int = 128,
  weight_decay: float = 1e-6,
  mean: tuple[float, ...] = IMAGENET_MEAN,
  std: tuple[float, ...] = IMAGENET_STD,
  dtype: Any = jnp.float32,
  accumulate: int = 1,
  axis_name: str | None = None,
) -> Method:
  """Makes the deep one-class classifier.

  Args:
    optimizer: optax transformation; None where nothing will be trained.
    backbone: a name of ``models.backbone`` whose last map the encoder sees; it is never trained.
      None: the encoder sees the image.
    stages: the backbone ends after this stage; None for the whole network.
    width: channels of a ResNet's first stage; 64 is the published network.
    channels: of the encoder's layers; each halves the map.
    kernel_size: side of the encoder's windows in pixels, odd.
    embedding: D.
    weight_decay: lambda of equation 4, over the encoder's kernels.
    mean: per channel, in 0..1, subtracted from the pixels.
    std: per channel, in 0..1, by which they are divided then.
    dtype: compute type of the networks; parameters, distances and the loss stay float32.
    accumulate: 1, as the encoder's BatchNorm sees the whole batch.
    axis_name: the device axis, for BatchNorm and the gradient.

  Returns:
    The ``Method``. It has no map. ``prepare`` needs the good parts. ``adapt`` keeps nothing: the
    centre belongs to the training, and moving it alone would leave the encoder behind.

  Raises:
    ValueError: a negative ``weight_decay``.
  """
  if not weight_decay >= 0:
    raise ValueError(f'weight_decay is {weight_decay}; it must be 0 or more.')
  encoder = models.OneClassEncoder(
    channels=tuple(channels),
    kernel_size=kernel_size,
    embedding=embedding,
    axis_name=axis_name,
    dtype=dtype,
  )
  trunk = None
  if backbone is not None:
    trunk = models.backbone(
      backbone, stages=stages, width=width, update_statistics=False, dtype=dtype
    )

  def frozen(path: optim.partition.Path) -> bool:
    return path[0] == 'backbone'

  rule = optim.partition.freeze(optimizer or optax.identity(), frozen)

  def pixels(image: jax.Array) -> jax.Array:
    return normalize_pixels(image, mean=mean, std=std)

  def seen(params: Any, statistics: Any, image: jax.Array) -> jax.Array:
    """What the encoder sees: the image, or the backbone's map of it."""
    if trunk is None:
      return pixels(image)
    variables = {'params': params['backbone'], 'batch_stats': statistics['backbone']}
    maps: Any = trunk.apply(variables, pixels(image))
    return jax.lax.stop_gradient(maps[-1])

  def embed(params: Any, statistics: Any, image: jax.Array) -> jax.Array:
    """[N, H, W, C] -> [N, D], with the running statistics."""
    variables = {'params': params['encoder'], 'batch_stats': statistics['encoder']}
    z: Any = encoder.apply(variables, seen(params, statistics, image), running=True)
    return z

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    trunk_key, encoder_key = jax.random.split(key)
    x = jnp.zeros((1, *spec.batch['image'].shape[1:]), jnp.float32)
    variables = {'params': {}, 'batch_stats': {}}

    def add(name: str, made: Any) -> None:
      for collection, group in variables.items():
        group[name] = made.get(collection, {})

    if trunk is not None:
      maps, made = trunk.init_with_output(trunk_key, x)
      x = maps[-1]
      add('backbone', made)
    add('encoder', encoder.init(encoder_key, x, running=True))
    if pretrained is not None:
      variables = models.merge_pretrained(variables, pretrained)
    model_state = {
      'batch_stats': variables['batch_stats'],
      'center': jnp.zeros((embedding,), jnp.float32),
    }
    return optim.initial_state(variables['params'], model_state, rule)

  def prepare(key: jax.Array, state: State, references: References | None) -> State:
    """Puts the centre at the mean embedding of the good parts, away from zero."""
    del key
    if references is None:
      raise ValueError('deep_svdd got no references; prepare needs the good parts for its centre.')
    batch_embeddings = jax.jit(embed)
    total, count = np.zeros(embedding), 0
    for batch in good_parts(references):
      keep = np.asarray(batch['valid'])
      z = batch_embeddings(state.params, state.model_state['batch_stats'], batch['image'])
      total += np.asarray(z, np.float64)[keep].sum(0)
      count += int(keep.sum())
    center = jnp.asarray(away_from_zero(total / count), state.model_state['center'].dtype)
    return state._replace(model_state={**state.model_state, 'center': center})

  def loss(key: jax.Array, params: Any, model_state: Any, batch: Batch):
    del key  # nothing is drawn
    valid, statistics = batch['valid'], model_state['batch_stats']
    z, updated = encoder.apply(
      {'params': params['encoder'], 'batch_stats': statistics['encoder']},
      seen(params, statistics, batch['image']),
      running=False,
      valid=valid,
      mutable=['batch_stats'],
    )
    distances = jnp.where(valid, squared_distances(z, model_state['center']), 0.0)
    weight = valid.sum().astype(jnp.float32)
    kernels = jax.tree.leaves(params['encoder'])
    decay = 0.5 * weight_decay * sum(jnp.sum(jnp.square(kernel)) for kernel in kernels)
    statistics = {**statistics, 'encoder': updated['batch_stats']}
    scalars = {'distance': (distances.sum(), weight)}
    # Times the weight, which gradient_step divides by: the penalty counts once over all devices.
    total = distances.sum() + weight * decay
    return total, (weight, {**model_state, 'batch_stats': statistics}, scalars)

  step = optim.gradient_step(
    loss,
    rule,
    axis_name=axis_name,
    frozen=frozen,
    accumulate=accumulate,
    coupled='the BatchNorm of the encoder takes its statistics from the whole batch',
  )

  def adapt(key: jax.Array, fitted: Fitted, references: References) -> Fitted:
    """Only makes sure that the references are good parts; nothing is kept of them."""
    del key
    if not np.any(fitted.model_state['center']):
      raise ValueError('deep_svdd has no centre; prepare must run before the first step.')
    for _ in good_parts(references):
      pass
    return fitted

  def predict(fitted: Fitted, batch: Batch) -> AnomalyMaps:
    chex.assert_rank(batch['image'], 4)
    z = embed(fitted.params, fitted.model_state['batch_stats'], batch['image'])
    scores = squared_distances(z, fitted.model_state['center'])
    return AnomalyMaps(scores=scores, maps=scores[:, None, None])

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    center = np.asarray(fitted.model_state['center'])
    if not center.any():
      raise ValueError(
        'deep_svdd has no centre: prepare must run before the first step, and before it is '
        'converted.'
      )
    arguments = {
      **{'backbone': backbone, 'stages': stages, 'width': width},
      **{'channels': list(channels), 'kernel_size': kernel_size, 'embedding': embedding},
      'flattened': fitted.params['encoder']['embedding']['kernel'].shape[0],
      **{'classes': list(fitted.classes), 'mean': list(mean), 'std': list(std)},
    }
    arrays = {
      'params': fitted.params,
      'batch_stats': fitted.model_state['batch_stats'],
      'memory': {'center': center},
    }
    return 'deep_svdd', arguments, arrays

  return Method(init, prepare, step, adapt, predict, deploy=deploy)


def squared_distances(z: jax.Array, center: jax.Array) -> jax.Array:
  """[N, D], [D] -> [N].

  >>> squared_distances(jnp.array([[3.0, 5.0]]), jnp.array([0.0, 1.0])).tolist()
  [25.0]
  """
  return jnp.sum(jnp.square(z - center[None]), axis=-1)


def away_from_zero(center: np.ndarray) -> np.ndarray:
  """Moves what is nearer to zero than 0.1 to -0.1 (below zero) or 0.1.

  >>> away_from_zero(np.array([-0.01, 0.0, 0.05, -0.3])).tolist()
  [-0.1, 0.1, 0.1, -0.3]
  """
  pushed = np.where(center < 0, -NEAREST_TO_ZERO, NEAREST_TO_ZERO)
  return np.where(np.abs(center) < NEAREST_TO_ZERO, pushed, center)
