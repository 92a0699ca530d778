r"""Patch SVDD: an encoder of patches taught by the good parts alone (Yi and Yoon 2020).

Two self-made tasks train it, at both scales. Patches that nearly coincide shall nearly coincide as
embeddings (equation 3), and of a patch and its neighbour the difference of their embeddings shall
say on which of eight sides it lies (equation 4), which keeps everything from being one point:

.. math:: L = \sum_{\text{scales}} \left( \text{cross-entropy}(y, C(f(p_1) - f(p_2)))
          + \lambda \| f(p) - f(p') \|_2 \right)

An anomaly is a patch without a near neighbour among the patches of good parts (equation 6). A map
per scale holds at every pixel the mean distance of the patches that cover it (section 3.4); the
map is the product of both, the score of an image its largest value.

What the paper leaves open, and what is done here:

- The norm of equation 3 is not squared, in the paper's text as in the authors' code.
- lambda is 1e-3, as in the authors' instructions; a jitter of up to 1/32 of the patch, and
  neighbours at 3/4 to 1 of it, as in their code. Pairs are drawn among those that lie inside the
  image; pushed back to the border, a neighbour would not lie where the task says it does.
- The bank holds every patch of the grid, and neighbours are exact; the paper's are approximate.

Shape legend: N images, P pairs per image, K side of a patch, D embedding size, M of the bank.
"""

import dataclasses
import functools
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
  example_keys,
)
from jaxdefect.data.good_parts import good_parts
from jaxdefect.models.patch_encoder import POSITIONS, STRIDE, PatchEncoder, PositionClassifier
from jaxdefect.ops import IMAGENET_MEAN, IMAGENET_STD, nearest_neighbors, normalize_pixels

# Embeddings saturate at -1 and 1, and distances are a thousandth of their length: which of some
# candidates is the nearest is settled by distances that are computed as differences.
_CANDIDATES = 4

SCALES: tuple[str, ...] = ('large', 'small')
# The eight sides of a patch, row by row.
SIDES = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)])


