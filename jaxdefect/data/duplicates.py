"""Near-identical images, so that no split has a copy on two sides.

Parts that are photographed in one pose all look alike, and so do rolled surfaces under one lamp:
on thumbnails alone, 29,000 pairs of different bottle caps correlate above 0.98. What tells a copy
is the detail that is the image's own. So each thumbnail is high-passed, and the components that
many images share are taken out; what remains of two different parts is uncorrelated.

Shape legend: N images, D = 64 * 64 thumbnail pixels, W = 4 words of 64 bits.
"""

import functools
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from jaxdefect.data import decode
from jaxdefect.data.in_threads import each
from jaxdefect.data.source import Source

_SIDE = 64
_WORDS = 4
_BITS = 64 * _WORDS
_SAMPLE = 1024
_CHUNK = 512
# Two shots of one part differ by at most this share of what two images of the set differ by.
_SHOTS, _CROWDED_SHOTS = 1 / 200, 1 / 2000


def find(source: Source, *, min_correlation: float | None = None) -> np.ndarray:
  """Groups the images that are (nearly) copies of one another.

  1. Images with the very same pixels are copies.
  2. Detail: a 64 x 64 gray thumbnail minus its Gaussian blur (sigma 2), centred over the data
     set, minus its projection on up to 64 principal components that are each shared by at least
     max(8, N / 50) images.
  3. A 256-bit hash of the detail, the signs of fixed random projections, finds the candidates
     (two details of correlation c differ in a share arccos(c) / pi of the bits); of these,
     pairs with ``c >= min_correlation`` are copies.
  4. A burst of shots would be a shared component itself. So high-passed thumbnails of correlation
     c are copies too where ``1 - c`` is at most a 200th of its median over the set's pairs (the
     nearest images that are none: a 140th on bottle caps, an 80th on ELPV, a 45th on DeepPCB, an
     8th and more on the others).
  5. Copies, and images of one of the source's own ``groups``, are joined transitively. Where
     rule 3 or 4 would join more than max(8, N / 20) images, they still share structure, and only
     their pairs from 0.97 on (rule 3), or up to a 2000th (rule 4), count.

  Images without detail (blank, black) are joined by rule 1 alone. Turned, mirrored and clearly
  shifted copies are not found, nor long bursts under a moving hand: name those as lots.

  The limit 0.7 was chosen by looking at the pairs around it on nine real sets. Pairs of N images
  from a correlation on, how many of them have the very same pixels, and the largest group:

  ============== ==== ===== ===== ==== ==== ===== ======= ==================================
  set            N    0.95  0.85  0.7  0.6  same  largest the pairs between 0.7 and 0.95
  ============== ==== ===== ===== ==== ==== ===== ======= ==================================
  NEU-DET        1800 1     1     3    5    1     2       one inclusion twice; two scratches
  X-SDD          1360 9     9     9    14   9     2       none
  MixedWM38 part 2204 1     3     8    14   0     3       nearly full, random: few dies differ
  bottle caps    978  63    63    65   74   63    2       one cap photographed again
  Magnetic-Tile  1344 13    117   468  763  0     7       one tile in neighbouring frames
  ELPV           2624 38    327   944  1635 0     16      cells of neighbouring wafers
  TILDA crops    251  4     4     4    4    4     2       none
  fabric crops   220  0     0     0    0    0     1       none
  DeepPCB tests  227  0     0     0    4    0     1       none
  ============== ==== ===== ===== ==== ==== ===== ======= ==================================

  Every hash candidate list held all of these pairs. 1,800 images take about 2 seconds on two
  cores; comparing 20,000 ones takes 5.

  Args:
    source: the data set; its own ``groups`` are merged in.
    min_correlation: from which correlation of the details two images are one; None means 0.7,
      or 0.97 below 200 images, from which the shared components cannot be told.

  Returns:
    int32 [N], the smallest place of an image in the group.
  """
  if min_correlation is None:
    min_correlation = 0.7 if len(source) >= 200 else 0.97
  sums, thumbnails, by_name = _fingerprints(source)
  typical = _typical_distance(thumbnails, by_name)
  pairs = [
    *_uncrowded(details(thumbnails, by_name), min_correlation, 0.97),
    *_uncrowded(thumbnails, 1 - _SHOTS * typical, 1 - _CROWDED_SHOTS * typical),
  ]
  return merge(len(source), [*_same(sums), *_same(source.groups or ()), *pairs])


