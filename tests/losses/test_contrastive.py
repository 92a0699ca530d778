"""NT-Xent against an independent implementation, by hand, and in its corners."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import losses


@pytest.fixture
def golden(golden_dir):
  with np.load(golden_dir / 'metric_losses.npz') as file:
    yield dict(file)


def jitted(loss, **arguments):
  """One compilation instead of one per operation."""
  return jax.jit(functools.partial(loss, **arguments))


def brute_force(z_a, z_b, temperature):
  """Equation 1 with loops; [2N]."""
  z = np.concatenate([z_a, z_b])
  z = z / np.linalg.norm(z, axis=1, keepdims=True)
  n = len(z_a)
  values = []
  for i in range(2 * n):
    terms = {k: np.exp(z[i] @ z[k] / temperature) for k in range(2 * n) if k != i}
    values.append(-np.log(terms[(i + n) % (2 * n)] / sum(terms.values())))
  return np.array(values)


@pytest.mark.parametrize('temperature', [0.1, 0.5])
def test_matches_golden(golden, temperature):
  with jax.enable_x64(True):
    z_a, z_b = jnp.array(golden['z_a']), jnp.array(golden['z_b'])
    value, grads = jax.jit(
      jax.value_and_grad(
        lambda a, b: jnp.mean(losses.nt_xent(a, b, temperature=temperature)), argnums=(0, 1)
      )
    )(z_a, z_b)
    name = f'nt_xent_{temperature}'
    np.testing.assert_allclose(value, golden[name], rtol=0, atol=1e-6)
    np.testing.assert_allclose(grads[0], golden[f'{name}/grad_a'], rtol=0, atol=1e-6)
    np.testing.assert_allclose(grads[1], golden[f'{name}/grad_b'], rtol=0, atol=1e-6)


def test_value_by_hand():
  z_a, z_b = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
  expected = brute_force(z_a, z_b, 0.5)
  got = jitted(losses.nt_xent, temperature=0.5)(z_a, z_b)
  np.testing.assert_allclose(got, expected, rtol=2e-6)
  first = jitted(losses.nt_xent, temperature=0.5, anchors='first')(z_a, z_b)
  np.testing.assert_allclose(first, expected[:5], rtol=2e-6)


@pytest.mark.parametrize('anchors', ['both', 'first'])
def test_three_views_are_the_mean_of_three_pairs(anchors):
  z, z_i, z_j = np.random.default_rng(1).normal(size=(3, 4, 6)).astype(np.float32)
  expected = np.zeros(4)
  for a, b in ((z, z_i), (z, z_j), (z_i, z_j)):
    pair = brute_force(a, b, 0.5)
    expected += (pair[:4] if anchors == 'first' else (pair[:4] + pair[4:]) / 2) / 3
  got = jitted(losses.three_view_nt_xent, temperature=0.5, anchors=anchors)(z, z_i, z_j)
  np.testing.assert_allclose(got, expected, rtol=2e-6)


def test_gradient_matches_numeric():
  with jax.enable_x64(True):
    z = jnp.array(np.random.default_rng(2).normal(size=(3, 4, 3)))
    valid = jnp.array([True, True, False, True])
    loss = functools.partial(losses.three_view_nt_xent, temperature=0.3, valid=valid)
    loss_sum = jax.jit(lambda z: jnp.sum(loss(*z)))
    jax.test_util.check_grads(loss_sum, (z,), order=1, modes=['rev'])


@pytest.mark.parametrize('anchors', ['both', 'first'])
def test_padding_is_invisible(anchors):
  z = jnp.array(np.random.default_rng(3).normal(size=(3, 4, 6)), jnp.float32)
  padded = jnp.concatenate([z, jnp.full((3, 2, 6), jnp.nan)], axis=1)
  valid = jnp.array([True] * 4 + [False] * 2)

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(z, valid):
    values = losses.three_view_nt_xent(*z, temperature=0.5, anchors=anchors, valid=valid)
    return jnp.sum(values), values

  (value, _), grad = loss(z, None)
  (padded_value, padded_values), padded_grad = loss(padded, valid)
  np.testing.assert_allclose(padded_value, value, rtol=1e-6)
  np.testing.assert_allclose(padded_grad[:, :4], grad, atol=1e-7)
  np.testing.assert_array_equal(padded_grad[:, 4:], 0)
  np.testing.assert_array_equal(padded_values[4:], 0)


def test_corners_are_finite():
  loss = jax.jit(jax.value_and_grad(lambda z: jnp.sum(losses.nt_xent(*z, temperature=0.05))))
  corners = {
    'one image, no negatives': [[[1.0, 2.0]], [[-1.0, 0.5]]],
    'duplicates': [[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]],
    'zero vectors': [[[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]],
    'squares leave float32': [[[1e30, 0.0], [1e-30, 0.0]], [[1e30, 1e30], [0.0, 1e-30]]],
  }
  for name, z in corners.items():
    value, grads = loss(jnp.array(z))
    assert jnp.isfinite(value), name
    assert jnp.all(jnp.isfinite(grads)), name
    assert len(z[0]) > 1 or value == 0, name


def test_no_valid_row_costs_nothing():
  z = jnp.ones((2, 3))
  values = jitted(losses.nt_xent, temperature=0.5)(z, z, valid=jnp.zeros(2, bool))
  np.testing.assert_array_equal(values, 0)


def test_half_precision_is_raised():
  z = jnp.array(np.random.default_rng(4).normal(size=(2, 4, 8)), jnp.bfloat16)
  loss = jitted(losses.nt_xent, temperature=0.5)
  values = loss(*z)
  assert values.dtype == jnp.float32
  np.testing.assert_allclose(values, loss(*z.astype(jnp.float32)), rtol=1e-6)


@pytest.mark.parametrize('anchors', ['both', 'first'])
def test_two_devices_equal_one(anchors):
  with jax.enable_x64(True):
    generator = np.random.default_rng(5)
    images, kernel = generator.normal(size=(3, 6, 5)), generator.normal(size=(5, 4))
    valid = np.array([True, False, True, True, True, False])

    def loss(kernel, images, valid, axis_name):
      return jnp.sum(
        losses.three_view_nt_xent(
          *jnp.tanh(images @ kernel),
          temperature=0.5,
          valid=valid,
          axis_name=axis_name,
          anchors=anchors,
        )
      )

    one = jax.jit(jax.value_and_grad(loss), static_argnums=3)
    value, grad = one(jnp.array(kernel), images, valid, None)

    def on_device(images, valid):
      return jax.lax.psum(jax.value_and_grad(loss)(jnp.array(kernel), images, valid, 'd'), 'd')

    sharded = images.reshape(3, 2, 3, 5).swapaxes(0, 1)
    values, grads = jax.pmap(on_device, axis_name='d')(sharded, valid.reshape(2, 3))
    np.testing.assert_allclose(values[0], value, rtol=1e-12)
    np.testing.assert_allclose(grads[0], grad, rtol=0, atol=1e-12)


def test_jit_matches_eager():
  z = jnp.array(np.random.default_rng(6).normal(size=(2, 4, 8)), jnp.float32)
  loss = functools.partial(losses.nt_xent, temperature=0.5)
  np.testing.assert_allclose(jax.jit(loss)(*z), loss(*z), rtol=1e-6)


def test_rejects_bad_arguments():
  z = jnp.ones((2, 3))
  with pytest.raises(AssertionError):
    losses.nt_xent(z, jnp.ones((3, 3)), temperature=0.5)
  with pytest.raises(AssertionError):
    losses.nt_xent(z, z, temperature=0.5, valid=jnp.ones(3, bool))
  with pytest.raises(ValueError, match='temperature is 0'):
    losses.nt_xent(z, z, temperature=0)
  with pytest.raises(ValueError, match='anchors'):
    losses.three_view_nt_xent(z, z, z, temperature=0.5, anchors='second')


def supervised_by_hand(views, labels, temperature):
  """Equation 2 of Khosla et al. with loops; [N]."""
  z = np.concatenate(views).astype(np.float64)
  z = z / np.linalg.norm(z, axis=1, keepdims=True)
  count, n = len(views), len(labels)
  labels, values = np.tile(labels, count), []
  for i in range(count * n):
    terms = {k: np.exp(z[i] @ z[k] / temperature) for k in range(count * n) if k != i}
    total = sum(terms.values())
    positives = [k for k in terms if labels[k] == labels[i]]
    values.append(-np.mean([np.log(terms[p] / total) for p in positives]))
  return np.array(values).reshape(count, n).mean(0)


LABELS = np.array([0, 1, 0, 2, 1])


@pytest.mark.parametrize('count', [2, 3])
def test_supervised_value_by_hand(count):
  views = np.random.default_rng(3).normal(size=(count, 5, 6)).astype(np.float32)
  got = jitted(losses.supervised_contrastive, temperature=0.3)(list(views), LABELS)
  np.testing.assert_allclose(got, supervised_by_hand(views, LABELS, 0.3), rtol=3e-6)


def test_supervised_with_a_class_per_image_is_nt_xent():
  views = np.random.default_rng(4).normal(size=(2, 5, 6)).astype(np.float32)
  got = jitted(losses.supervised_contrastive, temperature=0.5)(list(views), np.arange(5))
  pair = jitted(losses.nt_xent, temperature=0.5)(*views)
  np.testing.assert_allclose(got, (pair[:5] + pair[5:]) / 2, rtol=3e-6)


def test_supervised_padding_is_invisible_and_finite():
  views = np.random.default_rng(5).normal(size=(3, 5, 6)).astype(np.float32)
  padded = np.concatenate([views, np.full((3, 2, 6), np.nan, np.float32)], axis=1)
  valid = np.arange(7) < 5

  def total(views, labels, valid):
    return losses.supervised_contrastive(list(views), labels, temperature=0.5, valid=valid).sum()

  value_and_slope = jax.jit(jax.value_and_grad(total))
  value, slope = value_and_slope(views, LABELS, np.ones(5, bool))
  padded_value, padded_slope = value_and_slope(padded, np.append(LABELS, [0, 0]), valid)
  np.testing.assert_allclose(padded_value, value, rtol=1e-6)
  np.testing.assert_allclose(padded_slope[:, :5], slope, rtol=1e-5, atol=1e-7)
  assert not padded_slope[:, 5:].any()
  # One image alone has its own views, and one class alone has no stranger: both stay finite.
  for labels in (np.zeros(5, int), np.arange(5)):
    assert np.isfinite(value_and_slope(views, labels, np.arange(5) < 1)[1]).all()


def test_supervised_over_devices_is_that_of_one():
  views = np.random.default_rng(6).normal(size=(3, 4, 6)).astype(np.float32)
  labels = LABELS[:4]
  whole = losses.supervised_contrastive(list(views), labels, temperature=0.5)
  apart = jax.pmap(
    lambda views, labels: losses.supervised_contrastive(
      list(views), labels, temperature=0.5, axis_name='devices'
    ),
    axis_name='devices',
  )(np.moveaxis(views.reshape(3, 2, 2, 6), 1, 0), labels.reshape(2, 2))
  np.testing.assert_allclose(apart.reshape(-1), whole, rtol=2e-6)


def test_supervised_needs_two_views():
  with pytest.raises(ValueError, match='views are 1; it takes 2 or more'):
    losses.supervised_contrastive([jnp.eye(2)], jnp.arange(2), temperature=0.5)
