"""Blocks whose inside is computed a second time for the gradient, instead of being kept.

``flax.linen.remat`` saves no memory with XLA on a CPU: its barriers are dropped before the
operations are ordered, and what shall be computed late is computed early. Here the second pass is
made to depend on the gradient that it is for, see ``ops.ordering``, which any compiler keeps.
This is a custom rule of reverse mode: it can be differentiated again, but not in forward mode.

Reference:
  Chen et al., `Training Deep Nets with Sublinear Memory Cost <https://arxiv.org/abs/1604.06174>`_.
"""

from typing import Any

import flax.linen as nn
import jax
from flax.core import lift

from jaxdefect.ops.ordering import after


def recomputed(
  module: Any, x: jax.Array, *, when: bool, valid: jax.Array | None = None, **settings: Any
) -> Any:
  """``module(x, valid=valid, **settings)``, which keeps ``x`` alone for the backward pass.

  Args:
    module: a block, called inside the module that it is a part of; its variables stay where they
      are, and are read, updated and sown as in an ordinary call.
    x: floating-point array.
    when: False is the ordinary call, which keeps what it needs.
    valid: as the block takes it.
    settings: other arguments, none of which is an array.

  Returns:
    What the block returns, with the same derivatives.
  """

  if not when:
    return module(x, valid=valid, **settings)

  def call(module: nn.Module, x: jax.Array, valid: jax.Array | None) -> Any:
    return module(x, valid=valid, **settings)

  return nn.transforms.lift_transform(_lifted, call)(module, x, valid)


def _lifted(call: Any) -> Any:
  """A function of a flax scope and arrays, as a pure function of the scope's variables."""

  def pure(scope_of: Any, variables_of: Any, variables: Any, keys: Any, x: Any, valid: Any) -> Any:
    def once(x: Any, variables: Any, valid: Any) -> Any:
      scope = scope_of(variables, keys)
      return call(scope, x, valid), variables_of(scope)

    def forward(*arguments: Any) -> Any:
      return once(*arguments), arguments

    def backward(arguments: Any, cotangent: Any) -> Any:
      x, *others = arguments
      _, pull = jax.vjp(once, after(x, cotangent), *others)
      return pull(cotangent)

    run = jax.custom_vjp(once)
    run.defvjp(forward, backward)
    return run(x, variables, valid)

  return lift.pack(pure, (True,), (True,), (True,), name='recomputed')
