"""The steps of an inner loop: which parameters move, how far, and what is scored between them.

Shape legend: K inner steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.optim import sequencing
from jaxdefect.optim.partition import Path, map_by_path

Loss = Callable[..., Any]


class Scored(NamedTuple):
  """What scores the parameters before every step, for the multi-step loss.

  Attributes:
    loss: ``(params, support, query, *constants) -> (scalar, aux)``; closes over nothing.
    query: pytree of arrays.
    weights: [K + 1], the last of which, the end's, is not used here.
    constants: arrays.
  """

  loss: Loss
  query: Any
  weights: jax.Array
  constants: list


class Steps:
  """How parameters move in the inner loop; checks what the user asked for.

  Args:
    params: pytree of floating-point arrays, for its structure and shapes.
    num_steps: K.
    per_step: as of ``inner_loop``.
    first_order: as of ``inner_loop``.
    adapted: as of ``inner_loop``.
    remat: as of ``inner_loop``.

  Raises:
    ValueError: num_steps is no integer of 0 or more, or ``adapted`` names no parameter.
  """

  def __init__(
    self,
    params: Any,
    num_steps: int,
    per_step: bool,
    first_order: bool,
    adapted: Callable[[Path], bool] | None,
    remat: bool,
  ):
    if not isinstance(num_steps, int) or num_steps < 0:
      raise ValueError(f'num_steps is {num_steps!r}; it must be an integer, 0 or more.')
    self.num_steps, self.per_step = num_steps, per_step
    self.first_order, self.remat = first_order, remat
    self.structure = jax.tree.structure(params)
    self.shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]
    self.paths = jax.tree.leaves(map_by_path('/'.join, params))
    self.moves = [True] * len(self.paths)
    if adapted is not None:
      self.moves = jax.tree.leaves(map_by_path(lambda path: bool(adapted(path)), params))
      if not any(self.moves):
        raise ValueError(f'adapted names none of the parameters; the first is {self.paths[0]!r}.')

  def rates(self, learning_rate: Any) -> list[jax.Array]:
    """The rates of each parameter: [], its shape, or with ``per_step`` those behind [K]."""
    if jax.tree.structure(learning_rate) == self.structure:
      rates = jax.tree.leaves(learning_rate)
    elif jax.tree_util.all_leaves([learning_rate]):
      rates = [learning_rate] * len(self.paths)
    else:
      raise ValueError(
        'learning_rate is a tree of another structure than params; '
        'it must be a scalar or have one leaf per parameter.'
      )
    steps = (self.num_steps,) if self.per_step else ()
    for rate, path, shape in zip(rates, self.paths, self.shapes, strict=True):
      if jnp.shape(rate) not in (steps, (*steps, *shape)):
        alone = f'have one rate per step, {steps},' if self.per_step else 'be a scalar'
        raise ValueError(
          f'learning_rate of {path or "params"} has shape {jnp.shape(rate)}; '
          f'it must {alone} or have the shape of its parameter, {(*steps, *shape)}.'
        )
      if isinstance(rate, int | float) and not rate >= 0:
        raise ValueError(f'learning_rate is {rate}; it must be 0 or more.')
    return [jnp.asarray(rate) for rate in rates]

  def weights(self, step_weights: Any) -> jax.Array:
    """The weights of the multi-step loss [K + 1]."""
    weights = jnp.asarray(step_weights, float)
    if weights.shape != (self.num_steps + 1,):
      raise ValueError(
        f'step_weights has shape {weights.shape}; it must be ({self.num_steps + 1},): a weight for '
        f'the start and one for each of the {self.num_steps} steps.'
      )
    return weights

  def descend(
    self,
    loss: Loss,
    params: Any,
    rates: list[jax.Array],
    constants: list,
    support: Any,
    scored: Scored | None = None,
  ) -> tuple[Any, list[jax.Array]]:
    """Takes the steps.

    Args:
      loss: ``(params, support, *constants) -> scalar``; closes over nothing.
      params: where it starts.
      rates: from ``rates``.
      constants: arrays.
      support: pytree of arrays.
      scored: the parameters before each step are scored; None scores none.

    Returns:
      The parameters behind the last step, and the weighted scores before each, K scalars or none.
    """
    leaves = jax.tree.leaves(params)

    def whole(moved: list, leaves: list) -> Any:
      """The tree with the moved leaves in their places."""
      rest = iter(moved)
      return self.structure.unflatten(
        [next(rest) if m else leaf for m, leaf in zip(self.moves, leaves, strict=True)]
      )

    def value(moved: list, leaves: list, constants: list, support: Any) -> jax.Array:
      return loss(whole(moved, leaves), support, *constants)

    def step(
      moved: list, leaves: list, rates: list, constants: list, support: Any, own: Any
    ) -> tuple[list, list]:
      """The moved leaves, and the weighted score of where they were."""
      inputs = (moved, leaves, constants, support)
      if self.first_order:
        gradient = lax.stop_gradient(jax.grad(value)(*lax.stop_gradient(inputs)))
      else:
        gradient = jax.grad(value)(*inputs)
      scores = []
      if scored is not None:
        query, weight, others = own
        number, _ = scored.loss(whole(moved, leaves), support, query, *others)
        scores = [weight.astype(number.dtype) * number]
      return [
        p - (rate * g).astype(p.dtype) for p, rate, g in zip(moved, rates, gradient, strict=True)
      ], scores

    moved = [jnp.asarray(leaf) for m, leaf in zip(self.moves, leaves, strict=True) if m]
    rates = [rate for m, rate in zip(self.moves, rates, strict=True) if m]
    again = sequencing.recomputed(step)
    scores = []
    for k in range(self.num_steps):
      # First order keeps nothing of a step but its gradient.
      light = self.first_order and scored is None
      keeps = not self.remat or light or k == self.num_steps - 1
      own = None if scored is None else (scored.query, scored.weights[k], scored.constants)
      here = [rate[k] for rate in rates] if self.per_step else rates
      moved, score = (step if keeps else again)(moved, leaves, here, constants, support, own)
      scores += score
    return whole(moved, leaves), scores
