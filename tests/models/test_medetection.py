"""MeDetection's network: part by part, its statistics, and its references."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models
from jaxdefect.models.medetection import pyramid_max_pool
from jaxdefect.models.siamese import difference, enlarge

SMALL = {
  **{'stem_channels': (4,), 'stem_strides': (2,), 'width': 4, 'blocks': 2},
  **{'attention': 'low', 'reduction': 2},
}
IMAGE = jax.random.normal(jax.random.key(1), (3, 16, 16, 3))
REFERENCE = jax.random.normal(jax.random.key(2), (3, 2, 16, 16, 3))


@functools.cache
def made(**settings):
  """A small network and variables without a zero among them."""
  network = models.medetection(**{**SMALL, **settings})
  variables = jax.eval_shape(network.init, jax.random.key(0), IMAGE, REFERENCE)
  random = np.random.default_rng(0)
  return network, jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.asarray(
      random.uniform(0.5, 1.5, leaf.shape)
      if path[-1].key in ('var', 'scale')
      else 0.5 * random.normal(size=leaf.shape),
      leaf.dtype,
    ),
    variables,
  )


@functools.cache
def compiled(network, train):
  """(variables, image, reference, valid) -> outputs, and the statistics where it trains."""
  if train:
    return jax.jit(
      lambda v, x, r, valid=None: network.apply(
        v, x, r, train=True, valid=valid, mutable=['batch_stats']
      )
    )
  return jax.jit(lambda v, x, r, valid=None: network.apply(v, x, r, valid=valid))


def close(a, b, tolerance=1e-4):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


def part(variables, name):
  return {collection: tree[name] for collection, tree in variables.items() if name in tree}


def test_value_by_hand():
  network, variables = made()
  stem = functools.partial(network.stem.apply, part(variables, 'stem'), running=True)
  references = jnp.stack([stem(REFERENCE[:, r]) for r in range(2)], axis=1)
  x = difference(stem(IMAGE), references)
  x = network.body.apply(part(variables, 'body'), x, running=True)  # [3, 2, 2, 4]
  x = np.asarray(x)
  flat = []
  for cells in (4, 2, 1):
    for channel in range(4):
      for i in range(cells):
        for j in range(cells):
          rows, columns = (slice(k * 2 // cells, -(-(k + 1) * 2 // cells)) for k in (i, j))
          flat.append(x[:, rows, columns, channel].max((1, 2)))
  head = variables['params']['fc']
  logit = np.stack(flat, axis=1) @ head['kernel'][:, 0] + head['bias'][0]
  outputs = compiled(network, False)(variables, IMAGE, REFERENCE)
  close(outputs.feature_map, x)
  close(outputs.logit, logit)
  assert np.abs(logit).min() > 1e-3


def test_names_are_those_of_the_twin():
  _, variables = made()
  assert set(variables['params']) == {'stem', 'body', 'fc'}
  assert set(variables['params']['stem']) == {'conv.0', 'norm.0'}
  assert set(variables['params']['body']) == {
    *('conv.0', 'norm.0', 'attention.0', 'conv.1', 'norm.1'),
  }


def test_head_starts_at_zero_and_moves_first():
  network = models.medetection(**SMALL)
  variables = jax.jit(network.init)(jax.random.key(0), IMAGE, REFERENCE)

  def loss(params):
    outputs = network.apply({**variables, 'params': params}, IMAGE, REFERENCE)
    return jnp.sum(jax.nn.softplus(outputs.logit)), outputs.logit

  gradient, logit = jax.jit(jax.grad(loss, has_aux=True))(variables['params'])
  np.testing.assert_array_equal(logit, 0)
  assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(gradient['fc']))
  assert not any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(gradient['body']))


@pytest.mark.parametrize('train', [False, True])
def test_an_image_that_equals_its_reference_shows_nothing(train):
  network, variables = made()
  # Without bias behind it, a difference of zero stays zero up to the head.
  variables = jax.tree_util.tree_map_with_path(
    lambda path, leaf: leaf * 0 if path[-1].key in ('bias', 'mean') else leaf, variables
  )
  apply = compiled(network, train)

  def feature_map(reference):
    outputs = apply(variables, IMAGE, reference)
    return (outputs[0] if train else outputs).feature_map

  same = jnp.stack([IMAGE, IMAGE], axis=1)
  np.testing.assert_allclose(feature_map(same), 0, atol=2e-3 if train else 1e-6)
  assert np.abs(feature_map(REFERENCE)).max() > 0.1


@pytest.mark.parametrize('settings', [{}, {'nearest': 1}, {'norm': 'group'}])
def test_shared_references_equal_repeated_ones(settings):
  network, variables = made(**settings)
  apply = compiled(network, False)
  repeated = jnp.broadcast_to(REFERENCE[0], REFERENCE.shape)
  close(apply(variables, IMAGE, REFERENCE[0]), apply(variables, IMAGE, repeated))


def test_shared_references_count_once_in_the_statistics():
  network, variables = made()
  apply = compiled(network, True)
  # With one image both are the same pictures.
  close(apply(variables, IMAGE[:1], REFERENCE[0]), apply(variables, IMAGE[:1], REFERENCE[:1]), 1e-3)
  # With more they differ in how often references count, and where none counts nothing moves.
  _, updated = apply(variables, IMAGE, REFERENCE[0], jnp.zeros(3, bool))
  close(updated['batch_stats'], variables['batch_stats'], 1e-7)


def test_query_images_do_not_change_the_support():
  network, variables = made()
  apply = compiled(network, True)
  support, updated = apply(variables, IMAGE[:2], REFERENCE[:2])
  counted = jnp.array([True, True, False])
  for scale in (1.0, 30.0):
    image, reference = IMAGE.at[2].multiply(scale), REFERENCE.at[2].multiply(scale)
    both, both_updated = apply(variables, image, reference, counted)
    close(jax.tree.map(lambda a: a[:2], both), support, 1e-3)
    close(both_updated, updated, 1e-3)
  # The query is normalised by the support: its own statistics would give something else.
  third, _ = apply(variables, IMAGE, REFERENCE, counted)
  alone, _ = apply(variables, IMAGE[2:], REFERENCE[2:])
  assert np.abs(third.feature_map[2:] - alone.feature_map).max() > 0.05


def test_a_row_depends_on_its_own_image_alone():
  network, variables = made(nearest=1)
  apply = compiled(network, False)
  whole = apply(variables, IMAGE, REFERENCE)
  close(apply(variables, IMAGE[1:2], REFERENCE[1:2]), jax.tree.map(lambda a: a[1:2], whole))


def test_without_the_second_stream_references_are_not_read():
  network, variables = made(siamese=False)
  apply = compiled(network, False)
  alone = apply(variables, IMAGE, None)
  close(alone, apply(variables, IMAGE, REFERENCE), 1e-7)
  stem = network.stem.apply(part(variables, 'stem'), IMAGE, running=True)
  close(alone.feature_map, network.body.apply(part(variables, 'body'), stem, running=True))


def test_published_stem_is_enlarged_before_the_body():
  stem = models.VGGStem(stages=((4,), (5,)))
  network = models.MeDetection(stem, models.Conv4(4, 2))
  variables = jax.jit(network.init)(jax.random.key(0), IMAGE, REFERENCE)
  features = functools.partial(stem.apply, part(variables, 'stem'), running=True)
  references = jnp.stack([features(REFERENCE[:, r]) for r in range(2)], axis=1)
  x = enlarge(difference(features(IMAGE), references), 4)
  assert x.shape == (3, 16, 16, 5)
  expected = network.body.apply(part(variables, 'body'), x, running=True)
  close(compiled(network, False)(variables, IMAGE, REFERENCE).feature_map, expected)


def test_tap_has_the_gradient_of_the_feature_map():
  network, variables = made(pool='mean')
  shape = jax.eval_shape(network.apply, variables, IMAGE, REFERENCE).feature_map.shape

  def logits(tap):
    return network.apply(variables, IMAGE, REFERENCE, tap=tap).logit.sum()

  gradient = jax.grad(logits)(jnp.zeros(shape))
  expected = variables['params']['fc']['kernel'][:, 0] / (shape[1] * shape[2])
  close(gradient, jnp.broadcast_to(expected, shape), 1e-6)


def test_pools():
  x = jax.random.normal(jax.random.key(3), (2, 6, 5, 3))
  torch = pytest.importorskip('torch')
  theirs = torch.tensor(np.array(x)).permute(0, 3, 1, 2)
  expected = [
    torch.nn.functional.adaptive_max_pool2d(theirs, cells).flatten(1) for cells in (4, 2, 1)
  ]
  np.testing.assert_array_equal(pyramid_max_pool(x), torch.cat(expected, dim=1).numpy())
  network, variables = made(pool='mean')
  assert variables['params']['fc']['kernel'].shape == (4, 1)
  outputs = compiled(network, False)(variables, IMAGE, REFERENCE)
  head = variables['params']['fc']
  close(outputs.logit, outputs.feature_map.mean((1, 2)) @ head['kernel'][:, 0] + head['bias'])


def test_published_network():
  network = models.medetection(stem='vgg')
  image = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
  reference = jax.ShapeDtypeStruct((1, 1, 256, 256, 3), jnp.float32)
  variables = jax.eval_shape(network.init, jax.random.key(0), image, reference)
  count = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  assert variables['params']['fc']['kernel'].shape == (672, 1)
  # The authors' 1,839,450 without the biases in front of normalisations and the second logit.
  assert count == 1_839_450 - (4 * 32 + 8) - (672 + 1) == 1_838_641
  apply = jax.jit(network.apply).lower(variables, image, reference)
  flops = apply.cost_analysis()['flops']
  assert 57e9 < flops < 60e9


def test_light_network_at_the_two_core_protocol():
  network = models.medetection()
  image = jax.ShapeDtypeStruct((2, 128, 128, 3), jnp.float32)
  reference = jax.ShapeDtypeStruct((3, 128, 128, 3), jnp.float32)
  outputs, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), image, reference)
  assert outputs.feature_map.shape == (2, 4, 4, 32)
  assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) < 50_000


def test_bfloat16_maps_and_float32_logits():
  network = models.medetection(**SMALL, dtype=jnp.bfloat16)
  outputs, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), IMAGE, REFERENCE)
  assert outputs.feature_map.dtype == jnp.bfloat16
  assert outputs.logit.dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


def test_no_image_is_fine():
  network, variables = made()
  outputs = compiled(network, False)(variables, IMAGE[:0], REFERENCE[0])
  assert outputs.logit.shape == (0,)


@pytest.mark.parametrize(
  ('settings', 'sentence'),
  [
    ({'stem': 'resnet'}, "stem is 'resnet'; it can be conv, vgg"),
    ({'norm': 'layer'}, "norm is 'layer'; it can be batch, group"),
  ],
)
def test_rejects_unknown_part(settings, sentence):
  with pytest.raises(ValueError, match=sentence):
    models.medetection(**settings)


@pytest.mark.parametrize(
  ('settings', 'reference', 'sentence'),
  [
    ({'pool': 'max'}, REFERENCE, "pool is 'max'; it can be pyramid, mean"),
    ({}, None, 'needs a reference to compare with, got None'),
    ({}, REFERENCE[:2], r'reference has shape \(2, 2, 16, 16, 3\); .* \[3, R, 16, 16, 3\]'),
    ({}, REFERENCE[:, :, :8], r'must be \[R, 16, 16, 3\] or \[3, R, 16, 16, 3\]'),
    ({}, REFERENCE[0, 0], 'reference has shape'),
    ({'nearest': 0}, REFERENCE, 'nearest is 0; it must be at least 1'),
  ],
)
def test_rejects_bad_arguments(settings, reference, sentence):
  network = models.medetection(**{**SMALL, **settings})
  with pytest.raises(ValueError, match=sentence):
    jax.eval_shape(network.init, jax.random.key(0), IMAGE, reference)
