"""What is computed when, and what is stored: both decide how much memory a gradient takes.

A compiler may start an operation as soon as its operands are there. XLA on a CPU does (its schedule
is made for concurrency, and it drops ``lax.optimization_barrier`` before), so what a backward pass
needs late is often computed early, and kept. And it computes cheap operations again wherever they
are read, which keeps all that they are computed from. A dependence on what must come first, and a
branch, are things that every compiler respects.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def after(tree: Any, earlier: Any) -> Any:
  """``tree`` as it is, but not before ``earlier`` is computed.

  The dependence is a comparison that is never true, which the compiler cannot know. It costs
  nothing where the next operation reads ``tree`` number by number, and a copy before a product.

  Args:
    tree: pytree of arrays.
    earlier: pytree of floating-point arrays, any numbers (also not finite ones).

  Returns:
    The same values as ``tree``.

  >>> after(jnp.arange(3), {'gradient': jnp.array([jnp.nan])}).tolist()
  [0, 1, 2]
  """
  never = _never(earlier)
  return jax.tree.map(lambda leaf: jnp.where(never, jnp.zeros_like(leaf), leaf), tree)


@jax.custom_vjp
def backward_in_order(first: Any, then: Any) -> tuple[Any, Any]:
  """Both as they are; the gradient of ``then`` goes on when that of ``first`` has been computed.

  Where two branches start from one place and have much to keep, only one is under way at a time.
  Reverse mode of any order, no forward mode.

  Args:
    first: pytree of floating-point arrays, the branch whose backward pass is done first.
    then: likewise, the other one.

  Returns:
    The same values as ``first`` and ``then``.

  >>> a, b = jax.grad(lambda a, b: sum(backward_in_order(2 * a, 3 * b)), (0, 1))(1.0, 1.0)
  >>> float(a), float(b)
  (2.0, 3.0)
  """
  return first, then


backward_in_order.defvjp(
  lambda first, then: ((first, then), None),
  lambda _, gradients: (gradients[0], after(gradients[1], gradients[0])),
)


def stored(x: jax.Array, *, earlier: Any = None) -> jax.Array:
  """``x`` as it is; what reads it reads memory, on a CPU, and computes nothing of it again.

  Elsewhere, where a branch costs more than it saves, ``x`` itself.

  Args:
    x: array of any numbers.
    earlier: pytree of floating-point arrays; ``x`` is not stored before they are computed.

  Returns:
    The same values as ``x``; so is its gradient, which is stored too.

  >>> stored(jnp.array([1.0, jnp.inf])).tolist()
  [1.0, inf]
  """
  if jax.default_backend() != 'cpu' or not x.size:
    return x
  never = _never(x if earlier is None else earlier)
  return lax.cond(never, jnp.zeros_like, lambda x: x, x)


def _never(tree: Any) -> jax.Array:
  """False, as no compiler knows; computed from the first number of every array."""
  first = [leaf.reshape(-1)[0] for leaf in jax.tree.leaves(tree) if leaf.size]
  return sum(first, jnp.zeros(())) > jnp.inf
