"""Box heads by hand, and the parameters of whole detectors against the published figures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import models
from jaxdefect.models import box_head


@functools.cache
def made(kind, **settings):
  module = kind(**settings)
  x = jax.random.normal(jax.random.key(1), (4, 7, 7, 6))
  return module, jax.jit(module.init)(jax.random.key(0), x), x


def parameters(module, *shapes):
  """Number of a module's parameters by name of the leaf, found without computing anything."""
  arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  if isinstance(module, models.FPN | models.GSFPN | models.RPNHead):
    arguments = [arguments]
  variables = jax.eval_shape(lambda *a: module.init(jax.random.key(0), *a), *arguments)
  count: dict[str, int] = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables['params']):
    count[path[-1].key] = count.get(path[-1].key, 0) + leaf.size
  return count


def detector(neck, head):
  """Parameters of a ResNet-50 detector of 6 classes, part by part.

  The backbone's BatchNorm is fixed and counts nothing, as in torchvision: its kernels are all.
  """
  maps = [(1, 64 // 2**k, 64 // 2**k, 256 * 2**k) for k in range(4)]
  body = parameters(models.backbone('resnet50'), (1, 64, 64, 3))
  return {
    'body': body['kernel'],
    'neck': sum(parameters(neck, *maps).values()),
    'rpn': sum(parameters(models.RPNHead(3), (1, 4, 4, 256)).values()),
    'head': sum(parameters(head, (2, 7, 7, 256)).values()),
    'predictor': sum(parameters(models.BoxPredictor(6), (2, 1024)).values()),
  }


def test_published_number_of_parameters():
  parts = detector(models.FPN(), models.MLPBoxHead())
  millions = {name: round(number / 1e6, 2) for name, number in parts.items()}
  assert millions == {'body': 23.45, 'neck': 3.34, 'rpn': 0.59, 'head': 13.9, 'predictor': 0.04}
  assert sum(parts.values()) == 41_324_786
  # With the backbone's BatchNorm it is what torchvision makes where that is trained.
  assert sum(parts.values()) + 53_120 == 41_377_906


def test_light_detector_is_smaller_than_published():
  parts = detector(models.GSFPN(), models.GSBoxHead())
  assert parts['neck'] == 2_756_000
  assert parts['head'] == 597_248
  assert sum(parts.values()) == 27_437_970 < 29.8e6
  # The neck alone cannot do it, whatever it is made of: even none at all leaves 37.98 M.
  heavy = detector(models.FPN(), models.MLPBoxHead())
  assert sum(heavy.values()) - heavy['neck'] > 29.8e6


def test_mlp_by_hand_in_the_order_of_torch():
  module, variables, x = made(models.MLPBoxHead, width=5)
  assert set(variables['params']) == {'fc6', 'fc7'}
  flat = np.moveaxis(np.asarray(x), -1, 1).reshape(4, -1)  # channel, row, column
  for name in ('fc6', 'fc7'):
    layer = variables['params'][name]
    flat = np.maximum(flat @ layer['kernel'] + layer['bias'], 0)
  np.testing.assert_allclose(module.apply(variables, x), flat, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('cells', [1, 2, 3])
def test_mean_of_cells_by_hand(cells):
  x = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)
  y = np.empty((2, cells, cells, 3))
  for i in range(cells):
    for j in range(cells):
      rows = slice(int(np.floor(i * 4 / cells)), int(np.ceil((i + 1) * 4 / cells)))
      columns = slice(int(np.floor(j * 5 / cells)), int(np.ceil((j + 1) * 5 / cells)))
      y[:, i, j] = x[:, rows, columns].mean((1, 2))
  np.testing.assert_allclose(box_head.mean_of_cells(jnp.array(x), cells), y, rtol=1e-5, atol=1e-6)


def test_gs_head_is_gsconvs_and_a_mean():
  module, variables, x = made(models.GSBoxHead, channels=(8, 4), cells=2)
  y = x
  for index, layer in enumerate([models.GSConv(8, 3, stride=2), models.GSConv(4, 3)]):
    own = {collection: tree[f'convs.{index}'] for collection, tree in variables.items()}
    y = jax.jit(functools.partial(layer.apply, running=True))(own, y)
  y = np.asarray(y).reshape(4, 2, 2, 2, 2, 4).mean((2, 4))  # [R, 4, 4, C] -> [R, 2, 2, C]
  expected = np.moveaxis(y, -1, 1).reshape(4, 16)
  np.testing.assert_allclose(jax.jit(module.apply)(variables, x), expected, rtol=1e-4, atol=1e-6)


def test_padding_is_invisible():
  module, variables, x = made(models.GSBoxHead, channels=(8, 4), cells=2)
  apply = jax.jit(functools.partial(module.apply, train=True, mutable='batch_stats'))
  expected = apply(variables, x[:3])
  actual = apply(variables, x.at[3].set(99.0), valid=jnp.arange(4) < 3)
  np.testing.assert_allclose(actual[0][:3], expected[0], rtol=1e-3, atol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), actual[1], expected[1]
  )


@pytest.mark.parametrize('head', [models.MLPBoxHead(5), models.GSBoxHead((8, 4))])
def test_permuting_regions_permutes_features_and_none_is_fine(head):
  x = jax.random.normal(jax.random.key(1), (3, 7, 7, 6))
  variables = jax.jit(head.init)(jax.random.key(0), x)
  apply = jax.jit(head.apply)
  order = jnp.array([2, 0, 1])
  np.testing.assert_allclose(
    apply(variables, x[order]), apply(variables, x)[order], rtol=1e-5, atol=1e-6
  )
  features = jax.eval_shape(head.apply, variables, x).shape[1]
  assert apply(variables, x[:0]).shape == (0, features)


def test_predictor_by_hand():
  x = jnp.array([[1.0, 2.0], [0.0, -1.0]])
  predictor = models.BoxPredictor(2)
  variables = predictor.init(jax.random.key(0), x)
  params = variables['params']
  assert params['cls_score']['kernel'].shape == (2, 3)
  params['cls_score']['kernel'] = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 10.0]])
  params['bbox_pred']['kernel'] = jnp.stack([jnp.arange(12.0), jnp.zeros(12)])
  logits, deltas = predictor.apply(variables, x)
  np.testing.assert_allclose(logits, [[1, 2, 20], [0, -1, -10]], rtol=1e-6)
  np.testing.assert_allclose(deltas, [np.arange(12), np.zeros(12)], rtol=1e-6)


