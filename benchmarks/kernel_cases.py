"""What ``benchmarks.kernels`` compares: title and makers of each case, group by group.

A maker returns a contender as ``deform_conv.compiled`` does; before that nothing is compiled.
"""

import functools
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.deform_conv import Torchvision, compiled, passes_of
from benchmarks.torchvision_peer import PASSES, arrays

TWIN, KERNEL, PEER = 'XLA', 'Pallas', 'torchvision'
Case = dict[str, Any]


def convolutions(
  sizes: tuple, peer: Torchvision | None, repeats: int, implementation: str
) -> Iterator[tuple[str, dict[str, Callable[[], Case]]]]:
  """Deformable convolution, title and makers of each case."""
  import jax.numpy as jnp

  from jaxdefect import ops

  for dtype in ('bfloat16', 'float32'):
    for shape in sizes:
      made = {name: jnp.asarray(a, dtype) for name, a in arrays(shape, 'v1').items()}
      ways = {
        side: passes_of(functools.partial(ops.deform_conv2d, padding=1, implementation=name), made)
        for side, name in ((TWIN, 'xla'), (KERNEL, implementation))
      }
      for name in PASSES:
        makers: dict[str, Callable[[], Case]] = {
          side: functools.partial(compiled, *passes[name], repeats) for side, passes in ways.items()
        }
        if peer is not None:
          makers[PEER] = lambda name=name, shape=shape, dtype=dtype: peer.passes(
            shape, 'v1', dtype
          )[name]
        yield f'deform_conv2d {"x".join(map(str, shape))} {dtype} {name}', makers


def searches(
  sizes: tuple, repeats: int, implementation: str
) -> Iterator[tuple[str, dict[str, Callable[[], Case]]]]:
  """The nearest of a bank, title and makers of each case."""
  import jax
  import jax.numpy as jnp
  from jax import lax

  from jaxdefect import ops
  from jaxdefect.ops.kernels import nearest_neighbors as fused

  interpret = implementation == 'pallas_interpret'
  thirds = lax.DotAlgorithmPreset.TF32_TF32_F32_X3

  def in_thirds(queries, bank):
    # A CPU knows no such products.
    precision = lax.Precision.HIGHEST if interpret else thirds
    norm = jnp.square(bank).sum(1)
    _, index = fused.nearest(queries, bank, norm, precision=precision, interpret=interpret)
    return jnp.sqrt(jnp.square(queries - bank[index]).sum(-1))[:, None], index[:, None]

  for num, size, features in sizes:
    keys = jax.random.split(jax.random.key(0))
    whole = [
      jax.random.normal(key, (n, features)) + 3 for key, n in zip(keys, (num, size), strict=True)
    ]
    for dtype in ('bfloat16', 'float32'):
      operands = [array.astype(dtype) for array in whole]
      bodies: dict[str, Callable] = {
        TWIN: functools.partial(ops.nearest_neighbors, implementation='xla'),
        KERNEL: functools.partial(ops.nearest_neighbors, implementation=implementation),
      }
      if dtype == 'float32':
        bodies[f'{KERNEL}, three parts in TF32'] = in_thirds
      makers = {
        side: functools.partial(compiled, body, operands, repeats) for side, body in bodies.items()
      }
      yield f'nearest of {size} x {features} for {num}, {dtype}', makers


