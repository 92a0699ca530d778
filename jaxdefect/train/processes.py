"""Several processes, on one host or on many, that train one model together.

All of them run the same program on the same folder: each reads its share of a batch, all hold the
state, and process 0, the writer, writes what people read. JAX connects them; its coordination
service ends the whole job where one is lost, within ``HEARTBEAT_SECONDS`` at the latest.
"""

import atexit
import contextlib
import importlib.util
import os
import subprocess
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

HEARTBEAT_SECONDS = 60
# The writer evaluates and reports while the others wait to end with it.
PATIENCE_SECONDS = 24 * 3600
LOST = (
  'a process of the run was ended, or lost the others, before the run was done; '
  'the same command, on as many or fewer devices, goes on from the last checkpoint'
)


def start(*, coordinator: str = '', count: int = 0, index: int = -1) -> None:
  """Connects this process with the others; to be called before JAX has touched a device.

  Args:
    coordinator: ``host:port`` of process 0, which the others can reach. Empty: what started the
      program says it (Slurm, Open MPI, a TPU pod, an indexed Kubernetes job), or it is alone.
    count: number of processes, where there is a ``coordinator``.
    index: number of this one, 0 to ``count`` - 1.

  Raises:
    ValueError: half of the arguments, or the others cannot be found.
  """
  given = (bool(coordinator), count > 0, index >= 0)
  if any(given) and not all(given):
    raise ValueError(
      f'coordinator is {coordinator!r}, processes is {count} and process is {index}; a run on '
      'several processes needs all three: host:port, how many, and which one this is'
    )
  if all(given) and index >= count:
    raise ValueError(f'process is {index}; with {count} processes it can be 0 to {count - 1}')
  arguments = {}
  if all(given):
    arguments = {
      **{'coordinator_address': coordinator, 'num_processes': count, 'process_id': index},
      'cluster_detection_method': 'deactivate',
    }
  elif not _found_by_itself():
    return
  _begin_watch()
  try:
    jax.distributed.initialize(
      **arguments,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
      shutdown_timeout_seconds=PATIENCE_SECONDS,
    )
  except (RuntimeError, ValueError) as error:
    raise ValueError(f'the processes of the run did not find each other: {error}') from error


def is_writer() -> bool:
  """Whether this is the process that writes the log, the report and the model."""
  return jax.process_index() == 0


def wait(name: str) -> None:
  """Returns when all processes have come to this place.

  Args:
    name: of the place, for the message where one never comes.
  """
  if jax.process_count() > 1:
    multihost.sync_global_processes(name, timeout=PATIENCE_SECONDS)


def check_agreement(value: int, what: str) -> None:
  """Raises a ``ValueError`` where the processes have different values.

  Args:
    value: a whole number.
    what: it is, for the sentence.
  """
  if jax.process_count() == 1:
    return
  values = multihost_utils.process_allgather(np.int32(value)).tolist()
  if len(set(values)) > 1:
    told = ', '.join(f'{one} in process {place}' for place, one in enumerate(values))
    raise ValueError(f'{what} is {told}; all processes must see the same folder')


def leave(code: int) -> None:
  """Ends this process at once, without waiting for others that may be lost."""
  sys.stdout.flush()
  sys.stderr.flush()
  _end_watch()
  os._exit(code)


def _found_by_itself() -> bool:
  """Whether something that JAX can ask has started several of us."""
  at = os.environ
  return (
    ('SLURM_STEP_NODELIST' in at and int(at.get('SLURM_NTASKS', '1')) > 1)
    or int(at.get('OMPI_COMM_WORLD_SIZE', '1')) > 1
    or ',' in at.get('TPU_WORKER_HOSTNAMES', '')
    # An indexed job; JAX asks Kubernetes through its package.
    or ('JOB_COMPLETION_INDEX' in at and importlib.util.find_spec('kubernetes') is not None)
  )


def _begin_watch() -> None:
  """Leaves a watcher behind that prints one sentence where this process is ended from outside.

  JAX ends a process whose partner is lost from a thread of its own, with a stack trace of C++;
  no code of this process runs after that.
  """
  program = f'import os; os.read(0, 1) or os.write(2, {f"error: {LOST}".encode()!r} + b"\\n")'
  command = [sys.executable, '-I', '-S', '-c', program]
  _watchers.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))
  atexit.register(_end_watch)


def _end_watch() -> None:
  while _watchers:
    with contextlib.suppress(BrokenPipeError):
      _watchers.pop().communicate(b'.')


_watchers: list[subprocess.Popen] = []
