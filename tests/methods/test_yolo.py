"""The single-stage detector: its loss by hand, what counts in it, and that it learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdefect import losses, methods, models, ops
from jaxdefect.contracts import DataSpec, References, to_fitted

SMALL = {
  **{'width': 0.0625, 'depth': 0.1, 'num_bins': 4, 'top_k': 3},
  **{'score_threshold': 0.0, 'max_detections': 5},
  # Statistics of six maps of one pixel make gradients large and their last digits uncertain.
  **{'class_weight': 0.05, 'box_weight': 0.75, 'distribution_weight': 0.15},
}
VIEWS = {'flips': True, 'scale': (0.8, 1.2)}
CLASSES = ('dent', 'hole', 'scratch')
SIDE = 48


def batch(n=4, *, first=0, empty=False):
  """Gray pictures with one bright or dark square each; the last one has none."""
  generator = np.random.default_rng(first)
  image = generator.integers(100, 120, (n, SIDE, SIDE, 3), np.uint8)
  corner = generator.integers(2, 20, (n, 2))
  side = generator.integers(12, 24, (n, 1))
  label = np.arange(n, dtype=np.int32) % 2
  boxes = np.zeros((n, 2, 4), np.float32)
  boxes[:, 0] = np.concatenate([corner, corner + side], 1)
  for one, (x0, y0, x1, y1), bright in zip(image[:-1], boxes[:, 0].astype(int), label):
    one[y0:y1, x0:x1] = 250 if bright else 10
  valid = np.arange(2) < (np.arange(n) < n - 1)[:, None] * (not empty)
  return {
    **{'image': image, 'boxes': np.where(valid[..., None], boxes, 0), 'box_valid': valid},
    **{'box_label': np.where(valid, label[:, None], 0), 'valid': np.ones(n, bool)},
    **{'size': np.full((n, 2), SIDE, np.float32), 'index': np.arange(n, dtype=np.int32)},
  }


@functools.cache
def made(*, rule=optax.sgd(0.1), **settings):  # noqa: B008 (one rule for one program)
  """The method, its state before the first step, and the step, compiled once for all tests."""
  method = methods.load('yolo')(optimizer=rule, **{**SMALL, **settings})
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch())
  state = jax.jit(lambda key: method.init(key, DataSpec(shapes, CLASSES, (2, 2, 2))))(
    jax.random.key(0)
  )
  return method, state, jax.jit(method.step)


def test_loss_by_hand():
  _, state, step = made()
  _, scalars = step(jax.random.key(0), state, batch())
  given = batch()
  module = models.Yolo(3, width=0.0625, depth=0.1, num_bins=4)
  variables = {'params': state.params, 'batch_stats': state.model_state['batch_stats']}
  apply = jax.jit(functools.partial(module.apply, train=True, mutable=['batch_stats']))
  said, _ = apply(variables, given['image'].astype(np.float32) / 255)

  expected = dict.fromkeys(('classification', 'box', 'distribution', 'positives'), 0.0)
  total = 0.0
  for row in range(4):
    probability = np.asarray(jax.nn.sigmoid(said.logits[row]))
    targets = ops.task_aligned_targets(
      jnp.asarray(probability),
      said.boxes[row],
      said.centres,
      *(jnp.asarray(given[key][row]) for key in ('boxes', 'box_label', 'box_valid')),
      top_k=3,
    )
    wanted = np.zeros_like(probability)
    for a in np.flatnonzero(targets.positive):
      score, goal = float(targets.score[a]), given['boxes'][row][targets.target[a]]
      wanted[a, given['box_label'][row][targets.target[a]]] = score
      x, y = np.asarray(said.centres[a])
      edges = np.array([x - goal[0], y - goal[1], goal[2] - x, goal[3] - y]) / said.strides[a]
      spread = losses.distribution_focal(said.bins[row, a], jnp.asarray(edges)).mean()
      away = losses.complete_iou(said.boxes[row, a], jnp.asarray(goal))
      expected['box'] += 0.75 * score * float(away)
      expected['distribution'] += 0.15 * score * float(spread)
      expected['positives'] += 1
      total += score
    entropy = -wanted * np.log(probability) - (1 - wanted) * np.log(1 - probability)
    expected['classification'] += 0.05 * entropy.sum()
  assert expected['positives'] >= 3
  for name, value in expected.items():
    value = value if name == 'positives' else value * 4 / max(total, 1)
    np.testing.assert_allclose(scalars[name][0], value, rtol=1e-3)
  np.testing.assert_allclose(scalars['alignment'], [total, expected['positives']], rtol=1e-3)
  terms = sum(scalars[name][0] for name in ('classification', 'box', 'distribution'))
  np.testing.assert_allclose(scalars['loss'][0], terms, rtol=1e-5)


def test_boxes_of_padding_change_nothing_whatever_they_hold():
  _, state, step = made()
  given, other = batch(), batch()
  hidden = ~given['box_valid']
  other['boxes'] = np.where(hidden[..., None], np.float32([5, 40, 30, 2]), given['boxes'])
  other['box_label'] = np.where(hidden, 2, given['box_label'])
  after, scalars = step(jax.random.key(0), state, given)
  after_other, scalars_other = step(jax.random.key(0), state, other)
  for a, b in zip(*map(jax.tree.leaves, ((after, scalars), (after_other, scalars_other)))):
    np.testing.assert_array_equal(a, b)


def test_learns_without_any_box():
  _, state, step = made()
  after, scalars = step(jax.random.key(0), state, batch(empty=True))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))
  assert scalars['box'][0] == scalars['distribution'][0] == scalars['positives'][0] == 0
  assert scalars['classification'][0] > 0


def test_finds_squares_and_says_which_they_are():
  rule = optax.adam(optax.cosine_decay_schedule(1e-2, 90))
  method, state, step = made(rule=rule, width=0.125, num_bins=8)
  for number in range(90):
    state, _ = step(jax.random.key(0), state, batch(8, first=number))
  test = batch(8, first=999)
  found = jax.jit(method.predict)(to_fitted(state, CLASSES), test)
  overlap = ops.box_iou(found.boxes[:, 0], jnp.asarray(test['boxes'][:, 0]))
  assert float(jnp.diagonal(overlap)[:7].mean()) > 0.7
  np.testing.assert_array_equal(found.labels[:7, 0], test['box_label'][:7, 0])
  # Nothing is surer than this on the picture that has no square.
  assert found.scores[7].max() < found.scores[:7, 0].min()


def test_boxes_stay_in_the_picture():
  method, state, _ = made()
  given = {**batch(), 'size': np.tile(np.float32([30, 20]), (4, 1))}
  given['valid'] = np.array([True, True, True, False])
  found = jax.jit(method.predict)(to_fitted(state, CLASSES), given)
  assert found.boxes[..., [0, 2]].max() <= 20
  assert found.boxes[..., [1, 3]].max() == 30
  assert not found.valid[3].any()
  assert found.valid[:3].any()


def test_refuses_a_class_that_it_was_not_trained_on():
  method, state, _ = made()
  fitted = to_fitted(state, CLASSES)
  assert method.adapt(jax.random.key(0), fitted, References(CLASSES, [batch()])) is fitted
  with pytest.raises(ValueError, match="cannot learn the class 'crack' without training"):
    method.adapt(jax.random.key(0), fitted, References(('crack',), [batch()]))
