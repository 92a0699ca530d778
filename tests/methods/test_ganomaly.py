"""GANomaly: its losses and score by hand, and that neither network moves the other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdefect import methods, models, optim
from jaxdefect.contracts import DataSpec, References, to_fitted

CLASSES = ('good', 'defect')
SMALL = {'latent': 6, 'width': 4}
SGD = optax.sgd(0.1)
ADAM = optim.adam(learning_rate=2e-3, b1=0.5, steps=60)


def batch(n, *, first=0):
  image = np.random.default_rng(first).integers(0, 256, (n, 16, 16, 3), np.uint8)
  index = np.arange(first, first + n, dtype=np.int32)
  label = np.zeros(n, np.int32)
  return {'image': image, 'label': label, 'valid': np.ones(n, bool), 'index': index}


@functools.cache
def made(*, rule=SGD, **settings):
  """The method, its state before the first step, and the step, compiled once for all tests."""
  method = methods.load('ganomaly')(optimizer=rule, **{**SMALL, **settings})
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch(6))
  spec = DataSpec(shapes, CLASSES, (6, 0))
  state = jax.jit(lambda key: method.init(key, spec))(jax.random.key(0))
  return method, state, jax.jit(method.step)


def run(network, state, name, x):
  """A network on a batch, with the batch's statistics."""
  variables = {
    'params': state.params[name],
    'batch_stats': state.model_state['batch_stats'][name],
  }
  return network.apply(variables, x, running=False, mutable=['batch_stats'])[0]


def passed(state, images):
  """What both networks make of images."""
  x = images.astype(np.float32) / 127.5 - 1
  outputs = run(models.Generator(**SMALL), state, 'generator', x)
  judge = functools.partial(run, models.Discriminator(width=4), state, 'discriminator')
  return x, outputs, judge(x), judge(outputs.image)


def test_losses_by_hand():
  _, state, step = made()
  _, scalars = step(jax.random.key(0), state, batch(6))
  x, outputs, real, fake = passed(state, batch(6)['image'])
  adversarial = np.mean(np.square(real.features - fake.features))
  reconstruction = np.mean(np.abs(x - outputs.image))
  latent = np.mean(np.square(outputs.latent - outputs.latent_again))
  probability = [1 / (1 + np.exp(-np.asarray(one.logit))) for one in (real, fake)]
  told_apart = -0.5 * np.mean(np.log(probability[0]) + np.log(1 - probability[1]))
  for name, expected in (
    ('adversarial', adversarial),
    ('reconstruction', reconstruction),
    ('latent', latent),
    ('loss', adversarial + 50 * reconstruction + latent),
    ('discriminator', told_apart),
  ):
    total, count = scalars[name]
    assert count == 6
    np.testing.assert_allclose(total / count, expected, rtol=1e-4)
    assert expected > 0, name


def test_score_is_the_mean_squared_latent_difference():
  method, state, _ = made()
  predictions = method.predict(to_fitted(state, CLASSES), batch(3, first=5))
  variables = {
    'params': state.params['generator'],
    'batch_stats': state.model_state['batch_stats']['generator'],
  }
  x = batch(3, first=5)['image'].astype(np.float32) / 127.5 - 1
  outputs = models.Generator(**SMALL).apply(variables, x, running=True)
  expected = np.mean(np.square(outputs.latent - outputs.latent_again), axis=1)
  np.testing.assert_allclose(predictions.scores, expected, rtol=1e-4)


def test_map_is_the_reconstruction_error_where_nothing_is_smoothed():
  method, state, _ = made(sigma=0.0)
  predictions = method.predict(to_fitted(state, CLASSES), batch(3))
  # Kernels near zero reconstruct grey, so what is left is the image's own distance from grey.
  x = batch(3)['image'].astype(np.float32) / 127.5 - 1
  expected = np.abs(x).mean(-1)
  assert predictions.maps.shape == (3, 16, 16)
  np.testing.assert_allclose(predictions.maps, expected, atol=0.02)


def test_each_network_has_the_gradient_of_its_own_loss_alone():
  _, state, step = made()
  x, outputs, _, _ = passed(state, batch(6)['image'])
  made_images = jax.lax.stop_gradient(outputs.image)

  def discriminator_loss(params):
    moved = state._replace(params={**state.params, 'discriminator': params})
    judge = functools.partial(run, models.Discriminator(width=4), moved, 'discriminator')
    losses = (jax.nn.softplus(-judge(x).logit), jax.nn.softplus(judge(made_images).logit))
    return 0.5 * jnp.mean(losses[0] + losses[1])

  def generator_loss(params):
    moved = state._replace(params={**state.params, 'generator': params})
    x, outputs, real, fake = passed(moved, batch(6)['image'])
    return (
      jnp.mean(jnp.square(real.features - fake.features))
      + 50 * jnp.mean(jnp.abs(x - outputs.image))
      + jnp.mean(jnp.square(outputs.latent - outputs.latent_again))
    )

  after, _ = step(jax.random.key(0), state, batch(6))
  for name, loss in (('discriminator', discriminator_loss), ('generator', generator_loss)):
    gradient = jax.jit(jax.grad(loss))(state.params[name])
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params[name], gradient)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
      after.params[name],
      expected,
    )
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) > 1e-3, name


def test_each_network_has_an_optimiser_state_of_its_own():
  _, state, step = made(rule=ADAM)
  after, scalars = step(jax.random.key(0), state, batch(6))
  assert set(after.opt_state) == {'generator', 'discriminator'}
  for name in after.opt_state:
    expected = jax.eval_shape(ADAM.init, state.params[name])
    actual = jax.eval_shape(lambda part: part, after.opt_state[name])
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
  np.testing.assert_allclose(scalars['learning_rate'][0], 2e-3, rtol=1e-6)


def test_a_batch_of_padding_alone_moves_nothing():
  _, state, step = made()
  nothing = {**batch(6), 'valid': np.zeros(6, bool)}
  after, _ = step(jax.random.key(0), state, nothing)
  jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
  jax.tree.map(np.testing.assert_array_equal, after.model_state, state.model_state)


def test_learns_to_reconstruct_what_it_sees():
  _, state, step = made(rule=ADAM)
  errors = []
  # Smooth parts, so that a few steps can learn them.
  ramp = np.linspace(40, 210, 16)[:, None, None]
  image = np.clip(ramp + np.arange(6)[:, None, None, None] * 5, 0, 255)
  image = np.broadcast_to(image, (6, 16, 16, 3)).astype(np.uint8)
  for _ in range(60):
    state, scalars = step(jax.random.key(0), state, {**batch(6), 'image': image})
    errors.append(float(scalars['reconstruction'][0]))
  assert errors[-1] < 0.5 * errors[0]


def test_rejects_defects_among_the_references():
  method, state, _ = made()
  defect = {**batch(2), 'label': np.ones(2, np.int32)}
  with pytest.raises(ValueError, match="hold a picture of 'defect'"):
    method.adapt(jax.random.key(0), to_fitted(state, CLASSES), References(CLASSES, [defect]))
