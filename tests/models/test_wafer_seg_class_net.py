"""WaferSegClassNet: its size, its blocks by hand, its dropout, and who moves the encoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models
from jaxdefect.models import wafer_seg_class_net


@functools.cache
def made():
  module = models.WaferSegClassNet(3, width=2)
  x = jax.random.normal(jax.random.key(1), (3, 18, 32, 3))
  variables = jax.jit(module.init)(jax.random.key(0), x)
  return module, variables, x


def size(tree):
  return float(sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(tree)))


def block_size(inputs, outputs):
  """Two convolutions with biases, one without, and two BatchNorms."""
  dense = 9 * inputs * outputs + outputs
  return dense + 9 * outputs + outputs * outputs + outputs + 4 * outputs


def test_published_size():
  module = models.WaferSegClassNet(38)
  images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
  said, variables = jax.eval_shape(
    functools.partial(module.init_with_output, jax.random.key(0)), images
  )
  assert said.logits.shape == (2, 38)
  assert said.mask.shape == (2, 224, 224)
  assert said.feature_map.shape == (2, 14, 14, 64)
  assert said.embedding.shape == (2, 128)
  down = ((3, 8), (8, 16), (16, 16), (16, 32), (32, 64))
  up = ((64, 32, 32), (32, 16, 16), (16, 16, 16), (16, 8, 8))  # from, to, beside it
  count = sum(block_size(*sizes) for sizes in down)
  count += sum(4 * i * o + block_size(o + beside, o) for i, o, beside in up)
  count += 64 * 64 + 64 + 64 * 38 + 38 + 8 + 1
  sizes = {
    name: sum(leaf.size for leaf in jax.tree.leaves(tree))
    for name, tree in variables['params'].items()
  }
  assert sizes.pop('projection') == 64 * 128 + 128
  assert sum(sizes.values()) == count == 84_343


def test_block_by_hand():
  module = wafer_seg_class_net.SeparableBlock(4)
  x = jax.random.normal(jax.random.key(1), (2, 5, 6, 3))
  (first, y), variables = jax.jit(functools.partial(module.init_with_output, running=True))(
    jax.random.key(0), x
  )
  p = variables['params']
  expected = jnp.maximum(models.conv2d(x, p['conv']['kernel'], padding=1), 0)
  np.testing.assert_allclose(first, expected, rtol=1e-4, atol=1e-6)
  expected = expected / np.sqrt(1 + 1e-3)
  channels = [
    models.conv2d(expected[..., c : c + 1], p['depthwise']['kernel'][..., c : c + 1], padding=1)
    for c in range(4)
  ]
  mixed = jnp.concatenate(channels, axis=-1) @ p['pointwise']['kernel'][0, 0]
  np.testing.assert_allclose(y, jnp.maximum(mixed, 0) / np.sqrt(1 + 1e-3), rtol=1e-4, atol=1e-6)


def test_what_is_left_makes_up_for_what_is_dropped():
  module = wafer_seg_class_net.SeparableBlock(4, dropout=0.75)
  x = jax.random.normal(jax.random.key(1), (2, 5, 6, 3))
  variables = jax.jit(functools.partial(module.init, running=True))(jax.random.key(0), x)
  run = jax.jit(functools.partial(module.apply, running=True))
  first, y = run(variables, x)
  all_kept = run(variables, x, kept=jnp.ones((2, 5, 6, 4), bool))
  np.testing.assert_array_equal(all_kept[0], first)
  np.testing.assert_allclose(all_kept[1], 4 * y, rtol=1e-5)
  none_kept = run(variables, x, kept=jnp.zeros((2, 5, 6, 4), bool))
  np.testing.assert_array_equal(none_kept[1], 0)


def test_any_size_is_filled_up_with_zeros():
  module, variables, x = made()
  run = jax.jit(module.apply)
  said = run(variables, x)
  assert said.mask.shape == (3, 18, 32)
  assert said.feature_map.shape == (3, 2, 2, 16)
  filled = run(variables, jnp.pad(x, ((0, 0), (0, 14), (0, 0), (0, 0))))
  np.testing.assert_allclose(filled.logits, said.logits, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(filled.mask[:, :18], said.mask, rtol=1e-5, atol=1e-6)


def test_every_scale_reaches_the_mask():
  module, variables, x = made()
  plain = jax.jit(module.apply)(variables, x)
  for name in ('up.0', 'up.1', 'up.2', 'up.3', 'encoder.0', 'encoder.1', 'encoder.2', 'encoder.3'):
    tree = variables['params'][name]
    halved = {**variables['params'], name: jax.tree.map(lambda leaf: 0.5 * leaf, tree)}
    other = jax.jit(module.apply)({**variables, 'params': halved}, x)
    assert float(jnp.abs(other.mask - plain.mask).max()) > 1e-4, name


def test_dropout_is_the_images_own():
  keys = jax.random.split(jax.random.key(0), 4)
  shapes = [(30, 30, 5), (60, 75)]
  kept = wafer_seg_class_net.draw_kept(keys, shapes, rate=0.25)
  turned = wafer_seg_class_net.draw_kept(keys[::-1], shapes, rate=0.25)
  for shape, ours, theirs in zip(shapes, kept, turned):
    assert ours.shape == (4, *shape)
    assert float(ours.mean()) == pytest.approx(0.75, abs=0.02)
    np.testing.assert_array_equal(theirs[::-1], ours)
  flat = np.stack([one.reshape(4, -1) for one in kept]).reshape(8, -1)
  assert len(np.unique(flat, axis=0)) == 8  # no image or map repeats another
  module, variables, x = made()
  run = jax.jit(module.apply)
  one, other = (run(variables, x, dropout_keys=jax.random.split(k, 3)) for k in keys[:2])
  assert float(jnp.abs(one.logits - other.logits).max()) > 1e-4


@pytest.mark.parametrize('moves', [True, False])
def test_heads_move_the_encoder_only_where_they_may(moves):
  module, variables, x = made()

  def total(params, moves, head):
    said = module.apply({**variables, 'params': params}, x, heads_move_encoder=moves)
    return sum((getattr(said, name) ** 2).sum() for name in head)

  slopes = jax.jit(jax.grad(total), static_argnums=2)
  heads = slopes(variables['params'], jnp.asarray(moves), ('logits', 'mask'))
  own = slopes(variables['params'], jnp.asarray(moves), ('embedding',))
  for k in range(5):
    assert (size(heads[f'encoder.{k}']) > 0) == moves
    assert size(own[f'encoder.{k}']) > 0
  assert size(heads['classifier']) > 0
  assert size(heads['decoder.0']) > 0
  assert size(heads['projection']) == size(own['classifier']) == 0
