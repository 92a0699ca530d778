"""From a loss to a training step: gradients, schedules, optimisers, and who is trained."""

from jaxdefect.optim import partition
from jaxdefect.optim.gradient import gradient_step, initial_state
from jaxdefect.optim.optimizers import adam, sgd
from jaxdefect.optim.schedules import schedule

__all__ = ['adam', 'gradient_step', 'initial_state', 'partition', 'schedule', 'sgd']
