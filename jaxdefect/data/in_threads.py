"""Maps a function over images in threads."""

import concurrent.futures
import os
from collections.abc import Callable, Iterable
from typing import TypeVar

Result = TypeVar('Result')


def each(function: Callable[[int], Result], places: Iterable[int]) -> list[Result]:
  """``[function(place), ...]``, in threads, because Pillow decodes outside the global lock.

  The first error stops what has not begun, and is raised.
  """
  with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
    waiting = [pool.submit(function, place) for place in places]
    try:
      return [one.result() for one in waiting]
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise
