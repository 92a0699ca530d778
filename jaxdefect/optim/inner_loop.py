r"""Model-agnostic meta-learning: gradients through gradient descent.

Shape legend: T tasks, K inner steps.

The inner loop is plain gradient descent on the support set of one task, and a differentiable
function of where it starts. XLA on a CPU runs the backward pass of convolutions whose kernels
differ between tasks (``vmap`` makes them grouped ones) 17 to 28 times slower than a Python loop
over tasks, and convolutions inside ``lax.scan`` or ``lax.map`` slower still, so there tasks are
unrolled; on accelerators they are vmapped. Inner steps are always unrolled.

Backward through an inner step needs the activations of its forward and of its backward pass. With
``remat`` they are computed again when the gradient arrives at the step (at all but the last one,
where it arrives at once), and unrolled tasks have their backward pass one after the other, so the
memory grows neither with the steps nor with the tasks, but for a copy of the parameters each.
``jax.checkpoint`` is not enough for that: XLA on a CPU drops its barriers before it orders the
operations, and its order then starts all that can be started. ``sequencing.py`` says what is done
instead.

References:
  Finn et al., `MAML <https://arxiv.org/abs/1703.03400>`_, algorithm 1, and section 5.2 for first
  order; Raghu et al., `ANIL <https://arxiv.org/abs/1909.09157>`_; Li et al., `Meta-SGD
  <https://arxiv.org/abs/1707.09835>`_, equation 1; Antoniou et al., `MAML++
  <https://arxiv.org/abs/1810.09502>`_, section 4 (rates per layer and step, multi-step loss);
  Zhang et al. 2023, algorithm 1, equations 4-5.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdefect.optim import sequencing
from jaxdefect.optim.inner_steps import Loss, Scored, Steps
from jaxdefect.optim.partition import Path


def inner_loop(
  loss: Loss,
  params: Any,
  support: Any,
  *,
  learning_rate: Any,
  num_steps: int,
  per_step: bool = False,
  first_order: bool = False,
  adapted: Callable[[Path], bool] | None = None,
  remat: bool = True,
) -> Any:
  r"""Adapts parameters to one task by gradient descent, differentiably.

  .. math:: \theta^{(k + 1)} = \theta^{(k)} - \alpha_k \odot \nabla_\theta \ell(\theta^{(k)})

  Args:
    loss: ``(params, support) -> scalar``.
    params: theta, a pytree of floating-point arrays.
    support: what ``loss`` learns from; any pytree of arrays.
    learning_rate: alpha: a scalar, or a pytree like ``params`` whose leaves are scalars or have the
      shape of their parameter (Meta-SGD). The result is differentiable with respect to it.
    num_steps: K, 0 or more.
    per_step: every step has a rate of its own: what ``learning_rate`` holds has one more leading
      axis, [K] or [K, ...] (MAML++ learns a [K] for each layer). False takes one for all steps.
    first_order: takes the inner gradients as constants, so that no second derivative is computed.
    adapted: path -> True for the parameters that move; None moves all, and a function that names
      the last layer alone is ANIL. The others get no inner gradient, nor is it computed.
    remat: computes the activations of a step again in the backward pass, see above. Changes no
      number but the rounding. Reverse mode only; without it forward mode works too.

  Returns:
    The adapted parameters, a pytree like ``params``.

  Raises:
    ValueError: num_steps or learning_rate outside what is allowed, a learning rate of another
      structure, nothing to adapt, or a loss that is no scalar.

  >>> square = lambda w, x: jnp.sum((w - x) ** 2)
  >>> float(inner_loop(square, jnp.array(3.0), jnp.array(1.0), learning_rate=0.25, num_steps=1))
  2.0
  """
  rule = Steps(params, num_steps, per_step, first_order, adapted, remat)
  rates = rule.rates(learning_rate)

  def value(params: Any, support: Any) -> jax.Array:
    return _scalar(loss(params, support))

  closed, constants = jax.closure_convert(value, params, support)
  return rule.descend(closed, params, rates, constants, support)[0]


def maml_losses(
  loss: Loss,
  params: Any,
  support: Any,
  query: Any,
  *,
  learning_rate: Any,
  num_steps: int,
  per_step: bool = False,
  first_order: bool = False,
  adapted: Callable[[Path], bool] | None = None,
  query_loss: Loss | None = None,
  step_weights: Any = None,
  unroll: bool | None = None,
  remat: bool = True,
  aux: bool = False,
) -> Any:
  r"""Losses of every task's query set under the parameters adapted to its support set.

  .. math:: L_i(\theta) = \ell(\theta'_i; Q_i), \qquad
            \theta'_i = \mathrm{innerloop}(\theta; S_i)

  or, with ``step_weights``, the multi-step loss
  :math:`\sum_{k=0}^{K} w_k\, \ell(\theta_i^{(k)}; Q_i)` (MAML++, equation 3).

  Their sum (or mean) is the objective of MAML; its gradient, to second order unless
  ``first_order``, is what ``jax.grad`` of it gives.

  Args:
    loss: ``(params, batch) -> scalar``, for the support set of one task in the inner loop, and for
      its query set.
    params: theta, a pytree of floating-point arrays.
    support: pytree of arrays with a leading task axis [T, ...].
    query: pytree of arrays with a leading task axis [T, ...].
    learning_rate: as of ``inner_loop``.
    num_steps: as of ``inner_loop``; 0 is joint training.
    per_step: as of ``inner_loop``.
    first_order: as of ``inner_loop``.
    adapted: as of ``inner_loop``.
    query_loss: ``(params, support_t, query_t) -> scalar`` scores the adapted parameters in the
      place of ``loss(params, query_t)``, for a query pass that needs the support set too
      (statistics of normalisation).
    step_weights: w, [K + 1] numbers: the query set is scored before the first and after every inner
      step, and L_i is the weighted sum; None scores the end alone, which is weights of 0, ..., 0,
      1 without the cost. MAML++ begins with equal ones and moves their weight to the end. ``aux``
      is the end's.
    unroll: True goes through the tasks in a Python loop, right on a CPU; False vmaps them, right on
      accelerators; None asks JAX's default backend while tracing.
    remat: as of ``inner_loop``; unrolled tasks also take turns then.
    aux: the losses return ``(scalar, aux)``; that of the query set is handed on, without gradient.

  Returns:
    Query losses [T], differentiable with respect to ``params`` and ``learning_rate``. With ``aux``
    a pair: the losses, and the pytree of the query sets' aux stacked along a leading axis [T, ...].

  Raises:
    ValueError: as of ``inner_loop``; support and query hold no tasks or not equally many; or
      step_weights are not K + 1 numbers.
  """
  tasks = _num_tasks(support, query)
  rule = Steps(params, num_steps, per_step, first_order, adapted, remat)

  def value(params: Any, support: Any) -> jax.Array:
    return _scalar(_split(loss(params, support), aux)[0])

  def last_value(params: Any, support: Any, query: Any) -> tuple[jax.Array, Any]:
    result = loss(params, query) if query_loss is None else query_loss(params, support, query)
    number, extra = _split(result, aux)
    return _scalar(number), jax.tree.map(lambda leaf: lax.stop_gradient(jnp.asarray(leaf)), extra)

  def task(t: int) -> tuple[Any, Any]:
    return jax.tree.map(lambda leaf: leaf[t], (support, query))

  # What the losses close over becomes an argument, so that it may be differentiated too.
  closed, constants = jax.closure_convert(value, params, task(0)[0])
  closed_last, last_constants = jax.closure_convert(last_value, params, *task(0))

  def score(shared: Any, support: Any, query: Any) -> tuple[jax.Array, Any]:
    params, rates, constants, last_constants, weights = shared
    scored = None if weights is None else Scored(closed_last, query, weights, last_constants)
    moved, earlier = rule.descend(closed, params, rates, constants, support, scored)
    number, extra = closed_last(moved, support, query, *last_constants)
    if weights is not None:
      number = sum(earlier, weights[-1].astype(number.dtype) * number)
    return number, extra

  shared = (
    *(params, rule.rates(learning_rate), constants, last_constants),
    None if step_weights is None else rule.weights(step_weights),
  )
  if unroll is None:
    unroll = jax.default_backend() == 'cpu'
  if unroll:
    each = (
      sequencing.in_turn(score)
      if remat
      else (lambda shared, tasks: [score(shared, *one) for one in tasks])
    )
    results = each(shared, [task(t) for t in range(tasks)])
    losses, extras = jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)
  else:
    losses, extras = jax.vmap(score, in_axes=(None, 0, 0))(shared, support, query)
  return (losses, extras) if aux else losses


def _split(result: Any, aux: bool) -> tuple[Any, Any]:
  """A loss's value and its aux, None where there is none."""
  if not aux and isinstance(result, tuple):
    raise ValueError('the loss returned a tuple; pass aux=True for a loss that returns aux.')
  if aux and not (isinstance(result, tuple) and len(result) == 2):
    raise ValueError(
      f'with aux=True a loss must return (scalar, aux), it returned {type(result).__name__}.'
    )
  return result if aux else (result, None)


def _scalar(value: Any) -> jax.Array:
  if jnp.shape(value) != ():
    raise ValueError(f'the loss must be a scalar, it has shape {jnp.shape(value)}.')
  return jnp.asarray(value)


def _num_tasks(support: Any, query: Any) -> int:
  """T, the leading axis of every leaf."""
  counts = []
  for name, tree in (('support', support), ('query', query)):
    found = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(tree)}
    if len(found) != 1 or found == {()}:
      held = ', '.join(str(*shape) or 'none' for shape in sorted(found)) or 'missing'
      raise ValueError(f'{name} must hold arrays with one leading task axis; theirs are {held}.')
    counts.append(found.pop()[0])
  if counts[0] != counts[1]:
    raise ValueError(f'support holds {counts[0]} tasks, query {counts[1]}.')
  if not counts[0]:
    raise ValueError('support and query hold no task.')
  return counts[0]
