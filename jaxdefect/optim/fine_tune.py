"""Fine-tuning on a handful of pictures, with the epoch chosen on others.

Shape legend: N pictures of the support set, B pictures per step, E epochs.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np


class FineTuned(NamedTuple):
  """What came of it.

  Attributes:
    carry: after the chosen epoch.
    history: name -> [E + 1] float32, one value before the first epoch and one after each:
      ``'loss'`` (mean over the epoch's steps, NaN before the first) and whatever ``validate``
      gives, as ``'validation_<name>'``.
    epoch: the chosen one; 0 is the start.
  """

  carry: Any
  history: dict[str, np.ndarray]
  epoch: int


def balanced_rows(key: jax.Array, labels: np.ndarray, batch_size: int) -> np.ndarray:
  """Draws the rows of one epoch so that every batch holds the classes in equal shares.

  Every class is gone through in random order, again and again; classes that are rare are seen more
  often. Where B is no multiple of the number of classes, the places left over go round.

  Args:
    key: typed PRNG key.
    labels: [N] classes.
    batch_size: B.

  Returns:
    [ceil(N / B), B] rows of ``labels``.

  Raises:
    ValueError: there is no label.
  """
  labels = np.asarray(labels)
  if not labels.size:
    raise ValueError('labels is empty; fine-tuning needs at least one picture.')
  draw = np.random.default_rng(np.asarray(jax.random.key_data(key)))
  classes = [np.flatnonzero(labels == c) for c in np.unique(labels)]
  steps = -(-labels.size // batch_size)
  owner = np.arange(steps * batch_size) % len(classes)
  rows = np.zeros(owner.size, np.int64)
  for c, members in enumerate(classes):
    places = np.flatnonzero(owner == c)
    rounds = -(-places.size // members.size)
    order = np.concatenate([draw.permutation(members) for _ in range(rounds)])
    rows[places] = order[: places.size]
  return rows.reshape(steps, batch_size)


def fine_tune(
  key: jax.Array,
  step: Callable[[jax.Array, Any, Any], tuple[Any, jax.Array]],
  carry: Any,
  examples: Mapping[str, np.ndarray],
  *,
  epochs: int,
  batch_size: int,
  validate: Callable[[Any], dict[str, float]] | None = None,
  patience: int | None = None,
) -> FineTuned:
  """Goes through a small set in class-balanced batches, and keeps the best epoch.

  With ``validate`` what has the least validation ``'loss'`` is kept, the start among it; without
  it what the last epoch left.

  Args:
    key: typed PRNG key, of the batches and of what a step draws.
    step: ``(key, carry, batch) -> (carry, loss)``; best compiled, and once.
    carry: parameters and the optimiser's state, or whatever ``step`` hands on.
    examples: name -> [N, ...] host arrays, ``'label'`` among them; a batch is B rows of them.
    epochs: at most so many, each of ceil(N / B) steps; 0 changes nothing.
    batch_size: B; N where N is less.
    validate: ``carry -> {'loss': ..., ...}``, called before the first epoch and after each.
    patience: stop when so many epochs in a row were not better than the best; None never does.

  Returns:
    The ``FineTuned``.

  Raises:
    ValueError: a negative number of epochs, an empty set, or a patience without ``validate``.
  """
  if epochs < 0:
    raise ValueError(f'epochs is {epochs}; it must be 0 or more.')
  if patience is not None and validate is None:
    raise ValueError('patience needs validate: without it no epoch is better than another.')
  labels = np.asarray(examples['label'])
  batch_size = min(batch_size, max(labels.size, 1))
  history: dict[str, list[float]] = {'loss': [float('nan')]}

  def score(carry: Any) -> float:
    if validate is None:
      return -float(len(history['loss']))  # the newest is the best
    figures = validate(carry)
    for name, value in figures.items():
      history.setdefault(f'validation_{name}', []).append(float(value))
    value = float(figures['loss'])
    return value if np.isfinite(value) else float('inf')

  best, best_score, best_epoch = carry, score(carry), 0
  for epoch in range(1, epochs + 1):
    key_rows, key_steps = jax.random.split(jax.random.fold_in(key, epoch))
    values = []
    for number, rows in enumerate(balanced_rows(key_rows, labels, batch_size)):
      batch = {name: np.asarray(column)[rows] for name, column in examples.items()}
      carry, value = step(jax.random.fold_in(key_steps, number), carry, batch)
      values.append(value)
    history['loss'].append(float(np.mean(jax.device_get(values))))
    value = score(carry)
    if value < best_score:
      best, best_score, best_epoch = carry, value, epoch
    elif patience is not None and epoch - best_epoch >= patience:
      break
  arrays = {name: np.asarray(column, np.float32) for name, column in history.items()}
  return FineTuned(best, arrays, best_epoch)


def two_class_figures(logit: np.ndarray, label: np.ndarray) -> dict[str, float]:
  """What ``validate`` may give for two classes.

  Args:
    logit: [N], larger means more like class 1.
    label: [N], 0 or 1; at least one.

  Returns:
    ``'loss'``, the cross-entropy with the classes in equal shares; where there are both, also
    ``'auroc'``, ``'recall'`` of class 1 and ``'balanced_accuracy'``, which is the AUROC of hard
    decisions. Of a network that has diverged the loss is infinite and the others are no numbers.

  >>> found = two_class_figures(np.array([-2.0, 1.0, 3.0]), np.array([0, 0, 1]))
  >>> found['auroc'], found['recall'], found['balanced_accuracy']
  (1.0, 1.0, 0.75)
  """
  from sklearn.metrics import roc_auc_score  # slow to import, and only needed here

  both = len({*label.tolist()}) == 2
  if not np.isfinite(logit).all():
    others = ('auroc', 'recall', 'balanced_accuracy') if both else ()
    return {'loss': math.inf, **dict.fromkeys(others, math.nan)}
  each = np.logaddexp(0, logit) - label * logit
  classes = [each[label == c].mean() for c in (0, 1) if (label == c).any()]
  figures = {'loss': float(np.mean(classes))}
  if both:
    figures['auroc'] = float(roc_auc_score(label, logit))
    found = [float(((logit > 0) == c)[label == c].mean()) for c in (0, 1)]
    figures |= {'recall': found[1], 'balanced_accuracy': sum(found) / 2}
  return figures
