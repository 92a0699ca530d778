"""Training: the only loop, its checkpoints, its log and its devices."""

from jaxdefect.train import checkpoint, metric_log, parallel, processes
from jaxdefect.train.allocator import keep_freed_memory
from jaxdefect.train.fit import fit
from jaxdefect.train.fitted_file import load_fitted, save_fitted

__all__ = [
  'checkpoint',
  'fit',
  'keep_freed_memory',
  'load_fitted',
  'metric_log',
  'parallel',
  'processes',
  'save_fitted',
]
