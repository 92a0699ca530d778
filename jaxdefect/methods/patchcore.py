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

A bank that is too large for one device lies on several (``devices``), a share on each: ``spread``
lays it out, and ``predict`` searches it where it lies.

Shape legend: N images, H x W pixels, h x w patches of an image, D features of a patch, M patches of
the bank, P patches of all references.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

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

_AXIS = 'devices'
_SAME, _SHARE = PartitionSpec(), PartitionSpec(_AXIS)  # on every device, a share on each


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
  devices: int = 1,
  mean: tuple[float, ...] = IMAGENET_MEAN,
  std: tuple[float, ...] = IMAGENET_STD,
  dtype: Any = jnp.float32,
  axis_name: str | None = None,
) -> Method:
  """Makes PatchCore.

  Args:
    optimizer: not used, nothing is trained.
    backbone: a name of ``models.frozen_backbone``, a vision transformer too.
    stages: the network ends after this stage; None for the last of ``layers``.
    width: channels of a ResNet's first stage, or features of a transformer's head; 64 is the
      published network.
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
    devices: local devices over which the bank of ``predict`` and the patches of which ``adapt``
      chooses are spread; what comes out is the same. ``adapt`` lays the bank out where M is a
      multiple (as ``bank_size`` can be) and leaves it on the host otherwise. ``spread`` lays out
      that, or a file's; else each ``predict`` moves it, all of it to each if M is no multiple.
    mean: per channel, in 0..1, subtracted from the pixels.
    std: per channel, in 0..1, by which they are divided then.
    dtype: compute type of the network; features and distances are float32.
    axis_name: not used, nothing is trained on several devices.

  Returns:
    The ``Method``. ``memory`` is ``{'bank': [M, D] float32, 'image': [M] int32}``, ``image`` the
    ``batch['index']`` of the picture that a patch came from.

  Raises:
    ValueError: an argument that is out of its range, or more devices than there are.
  """
  del optimizer, axis_name
  if coreset is not None and not 0 < coreset <= 1:
    raise ValueError(f'coreset is {coreset}; it can be a share above 0 up to 1, or None')
  for name, value in (('bank_size', bank_size), ('projection', projection)):
    if value is not None and value < 1:
      raise ValueError(f'{name} is {value}; it can be 1 or more, or None')
  if neighbours < 2:
    raise ValueError(f'neighbours is {neighbours}; it can be 2 or more')
  mesh = None if devices == 1 else ops.device_mesh(devices, _AXIS)
  trunk_stages = max(layers) if stages is None else stages
  trunk = models.frozen_backbone(backbone, stages=trunk_stages, width=width, dtype=dtype)
  network = models.PatchFeatures(trunk, layers=tuple(layers), neighbourhood=neighbourhood)

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    variables = models.initial_variables(key, network, spec.batch['image'], pretrained=pretrained)
    model_state = {k: v for k, v in variables.items() if k != 'params'}  # no statistics in a ViT
    return optim.initial_state(variables['params'], model_state, optax.identity())

  prepare, step = optim.no_steps('patchcore')

  def variables_of(fitted: Fitted) -> dict[str, Any]:
    return {'params': fitted.params, **fitted.model_state}

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

  def project_all(key: jax.Array, blocks: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(project(key, block)) for block in blocks])

  def in_blocks(bank: np.ndarray) -> list[np.ndarray]:
    return np.split(bank, range(chunk, len(bank), chunk))

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
      projected = project_all(key_project, blocks)
      known = None if old is None else project_all(key_project, in_blocks(_rows(old)))
      rows = _choose(projected, num, key=key_choose, centers=known, mesh=mesh)
      del projected, known
      bank = _take(blocks, rows)
      images = images[rows]
    else:
      bank = np.concatenate(blocks)
    del blocks
    if old is not None:
      bank = np.concatenate([_rows(old), bank])
      images = np.concatenate([np.asarray(old['image']), images])
    if bank_size is not None and len(bank) > bank_size:
      projected = project_all(key_project, in_blocks(bank))
      rows = np.sort(_choose(projected, bank_size, key=key_shrink, mesh=mesh))
      bank, images = bank[rows], images[rows]
    memory = {'bank': bank, 'image': images}
    if mesh is None:
      return dataclasses.replace(fitted, memory=jax.tree.map(jnp.asarray, memory))
    fitted = dataclasses.replace(fitted, memory=memory)
    return fitted if len(bank) % devices else spread(fitted, devices)

  def compare(
    axis_name: str | None, size: int, patches: jax.Array, bank: jax.Array, valid: Any = None
  ) -> tuple[jax.Array, jax.Array]:
    """Distances [N, h w] of patches [N, h w, D] to a bank of ``size`` patches, and scores [N]."""
    shape = patches.shape[:2]
    spread_over = {'axis_name': axis_name, 'chunk': chunk, 'valid': valid}
    distances, nearest = ops.sharded_nearest_neighbors(
      patches.reshape(-1, patches.shape[-1]), bank, **spread_over
    )
    distances = distances.reshape(shape)
    scores = distances.max(1)
    if reweight and size > 1:
      worst = distances.argmax(1)[:, None]
      found = jnp.take_along_axis(nearest.reshape(shape), worst, axis=1)[:, 0]  # m*
      patch = jnp.take_along_axis(patches, worst[:, :, None], axis=1)[:, 0]  # [N, D]
      near = min(neighbours, size)
      scores *= rarity_factor(patch, bank, found, neighbours=near, **spread_over)
    return distances, scores

  @functools.partial(jax.jit, static_argnums=(0, 1))
  def compare_shares(mesh: Mesh, size: int, patches: jax.Array, bank: jax.Array) -> Any:
    bank = jnp.pad(bank, ((0, -bank.shape[0] % devices), (0, 0)))
    valid = None if bank.shape[0] == size else jnp.arange(bank.shape[0]) < size
    run = _on_shares(functools.partial(compare, _AXIS, size), mesh, (_SAME, _SHARE, _SHARE))
    return run(patches, bank, valid)

  def predict(fitted: Fitted, batch: Batch) -> AnomalyMaps:
    if fitted.memory is None:
      raise ValueError('patchcore has no bank yet: call adapt before predict')
    bank, size = fitted.memory['bank'], fitted.memory['image'].shape[0]
    maps = features(variables_of(fitted), batch['image'])
    count, height, width, _ = maps.shape
    patches = maps.reshape(count, height * width, -1)  # [N, h w, D]
    if mesh is None:
      distances, scores = compare(None, size, patches, bank[:size])
    else:
      distances, scores = compare_shares(mesh, size, patches, bank)
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
    arrays = {**variables_of(fitted), 'memory': {'bank': _rows(fitted.memory)}}
    return 'patchcore', arguments, arrays

  return Method(init, prepare, step, adapt, predict, deploy=deploy)


