"""Pooled features of a pretrained backbone that stays as it is, of pictures and random views."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxdefect import data, models
from jaxdefect.data import augment, view_geometry
from jaxdefect.ops import IMAGENET_MEAN, IMAGENET_STD, normalize_pixels
from launch import experiment

# (key, pixels [n, H, W, C], index [n], label [n]) -> pixels of the same shape.
Draw = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def pooled(config: ConfigDict) -> tuple[Callable[[jax.Array], jax.Array], str]:
  """The last map of the pretrained backbone, averaged over its places, and what it is.

  Returns:
    A compiled function, pixels [n, H, W, C] -> [n, F] float32, and the name of the weights.
  """
  pretrained, name = experiment.load_pretrained(config)
  if pretrained is None:
    raise ValueError('pretrained.weights names no file; features need pretrained weights')
  return describer(config, {kind: tree['backbone'] for kind, tree in pretrained.items()}), name


def describer(config: ConfigDict, variables: Any) -> Callable[[jax.Array], jax.Array]:
  """Compiled: the last map of the backbone with these variables, averaged over its places."""
  settings = {name: config.method[name] for name in ('stages', 'width') if name in config.method}
  network = models.backbone(config.method.backbone, **settings)

  @jax.jit
  def describe(image: jax.Array) -> jax.Array:
    pixels = normalize_pixels(image, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return models.global_average_pool(network.apply(variables, pixels)[-1])

  return describe


def features(
  config: ConfigDict,
  source: data.Source,
  indices: Sequence[int],
  *,
  describe: Callable[[jax.Array], jax.Array] | None = None,
  draw: Draw | None = None,
  views: int = 0,
  seed: int = 0,
) -> np.ndarray:
  """Features of the pictures as they are, and of random views of them.

  Args:
    config: names the data, the backbone and its weights.
    source: the data set.
    indices: [n] places in it.
    describe: of ``pooled``; None makes it.
    draw: of ``random_views``; needed for views.
    views: how many of each picture.
    seed: of the views.

  Returns:
    [n, 1 + views, F], the picture as it is first.
  """
  describe = pooled(config)[0] if describe is None else describe
  drawn = None if draw is None else jax.jit(draw)
  found = []
  for batch in experiment.eval_batches(config, source, indices, source.classes):
    rows = [np.asarray(describe(batch['image']))]
    for number in range(views):
      assert drawn is not None
      key = jax.random.fold_in(jax.random.key(seed), number)
      rows.append(np.asarray(describe(drawn(key, batch['image'], batch['index'], batch['label']))))
    found.append(np.stack(rows, axis=1)[np.asarray(batch['valid'])])
  return np.concatenate(found)


def random_views(settings: dict[str, Any], classes: Sequence[str]) -> Draw:
  """``data.augment.random_views`` with the settings of ``method.augmentation``."""
  settings = dict(settings)
  limits = settings.pop('angle_limits', None)
  if limits:
    settings['angle_limits'] = view_geometry.class_limits(limits, tuple(classes))
  draw = functools.partial(augment.random_views, **settings)
  return lambda key, image, index, label: draw(key, image, index, label=label)
