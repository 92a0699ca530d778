"""Batches for a method of any kind; what kind it is, its configs say.

The pictures are noise of 16 x 16 pixels with up to three boxes each.
"""

import pathlib

import jax
import numpy as np

from jaxdefect import methods
from jaxdefect.contracts import DataSpec
from launch import command

CLASSES = ('dent', 'good', 'scratch')
SIZE = 16
CONFIGS = pathlib.Path(__file__).parent.parent / 'configs'


def _can_be_made(name: str) -> bool:
  """False for a method made of others, of which one was taken out."""
  try:
    methods.load(name)()
  except ValueError as error:
    if 'there is no method' in str(error):
      return False
    raise
  return True


NAMES = tuple(name for name in methods.names() if _can_be_made(name))
# Method -> the smoke variant of its first config.
SMOKE = {
  config.method.name: config
  for path in sorted(CONFIGS.glob('[a-z]*_*.py'), reverse=True)
  for config in [command.load_config(f'{path}:smoke')]
  if config.method.name in NAMES
}
# Methods that learn to learn: they train on episodes of products, and know two classes.
EPISODIC = {name for name, config in SMOKE.items() if 'episodes' in config}
# Methods that know good parts, and score what differs from them.
ANOMALY = {name for name, c in SMOKE.items() if 'calibration' in c and 'anomaly' not in c.method}


def batch(n: int = 6, *, padding: int = 0, first: int = 0) -> dict[str, np.ndarray]:
  generator = np.random.default_rng(first)
  image = generator.integers(0, 256, (n + padding, SIZE, SIZE, 3), np.uint8)
  valid = np.arange(n + padding) < n
  corner = generator.uniform(0, 6, (n + padding, 3, 2))
  edges = np.concatenate([corner, corner + generator.uniform(4, 9, corner.shape)], axis=-1)
  real = valid[:, None] & (np.arange(3) < (1 + np.arange(n + padding)[:, None]) % 4)  # 0 to 3 boxes
  return {
    'boxes': np.where(real[..., None], edges, 0).astype(np.float32),
    'box_label': np.where(real, np.arange(n + padding)[:, None] % len(CLASSES), 0).astype(np.int32),
    'box_valid': real,
    'size': np.full((n + padding, 2), SIZE, np.float32),
    'scale': np.ones(n + padding, np.float32),
    'image': image,
    'label': np.where(valid, np.arange(n + padding) % len(CLASSES), 0).astype(np.int32),
    'valid': valid,
    'index': np.where(valid, first + np.arange(n + padding), -1).astype(np.int32),
  }


def classes(name: str) -> tuple[str, ...]:
  return ('good', 'defect') if name in EPISODIC | ANOMALY else CLASSES


def labelled(name: str, *args, **kwargs) -> dict[str, np.ndarray]:
  """A batch whose labels count in the classes of the method."""
  made = batch(*args, **kwargs)
  known = 1 if name in ANOMALY else len(classes(name))  # good parts alone
  return {**made, 'label': made['label'] % known}


def training_batch(name: str, n: int = 6, *, padding: int = 0, first: int = 0) -> dict:
  """What a step of the method takes: a third of so many episodes, where it takes such."""
  if name not in EPISODIC:
    made = batch(n, padding=padding, first=first)
    return {**made, 'label': made['label'] * 0} if name in ANOMALY else made
  tasks = [(4, 0)] * (n // 3) + [(0, 4)] * (padding // 3)
  parts = {}
  for place, part in enumerate(('support', 'query')):
    found = []
    for task, (size, empty) in enumerate(tasks):
      one = labelled(name, size, padding=empty, first=100 * (first + task) + 50 * place)
      one['reference'] = batch(4, first=999 + task)['image'][:, None]
      found.append({k: one[k] for k in ('image', 'label', 'valid', 'index', 'reference')})
    parts[part] = {key: np.stack([one[key] for one in found]) for key in found[0]}
  return parts


def spec(name: str = 'classifier', n: int = 6) -> DataSpec:
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), training_batch(name, n))
  return DataSpec(shapes, classes(name), (2, 2, 2)[: len(classes(name))])
