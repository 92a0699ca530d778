"""One file per data set: ``load('neu', dir=...)`` imports it and calls its ``make``."""

import difflib
import importlib
import pkgutil
from typing import Any

from jaxdefect.data.source import Source


def names() -> tuple[str, ...]:
  """The data sets that ``load`` knows: the files of this folder."""
  return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str, /, **kwargs: Any) -> Source:
  """Opens a data set.

  Args:
    name: one of ``names()``.
    **kwargs: handed to the ``make`` of ``jaxdefect/data/sources/<name>.py``.

  Returns:
    The opened data set.

  Raises:
    ValueError: there is no such data set.
  """
  if name not in names():
    close = difflib.get_close_matches(name, names(), n=1)
    hint = f' Did you mean {close[0]!r}?' if close else ''
    raise ValueError(f'There is no data set {name!r}; known are {", ".join(names())}.{hint}')
  return importlib.import_module(f'{__name__}.{name}').make(**kwargs)