@pytest.mark.parametrize(
  ('settings', 'logits', 'deltas'),
  [
    ({'num_classes': 6}, (5, 7), (5, 28)),
    ({'num_classes': 6, 'class_agnostic': True}, (5, 7), (5, 4)),
    ({'num_classes': 1}, (5, 2), (5, 8)),
    ({'num_classes': None}, None, (5, 4)),
  ],
)
def test_predictor_shapes(settings, logits, deltas):
  predictor = models.BoxPredictor(**settings, dtype=jnp.bfloat16)
  outputs, variables = jax.eval_shape(
    lambda x: predictor.init_with_output(jax.random.key(0), x), jnp.zeros((5, 8), jnp.bfloat16)
  )
  assert (None if outputs[0] is None else outputs[0].shape) == logits
  assert outputs[1].shape == deltas
  assert {leaf.dtype for leaf in jax.tree.leaves((outputs, variables))} == {jnp.dtype('float32')}
  names = {'bbox_pred'} if logits is None else {'bbox_pred', 'cls_score'}
  assert set(variables['params']) == names


@pytest.mark.parametrize(
  ('head', 'sentence'),
  [
    (models.GSBoxHead(()), 'channels is empty'),
    (models.GSBoxHead((8,), cells=5), 'cells is 5; a map of 4x4 has 1 to 4'),
    (models.GSBoxHead((7,)), 'features is 7'),
  ],
)
def test_rejects_bad_arguments(head, sentence):
  with pytest.raises(ValueError, match=sentence):
    jax.eval_shape(lambda x: head.init(jax.random.key(0), x), jnp.zeros((1, 7, 7, 8)))
