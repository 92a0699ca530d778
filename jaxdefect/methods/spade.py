r"""SPADE (Cohen & Hoshen 2020, arXiv:2005.02357): nearest good images, then nearest places in them.

Two stages of nearest neighbours in a gallery of good images:

1. **Image** (section 3.2). With f the globally pooled last map of the backbone, the score is the
   mean distance to the K nearest images of the gallery. (The paper averages squares; for K = 1
   the order is the same.)
2. **Place** (sections 3.3, 3.4). With F(y, p) the maps of ``layers`` side by side at place p, on
   the grid of the first of them, a place is as anomalous as its mean distance to the kappa nearest
   of *all* places of these K images: alignment is found, not assumed. The map is enlarged to the
   image and smoothed (sigma 4).

So the paper's score of an image is not made from its map (``score='images'``); the maximum of the
map (``score='map'``) is the alternative, for small defects; docs/results.md has both. The paper
takes the three stages at stride 4: at 224 pixels that compares 3136 places with 50 x 3136 others
of 448 features for every image, 220 billion multiplications; stages 2 and 3 at stride 8, the
default here, need 12 billion.

Shape legend: N images, M images of the gallery, K of them near, P = h x w places, F and D features.
"""

import dataclasses
from typing import Any, Literal

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
from jaxdefect.models.patch_features import join_maps
from jaxdefect.ops import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  nearest_neighbors,
  normalize_pixels,
  smooth_map,
)


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  backbone: str = 'resnet18',
  stages: int | None = None,
  layers: tuple[int, ...] = (2, 3),
  width: int = 64,
  images: int = 50,
  places: int = 1,
  score: Literal['images', 'map'] = 'images',
  chunk: int = 2**14,
  sigma: float = 4.0,
  gallery_dtype: Any = 'float16',
  mean: tuple[float, ...] = IMAGENET_MEAN,
  std: tuple[float, ...] = IMAGENET_STD,
  dtype: Any = jnp.float32,
  axis_name: str | None = None,
) -> Method:
  """Makes SPADE, which ``adapt`` alone fits.

  Args:
    optimizer: not used, nothing is trained.
    backbone: a name of ``models.backbone``.
    stages: the network ends after this stage, which is pooled; None for the last of ``layers``
      (paper: 4).
    layers: stages that describe a place, counted from 1; the first gives the grid.
    width: channels of a ResNet's first stage; 64 is the published network.
    images: K, near images of the gallery (paper: 50); all where the gallery has no more.
    places: kappa, near places in them (paper: 1).
    score: what an image is judged by: the distance of the 'images' (paper) or the maximum of the
      'map', which finds small defects.
    chunk: places of the gallery that are compared at once; bounds memory, changes nothing else.
    sigma: of the Gaussian on the map, pixels (paper: 4).
    gallery_dtype: type in which the places of the gallery are kept; float16 halves them.
    mean: per channel, in 0..1, subtracted from the pixels.
    std: per channel, in 0..1, by which they are divided then.
    dtype: compute type of the network; distances are float32.
    axis_name: not used, nothing is trained.

  Returns:
    The ``Method``. ``predict`` gives maps at the image's size, and scores as ``score`` says.
    ``adapt`` appends to the gallery.

  Raises:
    ValueError: ``images`` or ``places`` is not positive, ``score`` is unknown, or the backbone
      lacks a layer.
  """
  del optimizer, axis_name
  if images < 1 or places < 1:
    raise ValueError(f'images and places must be 1 or more, got {images} and {places}.')
  if score not in ('images', 'map'):
    raise ValueError(f"score must be 'images' or 'map', got {score!r}.")
  trunk_stages = max(layers) if stages is None else stages
  trunk = models.backbone(
    backbone,
    stages=trunk_stages,
    width=width,
    update_statistics=False,
    dtype=dtype,
  )
  layers = tuple(layers)
  network = models.PatchFeatures(trunk, layers=layers, neighbourhood=1)

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    variables = models.initial_variables(key, network, spec.batch['image'], pretrained=pretrained)
    model_state = {'batch_stats': variables['batch_stats']}
    return optim.initial_state(variables['params'], model_state, optax.identity())

  prepare, step = optim.no_steps('spade')

  def embed(fitted: Fitted, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[N, H, W, 3] pixels -> [N, F] of the image and [N, h, w, D] of its places."""
    chex.assert_rank(image, 4)
    maps: Any = trunk.apply(
      {
        'params': fitted.params['backbone'],
        'batch_stats': fitted.model_state['batch_stats']['backbone'],
      },
      normalize_pixels(image, mean=mean, std=std),
      train=False,
    )
    joined = join_maps([maps[k - 1].astype(jnp.promote_types(dtype, jnp.float32)) for k in layers])
    return models.global_average_pool(maps[-1]), joined

  embed_batch = jax.jit(embed)

  def adapt(key: jax.Array, fitted: Fitted, references: References) -> Fitted:
    """Appends good images to the gallery."""
    del key  # the references decide everything
    network_alone = dataclasses.replace(fitted, memory=None, calibration=None)
    found = [] if fitted.memory is None else [jax.tree.map(np.asarray, fitted.memory)]
    for batch in good_parts(references):
      keep = np.asarray(batch['valid'])
      features, maps = embed_batch(network_alone, batch['image'])
      one = {
        'features': np.asarray(features)[keep],
        'places': np.asarray(maps.astype(gallery_dtype))[keep],
        'index': np.asarray(batch['index'])[keep],
      }
      if found:
        check_grid(found[0]['places'].shape, one['places'].shape)
      found.append(one)
    memory = {name: jnp.asarray(np.concatenate([one[name] for one in found])) for name in found[0]}
    return dataclasses.replace(fitted, memory=memory)

  def predict(fitted: Fitted, batch: Batch) -> AnomalyMaps:
    if fitted.memory is None:
      raise ValueError('spade knows no good part yet: call adapt before predict.')
    gallery = fitted.memory['places']  # [M, h, w, D]
    features, maps = embed(fitted, batch['image'])
    check_grid(gallery.shape, maps.shape)
    near = min(images, gallery.shape[0])
    distances, indices = nearest_neighbors(features, fitted.memory['features'], k=near)

    def place_distances(one: tuple[jax.Array, jax.Array]) -> jax.Array:
      queries, index = one  # [h, w, D], [K]
      bank = gallery[index].reshape(-1, gallery.shape[-1])  # [K * P, D]
      queries = queries.reshape(-1, queries.shape[-1])  # [P, D]
      kappa = min(places, bank.shape[0])
      return nearest_neighbors(queries, bank, k=kappa, chunk=chunk)[0].mean(1)

    # One image after another: K x P x D of the gallery are gathered at once, never N times that.
    found = jax.lax.map(place_distances, (maps, indices)).reshape(maps.shape[:3])  # [N, h, w]
    found = smooth_map(found, size=batch['image'].shape[1:3], sigma=sigma)
    scores = distances.mean(1) if score == 'images' else found.max((1, 2))
    return AnomalyMaps(scores=scores, maps=found)

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    if fitted.memory is None:
      raise ValueError('spade knows no good part yet: call adapt before it is converted.')
    arguments = {
      **{'backbone': backbone, 'stages': trunk_stages, 'width': width, 'layers': list(layers)},
      **{'images': images, 'places': places, 'score': score, 'sigma': sigma},
      **{'classes': list(fitted.classes), 'mean': list(mean), 'std': list(std)},
    }
    known = np.asarray(fitted.memory['places'])
    if known.dtype != np.float16:
      known = known.astype(np.float32)  # bfloat16 is no type of NumPy's
    arrays = {
      'params': fitted.params,
      'batch_stats': fitted.model_state['batch_stats'],
      'memory': {
        'gallery_features': np.asarray(fitted.memory['features']),
        'gallery_places': known,
      },
    }
    return 'spade', arguments, arrays

  return Method(init, prepare, step, adapt, predict, deploy=deploy)


def check_grid(gallery: tuple[int, ...], maps: tuple[int, ...]) -> None:
  """Refuses maps [N, h, w, D] of another grid than the gallery's."""
  if gallery[1:3] != maps[1:3]:
    raise ValueError(
      f'the gallery has {gallery[1]} x {gallery[2]} places per image, images of this size have '
      f'{maps[1]} x {maps[2]}; fit and predict at one image size.'
    )