def rarity_factor(
  patches: jax.Array,
  bank: jax.Array,
  nearest: jax.Array,
  *,
  neighbours: int = 9,
  chunk: int = 2**14,
  valid: jax.Array | None = None,
  axis_name: str | None = None,
) -> jax.Array:
  """The factor of equation 7: 1 where m* lies in the open, down to 1 - 1/b in a crowd.

  Args:
    patches: [N, D] the most anomalous patch of each image.
    bank: [M, D], M of 2 or more; or, inside a device axis, the share of it as in
      ``ops.sharded_nearest_neighbors``.
    nearest: [N] integers, the patch m* of the bank that is nearest to it.
    neighbours: b, patches of the bank around m*, itself among them; all of a smaller bank. Where
      ``valid`` is given, at most as many as count.
    chunk: of ``ops.nearest_neighbors``.
    valid: [M] bool, False marks padding of the bank; by default all count.
    axis_name: the device axis over which the bank is spread, if it is.

  Returns:
    [N].
  """
  take = functools.partial(ops.sharded_take, bank, axis_name=axis_name)
  near = min(neighbours, bank.shape[0] * (1 if axis_name is None else jax.lax.axis_size(axis_name)))
  _, around = ops.sharded_nearest_neighbors(
    take(nearest), bank, axis_name=axis_name, k=near, chunk=chunk, valid=valid
  )
  distances = jnp.sqrt(jnp.square(patches[:, None] - take(around)).sum(-1))  # [N, b]
  # m* is at distance 0 from itself, so it comes first. A softmax does not overflow, and the sum of
  # the others does not cancel as 1 - share does.
  return jax.nn.softmax(distances, axis=1)[:, 1:].sum(1)


