"""What waits, and what is stored, is the same as before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect.ops import ordering


@pytest.mark.parametrize('earlier', [0.0, np.inf, -np.inf, np.nan])
def test_after_changes_nothing(earlier):
  tree = {'a': jnp.array([1.0, np.inf]), 'b': jnp.array([2, 3])}
  waited = jax.jit(ordering.after)(tree, [jnp.full((2, 2), earlier), jnp.zeros((0,))])
  jax.tree.map(np.testing.assert_array_equal, waited, tree)
  assert waited['b'].dtype == tree['b'].dtype


def test_after_makes_it_depend():
  # What is never used is not computed; here it is.
  program = jax.jit(lambda x, y: ordering.after(x, jnp.sin(y)))
  text = program.lower(jnp.ones(2), jnp.ones(3)).compile().as_text()
  assert 'sine' in text


@pytest.mark.parametrize('first', [1.0, np.inf, -np.inf, np.nan])
def test_stored_changes_nothing(first):
  x = jnp.array([[first, 2.0], [np.nan, -0.0]])
  y = jax.jit(lambda x: ordering.stored(x + 0))(x)
  np.testing.assert_array_equal(y, x)
  assert ordering.stored(jnp.zeros((0, 2))).shape == (0, 2)


def has_a_branch(fence):
  """Whether the compiled gradient of a chain of layers, each behind the fence, branches."""

  def loss(w, x, skip):
    y = x
    for _ in range(4):
      y = fence(jnp.tanh(y @ w + skip))
    return (y * y).sum()

  shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((64, 64), (4096, 64), (64,))]
  compiled = jax.jit(jax.grad(loss)).lower(*shapes).compile()
  return 'conditional(' in compiled.as_text()


def test_stored_is_a_branch_that_stays_in_the_program():
  assert not has_a_branch(lambda y: y)
  assert has_a_branch(ordering.stored)
