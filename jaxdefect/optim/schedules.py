"""Learning rates over the course of a run."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

KINDS = ('constant', 'cosine')


def schedule(
  kind: str, *, learning_rate: float, steps: int, warmup_steps: int = 0
) -> optax.Schedule:
  r"""Linear warm-up, then constant or falling along half a cosine.

  .. math::
    \eta_t = \eta \cdot \min\left(1, \frac{t + 1}{W}\right) \cdot
    \begin{cases} 1 & \text{constant} \\
    \tfrac12 (1 + \cos(\pi \frac{\max(t - W, 0)}{T - W})) & \text{cosine} \end{cases}

  The first step already moves, and a cosine reaches 0 only after the last one.

  Args:
    kind: ``'constant'`` or ``'cosine'``.
    learning_rate: largest rate, eta.
    steps: length of the run, T.
    warmup_steps: W; 0 starts at the largest rate.

  Returns:
    Function from the number of finished steps t to a float32 scalar.

  Raises:
    ValueError: an argument outside what is allowed.

  >>> rate = schedule('cosine', learning_rate=1.0, steps=5, warmup_steps=1)
  >>> [round(float(rate(t)), 3) for t in range(6)]
  [1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
  """
  if kind not in KINDS:
    raise ValueError(f'schedule is {kind!r}; it must be one of {", ".join(KINDS)}.')
  if not learning_rate >= 0:
    raise ValueError(f'learning_rate is {learning_rate}; it must be 0 or more.')
  if not 0 <= warmup_steps <= steps:
    raise ValueError(
      f'warmup_steps is {warmup_steps}; it must be between 0 and the {steps} steps of the run.'
    )

  def rate(step):
    step = jnp.asarray(step, jnp.float32)
    factor = jnp.minimum(1.0, (step + 1) / max(warmup_steps, 1))
    if kind == 'cosine':
      done = (step - warmup_steps) / max(steps - warmup_steps, 1)
      factor = factor * 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1)))
    return learning_rate * factor

  return rate


class RateState(NamedTuple):
  """State of :func:`descend`: finished steps, and the rate that the last step used."""

  step: jax.Array
  learning_rate: jax.Array


def descend(rate: optax.Schedule) -> optax.GradientTransformation:
  """Multiplies updates by minus the scheduled rate, and keeps the rate where logs can see it."""

  def init(params):
    del params
    return RateState(jnp.zeros((), jnp.int32), jnp.asarray(rate(0), jnp.float32))

  def update(updates, state, params=None):
    del params
    value = jnp.asarray(rate(state.step), jnp.float32)
    updates = jax.tree.map(lambda u: -value.astype(u.dtype) * u, updates)
    return updates, RateState(state.step + 1, value)

  return optax.GradientTransformation(init, update)
