"""ArcFace against an independent implementation, by hand, and around the whole circle."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import losses


@pytest.fixture
def golden(golden_dir):
  with np.load(golden_dir / 'metric_losses.npz') as file:
    yield dict(file)


@pytest.mark.parametrize(('scale', 'margin'), [(30, 0.5), (64, 0.5), (30, 0.2)])
def test_matches_golden(golden, scale, margin):
  with jax.enable_x64(True):
    labels = golden['arc_labels']
    loss = jax.jit(
      jax.value_and_grad(
        lambda x, w: jnp.mean(losses.arcface(x, w, labels, margin=margin, scale=scale)), (0, 1)
      )
    )
    value, grads = loss(jnp.array(golden['arc_embeddings']), jnp.array(golden['arc_weights']))
    name = f'arcface_s{scale}_m{margin}'
    np.testing.assert_allclose(value, golden[name], rtol=0, atol=1e-6)
    np.testing.assert_allclose(grads[0], golden[f'{name}/grad_embeddings'], rtol=0, atol=1e-6)
    np.testing.assert_allclose(grads[1], golden[f'{name}/grad_weights'], rtol=0, atol=1e-6)


def on_circle(theta):
  """Two opposite classes on a line and one embedding at the angle theta from the first."""
  x = jnp.array([[jnp.cos(theta), jnp.sin(theta)]])
  return x, jnp.array([[1.0, -1.0], [0.0, 0.0]])


def test_value_by_hand():
  thetas = [0.0, 0.3, 2.0, 2.64, 2.65, 3.0, math.pi, 4.0, 6.0]
  expected = []
  for theta in thetas:
    angle = min(theta, 2 * math.pi - theta)
    if angle + 0.5 <= math.pi:
      target = math.cos(angle + 0.5)
    else:
      target = math.cos(angle) - 0.5 * math.sin(0.5)
    expected.append(np.logaddexp(8 * target, -8 * math.cos(angle)) - 8 * target)

  @jax.jit
  @jax.vmap
  def loss(theta):
    return losses.arcface(*on_circle(theta), jnp.array([0]), margin=0.5, scale=8.0)[0]

  np.testing.assert_allclose(loss(jnp.array(thetas)), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.float64])
def test_finite_over_the_whole_circle(dtype):
  with jax.enable_x64(True):
    near = np.array([0, 1e-8, 1e-4, 1e-3, 0.1])
    theta = np.concatenate([centre + s * near for centre in (0, math.pi) for s in (1, -1)])
    theta = jnp.array(np.concatenate([theta, np.linspace(0, 2 * math.pi, 97)]), dtype)

    def loss(theta, length):
      x, w = on_circle(theta)
      value = losses.arcface(length * x, w.astype(dtype), jnp.array([0]), margin=0.5, scale=64.0)
      return value[0]

    loss = jax.jit(jax.vmap(jax.value_and_grad(loss), (0, None)))
    for length in (1e-3, 1.0, 1e3):
      values, slopes = loss(theta, dtype(length))
      assert values.dtype == dtype
      assert jnp.all(jnp.isfinite(values))
      # The loss changes with the angle by 64 (sin(theta + m) + sin(theta)) at most.
      assert jnp.all(jnp.abs(slopes) <= 2.1 * 64)


def test_gradient_matches_numeric():
  with jax.enable_x64(True):
    generator = np.random.default_rng(0)
    x, w = jnp.array(generator.normal(size=(6, 4))), jnp.array(generator.normal(size=(4, 3)))
    labels = jnp.array([0, 1, 2, 0, 1, 2])
    loss = jax.jit(lambda x, w: losses.arcface(x, w, labels, margin=0.5, scale=4.0))
    jax.test_util.check_grads(loss, (x, w), order=1, modes=['rev'])


@pytest.mark.parametrize('num_classes', [1, 3])
def test_corners_are_finite(num_classes):
  x = jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
  w = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])[:, :num_classes]
  loss = jax.jit(
    jax.value_and_grad(
      lambda x, w: jnp.sum(losses.arcface(x, w, jnp.zeros(4, int), margin=0.5, scale=64.0)), (0, 1)
    )
  )
  value, grads = loss(x, w)
  assert jnp.isfinite(value)
  assert all(jnp.all(jnp.isfinite(g)) for g in grads)
  assert num_classes > 1 or value == 0


def test_without_margin_is_cross_entropy_of_cosine_logits():
  generator = np.random.default_rng(1)
  x = jnp.array(generator.normal(size=(5, 4)), jnp.float32)
  w = jnp.array(generator.normal(size=(4, 3)), jnp.float32)
  labels = jnp.array([0, 1, 2, 1, 0])
  logits = losses.cosine_logits(x, w, scale=30.0)
  cosine = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (w / np.linalg.norm(w, axis=0))
  np.testing.assert_allclose(logits, 30 * cosine, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(
    losses.arcface(x, w, labels, margin=0.0, scale=30.0),
    losses.softmax_cross_entropy(logits, labels),
    rtol=1e-5,
    atol=1e-5,
  )


def test_half_precision_is_raised():
  x = jnp.ones((2, 3), jnp.bfloat16)
  values = losses.arcface(x, jnp.eye(3, dtype=jnp.float16), jnp.array([0, 1]), margin=0.5, scale=30)
  assert values.dtype == jnp.float32


def test_jit_matches_eager():
  x, w, labels = jnp.arange(6.0).reshape(3, 2), jnp.eye(2), jnp.array([0, 1, 0])

  def loss(x, w, labels):
    return losses.arcface(x, w, labels, margin=0.5, scale=30.0)

  np.testing.assert_allclose(jax.jit(loss)(x, w, labels), loss(x, w, labels), rtol=1e-5)


def test_rejects_bad_arguments():
  x, w, labels = jnp.ones((2, 3)), jnp.ones((3, 4)), jnp.array([0, 1])
  with pytest.raises(AssertionError):
    losses.arcface(x, w.T, labels, margin=0.5, scale=30.0)
  with pytest.raises(AssertionError):
    losses.arcface(x, w, labels[:1], margin=0.5, scale=30.0)
  with pytest.raises(ValueError, match='margin is 4'):
    losses.arcface(x, w, labels, margin=4, scale=30.0)
  with pytest.raises(ValueError, match='scale is 0'):
    losses.arcface(x, w, labels, margin=0.5, scale=0)