def spread(fitted: Fitted, devices: int) -> Fitted:
  """Lays the bank out over devices, for the ``predict`` of a PatchCore of as many ``devices``.

  Each device gets one share of the bank, in the order of its patches, and all of the rest. It is
  done once: ``predict`` then finds everything where it needs it.

  Args:
    fitted: a PatchCore with a bank; it may be on the host, or spread already.
    devices: how many of the local devices.

  Returns:
    The ``Fitted`` with ``memory['bank']`` [M, D] as one array that is sharded over its first axis.
    Where M is no multiple of ``devices``, rows of zeros at its end fill the last shares; ``image``
    still has M, and every function of this module takes the first M alone.

  Raises:
    ValueError: there is no bank, or there are not as many devices.
  """
  if fitted.memory is None:
    raise ValueError('there is no bank yet, so it cannot be spread: call adapt before')
  mesh = ops.device_mesh(devices, _AXIS)
  bank = ops.spread_rows(_rows(fitted.memory), mesh)
  rest = dataclasses.replace(fitted, memory={'image': fitted.memory['image']})
  rest = jax.device_put(rest, NamedSharding(mesh, _SAME))
  return dataclasses.replace(rest, memory={**rest.memory, 'bank': bank})


def forget(fitted: Fitted, images: Sequence[int]) -> Fitted:
  """Takes the patches of some images out of the bank, for parts that were not good after all.

  Nothing is refitted: what only those images had shown is anomalous from now on. (Where the bank
  is a coreset, a patch of another image that was left out because one of these was near stays
  out until its image is adapted to again.)

  Args:
    fitted: a PatchCore with a bank.
    images: their ``batch['index']``; one that has no patch in the bank changes nothing.

  Returns:
    The ``Fitted`` with the smaller bank, spread over as many devices as it was.

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
  memory = {'bank': _rows(fitted.memory)[keep], 'image': np.asarray(fitted.memory['image'])[keep]}
  bank = fitted.memory['bank']
  smaller = dataclasses.replace(fitted, memory=memory)
  if isinstance(bank, np.ndarray):
    return smaller  # on the host, as it was
  if len(bank.devices()) > 1:
    return spread(smaller, len(bank.devices()))
  return dataclasses.replace(fitted, memory=jax.tree.map(jnp.asarray, memory))


def _take(blocks: list[np.ndarray], rows: np.ndarray) -> np.ndarray:
  """Rows of the concatenation of blocks, without concatenating them."""
  starts = np.cumsum([0] + [len(block) for block in blocks])
  taken = np.empty((len(rows), blocks[0].shape[1]), blocks[0].dtype)
  for start, block in zip(starts, blocks):
    inside = (rows >= start) & (rows < start + len(block))
    taken[inside] = block[rows[inside] - start]
  return taken


def _rows(memory: Any) -> np.ndarray:
  """The bank [M, D] on the host, without the zeros that ``spread`` may have added."""
  return np.asarray(memory['bank'])[: memory['image'].shape[0]]


def _on_shares(function: Callable, mesh: Mesh, specs: tuple[PartitionSpec, ...]) -> Callable:
  return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=_SAME, check_vma=False)


def _choose(
  features: np.ndarray, num: int, *, key: jax.Array, centers: Any = None, mesh: Mesh | None
) -> np.ndarray:
  """``ops.k_center_greedy``, with the vectors spread over the devices of a mesh if there is one."""
  if mesh is None:
    return np.asarray(ops.k_center_greedy(jnp.asarray(features), num, key=key, centers=centers))

  def choose(key: jax.Array, features: jax.Array, valid: jax.Array, centers: Any) -> jax.Array:
    return ops.sharded_k_center_greedy(
      features, num, key=key, axis_name=_AXIS, centers=centers, valid=valid
    )

  run = jax.jit(_on_shares(choose, mesh, (_SAME, _SHARE, _SHARE, _SAME)))
  spread_features = ops.spread_rows(features, mesh)
  valid = ops.spread_rows(np.ones(len(features), bool), mesh)  # False where zeros were added
  return np.asarray(run(key, spread_features, valid, centers))
