"""Multi-training: its losses by hand, who moves whom, and when a made picture has a label."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdefect import methods, models, ops, optim
from jaxdefect.contracts import DataSpec, References, example_keys, to_fitted
from jaxdefect.methods import multi_training_gan

SMALL = {
  **{'backbone': 'resnet18', 'stages': 1, 'width': 4, 'gan_size': 8, 'gan_width': 4, 'latent': 5},
  'confidence': 0.0,
}
VIEWS = {'crop_scale': (0.5, 1.0)}
CLASSES = ('dent', 'good', 'scratch')
NETWORKS = ('residual', 'generator', 'discriminator')
KEY = jax.random.key(3)
SGD = optax.sgd(0.1)


def batch(n=8, *, first=0):
  image = np.random.default_rng(first).integers(0, 256, (n, 16, 16, 3), np.uint8)
  index = np.arange(first, first + n, dtype=np.int32)
  label = np.arange(n, dtype=np.int32) % 3
  return {'image': image, 'label': label, 'valid': np.ones(n, bool), 'index': index}


@functools.cache
def made(name='multi_training_gan', **settings):
  """A method, its state before the first step, and the step, compiled once for all tests.

  From this key the two classifiers agree on some of the made pictures, not on all.
  """
  small = SMALL if name == 'multi_training_gan' else {k: SMALL[k] for k in list(SMALL)[:3]}
  method = methods.load(name)(**{'optimizer': SGD, **small, **settings})
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch())
  spec = DataSpec(shapes, CLASSES, (2, 2, 2))
  state = jax.jit(lambda key: method.init(key, spec))(jax.random.key(4))
  return method, state, jax.jit(method.step)


def parts(tree):
  """The trees of the three networks."""
  own = {'backbone': tree['backbone'], 'fc': tree.get('fc', {})}
  return {'residual': own, 'generator': tree['generator'], 'discriminator': tree['discriminator']}


def passed(params, statistics, images):
  """What the three networks say, written down once more: scores of real and of made pictures."""
  key = jax.random.split(jax.random.fold_in(KEY, 0))[1]
  noise, wished = multi_training_gan._draw(example_keys(key, np.arange(len(images))), 5, 3)

  def run(network, name, *inputs, **how):
    variables = {'params': params[name], 'batch_stats': statistics[name]}
    return network.apply(variables, *inputs, mutable=['batch_stats'], **how)[0]

  generator = models.ClassGenerator(8, num_classes=3, width=4)
  image = run(generator, 'generator', noise, wished, running=False)
  judge = functools.partial(
    run, models.ClassDiscriminator(num_classes=3, width=4), 'discriminator', running=False
  )
  small = multi_training_gan.resized(images.astype(np.float32), 8, 8) / 127.5 - 1
  large = multi_training_gan.resized((image + 1) * 127.5, 16, 16)
  normal = functools.partial(ops.normalize_pixels, mean=ops.IMAGENET_MEAN, std=ops.IMAGENET_STD)
  network = models.Recogniser(
    backbone=models.backbone('resnet18', stages=1, width=4), num_classes=3
  )
  both = normal(jnp.concatenate([images.astype(np.float32), large]))
  valid = np.arange(2 * len(images)) < len(images)
  logits = run(network, 'residual', both, train=True, valid=valid).logits
  real, unlabelled = logits[: len(images)], logits[len(images) :]
  return {
    **{'wished': wished, 'judged': judge(small), 'named': judge(image)},
    **{'real': real, 'unlabelled': unlabelled},
  }


def surprise(scores, label, *, with_made=False):
  """-log p of the labels, in plain exponentials."""
  weight = jnp.exp(scores)
  if with_made:
    weight = jnp.concatenate([weight, jnp.ones((len(scores), 1))], axis=1)
  return -jnp.log(weight[jnp.arange(len(scores)), label] / weight.sum(1))


def mean_losses(said, labels, agreed, given):
  """The three losses of the module's docstring."""
  count = len(labels)

  def pseudo(scores):
    return jnp.where(agreed, surprise(scores, given), 0.0)

  return {
    'residual': (surprise(said['real'], labels) + pseudo(said['unlabelled'])).mean(),
    'generator': surprise(said['named'], said['wished'], with_made=True).mean(),
    'discriminator': (
      surprise(said['judged'], labels, with_made=True)
      + surprise(said['named'], jnp.full(count, 3), with_made=True)
      + pseudo(said['named'])
    ).mean(),
  }


