"""Backward passes that wait for their turn, so that only one of them is in memory.

XLA on a CPU computes early what ``jax.checkpoint`` wants to be computed late (``ops.ordering`` says
why), and all tasks of a batch are in memory at once. Here an operand is made to depend on what must
come first. Four tasks of five second-order steps (16 + 16 images
of 128 x 128, 4Conv-32) take 3,900 MB with ``jax.checkpoint``, 340 MB with these, and no more time.

These are custom rules of reverse mode: they can be differentiated again, but not in forward mode.
What a function given here closes over must not be differentiated; hand it in.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdefect.ops.ordering import after


def recomputed(function: Callable[..., Any]) -> Callable[..., Any]:
  """Keeps only the arguments for the backward pass and computes the rest again, then.

  Args:
    function: ``(first, *others) -> pytree of floating-point arrays``; what takes memory in it must
      depend on ``first``, a pytree of floating-point arrays.

  Returns:
    A function with the same values and derivatives.
  """

  @jax.custom_vjp
  def run(*arguments: Any) -> Any:
    return function(*arguments)

  def forward(*arguments: Any) -> tuple[Any, Any]:
    return function(*arguments), arguments

  def backward(arguments: Any, cotangent: Any) -> Any:
    first, *others = arguments
    _, pull = jax.vjp(function, after(first, cotangent), *others)
    return pull(cotangent)

  run.defvjp(forward, backward)
  return run


def in_turn(score: Callable[..., tuple[jax.Array, Any]]) -> Callable[[Any, list], list]:
  """Scores tasks so that the backward pass of each is done before the next one starts.

  The value of a task is a scalar, so its gradient is known up to a factor, the cotangent, as soon
  as the task is scored. Where a gradient is asked for, it is computed right then.

  Args:
    score: ``(shared, *task) -> (scalar, aux)``; ``shared`` is a pytree of floating-point arrays,
      aux has no gradient.

  Returns:
    ``(shared, tasks) -> [(scalar, aux), ...]``, one pair for each task; ``tasks`` is a list of
    tuples of pytrees of arrays, whose floating-point ones have a gradient too.
  """

  @jax.custom_vjp
  def run(shared: Any, floats: list, others: list) -> list:
    return [score(shared, *_merge(*task)) for task in zip(floats, others, strict=True)]

  def forward(shared: Any, floats: list, others: list) -> tuple[list, list]:
    results, gradients = [], []
    for inexact, other in zip(floats, others, strict=True):
      if gradients:
        shared, inexact = after((shared, inexact), gradients[-1][0])
      value, pull, aux = jax.vjp(
        lambda shared, inexact, other=other: score(shared, *_merge(inexact, other)),
        shared,
        inexact,
        has_aux=True,
      )
      gradients.append(pull(jnp.ones_like(value)))
      results.append((value, aux))
    return results, gradients

  def backward(gradients: list, cotangents: list) -> tuple[Any, list, None]:
    scaled = [
      jax.tree.map(lambda g, factor=factor: g * factor.astype(g.dtype), gradient)
      for gradient, (factor, _) in zip(gradients, cotangents, strict=True)
    ]
    shared = jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *[s for s, _ in scaled])
    return shared, [floats for _, floats in scaled], None

  run.defvjp(forward, backward)
  return lambda shared, tasks: run(shared, *map(list, zip(*map(_divide, tasks))))


def _divide(tree: Any) -> tuple[Any, Any]:
  """Floating-point leaves and the others, each in the tree with None in the other's places."""

  def pick(wanted: bool) -> Any:
    return jax.tree.map(
      lambda leaf: leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) == wanted else None,
      tree,
    )

  return pick(True), pick(False)


def _merge(floats: Any, others: Any) -> Any:
  """The inverse of ``_divide``."""
  return jax.tree.map(
    lambda a, b: b if a is None else a, floats, others, is_leaf=lambda leaf: leaf is None
  )
