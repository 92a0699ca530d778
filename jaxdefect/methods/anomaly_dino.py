r"""AnomalyDINO (Damm, Laszkiewicz, Lederer & Fischer, WACV 2025, arXiv:2405.14529).

A few good parts are enough where patches are described well (section 3). All patches of the
references, each reference turned in steps of 45 degrees, are the bank :math:`\mathcal M`, and a
patch p of a picture is as anomalous as it differs in direction from the nearest of them:

.. math:: d(p, \mathcal M) = \min_{m \in \mathcal M} 1 - \frac{f(p)^T f(m)}{\|f(p)\|\,\|f(m)\|}

The score of a picture is the mean of the 1 % largest distances, the empirical tail value at risk.
With ``mask_threshold`` the background of a picture counts as distance 0; where it is, the first
principal component of the picture's own features says (``ops.foreground_mask``). The map is the
distances, enlarged to the image and smoothed (sigma 4). Nothing is trained; to ``adapt`` again adds
references.

What the paper leaves to the authors' program, and what is done here:

- Whether pictures are masked is decided for each product by looking at the mask of one reference
  (the masking test). It is a setting here. References keep their background, as there.
- 1 % of P patches is the whole part of P / 100, but one patch at least, and masked patches count
  among the P.
- References are turned about the centre of the network's image, with mirrored borders (there: of
  the native picture, before it is resized).
- The picture's shorter side is 448 pixels there, and what exceeds a multiple of 14 is cut off. Here
  the size of images is set by the data; sides that are no multiple of a patch are refused.

The features are those of the last block of DINOv2, normalised. Any network of
``models.frozen_backbone`` can take its place: the maps of ``layers`` are joined as PatchCore does.
But the cosine is for features whose length says little. On bottle caps (481 test images, 16 good
parts, one seed) the ImageNet ResNet-18 reaches an AUROC of 87.9 so, and 92.0 where the same mean of
the 1 % largest is taken of Euclidean distances; random features of a ViT-S/14 (at 224 pixels) 77.2.

Shape legend: N images, H x W pixels, P = h x w patches of an image, D features, M patches of the
bank.
"""

