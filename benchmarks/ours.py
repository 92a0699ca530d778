"""Our side: a train step and an inference of a recogniser, compiled once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdefect import methods, models
from jaxdefect.contracts import DataSpec

CLASSES = 1000


def recogniser(name: str, *, dtype: Any = jnp.float32) -> models.Recogniser:
  return models.Recogniser(backbone=models.backbone(name, dtype=dtype), num_classes=CLASSES)


def images(batch: int, side: int) -> np.ndarray:
  """[N, H, W, 3] standard normal."""
  return np.random.default_rng(0).normal(size=(batch, side, side, 3)).astype(np.float32)


def variables(module: models.Recogniser) -> Any:
  return jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def train_step(
  name: str, *, batch: int, side: int, dtype: Any = jnp.float32, repeats: int = 1
) -> Callable[[], object]:
  """Forward with batch statistics, backward and an SGD update with momentum.

  Args:
    name: of the backbone.
    batch: images per step.
    side: of the images, in pixels.
    dtype: of the computation; parameters stay float32.
    repeats: steps per call (enough of them hide the launch of one).

  Returns:
    A call that runs ``repeats`` steps and waits for the last.
  """
  module = recogniser(name, dtype=dtype)
  optimizer = optax.sgd(1e-3, momentum=0.9)

  def step(params, statistics, moments, x, label):
    def loss(params):
      tree = {'params': params, 'batch_stats': statistics}
      result, updated = module.apply(tree, x, train=True, mutable='batch_stats')
      losses = optax.softmax_cross_entropy_with_integer_labels(result.logits, label)
      return losses.mean(), updated['batch_stats']

    gradient, statistics = jax.grad(loss, has_aux=True)(params)
    updates, moments = optimizer.update(gradient, moments, params)
    return optax.apply_updates(params, updates), statistics, moments

  fresh = variables(module)
  state = (fresh['params'], fresh['batch_stats'], optimizer.init(fresh['params']))
  x, label = jnp.asarray(images(batch, side)), jnp.arange(batch) % CLASSES
  compiled = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*state, x, label).compile()

  def call() -> object:
    nonlocal state
    for _ in range(repeats):
      state = compiled(*state, x, label)
    return jax.block_until_ready(state)

  return call


def three_views(name: str, *, batch: int, side: int) -> Callable[[], object]:
  """A step of ``contrastive_margin`` as it is trained: it draws the two views of each image too.

  Args:
    name: of the backbone.
    batch: images per step; three times as many pass the network.
    side: of the images, in pixels.

  Returns:
    A call that runs a step and waits for it.
  """
  classes = tuple(map(str, range(10)))
  method = methods.load('contrastive_margin')(
    backbone=name, optimizer=optax.sgd(1e-3, momentum=0.9)
  )
  fed = {
    'image': np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8),
    'label': (np.arange(batch) % len(classes)).astype(np.int32),
    'valid': np.ones(batch, bool),
    'index': np.arange(batch, dtype=np.int32),
  }
  shapes = {key: jax.ShapeDtypeStruct(value.shape, value.dtype) for key, value in fed.items()}
  key = jax.random.key(0)
  spec = DataSpec(shapes, classes, (batch,) * len(classes))
  state = jax.jit(lambda key: method.init(key, spec))(key)
  compiled = jax.jit(method.step, donate_argnums=1).lower(key, state, fed).compile()

  def call() -> object:
    nonlocal state
    state, _ = compiled(key, state, fed)
    return jax.block_until_ready(state)

  return call


def inference(
  name: str, *, batch: int, side: int, dtype: Any = jnp.float32, repeats: int = 1
) -> Callable[[], object]:
  """Logits of a batch with running statistics; arguments as of ``train_step``."""
  module = recogniser(name, dtype=dtype)
  tree, x = variables(module), jnp.asarray(images(batch, side))
  compiled = jax.jit(lambda tree, x: module.apply(tree, x).logits).lower(tree, x).compile()

  def call() -> object:
    logits = None
    for _ in range(repeats):
      logits = compiled(tree, x)
    return jax.block_until_ready(logits)

  return call