def _uncrowded(details: np.ndarray, limit: float, crowded_limit: float) -> list[list[int]]:
  """Pairs [i, j] from a correlation on, and from a higher one where they would join a crowd."""
  size = len(details)
  pairs, correlations = near_pairs(details, min_correlation=limit)
  joined = merge(size, pairs.tolist())
  crowded = np.bincount(joined, minlength=size)[joined] > max(8, size / 20)
  return pairs[~crowded[pairs[:, 0]] | (correlations >= crowded_limit)].tolist()


def _typical_distance(thumbnails: np.ndarray, order: np.ndarray) -> float:
  """Median of one minus the correlation over pairs of images; 0 where there are too few."""
  sample = order[:: -(-len(order) // _SAMPLE)] if len(order) else order
  rows = thumbnails[sample].astype(np.float32)
  rows = rows[rows.any(axis=1)]
  if len(rows) < 4:
    return 0.0
  return float(np.median(1 - (rows @ rows.T)[np.triu_indices(len(rows), 1)]))


def by_name(source: Source, groups: Sequence[int] | np.ndarray) -> list[list[str]]:
  """The groups of two and more images, as sorted names."""
  members: dict[int, list[str]] = {}
  for i, group in enumerate(groups):
    members.setdefault(int(group), []).append(source.names[i])
  return sorted(sorted(names) for names in members.values() if len(names) > 1)


def near_pairs(details: np.ndarray, *, min_correlation: float) -> tuple[np.ndarray, np.ndarray]:
  """Pairs of details that correlate.

  Args:
    details: [N, D] rows of length one; rows of zeros match nothing.
    min_correlation: from which a pair counts.

  Returns:
    pairs: [P, 2] places i < j.
    correlations: [P] of each pair.
  """
  pairs, correlations = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
  places = np.flatnonzero(np.abs(details).max(axis=1, initial=0))
  hashes = _sign_hash(details[places])  # [n, W]
  # The share of differing bits expected at the threshold, and four standard deviations more.
  share = np.arccos(min(min_correlation, 1.0)) / np.pi
  limit = int(_BITS * share + 4 * np.sqrt(_BITS * share * (1 - share)))
  for start in range(0, len(places), _CHUNK):
    rows = hashes[start : start + _CHUNK]
    distance = np.zeros((len(rows), len(places) - start), np.uint16)
    for word in range(_WORDS):
      distance += np.bitwise_count(rows[:, None, word] ^ hashes[None, start:, word])
    i, j = np.nonzero(distance <= limit)
    i, j = places[i[i < j] + start], places[j[i < j] + start]
    for at in range(0, len(i), 4096):
      a, b = i[at : at + 4096], j[at : at + 4096]
      correlation = np.einsum(
        'pd,pd->p', details[a].astype(np.float32), details[b].astype(np.float32)
      )
      close = correlation >= min_correlation
      pairs.append(np.stack([a[close], b[close]], axis=1))
      correlations.append(correlation[close])
  return np.concatenate(pairs), np.concatenate(correlations)


def merge(size: int, pairs: Iterable[Sequence[int]]) -> np.ndarray:
  """Union-find: the connected places of ``pairs``, as the smallest place of each group.

  >>> merge(5, [(3, 1), (4, 3)]).tolist()
  [0, 1, 2, 1, 1]
  """
  root = list(range(size))

  def top(i: int) -> int:
    while root[i] != i:
      root[i] = root[root[i]]
      i = root[i]
    return i

  for a, b in pairs:
    low, high = sorted((top(a), top(b)))
    root[high] = low
  return np.asarray([top(i) for i in range(size)], np.int32)


def _same(marks: Sequence[str]) -> list[tuple[int, int]]:
  first: dict[str, int] = {}
  return [(first.setdefault(mark, i), i) for i, mark in enumerate(marks) if mark]


def _fingerprints(source: Source) -> tuple[list[str], np.ndarray, np.ndarray]:
  """Of every image sha256 and high-passed thumbnail, and an order that no renumbering changes.

  The thumbnails are float16 [N, D], of length one or zero; the order is [N], by name.
  """
  size = len(source)
  thumbnails = np.zeros((size, _SIDE * _SIDE), np.float16)
  sums = []
  for start in range(0, size, _CHUNK):
    rows = each(lambda i: _thumbnail(source.read(i)), range(start, min(start + _CHUNK, size)))
    sums += [row[0] for row in rows]
    thumbnails[start : start + _CHUNK] = _high_passed(np.stack([row[1] for row in rows]))
  by_name = np.asarray(sorted(range(size), key=source.names.__getitem__), int)
  return sums, thumbnails, by_name


def _thumbnail(image: np.ndarray) -> tuple[str, np.ndarray]:
  channels = [image[..., c].astype(np.float32) for c in range(image.shape[2])]
  gray = Image.fromarray(sum(channels[1:], channels[0]) / len(channels))
  small = gray.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
  return decode.pixel_hash(image), np.asarray(small)


def _high_passed(thumbnails: np.ndarray) -> np.ndarray:
  """The fine structure, of length one; zero where it is below half a gray level.

  Args:
    thumbnails: float32 [n, side, side]. Many at once: small products from several threads make
      BLAS threads wait for one another.

  Returns:
    [n, D].
  """
  blur = _gaussian_blur()
  blurred = np.swapaxes(thumbnails, 1, 2).reshape(-1, _SIDE) @ blur.T  # along rows
  blurred = np.swapaxes(blurred.reshape(-1, _SIDE, _SIDE), 1, 2).reshape(-1, _SIDE) @ blur.T
  fine = thumbnails.reshape(len(thumbnails), -1) - blurred.reshape(len(thumbnails), -1)
  length = np.linalg.norm(fine, axis=1, keepdims=True)
  return np.where(length > 0.5 * _SIDE, fine / np.maximum(length, 1e-6), 0.0)


@functools.cache
def _gaussian_blur() -> np.ndarray:
  """Weights of a Gaussian blur of one axis, [side, side], each row summing to one."""
  distance = np.subtract.outer(np.arange(_SIDE), np.arange(_SIDE))
  weights = np.exp(-0.5 * (distance / 2.0) ** 2)
  return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def details(thumbnails: np.ndarray, order: np.ndarray) -> np.ndarray:
  """Takes out what many images share.

  Args:
    thumbnails: [N, D] high-passed, of length one or zero.
    order: [N] places in an order of their own; at most 1024 of them, evenly spread, are looked
      at for shared components.

  Returns:
    float16 [N, D], of length one, or zero where less than a twentieth is an image's own.
  """
  sample = order[:: -(-len(order) // _SAMPLE)] if len(order) else order
  rows = thumbnails[sample].astype(np.float32)
  centre = rows.mean(axis=0) if len(rows) else np.zeros(_SIDE * _SIDE, np.float32)
  rows = rows - centre
  values, vectors = np.linalg.eigh(rows @ rows.T)  # ascending; [n], [n, n]
  values, vectors = values[::-1], vectors[:, ::-1]
  most = min(64, len(rows) // 4)
  values, vectors = values[:most], vectors[:, :most]
  # A pair of copies is a component too, but one of two images: 1 / sum u^4 counts them.
  sharing = 1.0 / np.maximum((vectors**4).sum(axis=0), 1e-12)
  keep = (sharing >= max(8, len(rows) / 50)) & (values > 1e-6)
  shared = (rows.T @ vectors[:, keep]) / np.sqrt(values[keep])  # [D, m], orthonormal
  out = np.zeros(thumbnails.shape, np.float16)
  for start in range(0, len(thumbnails), _CHUNK):
    block = thumbnails[start : start + _CHUNK].astype(np.float32)
    flat = ~block.any(axis=1)
    block = block - centre
    block -= (block @ shared) @ shared.T
    length = np.linalg.norm(block, axis=1, keepdims=True)
    block /= np.maximum(length, 1e-6)
    block[flat | (length[:, 0] < 0.05)] = 0.0
    out[start : start + _CHUNK] = block
  return out


def _sign_hash(details: np.ndarray) -> np.ndarray:
  """uint64 [N, W]: signs of fixed random projections."""
  # The legacy generator: its stream is promised never to change.
  directions = np.random.RandomState(38).standard_normal((details.shape[1], _BITS))
  directions = directions.astype(np.float32)
  words = np.zeros((len(details), _WORDS), np.uint64)
  for start in range(0, len(details), _CHUNK):
    block = details[start : start + _CHUNK].astype(np.float32) @ directions
    words[start : start + _CHUNK] = np.packbits(block > 0, axis=1).view(np.uint64)
  return words
