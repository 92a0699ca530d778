"""Optimisers from the plain numbers that a config holds."""

import jax
import optax

from jaxdefect.optim.schedules import descend
from jaxdefect.optim.schedules import schedule as make_schedule


def adam(
  *,
  learning_rate: float,
  steps: int,
  warmup_steps: int = 0,
  schedule: str = 'constant',
  clip_norm: float | None = None,
  weight_decay: float = 0.0,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
) -> optax.GradientTransformation:
  r"""Adam with bias correction, and decoupled weight decay where asked (AdamW).

  .. math:: \theta \leftarrow \theta - \eta_t \left( \hat m / (\sqrt{\hat v} + \epsilon)
            + \lambda \theta \right)

  Args:
    learning_rate: largest rate.
    steps: length of the run.
    warmup_steps: steps of linear warm-up.
    schedule: ``'constant'`` or ``'cosine'``, see :func:`jaxdefect.optim.schedule`.
    clip_norm: longest gradient (Euclidean norm over all trained parameters), or None.
    weight_decay: lambda; acts on kernels only (leaves of two axes or more), never on biases and
      normalisation scales.
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.

  Returns:
    An optax transformation.

  Raises:
    ValueError: an argument outside what is allowed.
  """
  rate = make_schedule(
    schedule, learning_rate=learning_rate, steps=steps, warmup_steps=warmup_steps
  )
  return optax.chain(
    *_clip(clip_norm),
    optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
    *_decay(weight_decay),
    descend(rate),
  )


def sgd(
  *,
  learning_rate: float,
  steps: int,
  warmup_steps: int = 0,
  schedule: str = 'constant',
  clip_norm: float | None = None,
  weight_decay: float = 0.0,
  momentum: float = 0.9,
  nesterov: bool = False,
) -> optax.GradientTransformation:
  r"""Stochastic gradient descent with momentum; weight decay joins the gradient, as in PyTorch.

  .. math:: b \leftarrow \mu b + g + \lambda \theta, \qquad
            \theta \leftarrow \theta - \eta_t b

  Args:
    learning_rate: largest rate.
    steps: length of the run.
    warmup_steps: steps of linear warm-up.
    schedule: ``'constant'`` or ``'cosine'``, see :func:`jaxdefect.optim.schedule`.
    clip_norm: longest gradient (Euclidean norm over all trained parameters), or None.
    weight_decay: lambda; acts on kernels only (leaves of two axes or more).
    momentum: mu; 0 keeps no moment.
    nesterov: look ahead along the momentum.

  Returns:
    An optax transformation.

  Raises:
    ValueError: an argument outside what is allowed.
  """
  rate = make_schedule(
    schedule, learning_rate=learning_rate, steps=steps, warmup_steps=warmup_steps
  )
  return optax.chain(
    *_clip(clip_norm),
    *_decay(weight_decay),
    *([optax.trace(decay=momentum, nesterov=nesterov)] if momentum else []),
    descend(rate),
  )


def _clip(clip_norm):
  if clip_norm is None:
    return []
  if not clip_norm > 0:
    raise ValueError(f'clip_norm is {clip_norm}; it must be larger than 0, or None.')
  return [optax.clip_by_global_norm(clip_norm)]


def _decay(weight_decay):
  if not weight_decay >= 0:
    raise ValueError(f'weight_decay is {weight_decay}; it must be 0 or more.')
  if not weight_decay:
    return []
  return [
    optax.add_decayed_weights(
      weight_decay, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    )
  ]
