"""What waits for its turn computes the same."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdefect.optim import sequencing


def layer(x, w, index):
  return jnp.tanh(x @ w)[index]


def test_recomputed_has_the_same_derivatives():
  random = np.random.default_rng(0)
  x, w = jnp.asarray(random.normal(size=(3, 4))), jnp.asarray(random.normal(size=(4, 5)))
  index = jnp.array([2, 0])
  again = sequencing.recomputed(layer)

  def second(function):
    def gradient(x, w):
      return jax.grad(lambda x, w: jnp.sum(function(x, w, index) ** 3), (0, 1))(x, w)

    return jax.grad(lambda x, w: sum(jnp.sum(g**2) for g in gradient(x, w)), (0, 1))(x, w)

  np.testing.assert_allclose(again(x, w, index), layer(x, w, index), rtol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    jax.jit(lambda x, w: second(again))(x, w),
    second(layer),
  )


def test_recomputed_keeps_only_its_arguments():
  def wide(x):
    return jnp.sum(jnp.tanh(jnp.outer(x, jnp.arange(100.0))))

  x = jnp.ones(3)
  _, kept = jax.vjp(wide, x)
  _, again = jax.vjp(sequencing.recomputed(wide), x)
  sizes = [max(leaf.size for leaf in jax.tree.leaves(pull)) for pull in (kept, again)]
  assert sizes == [300, 3]


def test_in_turn_scores_and_scales_every_task():
  def score(shared, x, label):
    return jnp.sum(shared * x**2), {'label': label}

  shared, labels = jnp.array([1.0, 2.0]), jnp.array([4, 5])
  xs = [jnp.array([1.0, 3.0]), jnp.array([2.0, 0.0])]

  def total(shared, xs):
    (first, aux), (second, _) = sequencing.in_turn(score)(shared, list(zip(xs, labels)))
    return first + 10 * second, aux

  (value, aux), (to_shared, to_xs) = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(
    shared, xs
  )
  assert float(value) == 1 + 18 + 10 * 4
  assert int(aux['label']) == 4
  np.testing.assert_allclose(to_shared, [1 + 40, 9], rtol=1e-6)
  np.testing.assert_allclose(to_xs, [[2, 12], [40, 0]], rtol=1e-6)
