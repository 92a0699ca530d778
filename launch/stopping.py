"""Ctrl-C or SIGTERM ends a run with a checkpoint, after the steps that are under way."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAID = b'\nstopping, with a checkpoint: some seconds; once more stops at once\n'


@contextlib.contextmanager
def when_asked() -> Iterator[Callable[[], bool] | None]:
  """Listens to the signals while it is open.

  Yields:
    Whether one has come; None outside of the main thread, which alone may listen, and for one of
    several processes, which would have to agree.
  """
  if threading.current_thread() is not threading.main_thread() or jax.process_count() > 1:
    yield None
    return
  before = {number: signal.getsignal(number) for number in _SIGNALS}
  asked = False

  def ask(number: int, frame: Any) -> None:
    del number, frame
    nonlocal asked
    asked = True
    restore()
    os.write(2, _SAID)  # print may be in the middle of a line

  def restore() -> None:
    for number, handler in before.items():
      signal.signal(number, handler)

  for number in _SIGNALS:
    signal.signal(number, ask)
  try:
    yield lambda: asked
  finally:
    restore()