def samples(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
  """Shares [P, 9, 1, 4] and places [P, 9, 1, 4] of a convolution with offsets of two pixels."""
  num, height, width, _, _ = shape
  random = np.random.default_rng(0)
  tap, corner = np.argwhere(np.ones((3, 3))) - 1, np.argwhere(np.ones((2, 2)))
  grid = np.argwhere(np.ones((height, width))).reshape(1, height, width, 1, 2)
  where = grid + tap + 2 * random.normal(size=(num, height, width, 9, 2))
  low = np.floor(where)[..., None, :] + corner  # [N, H, W, 9, 4, 2]
  share = (1 - np.abs(where[..., None, :] - low)).prod(-1)
  place = np.clip(low, 0, (height - 1, width - 1)).astype(np.int32) @ (width, 1)
  place += np.arange(num)[:, None, None, None, None] * height * width
  return share.reshape(-1, 9, 1, 4).astype(np.float32), place.reshape(-1, 9, 1, 4).astype(np.int32)


def tiles(
  sizes: tuple, repeats: int, interpret: bool
) -> Iterator[tuple[str, dict[str, Callable[[], Case]]]]:
  """Other tiles for the fused product and its gradients, title and makers of each case."""
  import jax
  import jax.numpy as jnp

  from jaxdefect.ops.kernels import sampled_product as fused
  from jaxdefect.ops.sampled_product import sampled_product

  def twin(rows, share, kernel, place):
    return sampled_product(rows, share, kernel, place, 'xla')

  def twin_gradients(rows, share, kernel, g, place):
    return jax.vjp(functools.partial(twin, place=place), rows, share, kernel)[1](g)

  candidates = [
    fused.Blocks(),
    fused.Blocks(channels=64),
    fused.Blocks(pixels=128, channels=64, num_warps=8),
    fused.Blocks(pixels=32, num_stages=3),
    fused.Blocks(features=256, num_warps=8),
  ]
  for shape in sizes:
    share, place = (jnp.asarray(array) for array in samples(shape))
    pixels, channels, features = share.shape[0], *shape[3:]
    random = np.random.default_rng(0)
    rows, kernel, g = (
      jnp.asarray(random.normal(size=one) / np.sqrt(9 * channels), 'bfloat16')
      for one in ((pixels, channels), (9, channels, features), (pixels, features))
    )
    for name, ours, theirs, operands in (
      ('product', fused.product, twin, [rows, share, kernel, place]),
      ('gradients', fused.gradients, twin_gradients, [rows, share, kernel, g, place]),
    ):
      makers = {TWIN: functools.partial(compiled, theirs, operands, repeats)}
      for blocks in candidates[:1] if interpret else candidates:
        body = functools.partial(ours, blocks=blocks, interpret=interpret)
        makers['/'.join(map(str, blocks))] = functools.partial(compiled, body, operands, repeats)
      yield f'tiles of the {name} {"x".join(map(str, shape))} bfloat16', makers


def without_kernel(
  sizes: dict[str, Any], python: str | None, device: str, threads: int, repeats: int
) -> Iterator[tuple[str, dict[str, Callable[[], Case]]]]:
  """RoIAlign, suppression and a scatter-add as XLA makes them, title and makers of each case."""
  import jax
  import jax.numpy as jnp

  from jaxdefect import ops

  num, height, width, channels, regions = sizes['regions']
  random = np.random.default_rng(0)

  def boxes(number: int, side: int) -> np.ndarray:
    corner, size = random.uniform(0, side, (number, 2)), random.uniform(8, side / 2, (number, 2))
    return np.concatenate([corner, corner + size], 1).astype(np.float32)

  pooled = {
    'features': random.normal(size=(num, height, width, channels)).astype(np.float32),
    'boxes': boxes(regions, 8 * height),
    'batch_index': random.integers(0, num, regions),
    'cotangent': random.normal(size=(regions, 7, 7, channels)).astype(np.float32),
  }
  judged = {
    'boxes': boxes(sizes['boxes'], 600),
    'scores': random.uniform(size=sizes['boxes']).astype(np.float32),
  }

  def pool(features, boxes, batch_index):
    return ops.roi_align(features, boxes, batch_index, output_size=7, spatial_scale=1 / 8)

  def pool_both(cotangent, features, boxes, batch_index):
    y, pullback = jax.vjp(lambda features: pool(features, boxes, batch_index), features)
    return y, *pullback(cotangent)

  def kept(boxes, scores):
    index, valid = ops.nms(boxes, scores, iou_threshold=0.7, max_outputs=len(boxes))
    return valid.sum().astype(jnp.float32), jnp.where(valid, index, 0).sum()

  settings = {
    'roi_align': {'output_size': 7, 'spatial_scale': 1 / 8, 'sampling_ratio': 2},
    'nms': {'iou_threshold': 0.7},
  }
  order = ('features', 'boxes', 'batch_index')
  operands = [jnp.asarray(pooled[name]) for name in order]
  cases = [
    ('roi_align', PASSES[0], pool, operands, pooled),
    ('roi_align', PASSES[1], pool_both, [jnp.asarray(pooled['cotangent']), *operands], pooled),
    ('nms', PASSES[0], kept, [jnp.asarray(a) for a in judged.values()], judged),
  ]

  def their(operator: str, name: str, made: dict[str, np.ndarray]) -> Case:
    assert python is not None
    peer = Torchvision(python, device, threads, repeats, module='benchmarks.kernels_peer')
    with tempfile.TemporaryDirectory() as folder:
      path = os.path.join(folder, 'arrays.npz')
      np.savez(path, **made)  # pyright: ignore[reportArgumentType]
      facts = peer.ask(make={'operator': operator, 'arrays': path, 'settings': settings[operator]})
    return {
      'call': lambda: peer.ask(run=name),
      'means': facts['means'][name],
      'peak_bytes': facts['peak_bytes'][name],
    }

  for operator, name, body, operands, made in cases:
    makers = {TWIN: functools.partial(compiled, body, operands, repeats)}
    if python is not None:
      makers[PEER] = functools.partial(their, operator, name, made)
    size = 'x'.join(map(str, sizes['regions'])) if operator == 'roi_align' else sizes['boxes']
    yield f'{operator} {size} float32 {name}', makers

  # The gradient of the image: some versions of XLA add float32 with a loop where rows meet.
  shape = sizes['sizes'][min(1, len(sizes['sizes']) - 1)]
  pixels, features = math.prod(shape[:3]), shape[3]
  update = jnp.ones((9 * 4 * pixels, features))

  def add_rows(index, update):
    return jnp.zeros((pixels, features)).at[index].add(update)

  place = samples(shape)[1].ravel()
  for name, index in (('of a convolution', place), ('all in one row', np.zeros_like(place))):
    one = functools.partial(compiled, add_rows, [jnp.asarray(index), update], 1)
    yield f'scatter-add {"x".join(map(str, shape[:4]))} float32, {name}', {TWIN: one}
