"""A loss and an optimiser become a training step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdefect.contracts import Batch, References, State
from jaxdefect.optim import accumulation, partition

AVERAGE = 'average_params'

Loss = Callable[..., tuple[jax.Array, tuple[jax.Array, Any, dict]]]


def initial_state(
  params: Any,
  model_state: Any,
  optimizer: optax.GradientTransformation,
  *,
  average_decay: float | None = None,
) -> State:
  """The state before step 0, as :func:`gradient_step` with the same arguments expects it.

  Args:
    params: parameters.
    model_state: dict of what the forward pass carries, for example ``{'batch_stats': ...}``.
    optimizer: the transformation that ``gradient_step`` gets.
    average_decay: as in ``gradient_step``; if set, a copy of ``params`` is kept under
      ``model_state['average_params']``.

  Returns:
    A ``State`` with ``step`` 0.
  """
  model_state = dict(model_state)
  if average_decay is not None:
    # A copy: one donated buffer must not stand in two places.
    model_state[AVERAGE] = jax.tree.map(jnp.copy, params)
  return State(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model_state=model_state,
    opt_state=optimizer.init(params),
  )


def gradient_step(
  loss: Loss,
  optimizer: optax.GradientTransformation,
  *,
  axis_name: str | None = None,
  average_decay: float | None = None,
  frozen: Callable[[partition.Path], bool] | None = None,
  accumulate: int = 1,
  coupled: str | None = None,
) -> Callable[[jax.Array, State, Batch], tuple[State, dict]]:
  r"""Turns a loss into a step whose gradient is that of the mean over all devices' examples.

  .. math:: g = \frac{\sum_d \nabla L_d}{\sum_d W_d}

  with L_d the sum of the losses on device d and W_d the weight there (usually the number of
  valid examples). A mean of means would weight examples by how full their device is. With
  ``accumulate`` a device goes through its batch in parts, L_d and W_d being the sums over them:
  the same step with the activations of one part in memory.

  ``loss(key, params, model_state, batch) -> (loss_sum, (weight, model_state, scalars))``:

  - ``key`` is folded with ``state.step``; fold it with ``batch['index']`` for draws per example
    (``contracts.example_keys``).
  - ``model_state`` comes without the running average. What is returned must be the same on all
    devices: BatchNorm synchronises its statistics through its own ``axis_name``.
  - ``scalars`` maps a name to ``(sum, count)`` on this device.

  Args:
    loss: the function above.
    optimizer: optax transformation.
    axis_name: device axis to sum over, None on one device.
    average_decay: decay d of a running average of the parameters, None keeps none. It is an
      exponential average without the weight that the start would have:
      a <- a + (1 - d) / (1 - d^(t + 1)) (params - a), so after the first step it equals the
      parameters. It predicts in place of the parameters (``contracts.to_fitted``).
    frozen: path -> True for parameters that need no gradient, the function that
      ``partition.freeze`` got; their part of the backward pass is not computed.
    accumulate: parts of the batch of a device, whose size it must divide. With more than one the
      loss must leave ``model_state`` as it is.
    coupled: what in the loss joins the examples of a batch, as half a sentence, so that parts
      would train something else; None where nothing does.

  Returns:
    ``step(key, state, batch) -> (State, scalars)``. Scalars are summed over devices, ``(sum,
    count)``; besides those of the loss: ``'loss'``, ``'gradient_norm'`` (Euclidean, before
    clipping; not finite where the gradient is not), and ``'learning_rate'`` if the optimiser is
    of this package.

  Raises:
    ValueError: average_decay outside [0, 1), or a state that keeps no average; accumulate below 1,
      above it where ``coupled`` says why it cannot be, or no divisor of a device's batch.
  """
  if average_decay is not None and not 0 <= average_decay < 1:
    raise ValueError(f'average_decay is {average_decay}; it must be in [0, 1), or None.')
  accumulation.check(accumulate, coupled)

  def total(tree):
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)

  def step(key, state, batch):
    model_state = dict(state.model_state)
    average = model_state.pop(AVERAGE, None)

    def sums(part):
      def objective(params):
        if frozen is not None:
          params = partition.stop_frozen(params, frozen)
        return loss(jax.random.fold_in(key, state.step), params, model_state, part)

      (loss_sum, aux), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
      weight, new_model_state, scalars = aux
      weight = jnp.asarray(weight, loss_sum.dtype)
      return (gradient, loss_sum, weight, dict(scalars)), new_model_state

    if accumulate == 1:
      summed, new_model_state = sums(batch)
    else:
      summed = accumulation.sum_over_parts(lambda part: sums(part)[0], batch, parts=accumulate)
      new_model_state = model_state
    gradient, loss_sum, weight, scalars = total(summed)
    # A batch of padding alone has no gradient, and moves nothing but the optimiser's moments.
    safe_weight = jnp.maximum(weight, jnp.finfo(weight.dtype).tiny)
    gradient = jax.tree.map(lambda g: g / safe_weight.astype(g.dtype), gradient)

    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)

    new_model_state = dict(new_model_state)
    if average_decay is not None:
      if average is None:
        raise ValueError(
          "average_decay is set, but the state keeps no 'average_params'; "
          'hand average_decay to optim.initial_state as well.'
        )
      share = _share_of_newest(average_decay, state.step)
      new_model_state[AVERAGE] = jax.tree.map(
        lambda a, p: a + share.astype(p.dtype) * (p - a), average, params
      )

    one = jnp.ones((), jnp.float32)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradient)))
    scalars |= {'loss': (loss_sum, weight), 'gradient_norm': (norm, one)}
    for rate in optax.tree_utils.tree_get_all_with_path(opt_state, 'learning_rate')[:1]:
      scalars['learning_rate'] = (rate[1], one)
    return State(state.step + 1, params, new_model_state, opt_state), scalars

  return step


def _share_of_newest(decay, step):
  """Weight of the newest value in an average of step + 1 values; 1 for the first."""
  decay = jnp.asarray(decay, jnp.float32)
  return (1 - decay) / (1 - decay ** (step.astype(jnp.float32) + 1))


def no_preparation(key: jax.Array, state: State, references: References | None) -> State:
  """``prepare`` of a method that looks at no references before its first step: changes nothing."""
  del key, references
  return state


def no_steps(name: str) -> tuple[Callable[..., State], Callable[..., tuple[State, dict]]]:
  """``prepare`` and ``step`` of a method that ``adapt`` alone fits.

  Args:
    name: of the method, for the sentence that ``step`` raises.

  Returns:
    ``no_preparation``, and ``step``, which raises a ``ValueError``.
  """

  def step(key: jax.Array, state: State, batch: Batch) -> tuple[State, dict]:
    del key, state, batch
    raise ValueError(f'{name} takes no steps: it is fitted by adapt; set steps=0')

  return no_preparation, step
