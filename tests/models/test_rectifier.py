"""The rectified linear unit is flax's, to any order, and keeps less."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdefect.models.rectifier import lean_relu


def curve(activation):
  def value(x):
    return (activation(x**2 - 1.0) ** 3).sum()

  def slope_squared(x):
    return (jax.grad(value)(x) ** 2).sum()

  return value, slope_squared


def test_is_relu_to_second_order():
  x = jnp.linspace(-2.0, 2.0, 23)
  for ours, theirs in zip(curve(lean_relu), curve(nn.relu)):
    for function in (lambda f: f, jax.grad):
      np.testing.assert_allclose(
        jax.jit(function(ours))(x), function(theirs)(x), rtol=1e-6, atol=1e-6
      )


def test_is_relu_in_half_precision_and_of_nothing():
  x = jnp.array([-1.0, 0.0, jnp.inf, 3.0], jnp.bfloat16)
  y, pull = jax.vjp(lean_relu, x)
  np.testing.assert_array_equal(y, jnp.array([0.0, 0.0, jnp.inf, 3.0], jnp.bfloat16))
  np.testing.assert_array_equal(pull(jnp.ones_like(x))[0], jnp.array([0, 0, 1, 1], jnp.bfloat16))
  assert jax.grad(lambda x: lean_relu(x).sum())(jnp.zeros((0, 3))).shape == (0, 3)


def test_residual_blocks_keep_their_results_alone():
  # With fixed normalisation: what the sum was made of is needed by nothing but the ReLU.
  def megabytes(activation):
    def loss(ws, x):
      for w in ws:
        x = activation(2 * (x @ w) + x)
      return x.sum()

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((6, 64, 64), (4096, 64))]
    compiled = jax.jit(jax.grad(loss)).lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 1e6

  assert megabytes(lean_relu) < 0.75 * megabytes(nn.relu)
