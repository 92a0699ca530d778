"""From a loss to a training step: gradients, schedules, optimisers, and who is trained."""

from jaxdefect.optim import accumulation, inner_rates, partition
from jaxdefect.optim.fine_tune import balanced_rows, fine_tune, two_class_figures
from jaxdefect.optim.gradient import gradient_step, initial_state, no_preparation, no_steps
from jaxdefect.optim.inner_loop import inner_loop, maml_losses
from jaxdefect.optim.optimizers import adam, sgd
from jaxdefect.optim.schedules import schedule

__all__ = [
  'accumulation',
  'adam',
  'balanced_rows',
  'fine_tune',
  'gradient_step',
  'initial_state',
  'inner_loop',
  'inner_rates',
  'maml_losses',
  'no_preparation',
  'no_steps',
  'partition',
  'schedule',
  'sgd',
  'two_class_figures',
]
