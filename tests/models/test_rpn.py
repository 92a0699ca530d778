"""The proposal head answers in the order of the anchors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models, ops

SIZES = ((3, 4), (2, 2))


def draw(dtype=jnp.float32):
  return [
    jax.random.uniform(jax.random.key(k), (2, *size, 5), dtype) for k, size in enumerate(SIZES)
  ]


def test_order_is_level_row_column_anchor():
  maps = draw()
  head = models.RPNHead(3)
  variables = jax.jit(head.init)(jax.random.key(0), maps)
  # The 3x3 hands its input through; anchor a is read from channel a, delta d of it times d + 1.
  params = variables['params']
  params['conv.0.0']['kernel'] = jnp.zeros((3, 3, 5, 5)).at[1, 1].set(jnp.eye(5))
  params['cls_logits']['kernel'] = jnp.eye(5, 3).reshape(1, 1, 5, 3)
  params['bbox_pred']['kernel'] = jnp.kron(jnp.eye(5, 3), jnp.arange(1.0, 5)).reshape(1, 1, 5, 12)
  objectness, deltas = jax.jit(head.apply)(variables, maps)
  expected = [
    x[:, row, column, anchor]
    for x, size in zip(maps, SIZES)
    for row in range(size[0])
    for column in range(size[1])
    for anchor in range(3)
  ]
  expected = np.stack(expected, axis=1)
  np.testing.assert_allclose(objectness, expected, rtol=1e-5)
  np.testing.assert_allclose(deltas, expected[..., None] * np.arange(1, 5), rtol=1e-5)


def test_one_answer_per_anchor():
  strides, ratios = models.pyramid_strides(3), (0.5, 1.0, 2.0)
  sizes = [(64 // s, 96 // s) for s in strides]
  anchors = ops.grid_anchors(sizes, strides=strides, sizes=(32, 64, 128, 256), ratios=ratios)
  maps = [jax.ShapeDtypeStruct((2, *size, 8), jnp.float32) for size in sizes]
  objectness, deltas = jax.eval_shape(
    lambda maps: models.RPNHead(3).init_with_output(jax.random.key(0), maps)[0], maps
  )
  assert objectness.shape == (2, anchors.shape[0])
  assert deltas.shape == (2, anchors.shape[0], 4)


def test_names_are_torchvisions_and_start_is_small():
  params = jax.jit(models.RPNHead(3).init)(jax.random.key(0), draw())['params']
  assert {(name, leaf) for name, layer in params.items() for leaf in layer} == {
    (name, leaf) for name in ('conv.0.0', 'cls_logits', 'bbox_pred') for leaf in ('kernel', 'bias')
  }
  kernel = params['conv.0.0']['kernel']
  assert 0.007 < float(jnp.std(kernel)) < 0.013
  assert all(bool(jnp.all(layer['bias'] == 0)) for layer in params.values())


def test_images_do_not_see_each_other():
  maps = draw()
  head = models.RPNHead(2)
  variables = jax.jit(head.init)(jax.random.key(0), maps)
  both = jax.jit(head.apply)(variables, maps)
  second = jax.jit(head.apply)(variables, [x[1:] for x in maps])
  for a, b in zip(both, second):
    np.testing.assert_allclose(a[1:], b, rtol=1e-5, atol=1e-7)
  empty = jax.eval_shape(head.apply, variables, [x[:0] for x in maps])
  assert [e.shape for e in empty] == [(0, 32), (0, 32, 4)]


@pytest.mark.parametrize(
  ('dtype', 'expected'), [(jnp.bfloat16, jnp.float32), (jnp.float32, jnp.float32)]
)
def test_outputs_are_float32(dtype, expected):
  head = models.RPNHead(3, dtype=dtype)
  outputs, variables = jax.eval_shape(
    lambda maps: head.init_with_output(jax.random.key(0), maps), draw(dtype)
  )
  assert {o.dtype for o in outputs} == {jnp.dtype(expected)}
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


def test_rejects_bad_shape():
  with pytest.raises(AssertionError):
    models.RPNHead(3).init(jax.random.key(0), [jnp.zeros((4, 4, 8))])
