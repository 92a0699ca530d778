"""Images per second from a folder of JPEG files: ours against a torch DataLoader with PIL.

Both decode, resize to the network's size, take a random resized crop, flip both axes, and hand
over float batches 0..255. Ours decodes and resizes on the host and warps on the device.
"""

import pathlib
from collections.abc import Callable, Iterator

import jax
import numpy as np
import torch
from PIL import Image

from jaxdefect import data
from jaxdefect.data import augment
from jaxdefect.data.sources import folder

SIDE, FILES = 256, 256


def write_jpegs(root: pathlib.Path) -> None:
  """A folder of smooth random textures in two classes, about as large as camera crops."""
  random = np.random.default_rng(0)
  for index in range(FILES):
    coarse = random.integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    path = root / f'class_{index % 2}' / f'{index:04d}.jpg'
    path.parent.mkdir(exist_ok=True)
    picture.save(path, quality=90)


def ours(root: pathlib.Path, *, batch: int, side: int, cache_bytes: int) -> Iterator[object]:
  source = folder.make(dir=str(root))
  batches = data.train_batches(
    source,
    range(len(source)),
    batch_size=batch,
    image_size=(side, side),
    seed=0,
    cache_bytes=cache_bytes,
  )
  view = jax.jit(augment.random_views, static_argnames=('quarter_turns',))
  for step, host in enumerate(batches):
    key = jax.random.fold_in(jax.random.key(0), step)
    images = view(key, host['image'], host['index'], quarter_turns=False)
    yield jax.block_until_ready(images)


class Pictures(torch.utils.data.Dataset):
  """The same folder, resized, cropped and flipped with PIL."""

  def __init__(self, root: pathlib.Path, side: int):
    self.paths = sorted(root.glob('*/*.jpg'))
    self.side = side

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> torch.Tensor:
    side = self.side
    with Image.open(self.paths[index]) as picture:
      picture = picture.convert('RGB').resize((side, side), Image.Resampling.BILINEAR)
    area = np.random.uniform(0.2, 1.0)  # noqa: NPY002 (what DataLoader seeds per worker)
    aspect = np.exp(np.random.uniform(np.log(3 / 4), np.log(4 / 3)))  # noqa: NPY002
    width = min(1.0, np.sqrt(area * aspect)) * side
    height = min(1.0, np.sqrt(area / aspect)) * side
    left, top = np.random.uniform(0, [side - width, side - height])  # noqa: NPY002
    picture = picture.resize(
      (side, side), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)
    )
    flips = np.random.rand(2) < 0.5  # noqa: NPY002
    if flips[0]:
      picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if flips[1]:
      picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def theirs(root: pathlib.Path, *, batch: int, side: int, workers: int) -> Iterator[object]:
  pictures = Pictures(root, side)
  loader = torch.utils.data.DataLoader(
    pictures,
    batch_size=batch,
    shuffle=True,
    drop_last=True,
    num_workers=workers,
    persistent_workers=workers > 0,
    multiprocessing_context='forkserver' if workers else None,
  )
  while True:
    for images in loader:
      yield images.float()


def streams(
  root: pathlib.Path, *, batch: int, side: int, workers: int
) -> dict[str, Iterator[object]]:
  """Endless batches of every contender; ``root`` is an empty folder for the files."""
  write_jpegs(root)
  return {
    'jaxdefect': ours(root, batch=batch, side=side, cache_bytes=0),
    'jaxdefect, decoded images kept': ours(root, batch=batch, side=side, cache_bytes=2**30),
    'DataLoader, no workers': theirs(root, batch=batch, side=side, workers=0),
    f'DataLoader, {workers} workers': theirs(root, batch=batch, side=side, workers=workers),
  }


def take(stream: Iterator[object], count: int) -> Callable[[], object]:
  """A call that takes ``count`` batches."""

  def call() -> object:
    for _ in range(count):
      next(stream)
    return None

  return call