import dataclasses
import functools
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
from jaxdefect.ops import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  foreground_mask,
  nearest_neighbors,
  normalize_pixels,
  smooth_map,
  warp,
)


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  backbone: str = 'dinov2_vits14',
  stages: int | None = None,
  width: int = 64,
  layers: tuple[int, ...] = (4,),
  neighbourhood: int = 1,
  turns: int = 8,
  mask_threshold: float | None = None,
  share: float = 0.01,
  sigma: float = 4.0,
  chunk: int = 2**14,
  mean: tuple[float, ...] = IMAGENET_MEAN,
  std: tuple[float, ...] = IMAGENET_STD,
  dtype: Any = jnp.float32,
  axis_name: str | None = None,
) -> Method:
  """Makes AnomalyDINO, which ``adapt`` alone fits.

  Args:
    optimizer: not used, nothing is trained.
    backbone: a name of ``models.frozen_backbone``.
    stages: the network ends after this stage; None for the last of ``layers``.
    width: features of a transformer's head, or channels of a ResNet's first stage; 64 is the
      published network.
    layers: stages whose maps describe a patch, rising; the grid is that of the first. A stage of a
      transformer is a quarter of its blocks (paper: the last).
    neighbourhood: side of the window over which maps are averaged, in places (paper: 1, none).
    turns: views of each reference, evenly spaced over a full turn (paper: 8, or 1 where it is known
      that parts always lie the same way).
    mask_threshold: of ``ops.foreground_mask`` on the picture (paper: 10 for DINOv2); None looks at
      the whole picture.
    share: of the patches whose mean distance is the score (paper: 0.01).
    sigma: of the map's smoothing, pixels of the image; 0 does not smooth (paper: 4).
    chunk: patches of the bank that are compared at once; bounds memory, changes nothing else.
    mean: per channel, in 0..1, subtracted from the pixels.
    std: per channel, in 0..1, by which they are divided then.
    dtype: compute type of the network; features and distances are float32.
    axis_name: not used, nothing is trained.

  Returns:
    The ``Method``. ``memory`` is ``{'bank': [M, D] float32}``, of length 1; scores and maps are
    in 0..2.

  Raises:
    ValueError: an argument that is out of its range, or layers that the backbone does not have.
  """
  del optimizer, axis_name
  if turns < 1:
    raise ValueError(f'turns is {turns}; it can be 1 (references as they are) or more.')
  if not 0 < share <= 1:
    raise ValueError(f'share is {share}; it can be above 0 up to 1.')
  if mask_threshold is not None and mask_threshold < 0:
    raise ValueError(f'mask_threshold is {mask_threshold}; it can be 0 or more, or None.')
  trunk_stages = max(layers) if stages is None else stages
  trunk = models.frozen_backbone(backbone, stages=trunk_stages, width=width, dtype=dtype)
  network = models.PatchFeatures(trunk, layers=tuple(layers), neighbourhood=neighbourhood)

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    variables = models.initial_variables(key, network, spec.batch['image'], pretrained=pretrained)
    model_state = {k: v for k, v in variables.items() if k != 'params'}  # no statistics in a ViT
    return optim.initial_state(variables['params'], model_state, optax.identity())

  prepare, step = optim.no_steps('anomaly_dino')

  def features(fitted: Fitted, image: jax.Array) -> Any:
    """[N, h, w, D] float32."""
    chex.assert_rank(image, 4)
    pixels = normalize_pixels(image, mean=mean, std=std)
    return network.apply({'params': fitted.params, **fitted.model_state}, pixels)

  @jax.jit
  def describe_turned(fitted: Fitted, image: jax.Array, matrix: jax.Array) -> jax.Array:
    where = jnp.broadcast_to(matrix, (image.shape[0], 2, 3))
    return unit_vectors(features(fitted, warp(image, where)))

  def adapt(key: jax.Array, fitted: Fitted, references: References) -> Fitted:
    """Appends the patches of good parts, in all their turns, to the bank."""
    del key  # the references decide everything
    network_alone = dataclasses.replace(fitted, memory=None, calibration=None)
    found = [] if fitted.memory is None else [np.asarray(fitted.memory['bank'])]
    for batch in good_parts(references):
      keep = np.asarray(batch['valid'])
      if not keep.any():
        continue
      for number in range(turns):
        matrix = rotation(360 * number / turns, batch['image'].shape[1:3])
        patches = np.asarray(describe_turned(network_alone, batch['image'], matrix))
        found.append(patches[keep].reshape(-1, patches.shape[-1]))
    return dataclasses.replace(fitted, memory={'bank': jnp.asarray(np.concatenate(found))})

  def predict(fitted: Fitted, batch: Batch) -> AnomalyMaps:
    if fitted.memory is None:
      raise ValueError('anomaly_dino knows no good part yet: call adapt before predict.')
    maps = features(fitted, batch['image'])
    queries = unit_vectors(maps).reshape(-1, maps.shape[-1])
    apart, _ = nearest_neighbors(queries, fitted.memory['bank'], chunk=chunk)
    # Of vectors of length 1, half the square of the distance is one less the cosine.
    distances = jnp.square(apart[:, 0]).reshape(maps.shape[:3]) / 2  # [N, h, w]
    if mask_threshold is not None:
      seen = jax.vmap(functools.partial(foreground_mask, threshold=mask_threshold))(maps)
      distances = jnp.where(seen, distances, 0)
    scores = tail_mean(distances.reshape(maps.shape[0], -1), share=share)
    return AnomalyMaps(scores, smooth_map(distances, size=batch['image'].shape[1:3], sigma=sigma))

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    if fitted.memory is None:
      raise ValueError('anomaly_dino knows no good part yet: call adapt before it is converted.')
    arguments = {
      **{'backbone': backbone, 'stages': trunk_stages, 'width': width, 'layers': list(layers)},
      **{'neighbourhood': neighbourhood, 'mask_threshold': mask_threshold, 'share': share},
      **{'sigma': sigma, 'classes': list(fitted.classes), 'mean': list(mean), 'std': list(std)},
    }
    return (
      'anomaly_dino',
      arguments,
      {
        'params': fitted.params,
        **fitted.model_state,
        'memory': dict(fitted.memory),
      },
    )

  return Method(init, prepare, step, adapt, predict, deploy=deploy)


def unit_vectors(vectors: jax.Array) -> jax.Array:
  """[..., D] divided by their lengths; zeros stay zeros."""
  return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def tail_mean(distances: jax.Array, *, share: float = 0.01) -> jax.Array:
  """Mean of the largest distances of each image, the empirical tail value at risk.

  Args:
    distances: [N, P].
    share: how many of the P, in 0..1, rounded down; one at least.

  Returns:
    [N].

  >>> tail_mean(jnp.array([[3.0, 0, 5, 1]]), share=0.5).tolist()
  [4.0]
  """
  count = max(1, int(share * distances.shape[1]))
  return jax.lax.top_k(distances, count)[0].mean(1)


def rotation(degrees: float, size: tuple[int, int]) -> np.ndarray:
  """The matrix of ``ops.warp`` that turns an image about its centre, counter-clockwise.

  Args:
    degrees: how far.
    size: (H, W) of the image.

  Returns:
    [2, 3] float32. Multiples of 90 degrees map a square image's pixels onto pixels.
  """
  angle = np.deg2rad(degrees)
  cosine, sine = np.round([np.cos(angle), np.sin(angle)], 15)  # exactly 0 and 1 at quarter turns
  turn = np.array([[cosine, sine], [-sine, cosine]])
  centre = (np.asarray(size) - 1) / 2
  return np.concatenate([turn, (centre - turn @ centre)[:, None]], axis=1).astype(np.float32)
