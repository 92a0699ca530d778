"""Work in processes of its own, several at a time where memory and folders allow.

Each process gets its share of the cores and writes what it says to a file. One starts beside others
only where as much memory is free as each of those took so far, half a minute after the last one, so
that what that one takes can be seen; and never beside one that writes into the same folder.
"""

import multiprocessing
import multiprocessing.connection
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from launch import command

SETTLE = 30.0  # s


class Task(NamedTuple):
  """One thing to do.

  Attributes:
    name: what it is called in sentences.
    folders: what it writes into.
    log: where its output goes.
    arguments: of the function that does it.
  """

  name: str
  folders: frozenset[pathlib.Path]
  log: pathlib.Path
  arguments: tuple[Any, ...]


class _Running(NamedTuple):
  task: Task
  process: Any
  slot: int


def run(
  work: Callable[..., None], tasks: Sequence[Task], at_once: int, *, settle: float = SETTLE
) -> Iterator[tuple[Task, str]]:
  """Does all of the tasks, in their order as far as that is possible.

  Args:
    work: called with a task's arguments, in a process of its own; it is found by import.
    tasks: what to do.
    at_once: processes at a time, at most.
    settle: seconds before one starts beside another.

  Yields:
    A task with ``'started'``, and with ``'ended'`` when it is done. Where one fails, those that run
    are waited for and no other starts.

  Raises:
    ValueError: one or more failed; the sentence names them and their logs.
  """
  waiting, running, failed = list(tasks), [], []
  first, each, started = free_memory(), 0, -settle
  try:
    while running or (waiting and not failed):
      if running:
        each = max(each, (first - free_memory()) // len(running))
      ready = not running or (time.monotonic() - started >= settle and free_memory() >= each)
      task = _next(waiting, running) if ready and len(running) < at_once and not failed else None
      if task is not None:
        waiting.remove(task)
        slot = min({*range(at_once)} - {one.slot for one in running})
        running.append(_Running(task, _start(work, task, slot, at_once), slot))
        started = time.monotonic()
        yield task, 'started'
        continue
      multiprocessing.connection.wait([one.process.sentinel for one in running], timeout=1)
      for one in [one for one in running if one.process.exitcode is not None]:
        running.remove(one)
        if one.process.exitcode:
          failed.append(one.task)
        else:
          yield one.task, 'ended'
  finally:
    for one in running:  # interrupted
      one.process.terminate()
  if failed:
    said = '; '.join(f'{task.name}: see {task.log}' for task in failed)
    raise ValueError(f'{len(failed)} of {len(tasks)} did not end well: {said}')


def free_memory() -> int:
  """Bytes that a new process may take, where the system says so (Linux), else no limit."""
  try:
    lines = pathlib.Path('/proc/meminfo').read_text().splitlines()
  except OSError:
    return sys.maxsize
  return next(1024 * int(line.split()[1]) for line in lines if line.startswith('MemAvailable'))


def _next(waiting: Sequence[Task], running: Sequence[_Running]) -> Task | None:
  taken = {folder for one in running for folder in one.task.folders}
  return next((task for task in waiting if not taken & task.folders), None)


def _start(work: Callable[..., None], task: Task, slot: int, at_once: int) -> Any:
  process = multiprocessing.get_context('spawn').Process(
    target=_work, args=(work, task, slot, at_once), name=task.name
  )
  process.start()
  return process


def _work(work: Callable[..., None], task: Task, slot: int, at_once: int) -> None:
  """A process: its cores, its share of an accelerator's memory, and its log."""
  if hasattr(os, 'sched_setaffinity'):
    mine = sorted(os.sched_getaffinity(0))[slot::at_once]
    if mine:
      os.sched_setaffinity(0, mine)
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  task.log.parent.mkdir(parents=True, exist_ok=True)
  with task.log.open('a') as log:
    for stream in (sys.stdout, sys.stderr):
      os.dup2(log.fileno(), stream.fileno())
    command.prepare()
    work(*task.arguments)
