"""One process at a time trains in the folder of a run."""

import contextlib
import os
from collections.abc import Iterator

from jaxdefect import train

try:
  import fcntl
except ModuleNotFoundError:  # Windows: nobody is kept out
  fcntl = None


@contextlib.contextmanager
def in_folder(directory: str | os.PathLike[str]) -> Iterator[None]:
  """Keeps others out while it is open; nothing is left behind, however the process ends.

  Of several processes of one run the writer alone asks.

  Args:
    directory: one that exists. File systems without locks let everybody in.

  Raises:
    ValueError: another process is in there.
  """
  if fcntl is None or not train.processes.is_writer():
    yield
    return
  handle = os.open(directory, os.O_RDONLY)
  try:
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise ValueError(
        f'{directory} is being trained by another process, which may still be '
        'writing its checkpoint; wait until it has ended, or choose another --workdir'
      ) from None
    except OSError:  # for example of a network
      pass
    yield
  finally:
    os.close(handle)
