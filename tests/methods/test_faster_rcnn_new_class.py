"""A detector that learns a class from boxes alone: what the class scores, and what others keep."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import losses, methods
from jaxdefect.contracts import DataSpec, References, to_fitted
from jaxdefect.train import load_fitted, save_fitted

CLASSES = ('dent', 'scratch')
SIZE = 32


def detector(**settings):
  return methods.load('faster_rcnn')(
    **{
      **{'backbone': 'resnet18', 'stages': 1, 'width': 8, 'neck_channels': 8, 'embedding': 8},
      **{'anchor_sizes': (8.0, 16.0), 'head_width': 16, 'classifier': 'prototype'},
      **{'proposals_before': 24, 'proposals': 16, 'score_threshold': 0.0},
      **settings,
    }
  )


def pictures(n=3):
  """Noise with a bright bar in each picture; its box is of class 0, which the caller names."""
  generator = np.random.default_rng(0)
  image = generator.integers(0, 80, (n, SIZE, SIZE, 3)).astype(np.uint8)
  boxes = np.zeros((n, 2, 4), np.float32)
  for row in range(n):
    x, y = generator.integers(2, 16, 2)
    image[row, y : y + 12, x : x + 12] = 255
    boxes[row, 0] = x, y, x + 12, y + 12
  return {
    'image': image,
    'boxes': boxes,
    'box_label': np.zeros((n, 2), np.int32),
    'box_valid': np.arange(2)[None] < np.ones((n, 1)),
    'size': np.full((n, 2), SIZE, np.float32),
    'scale': np.ones(n, np.float32),
    'label': np.zeros(n, np.int32),
    'valid': np.ones(n, bool),
    'index': np.arange(n, dtype=np.int32),
  }


def trained(method):
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), pictures())
  spec = DataSpec(shapes, CLASSES, (1, 1))
  return to_fitted(method.init(jax.random.key(0), spec), CLASSES)


def adapted(method, fitted, batches, names=('bar',)):
  return method.adapt(jax.random.key(0), fitted, References(names, batches))


@pytest.fixture(scope='module')
def learned():
  method = detector()
  fitted = trained(method)
  return method, fitted, adapted(method, fitted, [pictures()])


def test_added_logits_by_hand():
  features = jnp.array([[0.0, 5.0]])
  logits = losses.prototype_logits(
    features,
    jnp.eye(2),
    temperature=0.5,
    background=jnp.array([1.0]),
    discriminants=jnp.array([[0.0, 2.0, -1.0], [3.0, 0.0, -2.0]]),
  )
  rest = np.log(np.exp(1.0) + np.exp(2.0))
  np.testing.assert_allclose(logits, [[1.0, 2.0, rest + 1.0, rest - 2.0]], rtol=1e-6)


def test_trained_classes_share_what_the_added_one_leaves(learned):
  _, fitted, more = learned
  vectors = jax.random.normal(jax.random.key(1), (5, 8))
  prototypes = fitted.model_state['prototypes']
  before = jax.nn.softmax(losses.prototype_logits(vectors, prototypes, temperature=0.1))
  planes = more.model_state['discriminants']
  after = jax.nn.softmax(
    losses.prototype_logits(vectors, prototypes, temperature=0.1, discriminants=planes)
  )
  left = 1 - after[:, 3:]
  np.testing.assert_allclose(after[:, :3], before * left, atol=1e-5)


def test_adapt_adds_a_plane_and_leaves_all_else(learned):
  _, fitted, more = learned
  assert more.classes == (*CLASSES, 'bar')
  assert more.model_state['discriminants'].shape == (1, 9)
  chex.assert_trees_all_equal(more.params, fitted.params)
  kept = {k: v for k, v in more.model_state.items() if k != 'discriminants'}
  chex.assert_trees_all_equal(kept, fitted.model_state)


def test_support_boxes_score_above_the_other_regions(learned):
  method, fitted, more = learned
  found = method.predict(more, pictures())
  bar = found.labels == 2
  # The class scores high somewhere; without references it is not among the answers.
  assert (np.asarray(found.scores) * bar * found.valid).max() > 0.3
  assert not (np.asarray(method.predict(fitted, pictures()).labels) == 2).any()


def test_pictures_without_the_class_say_what_it_is_not(learned):
  method, fitted, more = learned
  others = pictures()
  others['image'] = 255 - others['image']
  others['box_valid'] = np.zeros((3, 2), bool)
  wiser = adapted(method, fitted, [pictures(), others])

  def mass(fitted):
    found = method.predict(fitted, others)
    return np.where((found.labels == 2) & found.valid, found.scores, 0).sum()

  assert mass(wiser) < 0.5 * mass(more)


def test_classes_can_be_added_one_after_the_other(learned):
  method, _, more = learned
  twice = {**pictures(), 'box_label': np.ones((3, 2), np.int32)}
  with_both = adapted(method, more, [twice], names=('bar', 'stain'))
  assert with_both.classes == (*CLASSES, 'bar', 'stain')
  first, second = with_both.model_state['discriminants']
  np.testing.assert_array_equal(first, more.model_state['discriminants'][0])
  np.testing.assert_allclose(second, first, rtol=1e-5)  # the same boxes under another name


def test_padding_is_invisible(learned):
  method, fitted, more = learned
  padded = jax.tree.map(lambda x: np.concatenate([x, x[:1]]), pictures())
  padded['valid'][-1] = False
  padded['boxes'][:, 1] = 5.0  # no box
  other = adapted(method, fitted, [padded]).model_state['discriminants']
  np.testing.assert_allclose(other, more.model_state['discriminants'], rtol=1e-4, atol=1e-4)


def test_file_keeps_the_added_class(learned, tmp_path):
  method, _, more = learned
  save_fitted(tmp_path / 'fitted.safetensors', more)
  chex.assert_trees_all_equal(
    method.predict(load_fitted(tmp_path / 'fitted.safetensors'), pictures()),
    method.predict(more, pictures()),
  )


def test_prototype_is_the_mean_of_the_boxes_alone():
  method = detector(new_class='prototype')
  fitted = trained(method)
  more = adapted(method, fitted, [pictures()])
  assert 'discriminants' not in more.model_state
  prototypes = more.model_state['prototypes']
  np.testing.assert_array_equal(prototypes[:3], fitted.model_state['prototypes'])
  one_by_one = [
    adapted(method, fitted, [jax.tree.map(lambda x, i=i: x[i : i + 1], pictures())])
    for i in range(3)
  ]
  expected = np.mean([one.model_state['prototypes'][3] for one in one_by_one], axis=0)
  np.testing.assert_allclose(prototypes[3], expected, atol=1e-5)


def test_rejects_a_class_without_boxes_and_unknown_choices():
  method = detector()
  fitted = trained(method)
  with pytest.raises(ValueError, match="the references hold no box of the class 'stain'"):
    adapted(method, fitted, [pictures()], names=('bar', 'stain'))
  with pytest.raises(ValueError, match="new_class is 'mean'; it can be discriminant, prototype"):
    detector(new_class='mean')