def make(
  *,
  optimizer: optax.GradientTransformation | None = None,
  patch_size: int = 64,
  strides: tuple[int, int] = (16, 8),
  features: int = 64,
  width: int = 128,
  pairs: int = 4,
  svdd_weight: float = 1e-3,
  noise: float = 0.02,
  chunk: int = 2**14,
  mean: tuple[float, ...] = IMAGENET_MEAN,
  std: tuple[float, ...] = IMAGENET_STD,
  dtype: Any = jnp.float32,
  accumulate: int = 1,
  axis_name: str | None = None,
) -> Method:
  """Makes Patch SVDD.

  Args:
    optimizer: optax transformation; None where nothing will be trained.
    patch_size: side of the large patches in pixels, a multiple of 8; the small ones have half of
      it (paper: 64 and 32 in images of 256). Images must be twice as large but one pixel.
    strides: pixels between the patches of the bank and of the maps, large and small, both even
      (paper: 16 and 4; the small patches are most of the time).
    features: D.
    width: channels of the encoder's widest layer.
    pairs: drawn from each image in a step, for each task and scale.
    svdd_weight: lambda, weight of the distance.
    noise: standard deviation, in 0..1, of what is added to the patches of the position task: one
      number per channel and patch, so that colour aberration does not give the position away, and
      one per pixel. 0 adds nothing.
    chunk: vectors of the bank that are compared at once.
    mean: per channel, in 0..1, subtracted from the pixels.
    std: per channel, in 0..1, by which they are divided then.
    dtype: compute type of the networks; parameters, distances and losses stay float32.
    accumulate: parts in which a device goes through its batch, see ``optim.gradient_step``.
    axis_name: the device axis, for the gradient.

  Returns:
    The ``Method``. ``predict`` gives the product of both maps, and its maximum as score. ``adapt``
    appends the patches of good parts to the bank; nothing is trained by it.

  Raises:
    ValueError: patch_size, strides or pairs outside what is allowed.
  """
  if len(strides) != 2 or any(s < STRIDE or s % STRIDE for s in strides):
    raise ValueError(f'strides must be two even numbers of pixels, large and small, got {strides}.')
  if pairs < 1:
    raise ValueError(f'pairs must be 1 or more per image, got {pairs}.')
  encoder = PatchEncoder(patch_size, features, width, dtype=dtype)
  judge = PositionClassifier(dtype=dtype)
  sizes: dict[str, int] = {'large': patch_size, 'small': patch_size // 2}
  stride_of = dict(zip(SCALES, strides))
  if any(stride_of[scale] > sizes[scale] for scale in SCALES):
    raise ValueError(
      f'strides are {strides}; patches of {tuple(sizes.values())} pixels would leave gaps.'
    )
  rule = optimizer or optax.identity()

  def pixels(image: jax.Array) -> jax.Array:
    return normalize_pixels(image, mean=mean, std=std, dtype=dtype)

  def init(key: jax.Array, spec: DataSpec, pretrained: Any = None) -> State:
    _, height, width, channels = spec.batch['image'].shape
    if min(height, width) < 2 * patch_size - 1:
      raise ValueError(
        f'images have {height} x {width} pixels; patch_size={patch_size} needs at least '
        f'{2 * patch_size - 1} x {2 * patch_size - 1}, room for a patch and its neighbour.'
      )
    keys = dict(zip(('encoder', *SCALES), jax.random.split(key, 3)))
    patch = jnp.zeros((1, patch_size, patch_size, channels), jnp.float32)
    params = {'encoder': encoder.init(keys['encoder'], patch)['params']}
    embedded = jnp.zeros((1, features), jnp.float32)
    for scale in SCALES:
      params[f'position_{scale}'] = judge.init(keys[scale], embedded, embedded)['params']
    if pretrained is not None:
      params = models.merge_pretrained({'params': params}, pretrained)['params']
    return optim.initial_state(params, {}, rule)

  def scale_loss(key: jax.Array, params: Any, batch: Batch, scale: str):
    """Cross-entropy, whether the position is right, and distance: three [N, P]."""
    image, size = batch['image'], sizes[scale]
    n, sides = image.shape[0], image.shape[1:3]
    keys = jax.vmap(lambda k: jax.random.split(k, pairs))(example_keys(key, batch['index']))

    def draw(key: jax.Array, image: jax.Array):
      near, side, shade = jax.random.split(key, 3)
      corners = jittered_pair(near, sides, size)
      neighbours, position = neighbour_pair(side, sides, size)
      cut = functools.partial(cut_patches, image, size=size)
      return cut(corners), perturb(shade, cut(neighbours), noise), position

    near, apart, position = jax.vmap(jax.vmap(draw, (0, None)))(keys, image)
    patches = jnp.concatenate([near.astype(apart.dtype), apart], axis=2)  # [N, P, 4, K, K, 3]
    patches = patches.reshape(-1, *patches.shape[3:])  # [N P 4, K, K, 3]
    embedded: Any = encoder.apply({'params': params['encoder']}, pixels(patches))
    embedded = embedded.astype(jnp.promote_types(embedded.dtype, jnp.float32))
    first, second, middle, neighbour = jnp.moveaxis(embedded.reshape(n * pairs, 4, -1), 1, 0)
    logits: Any = judge.apply({'params': params[f'position_{scale}']}, middle, neighbour)
    position = position.reshape(-1)
    entropy = losses.softmax_cross_entropy(logits, position)
    right = (logits.argmax(-1) == position).astype(entropy.dtype)
    return jax.tree.map(lambda x: x.reshape(n, pairs), (entropy, right, distance(first, second)))

  def loss(key: jax.Array, params: Any, model_state: Any, batch: Batch):
    valid = batch['valid']
    weight = valid.sum().astype(jnp.float32)
    total, scalars = jnp.zeros(()), {}
    for scale, key_scale in zip(SCALES, jax.random.split(key)):
      parts = scale_loss(key_scale, params, batch, scale)
      # [N], the mean of an image's pairs; padding draws pairs as well, and they count nowhere.
      entropy, right, away = (jnp.where(valid, part.mean(1), 0.0).sum() for part in parts)
      total = total + entropy + svdd_weight * away
      scalars[f'position_accuracy_{scale}'] = (right, weight)
      scalars[f'distance_{scale}'] = (away, weight)
    return total, (weight, model_state, scalars)

  step = optim.gradient_step(loss, rule, axis_name=axis_name, accumulate=accumulate)

  def embed(fitted: Fitted, image: jax.Array) -> dict[str, jax.Array]:
    """The embeddings of the patches on the grid, per scale [N, r, c, D] float32."""
    chex.assert_rank(image, 4)
    variables = {'params': fitted.params['encoder']}
    dense: Any = encoder.apply(variables, pixels(image), method='dense')
    grids = {}
    for scale, maps in zip(SCALES, dense):
      rows, columns = (
        grid_starts(side, sizes[scale], stride_of[scale]) // STRIDE for side in image.shape[1:3]
      )
      grids[scale] = maps[:, rows][:, :, columns].astype(jnp.float32)
    return grids

  embed_batch = jax.jit(lambda fitted, image: embed(fitted, image))

  def adapt(key: jax.Array, fitted: Fitted, references: References) -> Fitted:
    """Appends the patches of the good parts to the bank."""
    del key  # every patch is kept
    bare = dataclasses.replace(fitted, memory=None, calibration=None)
    found = {scale: [] for scale in SCALES}
    if fitted.memory is not None:
      found = {scale: [np.asarray(fitted.memory[scale])] for scale in SCALES}
    for batch in good_parts(references):
      keep = np.asarray(batch['valid'])
      for scale, grid in embed_batch(bare, batch['image']).items():
        found[scale].append(np.asarray(grid)[keep].reshape(-1, features))
    memory = {scale: jnp.asarray(np.concatenate(parts)) for scale, parts in found.items()}
    return dataclasses.replace(fitted, memory=memory)

  def predict(fitted: Fitted, batch: Batch) -> AnomalyMaps:
    if fitted.memory is None:
      raise ValueError('patch_svdd has no patches of good parts yet: call adapt before predict')
    n, height, width = batch['image'].shape[:3]
    product = jnp.ones((n, height, width), jnp.float32)
    for scale, grid in embed(fitted, batch['image']).items():
      bank = fitted.memory[scale]
      away, _ = nearest_neighbors(
        grid.reshape(-1, features), bank, k=min(_CANDIDATES, len(bank)), chunk=chunk
      )
      away = away[:, 0].reshape(grid.shape[:3])  # [N, r, c]
      product *= covering_mean(away, (height, width), size=sizes[scale], stride=stride_of[scale])
    return AnomalyMaps(scores=product.max((1, 2)), maps=product)

  def deploy(fitted: Fitted) -> tuple[str, dict, dict]:
    if fitted.memory is None:
      raise ValueError(
        'patch_svdd has no patches of good parts yet: call adapt before it is converted'
      )
    arguments = {
      **{'patch_size': patch_size, 'strides': list(strides)},
      **{'features': features, 'width': width},
      **{'classes': list(fitted.classes), 'mean': list(mean), 'std': list(std)},
    }
    arrays = {
      'params': {'encoder': fitted.params['encoder']},
      'memory': {f'bank_{scale}': fitted.memory[scale] for scale in SCALES},
    }
    return 'patch_svdd', arguments, arrays

  return Method(init, optim.no_preparation, step, adapt, predict, deploy=deploy)


def jittered_pair(key: jax.Array, sides: tuple[int, int], size: int) -> jax.Array:
  """Two patches that nearly coincide: up to K // 32 pixels apart (at least 1), never the same.

  Args:
    key: typed PRNG key.
    sides: (H, W) of the image.
    size: K.

  Returns:
    [2, 2] int32, the upper left corners (y, x), uniform among those of which both patches lie
    inside the image.
  """
  most = max(1, size // 32)
  key_offset, key_corner = jax.random.split(key)
  count = (2 * most + 1) ** 2
  place = jax.random.randint(key_offset, (), 0, count - 1)
  place = place + (place >= count // 2)  # all but the middle
  offset = jnp.stack([place // (2 * most + 1), place % (2 * most + 1)]) - most
  return _pair_at(key_corner, offset, sides, size)


def neighbour_pair(
  key: jax.Array, sides: tuple[int, int], size: int
) -> tuple[jax.Array, jax.Array]:
  """A patch and its neighbour on one of eight sides, 3/4 K to K pixels away along each axis.

  Args:
    key: typed PRNG key.
    sides: (H, W) of the image, at least 2 K - 1.
    size: K.

  Returns:
    Corners as in :func:`jittered_pair`, and the side 0..7, row by row around the first patch.
  """
  key_side, key_gap, key_corner = jax.random.split(key, 3)
  position = jax.random.randint(key_side, (), 0, POSITIONS)
  gap = jax.random.randint(key_gap, (2,), 3 * size // 4, size)
  offset = jnp.asarray(SIDES)[position] * gap
  return _pair_at(key_corner, offset, sides, size), position


def _pair_at(key: jax.Array, offset: jax.Array, sides: tuple[int, int], size: int) -> jax.Array:
  """A corner and the one at ``offset`` from it, so that both patches lie inside."""
  room = jnp.asarray(sides, offset.dtype) - size  # of a corner
  first = jax.random.randint(
    key, (2,), jnp.maximum(0, -offset), room - jnp.maximum(0, offset) + 1, offset.dtype
  )
  return jnp.stack([first, first + offset]).astype(jnp.int32)


def cut_patches(image: jax.Array, corners: jax.Array, *, size: int) -> jax.Array:
  """[H, W, C], [n, 2] corners (y, x) -> [n, K, K, C]."""

  def cut(corner: jax.Array) -> jax.Array:
    start = (corner[0], corner[1], jnp.zeros((), corner.dtype))
    return jax.lax.dynamic_slice(image, start, (size, size, image.shape[2]))

  return jax.vmap(cut)(corners)


def perturb(key: jax.Array, patches: jax.Array, noise: float) -> jax.Array:
  """Adds one random number per channel of each patch and one per value, in shades of 255."""
  values = patches.astype(jnp.promote_types(patches.dtype, jnp.float32))
  n, *_, channels = patches.shape
  key_channel, key_pixel = jax.random.split(key)
  # Always drawn in float32: the same numbers whatever the type of the network.
  shift = jax.random.normal(key_channel, (n, 1, 1, channels), jnp.float32)
  grain = jax.random.normal(key_pixel, patches.shape, jnp.float32)
  return values + 255 * noise * (shift + grain)


def distance(a: jax.Array, b: jax.Array) -> jax.Array:
  """Euclidean distance of rows, [N, D], [N, D] -> [N]; the gradient of equal rows is zero."""
  square = jnp.square(a - b).sum(-1)
  return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def grid_starts(side: int, size: int, stride: int) -> np.ndarray:
  """Where the patches along an axis begin: every ``stride`` pixels, and once more at the end.

  >>> grid_starts(31, 8, 6).tolist()
  [0, 6, 12, 18, 22]
  """
  last = (side - size) // STRIDE * STRIDE
  return np.unique([*range(0, last + 1, stride), last])


def covering_mean(
  values: jax.Array, sides: tuple[int, int], *, size: int, stride: int
) -> jax.Array:
  """Gives every pixel the mean of the patches that cover it (section 3.4).

  Args:
    values: [N, r, c], one per patch of ``grid_starts``.
    sides: (H, W) of the image.
    size: K.
    stride: pixels between patches, at most K.

  Returns:
    [N, H, W] float32.
  """
  rows, columns = (jnp.asarray(_covered(side, size, stride), values.dtype) for side in sides)
  product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
  return product('Nrc,Hr,Wc->NHW', values, rows, columns)


def _covered(side: int, size: int, stride: int) -> np.ndarray:
  """[side, patches]: the share of each patch in the mean at each pixel of an axis."""
  pixel, start = np.arange(side)[:, None], grid_starts(side, size, stride)[None]
  # The last row of an odd side belongs to the last patch.
  inside = (pixel >= start) & (pixel < np.where(start == start.max(), side, start + size))
  return inside / inside.sum(1, keepdims=True)
