r"""PatchCore: how far is each patch from every patch of a good part (Roth et al. 2022).

A pretrained backbone describes the patches of good images, a k-centre greedy coreset of them is
the bank, and a patch of a new image is as anomalous as it is far from the nearest one of the bank.
Nothing is trained.

The score of an image is the largest distance s* of its patches, before any smoothing. With
``reweight`` (equation 7) it counts in full where the nearest patch m* of the bank is itself rare,
and down to 1 - 1/b of it where m* has many like it:

.. math::
  s = \Big(1 - \frac{\exp d(m^{test}, m^*)}{\sum_{m \in N_b(m^*)} \exp d(m^{test}, m)}\Big) s^*

N_b are the b patches of the bank nearest to m*, itself among them. The authors' repository leaves
this out (``reweight=False``). The map holds the distances of the patches without that factor,
enlarged to the image's size and smoothed.

A bank grows and shrinks without refitting: ``adapt`` on a fitted PatchCore adds good images,
``bank_size`` keeps it from growing for ever, and ``forget`` takes images out again. All of them
move the scores a little: calibrate again afterwards.

Shape legend: N images, H x W pixels, h x w patches of an image, D features of a patch, M patches of
the bank, P patches of all references.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdefect import models, ops, optim
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


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  backbone: str = 'resnet18',
  stages: int | None = None,
  width: int = 64,
  layers: tuple[int, ...] = (2, 3),
  neighbourhood: int = 3,
  coreset: float | None = 0.1,
  bank_size: int | None = None,
  projection: int | None = 128,
  reweight: bool = True,
  neighbours: int = 9,
  sigma: float = 4.0,
  chunk: int = 2**14,
  mean: tuple[float, ...] = IMAGENET_MEAN,
  std: tuple[float, ...] = IMAGENET_STD,
  dtype: Any = jnp.float32,
  axis_name: str | None = None,
) -> Method:
  """Makes PatchCore.

  Args:
    optimizer: not used, nothing is trained.
    backbone: a name of ``models.backbone``.
    stages: the network ends after this stage; None for the last of ``layers``.
    width: channels of a ResNet's first stage; 64 is the published network.
    layers: stages whose maps describe a patch; the grid is that of the first.
    neighbourhood: side of the window over which maps are averaged, in places of the map.
    coreset: share of the patches that ``adapt`` keeps; None or 1 keeps all.
    bank_size: most patches that the bank may have; one that has grown beyond is reduced as a whole
      by k-centre greedy. None sets no limit.
    projection: dimensions of the random projection in which the coreset is chosen (not searched);
      None chooses in all D.
    reweight: whether the factor of equation 7 is applied to the score.
    neighbours: b of equation 7.
    sigma: of the map's smoothing, pixels of the image; 0 does not smooth.
    chunk: patches of the bank that are compared at once, which bounds memory.
    mean: per channel, in 0..1, subtracted from the pixels.
    std: per channel, in 0..1, by which they are divided then.
    dtype: compute type of the network; features and distances are float32.
    axis_name: not used, nothing is trained on several devices.

  Returns:
    The ``Method``. ``memory`` is ``{'bank': [M, D] float32, 'image': [M] int32}``, ``image`` the
    ``batch['index']`` of the picture that a patch came from.

  Raises:
    ValueError: an argument that is out of its range.
  """
  del optimizer, axis_name
  if coreset is not None and not 0 < coreset <= 1:
    raise ValueError(f'coreset is {coreset}; it can be a share above 0 up to 1, or None')
  for name, value in (('bank_size', bank_size), ('projection', projection)):
    if value is not None and value < 1:
      raise ValueError(f'{name} is {value}; it can be 1 or more, or None')
  if neighbours < 2:
    raise ValueError(f'neighbours is {neighbours}; it can be 2 or more')
  trunk_stages = max(layers) if stages is None else stages
  trunk = models.backbone(
    backbone,
    stages=trunk_stages,
    width=width,
    update_statistics=False,
    dtype=dtype,
  )
  network = models.PatchFeatures(trunk, layers=tuple(layers), neighbourhood=neighbourhood)

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    variables = models.initial_variables(key, network, spec.batch['image'], pretrained=pretrained)
    model_state = {'batch_stats': variables['batch_stats']}
    return optim.initial_state(variables['params'], model_state, optax.identity())

  prepare, step = optim.no_steps('patchcore')

  def variables_of(fitted: Fitted) -> dict[str, Any]:
    return {'params': fitted.params, 'batch_stats': fitted.model_state['batch_stats']}

  def features(variables: Any, image: jax.Array) -> Any:
    """[N, h, w, D] float32."""
    chex.assert_rank(image, 4)
    return network.apply(variables, normalize_pixels(image, mean=mean, std=std))

  describe = jax.jit(features)

  @jax.jit
  def project(key: jax.Array, patches: jax.Array) -> jax.Array:
    if projection is None or projection >= patches.shape[-1]:
      return patches
    return ops.random_projection(key, patches, dim=projection)

  def gather(fitted: Fitted, references: References) -> tuple[list[np.ndarray], np.ndarray]:
    """Patches [n h w, D] batch by batch, and the image [P] that each came from."""
    blocks, images = [], []
    for batch in good_parts(references):
      keep = np.asarray(batch['valid'])
      if not keep.any():
        continue
      found = np.asarray(describe(variables_of(fitted), batch['image']))
      places = found.shape[1] * found.shape[2]
      blocks.append(found[keep].reshape(-1, found.shape[-1]))  # [n h w, D]
      images.append(np.repeat(np.asarray(batch['index'], np.int32)[keep], places))
    return blocks, np.concatenate(images)

  def adapt(key: jax.Array, fitted: Fitted, references: References) -> Fitted:
    """Builds the bank from good parts, or adds them to the one there is.

    New patches are chosen as k-centre greedy with the old bank as its first choices: a share
    ``coreset`` of the new ones, the farthest from what is known. The old images are not needed.
    """
    key_project, key_choose, key_shrink = jax.random.split(key, 3)
    blocks, images = gather(fitted, references)
    num = images.size if coreset is None else max(1, round(coreset * images.size))
    old = fitted.memory
    if old is None and bank_size is not None:
      num = min(num, bank_size)
    if num < images.size:
      projected = jnp.concatenate([project(key_project, block) for block in blocks])
      known = None if old is None else project(key_project, old['bank'])
      rows = np.asarray(ops.k_center_greedy(projected, num, key=key_choose, centers=known))
      del projected, known
      bank = _take(blocks, rows)
      images = images[rows]
    else:
      bank = np.concatenate(blocks)
    del blocks
    if old is not None:
      bank = np.concatenate([np.asarray(old['bank']), bank])
      images = np.concatenate([np.asarray(old['image']), images])
    if bank_size is not None and len(bank) > bank_size:
      projected = project(key_project, bank)
      rows = np.sort(np.asarray(ops.k_center_greedy(projected, bank_size, key=key_shrink)))
      bank, images = bank[rows], images[rows]
    memory = {'bank': jnp.asarray(bank), 'image': jnp.asarray(images)}
    return dataclasses.replace(fitted, memory=memory)

  def predict(fitted: Fitted, batch: Batch) -> AnomalyMaps:
    if fitted.memory is None:
      raise ValueError('patchcore has no bank yet: call adapt before predict')
    bank = fitted.memory['bank']
    maps = features(variables_of(fitted), batch['image'])
    count, height, width, size = maps.shape
    patches = maps.reshape(count, height * width, size)  # [N, h w, D]
    distances, nearest = ops.nearest_neighbors(patches.reshape(-1, size), bank, chunk=chunk)
    distances = distances.reshape(count, height * width)
    scores = distances.max(1)
    if reweight and bank.shape[0] > 1:
      worst = distances.argmax(1)[:, None]
      found = jnp.take_along_axis(nearest.reshape(count, -1), worst, axis=1)[:, 0]  # m*
      patch = jnp.take_along_axis(patches, worst[:, :, None], axis=1)[:, 0]  # [N, D]
      scores *= rarity_factor(patch, bank, found, neighbours=neighbours, chunk=chunk)
    maps = ops.smooth_map(
      distances.reshape(count, height, width), size=batch['image'].shape[1:3], sigma=sigma
    )
    return AnomalyMaps(scores=scores, maps=maps)

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    if fitted.memory is None:
      raise ValueError('patchcore has no bank yet: call adapt before it is converted')
    arguments = {
      **{'backbone': backbone, 'stages': trunk_stages, 'width': width},
      **{'layers': list(layers), 'neighbourhood': neighbourhood, 'reweight': reweight},
      **{'neighbours': neighbours, 'sigma': sigma},
      **{'classes': list(fitted.classes), 'mean': list(mean), 'std': list(std)},
    }
    return (
      'patchcore',
      arguments,
      {**variables_of(fitted), 'memory': {'bank': fitted.memory['bank']}},
    )

  return Method(init, prepare, step, adapt, predict, deploy=deploy)


def rarity_factor(
  patches: jax.Array,
  bank: jax.Array,
  nearest: jax.Array,
  *,
  neighbours: int = 9,
  chunk: int = 2**14,
) -> jax.Array:
  """The factor of equation 7: 1 where m* lies in the open, down to 1 - 1/b in a crowd.

  Args:
    patches: [N, D] the most anomalous patch of each image.
    bank: [M, D], M of 2 or more.
    nearest: [N] integers, the patch m* of the bank that is nearest to it.
    neighbours: b, patches of the bank around m*, itself among them.
    chunk: of ``ops.nearest_neighbors``.

  Returns:
    [N].
  """
  own = bank[nearest]  # [N, D]
  _, around = ops.nearest_neighbors(own, bank, k=min(neighbours, bank.shape[0]), chunk=chunk)
  distances = jnp.sqrt(jnp.square(patches[:, None] - bank[around]).sum(-1))  # [N, b]
  # m* is at distance 0 from itself, so it comes first. A softmax does not overflow, and the sum of
  # the others does not cancel as 1 - share does.
  return jax.nn.softmax(distances, axis=1)[:, 1:].sum(1)


def forget(fitted: Fitted, images: Sequence[int]) -> Fitted:
  """Takes the patches of some images out of the bank, for parts that were not good after all.

  Nothing is refitted: what only those images had shown is anomalous from now on. (Where the bank
  is a coreset, a patch of another image that was left out because one of these was near stays
  out until its image is adapted to again.)

  Args:
    fitted: a PatchCore with a bank.
    images: their ``batch['index']``; one that has no patch in the bank changes nothing.

  Returns:
    The ``Fitted`` with the smaller bank.

  Raises:
    ValueError: there is no bank, or nothing of it would be left.
  """
  if fitted.memory is None:
    raise ValueError('there is no bank yet, so no image can be taken out of it')
  keep = ~np.isin(np.asarray(fitted.memory['image']), np.asarray(list(images), np.int32))
  if not keep.any():
    raise ValueError(
      f'the bank holds patches of the {len(set(images))} images to forget alone; a bank cannot be '
      'empty, adapt to other good images first'
    )
  memory = {name: jnp.asarray(np.asarray(array)[keep]) for name, array in fitted.memory.items()}
  return dataclasses.replace(fitted, memory=memory)


def _take(blocks: list[np.ndarray], rows: np.ndarray) -> np.ndarray:
  """Rows of the concatenation of blocks, without concatenating them."""
  starts = np.cumsum([0] + [len(block) for block in blocks])
  taken = np.empty((len(rows), blocks[0].shape[1]), blocks[0].dtype)
  for start, block in zip(starts, blocks):
    inside = (rows >= start) & (rows < start + len(block))
    taken[inside] = block[rows[inside] - start]
  return taken
