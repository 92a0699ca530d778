"""The few pictures of one product that a network is fine-tuned on, as host arrays.

Shape legend: N pictures, R references, H x W pixels.
"""

from collections.abc import Iterable

import jax
import numpy as np

from jaxdefect.contracts import Batch


def gather(batches: Iterable[Batch]) -> Batch:
  """The valid rows of a stream of padded batches, one array per key.

  A support set is a handful of pictures: it fits in memory where a training set need not.

  Args:
    batches: padded batches of the same keys.

  Returns:
    name -> [N, ...] numpy arrays.

  Raises:
    ValueError: there is no valid row.
  """
  parts = [
    {name: np.asarray(column)[np.asarray(batch['valid'])] for name, column in batch.items()}
    for batch in batches
  ]
  if not sum(part['valid'].size for part in parts):
    raise ValueError('the references hold no picture; at least one is needed.')
  return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def rows(examples: Batch, places: np.ndarray) -> Batch:
  """Some rows of every array."""
  return {name: column[places] for name, column in examples.items()}


def in_order(examples: Batch, batch_size: int) -> list[Batch]:
  """All rows in batches of one shape, the last filled up with the first rows."""
  size = examples['label'].size
  steps = -(-size // batch_size)
  places = (np.arange(steps * batch_size) % size).reshape(steps, batch_size)
  return [rows(examples, row) for row in places]


def set_aside(key: jax.Array, support: Batch, count: int) -> tuple[np.ndarray, Batch]:
  """Takes good pictures out of a support set, to compare all others with.

  A picture that is compared with itself shows no difference, so the chosen ones leave the set;
  but for the last good picture, which is in both parts: without any there is nothing to learn.

  Args:
    key: typed PRNG key.
    support: of ``gather``, with ``'image'`` and ``'label'`` (0 is good, 1 defective).
    count: R, pictures to take; fewer where there are fewer.

  Returns:
    The chosen pictures [R, H, W, 3] and the rest of the set.

  Raises:
    ValueError: no good or no defective picture.
  """
  good = np.flatnonzero(support['label'] == 0)
  defective = support['label'].size - good.size
  if not good.size or not defective:
    raise ValueError(
      f'the references hold {good.size} good and {defective} defective pictures; at least one of '
      'each is needed.'
    )
  chosen = np.asarray(jax.random.permutation(key, good))[:count]
  leave = chosen if chosen.size < good.size else chosen[1:]
  rest = np.setdiff1d(np.arange(support['label'].size), leave)
  return support['image'][chosen], rows(support, rest)


def draw(key: jax.Array, pictures: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Pictures drawn with replacement.

  Args:
    key: typed PRNG key.
    pictures: [N, H, W, 3].
    shape: of what is drawn, (B, R) say.

  Returns:
    [*shape, H, W, 3].
  """
  return pictures[np.asarray(jax.random.randint(key, shape, 0, len(pictures)))]
