r"""Learned rates of the inner loop, kept as logarithms.

.. math:: \alpha = e^{\rho}

A step of the outer loop on :math:`\rho` is a factor on the rate, whatever its size, and the rate
stays positive. A rate that is learned itself crosses 0 within a few steps of Adam, whose length
does not depend on the gradient's, and the inner loop then ascends.

Shape legend: K inner steps.

References:
  Li et al., `Meta-SGD <https://arxiv.org/abs/1707.09835>`_: a rate per number; Antoniou et al.,
  `MAML++ <https://arxiv.org/abs/1810.09502>`_, section 4: one per layer and step.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp

InnerRates = Literal['fixed', 'per_parameter', 'per_step']
KINDS = ('fixed', 'per_parameter', 'per_step')


def initial_log_rates(
  params: Any, *, kind: InnerRates, learning_rate: float, num_steps: int
) -> Any:
  """The logarithms of equal rates.

  Args:
    params: pytree of arrays.
    kind: ``'per_parameter'``: one for every number of every leaf; ``'per_step'``: K for every leaf.
    learning_rate: where all of them start, above 0.
    num_steps: K, 1 or more for ``'per_step'``.

  Returns:
    A pytree like ``params``, of the shapes of its leaves or [K].

  Raises:
    ValueError: another kind, or a rate or number of steps outside what is allowed.
  """
  if kind not in KINDS[1:]:
    raise ValueError(f'inner_rates is {kind!r}; what is learned can be {", ".join(KINDS[1:])}.')
  if not learning_rate > 0:
    raise ValueError(
      f'inner_rate is {learning_rate}; with inner_rates={kind!r} it must be larger than 0.'
    )
  if kind == 'per_step' and num_steps < 1:
    raise ValueError(f"inner_steps is {num_steps}; inner_rates='per_step' needs 1 or more.")

  def equal(leaf: jax.Array) -> jax.Array:
    shape = (num_steps,) if kind == 'per_step' else jnp.shape(leaf)
    return jnp.full(shape, jnp.log(learning_rate), leaf.dtype)

  return jax.tree.map(equal, params)


def learned_rates(log_rates: Any, *, kind: InnerRates, num_steps: int) -> dict[str, Any]:
  """The settings ``learning_rate`` and ``per_step`` of ``inner_loop`` and ``maml_losses``.

  Args:
    log_rates: from ``initial_log_rates``, and trained since.
    kind: the kind that they were made with.
    num_steps: steps to take; with fewer than K the first rates are used.

  Returns:
    The two settings.
  """
  per_step = kind == 'per_step'
  kept = jax.tree.map(lambda leaf: leaf[:num_steps], log_rates) if per_step else log_rates
  return {'learning_rate': jax.tree.map(jnp.exp, kept), 'per_step': per_step}