def test_losses_by_hand_and_each_network_descends_its_own():
  _, state, step = made()
  item = batch()
  statistics = parts(state.model_state['batch_stats'])
  params = parts(state.params)
  said = passed(params, statistics, item['image'])
  agreed = said['named'].argmax(1) == said['unlabelled'].argmax(1)
  given = said['named'].argmax(1)
  assert 0 < agreed.sum() < 8
  losses = mean_losses(said, item['label'], agreed, given)

  after, scalars = step(KEY, state, item)
  for name, scalar in zip(NETWORKS, ('loss', 'generator', 'discriminator'), strict=True):
    total, weight = scalars[scalar]
    assert weight == 8
    np.testing.assert_allclose(total / weight, losses[name], rtol=1e-4)
  assert scalars['pseudo_labels'][0] == agreed.sum()
  assert scalars['pseudo_labels_as_wished'][0] == (agreed & (given == said['wished'])).sum()

  for name in NETWORKS:

    def loss(own, name=name):
      said = passed({**params, name: own}, statistics, item['image'])
      return mean_losses(said, item['label'], agreed, given)[name]

    gradient = jax.jit(jax.grad(loss))(params[name])
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) > 1e-3, name
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, params[name], gradient)
    chex.assert_trees_all_close(parts(after.params)[name], expected, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize('update', [True, False])
def test_before_made_pictures_count_it_is_the_plain_classifier(update):
  """Neither the loss nor the statistics of the residual network know of the GAN."""
  _, state, step = made(pseudo_from=1, update_statistics=update)
  _, plain, plain_step = made('classifier', update_statistics=update)
  own = {name: state.params[name] for name in plain.params}
  kept = {name: state.model_state['batch_stats'][name] for name in plain.model_state['batch_stats']}
  plain = plain._replace(params=own, model_state={'batch_stats': kept})
  expected, scalars = plain_step(KEY, plain, batch())
  after, found = step(KEY, state, batch())
  assert found['pseudo_labels'][0] == 0
  np.testing.assert_allclose(found['loss'][0], scalars['loss'][0], rtol=1e-5)
  close = functools.partial(chex.assert_trees_all_close, rtol=1e-4, atol=1e-6)
  close({name: after.params[name] for name in own}, expected.params)
  close(
    {name: after.model_state['batch_stats'][name] for name in kept},
    expected.model_state['batch_stats'],
  )
  _, found = step(KEY, after, batch())
  assert found['pseudo_labels'][0] > 0


def test_nobody_is_ever_sure_enough_of_a_probability_of_one():
  _, state, step = made(confidence=1.0)
  _, scalars = step(KEY, state, batch())
  assert scalars['pseudo_labels'][0] == 0


def test_what_is_drawn_goes_with_the_picture_and_the_step():
  _, state, step = made()
  item = batch()
  expected, scalars = step(KEY, state, item)
  turned = {name: value[::-1] for name, value in item.items()}
  after, found = step(KEY, state, turned)
  chex.assert_trees_all_close(after.params, expected.params, atol=1e-5)
  other = step(KEY, state, {**item, 'index': item['index'] + 100})[1]
  later = step(KEY, state._replace(step=jnp.ones((), jnp.int32)), item)[1]
  np.testing.assert_allclose(found['generator'], scalars['generator'], rtol=1e-5)
  assert len({float(s['generator'][0]) for s in (scalars, other, later)}) == 3


def test_a_batch_of_padding_alone_moves_nothing():
  _, state, step = made()
  after, _ = step(KEY, state, {**batch(), 'valid': np.zeros(8, bool)})
  chex.assert_trees_all_equal(after.params, state.params)
  chex.assert_trees_all_equal(after.model_state, state.model_state)


def test_the_gan_may_have_an_optimiser_of_its_own():
  settings = {'optimizer': optim.adam(learning_rate=0.01, steps=5)}
  method = methods.load('multi_training_gan')(
    **{**SMALL, **settings, 'gan_optimizer': {'learning_rate': 2e-4, 'b1': 0.5}}
  )
  _, state, _ = made()
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch())
  start = jax.eval_shape(lambda k: method.init(k, DataSpec(shapes, CLASSES, (2, 2, 2))), KEY)
  assert set(start.opt_state) == set(NETWORKS)
  fresh = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), start.opt_state)
  after, scalars = jax.jit(method.step)(KEY, state._replace(opt_state=fresh), batch())
  np.testing.assert_allclose(scalars['learning_rate'][0], 0.01, rtol=1e-6)
  # The first step of Adam is as long as its rate.
  for name, rate in zip(NETWORKS, (0.01, 2e-4, 2e-4), strict=True):
    before, moved = parts(state.params)[name], parts(after.params)[name]
    longest = max(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), before, moved)))
    np.testing.assert_allclose(longest, rate, rtol=1e-2)


def test_adapt_leaves_the_residual_network_and_knows_its_classes_alone():
  method, state, _ = made()
  fitted = to_fitted(state, CLASSES)
  references = References(CLASSES, [batch()])
  known = method.adapt(KEY, method.adapt(KEY, fitted, references), references)
  assert set(known.params) == {'backbone', 'fc'}
  assert set(known.model_state['batch_stats']) == {'backbone'}
  expected = method.predict(fitted, batch(3))
  chex.assert_trees_all_equal(method.predict(known, batch(3)), expected)
  assert method.deploy(known)[0] == method.deploy(fitted)[0] == 'classifier'
  chex.assert_trees_all_equal(method.deploy(known)[2], method.deploy(fitted)[2])
  with pytest.raises(ValueError, match="cannot learn the class 'crack'"):
    method.adapt(KEY, fitted, References(('crack',), [batch(2)]))


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'gan_size': 24}, 'gan_size is 24; it must be a power of two'),
    ({'gan_size': 4}, 'gan_size is 4; it must be a power of two'),
    ({'confidence': 1.5}, 'confidence is 1.5; it must be in'),
    ({'accumulate': 2}, 'accumulate is 2; it can only be 1, because BatchNorm of the GAN'),
  ],
)
def test_rejects_bad_arguments(settings, message):
  with pytest.raises(ValueError, match=message):
    methods.load('multi_training_gan')(**settings)
