"""Task-aligned assignment by hand, against a plain loop, with ties and with padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import ops

assign = jax.jit(ops.task_aligned_targets, static_argnames=('top_k', 'alpha', 'beta'))


def iou(a, b):
  width = min(a[2], b[2]) - max(a[0], b[0])
  height = min(a[3], b[3]) - max(a[1], b[1])
  shared = max(width, 0) * max(height, 0)
  union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
  return shared / union if union > 0 else 0.0


def plain(scores, boxes, centres, true, labels, valid, *, top_k, alpha, beta):
  """One object after the other, one cell after the other."""
  num, objects = len(boxes), len(true)
  u, t, chosen = np.zeros((num, objects)), np.zeros((num, objects)), {}
  for m in range(objects):
    for a in range(num):
      u[a, m] = iou(boxes[a], true[m])
      x, y = centres[a]
      if valid[m] and true[m][0] < x < true[m][2] and true[m][1] < y < true[m][3]:
        t[a, m] = scores[a, labels[m]] ** alpha * u[a, m] ** beta
    best = sorted(range(num), key=lambda a: (-t[a, m], a))[:top_k]
    for a in best:
      if t[a, m] > 0:
        chosen.setdefault(a, []).append(m)
  target = {a: max(found, key=lambda m: (u[a, m], -m)) for a, found in chosen.items()}
  score = np.zeros(num)
  for a, m in target.items():
    own = [b for b, other in target.items() if other == m]
    score[a] = t[a, m] / max(t[b, m] for b in own) * max(u[b, m] for b in own)
  return target, score


def drawn(seed, *, cells=60, objects=6, whole=False):
  """An image; on whole numbers, and with equal scores, many cells tie."""
  generator = np.random.default_rng(seed)
  centres = generator.uniform(0, 40, (cells, 2))
  boxes = np.concatenate([centres, centres], 1) + generator.uniform(0, 14, (cells, 4)) * [
    -1,
    -1,
    1,
    1,
  ]
  corner = generator.uniform(0, 25, (objects, 2))
  true = np.concatenate([corner, corner + generator.uniform(8, 20, corner.shape)], 1)
  scores = generator.uniform(0.01, 1, (cells, 3))
  if whole:
    centres, boxes, true = np.round(centres), np.round(boxes / 8) * 8, np.round(true / 8) * 8
    scores = np.full_like(scores, 0.25)
  labels = generator.integers(0, 3, objects)
  return scores, boxes, centres, true, labels, generator.random(objects) < 0.8


def test_value_by_hand():
  # Two objects side by side; cells 0 and 1 see the first, 2 both, 3 the second, 4 nothing.
  true = jnp.array([[0.0, 0, 8, 8], [4.0, 0, 12, 8]])
  boxes = jnp.array([[0.0, 0, 8, 8], [0, 0, 8, 4], [4, 0, 10, 8], [4, 0, 12, 6], [20, 20, 28, 28]])
  centres = jnp.array([[2.0, 4], [3, 2], [6, 4], [9, 4], [24, 24]])
  scores = jnp.array([[0.25, 0.0], [1.0, 0.0], [0.5, 0.04], [0.0, 0.01], [1.0, 1.0]])
  said = assign(
    scores, boxes, centres, true, jnp.array([0, 1]), jnp.ones(2, bool), alpha=0.5, beta=1.0
  )
  np.testing.assert_array_equal(said.positive, [True, True, True, True, False])
  # Cell 2 overlaps the first with 32/80, the second with 48/64.
  np.testing.assert_array_equal(said.target[:4], [0, 0, 1, 1])
  # t of object 0: 0.5 * 1, 1 * 0.5; of object 1: 0.2 * 0.75, 0.1 * 0.75.
  np.testing.assert_allclose(said.score, [1, 1, 0.75, 0.375, 0], rtol=1e-6)
  assert (said.target.dtype, said.positive.dtype) == (jnp.int32, jnp.bool_)


@pytest.mark.parametrize('whole', [False, True])
def test_matches_a_plain_loop(whole):
  settings = {'top_k': 5, 'alpha': 1.0, 'beta': 2.0}
  contested = tied = 0
  for seed in range(8):
    image = drawn(seed, whole=whole)
    said = assign(*image, **settings)
    target, score = plain(*image, **settings)
    np.testing.assert_array_equal(np.flatnonzero(said.positive), sorted(target))
    np.testing.assert_array_equal(
      np.asarray(said.target)[sorted(target)], [target[a] for a in sorted(target)]
    )
    np.testing.assert_allclose(said.score, score, rtol=1e-4, atol=1e-6)
    everyone, _ = plain(*image, top_k=60, alpha=1.0, beta=2.0)
    contested += len(everyone) > len(target)
    tied += len(np.unique(score[score > 0])) < (score > 0).sum()
  assert contested
  assert tied == 8 or not whole


def test_the_best_cell_of_an_object_gets_its_largest_overlap():
  scores, boxes, centres, true, labels, valid = drawn(3)
  said = assign(scores, boxes, centres, true, labels, valid)
  for m in range(len(true)):
    own = np.flatnonzero(said.positive & (said.target == m))
    if len(own):
      overlap = max(iou(boxes[a], true[m]) for a in own)
      np.testing.assert_allclose(said.score[own].max(), overlap, rtol=1e-5)


def test_padding_changes_nothing_whatever_it_holds():
  image = drawn(1)
  short = assign(*image)
  padding = jnp.array([[0.0, 0, 0, 0], [0, 0, 40, 40], [30, 30, 5, 5]])
  scores, boxes, centres, true, labels, valid = image
  long = assign(
    scores,
    boxes,
    centres,
    jnp.concatenate([true, padding]),
    jnp.concatenate([labels, jnp.array([0, 1, 2])]),
    jnp.concatenate([valid, jnp.zeros(3, bool)]),
  )
  for a, b in zip(short, long):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('objects', [0, 4])
def test_an_image_without_objects_has_no_positives(objects):
  scores, boxes, centres, true, labels, _ = drawn(2, objects=objects)
  said = assign(scores, boxes, centres, true, labels, np.zeros(objects, bool))
  assert not said.positive.any()
  assert not said.score.any()


def test_a_cell_of_no_score_or_no_overlap_is_no_positive():
  true, centres = jnp.array([[0.0, 0, 8, 8]]), jnp.full((2, 2), 4.0)
  boxes = jnp.array([[0.0, 0, 8, 8], [10, 10, 20, 20]])
  said = assign(
    jnp.array([[0.0], [1.0]]), boxes, centres, true, jnp.zeros(1, int), jnp.ones(1, bool)
  )
  assert not said.positive.any()
  assert np.isfinite(said.score).all()


def test_no_gradient_passes_and_images_can_be_stacked():
  images = [drawn(seed) for seed in range(3)]
  stacked = [jnp.stack(parts) for parts in zip(*images)]
  together = jax.jit(jax.vmap(ops.task_aligned_targets))(*stacked)
  for row, image in enumerate(images):
    np.testing.assert_allclose(together.score[row], assign(*image).score, rtol=1e-5)
  slope = jax.grad(lambda s: assign(s, *map(jnp.asarray, images[0][1:])).score.sum())(
    jnp.asarray(images[0][0])
  )
  np.testing.assert_array_equal(slope, 0)


def test_rejects_bad_arguments():
  with pytest.raises(ValueError, match='top_k is 0, alpha'):
    ops.task_aligned_targets(*drawn(0), top_k=0)
  with pytest.raises(ValueError, match='beta -1'):
    ops.task_aligned_targets(*drawn(0), beta=-1)
